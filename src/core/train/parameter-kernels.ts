/**
 * What is done to every number of a network in every step, in WebAssembly with vectors of four floats: several times the speed of a loop over
 * typed arrays, whose arithmetic is in double precision (`bench/train-optimizer.ts`). Parameters and their state live in the kernels' own
 * memory, where they are updated in place; gradients are copied in, a piece at a time. Threads share the memory.
 */
import { CoreError } from "../errors.ts";
import {
  ADD,
  advance,
  advanceBelow,
  assembleSharedKernels,
  type Code,
  createSharedMemory,
  DIV,
  F32,
  I32,
  i32,
  kernel,
  load,
  loop,
  MUL,
  type SharedWasmMemory,
  SPLAT,
  SQRT,
  SUB,
  store,
  V128,
  vector,
} from "../wasm-assembler.ts";

/** Values that change in place, which threads may share. */
export type Floats = Float32Array;

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

const F64_ADD: Code = vector(0xf0);
const F64_MUL: Code = vector(0xf2);
/** The first two floats as doubles. */
const WIDEN: Code = vector(0x5f);
const SWAP_HALVES: Code = vector(13, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);

/** Until s reaches `end`: s ← share · (s + o). Adds the squares of the results, as doubles, to the two at `into`. */
const add = kernel(
  { s: I32, o: I32, end: I32, into: I32, share: F32 },
  { shares: V128, sum: V128, wide: V128, squares: V128 },
  ({ s, o, end, into, share, shares, sum, wide, squares }) => {
    const addSquares = (half: Code) => [half, WIDEN, wide.tee, wide.get, F64_MUL, squares.get, F64_ADD, squares.set];
    return [
      [share.get, SPLAT, shares.set, into.get, load(0), squares.set],
      loop(
        [s.get, s.get, load(0), o.get, load(0), ADD, shares.get, MUL, sum.tee, store],
        addSquares(sum.get),
        addSquares([sum.get, sum.get, SWAP_HALVES]),
        advance(o, i32(16)),
        advanceBelow(s, i32(16), end),
      ),
      [into.get, squares.get, store],
    ];
  },
);

interface Functions {
  readonly adam: (...addressesAndScalars: number[]) => void;
  readonly add: (...addressesAndScalars: number[]) => void;
}

interface Arena extends Functions {
  readonly memory: SharedWasmMemory;
  /** Where a thread finds room of its own. */
  readonly scratch: number;
  /** Where a piece of a gradient goes. */
  readonly gradient: Float32Array<SharedArrayBuffer>;
  /** The two sums of squares. */
  readonly squares: Float64Array<SharedArrayBuffer>;
}

let instantiate: ReturnType<typeof assembleSharedKernels<Functions>> | undefined;

/** The kernels that work on a memory, by the memory's buffer. */
const arenas = new WeakMap<ArrayBufferLike, Arena>();

/** Elements of the gradient that are copied in together: they fit into a first-level cache with what they meet. */
const PIECE = 4096;
/** A thread's room: a piece of a gradient, and two doubles. */
const SCRATCH_BYTES = PIECE * 4 + 16;
/** Elements are in whole vectors. What comes after the end of an array is computed along, and never read. */
const padded = (length: number) => Math.ceil(length / 4) * 4;

/** A parameter's values, the two arrays of state that an optimizer may keep for it, and room for a sum of gradients; zeros all. */
export interface ParameterArrays {
  readonly data: Floats;
  readonly slots: readonly [Floats, Floats];
  readonly sum: Floats;
}

/** No more in one memory, unless it is one parameter. */
const MAX_ARENA_BYTES = 2 ** 31;

/**
 * Arrays for parameters of these lengths, where the kernels can work on them. What is not written to takes up no memory: state that no
 * optimizer uses. Throws `limit_exceeded` for a parameter of more than 2³⁰ bytes.
 */
export function allocateParameters(lengths: readonly number[]): readonly ParameterArrays[] {
  const allocated: ParameterArrays[] = [];
  while (allocated.length < lengths.length) {
    const rest = lengths.slice(allocated.length).map((length) => 4 * padded(length) * 4);
    let bytes = SCRATCH_BYTES;
    let count = 0;
    while (count < rest.length && (count === 0 || bytes + rest[count]! <= MAX_ARENA_BYTES)) bytes += rest[count++]!;
    allocated.push(...allocateArena(lengths.slice(allocated.length, allocated.length + count), bytes));
  }
  return allocated;
}

function allocateArena(lengths: readonly number[], bytes: number): readonly ParameterArrays[] {
  if (bytes > 2 ** 32) {
    throw new CoreError("limit_exceeded", `A tensor of ${lengths[0]} elements is too large to be trained.`);
  }
  const memory = createSharedMemory(bytes);
  const { buffer } = memory;
  arenas.set(buffer, arenaOver(memory, 0));
  let at = SCRATCH_BYTES;
  const take = (length: number): Floats => {
    const array = new Float32Array(buffer, at, length);
    at += padded(length) * 4;
    return array;
  };
  return lengths.map((length) => ({
    data: take(length),
    slots: [take(length), take(length)],
    sum: take(length),
  }));
}

function arenaOver(memory: SharedWasmMemory, scratch: number): Arena {
  instantiate ??= assembleSharedKernels<Functions>({ adam, add });
  return {
    ...instantiate(memory),
    memory,
    scratch,
    gradient: new Float32Array(memory.buffer, scratch, PIECE),
    squares: new Float64Array(memory.buffer, scratch + PIECE * 4, 2),
  };
}

/** The memory that a parameter's arrays are in. */
export function memoryOf(array: Floats): SharedWasmMemory {
  return arenaOf(array).memory;
}

/** Lets this thread work on a memory that another one has allocated, on gradients that are in it too: it has no room of its own there. */
export function adoptMemory(memory: SharedWasmMemory): void {
  arenas.set(memory.buffer, arenaOver(memory, 0));
}

/** The arena of arrays of one parameter. */
function arenaOf(...arrays: readonly Float32Array[]): Arena {
  const [{ buffer }] = arrays as readonly [Floats];
  const arena = arenas.get(buffer);
  if (!arena || arrays.some((array) => array.buffer !== buffer)) {
    throw new CoreError("internal", "A kernel was given arrays that are not its own.");
  }
  return arena;
}

/** Updates p, m and v in place, in float32 arithmetic: the same on every machine. They are one parameter's arrays, of `allocateParameters`. */
export function updateAdam(p: Floats, g: Float32Array, m: Floats, v: Floats, scalars: AdamScalars): void {
  const arena = arenaOf(p, m, v);
  const values = SCALARS.map((name) => scalars[name]);
  const update = (from: number, to: number, gradient: number) => {
    const end = p.byteOffset + 4 * padded(to);
    arena.adam(p.byteOffset + from, gradient, m.byteOffset + from, v.byteOffset + from, end, ...values);
  };
  if (g.buffer === p.buffer) {
    update(0, p.length, g.byteOffset);
    return;
  }
  for (let start = 0; start < p.length; start += PIECE) {
    const end = Math.min(start + PIECE, p.length);
    arena.gradient.set(g.subarray(start, end));
    update(4 * start, end, arena.scratch);
  }
}

/**
 * sum ← share · (sum + Σ gradients) in float32 arithmetic, or share · Σ gradients for a sum that is `fresh`; answers the sum of its squares, where
 * anything is added. `sum` is of `allocateParameters`.
 */
export function addGradients(
  sum: Floats,
  gradients: readonly Float32Array[],
  { fresh, share }: { readonly fresh: boolean; readonly share: number },
): number {
  const arena = arenaOf(sum);
  const added = fresh ? gradients.slice(1) : gradients;
  let total = 0;
  for (let start = 0; start < sum.length; start += PIECE) {
    const end = Math.min(start + PIECE, sum.length);
    if (fresh) sum.set(gradients[0]!.subarray(start, end), start);
    // What comes after the end counts for nothing.
    arena.gradient.fill(0, end - start);
    const [from, to] = [sum.byteOffset + 4 * start, sum.byteOffset + 4 * padded(end)];
    for (const [i, gradient] of added.entries()) {
      arena.gradient.set(gradient.subarray(start, end));
      arena.squares.fill(0);
      arena.add(from, arena.scratch, to, arena.squares.byteOffset, i === added.length - 1 ? share : 1);
    }
    total += arena.squares[0]! + arena.squares[1]!;
  }
  return total;
}
