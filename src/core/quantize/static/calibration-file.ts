/**
 * What calibration has seen, as bytes. They hold all that every calibration method, and more samples, need: the method is chosen afterwards.
 *
 * Layout, little-endian; `n` is an unsigned varint, `z` a signed one (zigzag), `s` n bytes of UTF-8:
 *
 *     "mpcal" u8 version, n batches
 *     n activations, each:  s name, n unsampled, n zeros, n nonFinite, f32 min, f32 max, n batches, f64 averageMin, f64 averageMax,
 *                           z firstBin, n bins, counts (n each; a zero is followed by n, how many more zeros follow)
 *     n derived, each:      s name, s base, f64 factor, f64 shift
 *     n channels, each:     s name, z axis, n count, n channels, f32 min and max, f64 squares of each
 */
import { CoreError } from "../../errors.ts";
import { ActivationObserver, type ActivationState, ChannelObserver } from "../calibration/observers.ts";
import type { Calibration } from "./calibration.ts";

const MAGIC = "mpcal";
const VERSION = 3;
/** A histogram has no more on both sides of zero. */
const MAX_BINS = 8192;

export function calibrationToBytes({ activations, derived, channels, batches }: Calibration): Uint8Array<ArrayBuffer> {
  const to = new ByteWriter();
  for (const letter of MAGIC) to.byte(letter.charCodeAt(0));
  to.byte(VERSION);
  to.unsigned(batches);
  to.unsigned(activations.size);
  for (const [name, observer] of activations) {
    to.string(name);
    writeActivation(to, observer.state);
  }
  to.unsigned(derived.size);
  for (const [name, { base, factor, shift }] of derived) {
    to.string(name);
    to.string(base);
    to.float64(factor);
    to.float64(shift);
  }
  to.unsigned(channels.size);
  for (const [name, observer] of channels) {
    const { min, max, squares, count } = observer.state;
    to.string(name);
    to.signed(observer.axis);
    to.unsigned(count);
    to.unsigned(min.length);
    for (const extremes of [min, max]) for (const value of extremes) to.float32(value);
    for (const value of squares) to.float64(value);
  }
  return to.bytes();
}

/** Throws `invalid_params` for bytes that are not of a calibration, or of another version of this layout. */
export function calibrationFromBytes(bytes: Uint8Array): Calibration {
  try {
    return readCalibration(new ByteReader(bytes));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new CoreError("invalid_params", `The calibration cannot be read: ${error.message}.`, undefined, {
      cause: error,
    });
  }
}

function readCalibration(from: ByteReader): Calibration {
  for (const letter of MAGIC) ensure(from.byte() === letter.charCodeAt(0), "It does not begin as one");
  const version = from.byte();
  ensure(version === VERSION, `It is of version ${version}, not ${VERSION}`);
  const batches = from.unsigned();
  const activations = from.entries(() => new ActivationObserver(readActivation(from)));
  const derived = from.entries(() => ({ base: from.string(), factor: from.finite(), shift: from.finite() }));
  const channels = from.entries(() => {
    const axis = from.signed();
    const count = from.unsigned();
    const length = from.unsigned();
    const [min, max] = [from.array(length, 4), from.array(length, 4)];
    ensure(!min.some(Number.isNaN) && !max.some(Number.isNaN), "The range of a channel is none");
    return new ChannelObserver(axis, { min, max, squares: from.array(length, 8), count });
  });
  for (const { base } of derived.values()) ensure(activations.has(base), `Nothing is known of "${base}"`);
  ensure(from.isAtEnd, "There is something behind it");
  return { activations, derived, channels, batches };
}

function writeActivation(
  to: ByteWriter,
  { histogram, unsampled, batches, averageMin, averageMax }: ActivationState,
): void {
  const { zeros, nonFinite, min, max, firstBin, counts } = histogram;
  to.unsigned(unsampled);
  to.unsigned(zeros);
  to.unsigned(nonFinite);
  to.float32(min);
  to.float32(max);
  to.unsigned(batches);
  to.float64(averageMin);
  to.float64(averageMax);
  to.signed(firstBin);
  to.unsigned(counts.length);
  for (let i = 0; i < counts.length; i++) {
    to.unsigned(counts[i]!);
    if (counts[i] !== 0) continue;
    const start = i;
    while (counts[i + 1] === 0) i++;
    to.unsigned(i - start);
  }
}

function readActivation(from: ByteReader): ActivationState {
  const [unsampled, zeros, nonFinite] = [from.unsigned(), from.unsigned(), from.unsigned()];
  const [min, max] = [from.float32(), from.float32()];
  const batches = from.unsigned();
  const [averageMin, averageMax] = [from.finite(), from.finite()];
  const firstBin = from.signed();
  const bins = from.unsigned();
  ensure(bins <= MAX_BINS, "A histogram has too many bins");
  const counts = new Float64Array(bins);
  for (let i = 0; i < bins; i++) {
    counts[i] = from.unsigned();
    if (counts[i] === 0) i += from.unsigned();
  }
  return { histogram: { zeros, nonFinite, min, max, firstBin, counts }, unsampled, batches, averageMin, averageMax };
}

function ensure(holds: boolean, sentence: string): void {
  if (!holds) throw new RangeError(sentence);
}

class ByteWriter {
  #view = new DataView(new ArrayBuffer(2 ** 16));
  #length = 0;

  /** Makes room for `count` more bytes; answers where they begin. */
  #grow(count: number): number {
    const at = this.#length;
    this.#length += count;
    if (this.#length > this.#view.byteLength) {
      const larger = new Uint8Array(Math.max(2 * this.#view.byteLength, this.#length));
      larger.set(new Uint8Array(this.#view.buffer, 0, at));
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }

  byte(value: number): void {
    const at = this.#grow(1);
    this.#view.setUint8(at, value);
  }

  unsigned(value: number): void {
    let rest = value;
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) this.byte((rest % 0x80) + 0x80);
    this.byte(rest);
  }

  signed(value: number): void {
    this.unsigned(value < 0 ? -2 * value - 1 : 2 * value);
  }

  float32(value: number): void {
    const at = this.#grow(4);
    this.#view.setFloat32(at, value, true);
  }

  float64(value: number): void {
    const at = this.#grow(8);
    this.#view.setFloat64(at, value, true);
  }

  string(text: string): void {
    const encoded = new TextEncoder().encode(text);
    this.unsigned(encoded.length);
    const at = this.#grow(encoded.length);
    new Uint8Array(this.#view.buffer).set(encoded, at);
  }

  bytes(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#view.buffer.slice(0, this.#length) as ArrayBuffer);
  }
}

/** Throws `RangeError` for whatever is not as `ByteWriter` writes it. */
class ByteReader {
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get isAtEnd(): boolean {
    return this.#at === this.#view.byteLength;
  }

  /** Moves on by `count` bytes; answers where they begin. */
  #take(count: number): number {
    const at = this.#at;
    ensure(count <= this.#view.byteLength - at, "It is cut off");
    this.#at += count;
    return at;
  }

  byte(): number {
    return this.#view.getUint8(this.#take(1));
  }

  unsigned(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      const byte = this.byte();
      value += (byte % 0x80) * scale;
      ensure(value <= Number.MAX_SAFE_INTEGER && scale <= Number.MAX_SAFE_INTEGER, "A number is too large");
      if (byte < 0x80) return value;
    }
  }

  signed(): number {
    const value = this.unsigned();
    return value % 2 === 1 ? -(value + 1) / 2 : value / 2;
  }

  float32(): number {
    return this.#view.getFloat32(this.#take(4), true);
  }

  finite(): number {
    const value = this.#view.getFloat64(this.#take(8), true);
    ensure(Number.isFinite(value), "A number is not finite");
    return value;
  }

  /** `length` floats of 4 or 8 bytes. */
  array(length: number, bytes: 4 | 8): Float64Array<ArrayBuffer> {
    const start = this.#take(length * bytes);
    const array = new Float64Array(length);
    for (let i = 0; i < length; i++) {
      const at = start + i * bytes;
      array[i] = bytes === 4 ? this.#view.getFloat32(at, true) : this.#view.getFloat64(at, true);
    }
    return array;
  }

  string(): string {
    const length = this.unsigned();
    const start = this.#take(length);
    const bytes = new Uint8Array(this.#view.buffer, this.#view.byteOffset + start, length);
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  }

  /** A counted list of named things. */
  entries<T>(read: () => T): Map<string, T> {
    const found = new Map<string, T>();
    for (let left = this.unsigned(); left > 0; left--) {
      const name = this.string();
      ensure(!found.has(name), `"${name}" is in it twice`);
      found.set(name, read());
    }
    return found;
  }
}
