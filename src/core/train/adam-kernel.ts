/**
 * Adam's update in WebAssembly with vectors of four floats: several times the speed of a loop over typed arrays, whose arithmetic is in
 * double precision (`bench/train-optimizer.ts`). Parameters and their state live in the kernel's own memory, where it updates them in
 * place; only gradients are copied in, a piece at a time.
 */
import { CoreError } from "../errors.ts";
import {
  ADD,
  advance,
  advanceBelow,
  assembleKernels,
  createMemory,
  DIV,
  F32,
  I32,
  i32,
  kernel,
  load,
  loop,
  MUL,
  SPLAT,
  SQRT,
  SUB,
  store,
  V128,
} from "../wasm-assembler.ts";

/** Values that change in place. */
export type Floats = Float32Array<ArrayBuffer>;

/** What every element is multiplied by or added to. */
export interface AdamScalars {
  readonly scale: number;
  readonly coupled: number;
  readonly beta1: number;
  readonly rest1: number;
  readonly beta2: number;
  readonly rest2: number;
  readonly rate: number;
  readonly correction: number;
  readonly epsilon: number;
  readonly kept: number;
}

const SCALARS = [
  ...(["scale", "coupled", "beta1", "rest1", "beta2", "rest2", "rate", "correction", "epsilon", "kept"] as const),
] satisfies (keyof AdamScalars)[];

const scalarTypes = Object.fromEntries(SCALARS.map((name) => [name, F32])) as Record<keyof AdamScalars, number>;

/**
 * Over four arrays, until p reaches `end`:
 * g ← scale·g + coupled·p;  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  p ← kept·p − rate·m / (correction·√v + ε)
 */
const adam = kernel(
  { p: I32, g: I32, m: I32, v: I32, end: I32, ...scalarTypes },
  { param: V128, gradient: V128, mean: V128, square: V128 },
  (local, vectors) => {
    const { p, g, m, v, end, param, gradient, mean, square } = local;
    const spread = (name: keyof AdamScalars) => vectors[SCALARS.indexOf(name)]!;
    const times = (name: keyof AdamScalars) => [spread(name).get, MUL];
    return [
      SCALARS.map((name) => [local[name].get, SPLAT, spread(name).set]),
      loop(
        [p.get, load(0), param.set],
        [g.get, load(0), times("scale"), param.get, times("coupled"), ADD, gradient.set],
        [m.get, m.get, load(0), times("beta1"), gradient.get, times("rest1"), ADD, mean.tee, store],
        [v.get, v.get, load(0), times("beta2"), gradient.get, gradient.get, MUL, times("rest2"), ADD],
        [square.tee, store],
        [p.get, param.get, times("kept"), mean.get, times("rate")],
        [square.get, SQRT, times("correction"), spread("epsilon").get, ADD, DIV, SUB, store],
        [g, m, v].map((pointer) => advance(pointer, i32(16))),
        advanceBelow(p, i32(16), end),
      ),
    ];
  },
  SCALARS.length,
);

interface Functions {
  readonly adam: (...addressesAndScalars: number[]) => void;
}

interface Arena extends Functions {
  /** Where a piece of the gradient goes. */
  readonly gradient: Float32Array;
}

let instantiate: ReturnType<typeof assembleKernels<Functions>> | undefined;

/** The kernel that works on a memory, by the memory's buffer. */
const arenas = new WeakMap<ArrayBufferLike, Arena>();

/** Elements of the gradient that are copied in together: they fit into a first-level cache with what they meet. */
const PIECE = 4096;
/** Elements are in whole vectors. What comes after the end of an array is computed along, and never read. */
const padded = (length: number) => Math.ceil(length / 4) * 4;

/** A parameter's values and the two arrays of state that an optimizer may keep for it, zeros all. */
export interface ParameterArrays {
  readonly data: Floats;
  readonly slots: readonly [Floats, Floats];
}

/** No more in one memory, unless it is one parameter. */
const MAX_ARENA_BYTES = 2 ** 31;

/**
 * Arrays for parameters of these lengths, where `updateAdam` can work on them. What is not written to takes up no memory: state that no
 * optimizer uses. Throws `limit_exceeded` for a parameter of more than 2³⁰ bytes.
 */
export function allocateParameters(lengths: readonly number[]): readonly ParameterArrays[] {
  const allocated: ParameterArrays[] = [];
  while (allocated.length < lengths.length) {
    const rest = lengths.slice(allocated.length).map((length) => 3 * padded(length) * 4);
    let bytes = PIECE * 4;
    let count = 0;
    while (count < rest.length && (count === 0 || bytes + rest[count]! <= MAX_ARENA_BYTES)) bytes += rest[count++]!;
    allocated.push(...allocateArena(lengths.slice(allocated.length, allocated.length + count), bytes));
  }
  return allocated;
}

function allocateArena(lengths: readonly number[], bytes: number): readonly ParameterArrays[] {
  if (bytes > 3 * 2 ** 30 + PIECE * 4) {
    throw new CoreError("limit_exceeded", `A tensor of ${lengths[0]} elements is too large to be trained.`);
  }
  const memory = createMemory(bytes);
  instantiate ??= assembleKernels<Functions>({ adam });
  const { buffer } = memory;
  arenas.set(buffer, { ...instantiate(memory), gradient: new Float32Array(buffer, 0, PIECE) });
  let at = PIECE * 4;
  const take = (length: number): Floats => {
    const array = new Float32Array(buffer, at, length);
    at += padded(length) * 4;
    return array;
  };
  return lengths.map((length) => ({ data: take(length), slots: [take(length), take(length)] }));
}

/** Updates p, m and v in place, in float32 arithmetic: the same on every machine. They are one parameter's arrays, of `allocateParameters`. */
export function updateAdam(p: Floats, g: Float32Array, m: Floats, v: Floats, scalars: AdamScalars): void {
  const arena = arenas.get(p.buffer);
  if (!arena || m.buffer !== p.buffer || v.buffer !== p.buffer) {
    throw new CoreError("internal", "The optimizer was given arrays that are not its own.");
  }
  const values = SCALARS.map((name) => scalars[name]);
  for (let start = 0; start < p.length; start += PIECE) {
    const end = Math.min(start + PIECE, p.length);
    arena.gradient.set(g.subarray(start, end));
    const [from, to] = [4 * start, 4 * padded(end)];
    arena.adam(p.byteOffset + from, 0, m.byteOffset + from, v.byteOffset + from, p.byteOffset + to, ...values);
  }
}
