import { mnist } from "../../bench/mnist.ts";
import { floatsOf, integersOf, tensorOf } from "../../src/core/onnx/tensor.ts";
import { writeNpz, writeZip } from "./dataset-writers.ts";
import { writeParquet } from "./parquet.ts";
import { writePng } from "./png.ts";

/** The same digits in every format of a dataset, for an input `x` of [n, 1, 28, 28]. */
export interface DigitFiles {
  readonly zip: Uint8Array;
  readonly npz: Uint8Array;
  readonly csv: Uint8Array;
  readonly jsonl: Uint8Array;
  readonly parquet: Uint8Array;
}

const MEAN = 0.1307;
const DEVIATION = 0.3081;
const SIDE = 28;
const PIXELS = SIDE * SIDE;

/** Makes of the images what the numbers of the other files are. */
export const DIGITS_SPEC = {
  ...{ kind: "images", input: "x", size: [SIDE, SIDE], color: "gray", mean: [MEAN], std: [DEVIATION] },
} as const;

/** `perClass` digits of each class, in the order of an image dataset: the classes take turns. */
export function digitFiles(part: "training" | "test", perClass: number): DigitFiles {
  const source = mnist(part, 20 * perClass + 200);
  const { feeds, targets } = source.gather(Array.from({ length: source.count }, (_, i) => i));
  const normalized = floatsOf(feeds.x!);
  const byClass = Map.groupBy(integersOf(targets.labels!).entries(), ([, label]) => label);
  const digits = Array.from({ length: 10 * perClass }, (_, i) => {
    const label = i % 10;
    const turn = Math.floor(i / 10);
    const [index] = byClass.get(label)![turn]!;
    const values = normalized.subarray(index * PIXELS, (index + 1) * PIXELS);
    const pixels = Uint8Array.from(values, (value) => Math.round((value * DEVIATION + MEAN) * 255));
    return { label, pixels, name: `digits/${label}/${String(turn).padStart(4, "0")}.png` };
  });
  // Rounded once, as images are when they are read.
  const x = Float32Array.from(
    digits.flatMap(({ pixels }) => Array.from(pixels, (pixel) => (pixel * (1 / 255) - MEAN) / DEVIATION)),
  );
  const row = (i: number) => x.subarray(i * PIXELS, (i + 1) * PIXELS);
  const nested = (i: number) => Array.from({ length: SIDE }, (_, y) => [...row(i).subarray(y * SIDE, (y + 1) * SIDE)]);
  return {
    zip: writeZip(
      digits.map(({ name, pixels }) => ({
        name,
        deflate: true,
        data: writePng({ width: SIDE, height: SIDE, colorType: 0, depth: 8, data: pixels }),
      })),
    ),
    npz: writeNpz({
      x: tensorOf("float32", [digits.length, 1, SIDE, SIDE], x),
      labels: tensorOf(
        "int64",
        [digits.length],
        digits.map(({ label }) => label),
      ),
    }),
    csv: Buffer.from(
      [
        `label,${Array.from({ length: PIXELS }, (_, i) => `pixel${i}`)}`,
        ...digits.map(({ label }, i) => `${label},${row(i).join()}`),
      ].join("\r\n"),
    ),
    jsonl: Buffer.from(
      digits.map(({ label }, i) => JSON.stringify({ image: [nested(i)], label: `digit ${label}` })).join("\n"),
    ),
    parquet: writeParquet(
      {
        image: { data: digits.map((_, i) => [nested(i)]), type: "FLOAT", lists: 3 },
        label: { data: digits.map(({ label }) => `digit ${label}`), type: "STRING" },
      },
      { rowGroupSize: 70 },
    ),
  };
}
