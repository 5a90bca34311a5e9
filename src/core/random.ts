/**
 * Random numbers for everything the library draws: seeded, the same on every machine, and addressable. Philox4x32-10 (Salmon et al.,
 * "Parallel random numbers: as easy as 1, 2, 3", 2011) turns a counter into four 32-bit words, so that a generator is its seed, its
 * stream and a position: it can be stored in a checkpoint, and two streams never overlap.
 */

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;

/** The high 32 bits of the 64-bit product of two unsigned 32-bit integers. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const low = aLow * bLow;
  // At most 65535² + 65535 < 2^32, so every sum below is exact.
  const middle = aHigh * bLow + (low >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + (middle >>> 16) + (carry >>> 16)) >>> 0;
}

/** One block of Philox4x32-10: four words from a 128-bit counter and a 64-bit key, all as unsigned 32-bit integers. */
export function philox(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
  words: Uint32Array,
): void {
  let c0 = counter[0];
  let c1 = counter[1];
  let c2 = counter[2];
  let c3 = counter[3];
  let k0 = key[0];
  let k1 = key[1];
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0);
    const low0 = Math.imul(MULTIPLIER_0, c0) >>> 0;
    const high1 = multiplyHigh(MULTIPLIER_1, c2);
    const low1 = Math.imul(MULTIPLIER_1, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

/** FNV-1a: the number of a stream from its name. */
function hashOf(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

export class Random {
  /** How many 32-bit words have been drawn: with seed and stream, the whole state. */
  position: number;
  readonly #key: readonly [number, number];
  readonly #words = new Uint32Array(4);
  #block = -1;

  /**
   * `seed` is an unsigned 32-bit integer. `stream` says what the numbers are for ("shuffle", "input x"): streams of one seed are
   * independent of each other.
   */
  constructor(seed: number, stream = "", position = 0) {
    this.#key = [seed >>> 0, hashOf(stream)];
    this.position = position;
  }

  /** A uniform integer in [0, 2^32). */
  uint32(): number {
    const block = Math.floor(this.position / 4);
    if (block !== this.#block) {
      philox([block >>> 0, Math.floor(block / 2 ** 32), 0, 0], this.#key, this.#words);
      this.#block = block;
    }
    return this.#words[this.position++ % 4]!;
  }

  /** A uniform number in [0, 1), a multiple of 2^-53. */
  uniform(): number {
    return ((this.uint32() >>> 5) * 2 ** 26 + (this.uint32() >>> 6)) / 2 ** 53;
  }

  /** A uniform integer in [0, bound), without bias; `bound` is in [1, 2^32]. */
  integer(bound: number): number {
    const limit = 2 ** 32 - (2 ** 32 % bound);
    for (;;) {
      const word = this.uint32();
      if (word < limit) return word % bound;
    }
  }

  /** Fills an array with standard normal numbers: the Box-Muller transform, which makes two of two uniform ones. */
  fillNormal(values: Float32Array | Float64Array): void {
    for (let i = 0; i < values.length; i += 2) {
      // 1 - uniform() is in (0, 1], so the logarithm is finite.
      const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
      const angle = 2 * Math.PI * this.uniform();
      values[i] = radius * Math.cos(angle);
      if (i + 1 < values.length) values[i + 1] = radius * Math.sin(angle);
    }
  }

  /** The integers 0 … count-1 in random order (Fisher-Yates). */
  permutation(count: number): Uint32Array {
    const order = Uint32Array.from({ length: count }, (_, i) => i);
    for (let i = count - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      const swapped = order[i]!;
      order[i] = order[j]!;
      order[j] = swapped;
    }
    return order;
  }
}
