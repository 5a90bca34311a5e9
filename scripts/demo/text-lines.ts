import sharp from "sharp";
import type { Random } from "../../src/core/random.ts";
import { FONT_FAMILY } from "./font.ts";

/**
 * Text lines with known answers for a text recogniser, drawn from a seeded generator. A line looks like a crop of a
 * printed page: dark letters of some colour on paper of another, a little blur and grain.
 */

/** Interleaved RGB, row-major, one byte per channel. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array;
}

export interface TextLine {
  readonly text: string;
  readonly picture: Picture;
}

const ENGLISH = (
  "model weight layer small fast exact float graph tensor kernel cache batch input output scale round value memory " +
  "paper river window garden bridge market winter summer morning island forest mountain library kitchen station " +
  "doctor teacher engine signal number letter circle square yellow silver quick brown jumps over lazy zebra Quartz " +
  "Boxing Wizards Paris London Tokyo Monday Friday April August"
).split(" ");

const CHINESE = (
  "压缩模型 神经网络 训练数据 推理速度 文字识别 北京大学 上海市 人工智能 机器学习 计算机 天气预报 中国人民 " +
  "今天下午 高速公路 火车站 图书馆 有限公司 电话号码 地址 时间 欢迎光临 小心地滑 请勿吸烟 出口 入口 服务中心"
).split(" ");

export const LINE_HEIGHT = 48;

/** Pixels between the text and the edge of its crop. */
const MARGIN = { x: 6, y: 4 };

function pick<T>(random: Random, items: readonly T[]): T {
  return items[random.integer(items.length)]!;
}

function digits(random: Random): string {
  const group = () => String(1000 + random.integer(9000));
  return pick(random, [
    () => group(),
    () => `${group()}-${group()}`,
    () => `${random.integer(100)}.${10 + random.integer(90)}`,
    () => `20${10 + random.integer(90)}`,
  ])();
}

/** Words and numbers, joined by `space`, up to about `maxCharacters`. */
function sentence(random: Random, vocabulary: readonly string[], space: string, maxCharacters: number): string {
  const words: string[] = [];
  for (let length = 0; ; ) {
    const word = random.uniform() < 0.25 ? digits(random) : pick(random, vocabulary);
    length += word.length + space.length;
    if (words.length > 0 && length > maxCharacters) return words.join(space);
    words.push(word);
  }
}

/** Coverage of `text` in [0, 255], cropped to its ink and at most `maxWidth` x `maxHeight` pixels. */
async function drawText(
  text: string,
  maxWidth: number,
  maxHeight: number,
): Promise<{ width: number; height: number; coverage: Uint8Array }> {
  const drawn = await sharp({ text: { text, font: `${FONT_FAMILY} 32`, dpi: 72 } })
    .png()
    .toBuffer();
  const { data, info } = await sharp(drawn)
    .resize({ width: maxWidth, height: maxHeight, fit: "inside", withoutEnlargement: true })
    .extractChannel(0)
    .raw()
    .toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, coverage: data };
}

/**
 * `count` lines, every third one Chinese, each `LINE_HEIGHT` high and at most `maxWidth` wide.
 * `useDemoFont` must have been called.
 */
export async function drawTextLines(count: number, random: Random, maxWidth = 320): Promise<TextLine[]> {
  const lines: TextLine[] = [];
  for (let i = 0; i < count; i++) {
    const text = i % 3 === 2 ? sentence(random, CHINESE, "", 9) : sentence(random, ENGLISH, " ", 18);
    const ink = await drawText(text, maxWidth - 2 * MARGIN.x, LINE_HEIGHT - 2 * MARGIN.y);
    lines.push({ text, picture: printOnPaper(ink, random) });
  }
  return lines;
}

function printOnPaper(
  ink: { readonly width: number; readonly height: number; readonly coverage: Uint8Array },
  random: Random,
): Picture {
  const width = ink.width + 2 * MARGIN.x;
  const rgb = new Uint8ClampedArray(width * LINE_HEIGHT * 3);
  const paper = [0, 1, 2].map(() => 200 + 55 * random.uniform());
  const letters = [0, 1, 2].map(() => 90 * random.uniform());
  const top = Math.floor((LINE_HEIGHT - ink.height) / 2);
  for (let y = 0; y < LINE_HEIGHT; y++) {
    for (let x = 0; x < width; x++) {
      const [row, column] = [y - top, x - MARGIN.x];
      const inside = row >= 0 && row < ink.height && column >= 0 && column < ink.width;
      const share = inside ? ink.coverage[row * ink.width + column]! / 255 : 0;
      const grain = 12 * (random.uniform() - 0.5);
      for (let channel = 0; channel < 3; channel++) {
        rgb[(y * width + x) * 3 + channel] = paper[channel]! * (1 - share) + letters[channel]! * share + grain;
      }
    }
  }
  return { width, height: LINE_HEIGHT, rgb: new Uint8Array(rgb.buffer) };
}

/** A page with `lines` below each other, `size` pixels square. */
export function pageOf(lines: readonly TextLine[], size: number, random: Random): Picture {
  const rgb = new Uint8Array(size * size * 3).fill(235);
  const pitch = Math.floor(size / Math.max(1, lines.length));
  lines.forEach(({ picture }, i) => {
    if (picture.width > size || picture.height > pitch) throw new Error("The line does not fit on the page.");
    const left = random.integer(size - picture.width + 1);
    const top = i * pitch + random.integer(pitch - picture.height + 1);
    for (let y = 0; y < picture.height; y++) {
      const row = picture.rgb.subarray(y * picture.width * 3, (y + 1) * picture.width * 3);
      rgb.set(row, ((top + y) * size + left) * 3);
    }
  });
  return { width: size, height: size, rgb };
}
