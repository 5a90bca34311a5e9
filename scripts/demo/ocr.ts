import { readFile } from "node:fs/promises";
import type { Picture } from "./text-lines.ts";

/**
 * What PP-OCRv4 expects and answers. Pictures go in as NCHW planes in the order blue, green, red.
 * Recognition: (v / 255 - 0.5) / 0.5, 48 pixels high, padded to the right with zeros; the answer is [n, t, classes] of
 * probabilities for connectionist temporal classification, class 0 being the blank.
 * Detection: ImageNet's mean and deviation; the answer is [n, 1, h, w], the probability of text at each pixel.
 */

const RECOGNITION = { mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] } as const;
const DETECTION = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] } as const;

/** Writes the normalized planes of `picture` into `planes`, a zeroed [3, height, width] of at least the picture's size. */
function fillPlanes(
  planes: Float32Array,
  picture: Picture,
  width: number,
  { mean, std }: { readonly mean: readonly number[]; readonly std: readonly number[] },
): void {
  if (picture.width > width) throw new Error(`A picture of ${picture.width} pixels does not fit into ${width}.`);
  for (let plane = 0; plane < 3; plane++) {
    const channel = 2 - plane;
    const base = plane * picture.height * width;
    for (let y = 0; y < picture.height; y++) {
      for (let x = 0; x < picture.width; x++) {
        const value = picture.rgb[(y * picture.width + x) * 3 + channel]! / 255;
        planes[base + y * width + x] = (value - mean[plane]!) / std[plane]!;
      }
    }
  }
}

function stack(
  pictures: readonly Picture[],
  width: number,
  normalization: { readonly mean: readonly number[]; readonly std: readonly number[] },
): { dims: [number, number, number, number]; data: Float32Array<ArrayBuffer> } {
  const height = pictures[0]?.height ?? 0;
  const size = 3 * height * width;
  const data = new Float32Array(pictures.length * size);
  pictures.forEach((picture, i) => {
    fillPlanes(data.subarray(i * size, (i + 1) * size), picture, width, normalization);
  });
  return { dims: [pictures.length, 3, height, width], data };
}

/** [n, 3, 48, width] for the recognition model. */
export function recognitionInput(lines: readonly Picture[], width: number) {
  return stack(lines, width, RECOGNITION);
}

/** [n, 3, size, size] for the detection model; all pages are squares of one size. */
export function detectionInput(pages: readonly Picture[]) {
  return stack(pages, pages[0]?.width ?? 0, DETECTION);
}

/** The recogniser's alphabet by class: the blank, the characters of the list, the space. */
export async function loadCharacters(path: string): Promise<readonly string[]> {
  const list = (await readFile(path, "utf8")).replace(/\n$/, "").split("\n");
  return ["", ...list, " "];
}

/** Greedy decoding: the best class of each step, repeats merged, blanks dropped. `scores` is [steps, characters.length]. */
export function decodeLine(scores: Float32Array, characters: readonly string[]): string {
  const classes = characters.length;
  let text = "";
  let previous = 0;
  for (let start = 0; start < scores.length; start += classes) {
    let best = 0;
    for (let i = 1; i < classes; i++) if (scores[start + i]! > scores[start + best]!) best = i;
    if (best !== previous) text += characters[best];
    previous = best;
  }
  return text;
}

/** Levenshtein distance over code points. */
export function editDistance(a: string, b: string): number {
  const [from, to] = [[...a], [...b]];
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (const [i, letter] of from.entries()) {
    const next = [i + 1];
    for (const [j, other] of to.entries()) {
      next.push(Math.min(next[j]! + 1, row[j + 1]! + 1, row[j]! + (letter === other ? 0 : 1)));
    }
    row = next;
  }
  return row[to.length]!;
}

/** 1 - (edit distance / length), over all characters of all lines. */
export function characterAccuracy(lines: readonly { readonly expected: string; readonly read: string }[]): number {
  let distance = 0;
  let length = 0;
  for (const { expected, read } of lines) {
    distance += editDistance(expected, read);
    length += [...expected].length;
  }
  return 1 - distance / length;
}
