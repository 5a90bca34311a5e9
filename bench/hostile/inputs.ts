import { modelToBytes } from "../../src/core/onnx/save.ts";
import { tensorOf } from "../../src/core/onnx/tensor.ts";
import { Random } from "../../src/core/random.ts";
import { writeNpy, writeNpz, writeSafetensors, writeZip } from "../../test/support/dataset-writers.ts";
import { branches, cnn, loop, lstm, mlp, transformer } from "../../test/support/graphs.ts";
import { writeParquet } from "../../test/support/parquet.ts";
import { writePng } from "../../test/support/png.ts";

/** Damaged models, archives, arrays, images, tables and specs: the same number gives the same input. */

export interface HostileInput {
  readonly kind: "model" | "dataset";
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Of a dataset; null where the format needs none. */
  readonly spec: unknown;
}

const floats = (dims: number[]) => {
  const count = dims.reduce((product, dim) => product * dim, 1);
  return tensorOf(
    "float32",
    dims,
    Float32Array.from({ length: count }, (_, i) => i / 7),
  );
};
const png = writePng({ width: 3, height: 3, colorType: 2, depth: 8, data: Buffer.alloc(27, 100) });
const arrays = { x: floats([3, 4]), labels: tensorOf("int64", [3], BigInt64Array.from([0n, 1n, 2n])) };
const rows = (kind: string, columns: string[]) => ({ kind, inputs: { x: { columns } }, labels: "l" });

const SEEDS: readonly Omit<HostileInput, "kind">[] = [
  { name: "a.npz", bytes: writeNpz(arrays), spec: null },
  { name: "a.npz", bytes: writeNpz(arrays, { deflate: true }), spec: null },
  { name: "a.npy", bytes: writeNpy(arrays.x), spec: { kind: "array", input: "x" } },
  { name: "a.safetensors", bytes: writeSafetensors(arrays), spec: null },
  { name: "a.csv", bytes: Buffer.from("a,b,l\n1,2,x\n3,4.5e3,y\n"), spec: rows("csv", ["a", "b"]) },
  { name: "a.jsonl", bytes: Buffer.from('{"a":[1,2],"l":0}\n{"a":[3,4],"l":1}\n'), spec: rows("jsonl", ["a"]) },
  {
    name: "a.parquet",
    bytes: writeParquet({ a: { data: [1, 2, 3], type: "FLOAT" }, l: { data: [0, 1, 0], type: "INT32" } }),
    spec: rows("parquet", ["a"]),
  },
  {
    name: "a.zip",
    bytes: writeZip(["cat/1.png", "cat/2.png", "dog/1.png"].map((name) => ({ name, data: png }))),
    spec: { kind: "images", input: "x", size: [4, 4] },
  },
];

const MODELS = [mlp(), cnn(), branches(), loop(), lstm(), transformer()].map((model) => modelToBytes(model));

const NUMBERS = [0, 1, 0xffffffff, 0x7fffffff, 0x80000000, 65535, 0x10000];

/** The input with this number. Every other one is a model. */
export function hostileInput(seed: number): HostileInput {
  const random = new Random(seed, "hostile input");
  if (seed % 2 === 0) {
    const bytes = damaged(random, MODELS[random.integer(MODELS.length)]!);
    return { kind: "model", name: "m.onnx", bytes, spec: null };
  }
  const { name, bytes, spec } = SEEDS[random.integer(SEEDS.length)]!;
  // Of some the spec is damaged, and not the file.
  if (spec !== null && random.integer(4) === 0)
    return { kind: "dataset", name, bytes, spec: damagedSpec(random, spec) };
  return { kind: "dataset", name, bytes: damaged(random, bytes), spec };
}

function damaged(random: Random, original: Uint8Array): Uint8Array {
  let bytes = Buffer.from(original);
  for (let left = [1, 1, 2, 5][random.integer(4)]!; left > 0 && bytes.length > 8; left--) {
    const at = random.integer(bytes.length);
    const length = 1 + random.integer(20);
    const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)];
    switch (random.integer(6)) {
      case 0:
        bytes[at]! ^= 1 << random.integer(8);
        break;
      case 1:
        bytes = Buffer.from(before);
        break;
      case 2:
        bytes = Buffer.concat([before, Uint8Array.from({ length }, () => random.integer(256)), after]);
        break;
      case 3:
        bytes = Buffer.concat([before, after.subarray(length)]);
        break;
      case 4:
        bytes = Buffer.concat([before, after.subarray(0, length), after]);
        break;
      default:
        bytes.writeUInt32LE(NUMBERS[random.integer(NUMBERS.length)]!, Math.min(at, bytes.length - 4));
    }
  }
  return bytes;
}

const VALUES: readonly unknown[] = [
  null,
  0,
  -1,
  1e308,
  2 ** 53,
  "",
  "x",
  "__proto__",
  [],
  [[]],
  {},
  true,
  "a".repeat(600),
];

/** A spec with one value at any depth replaced, or one key added. */
function damagedSpec(random: Random, spec: unknown): unknown {
  const value = VALUES[random.integer(VALUES.length)];
  if (spec === null || typeof spec !== "object") return value;
  const keys = Object.keys(spec);
  if (keys.length === 0 || random.integer(6) === 0)
    return Array.isArray(spec) ? [...spec, value] : { ...spec, extra: value };
  const key = keys[random.integer(keys.length)]!;
  const copy = structuredClone(spec) as Record<string, unknown>;
  copy[key] = random.integer(2) === 0 ? value : damagedSpec(random, copy[key]);
  return copy;
}
