/**
 * WebAssembly modules put together from their instructions, for inner loops that typed arrays are too slow for: nothing to build, and vectors
 * of 128 bits. A kernel is a function of addresses, lengths (bytes, both) and scalars, without a result; all of a module's kernels work on
 * one memory.
 */

/** Instructions: bytes, in as many brackets as the one who writes them likes. */
export type Code = number | readonly Code[];

/** Types of parameters and locals. */
export const I32 = 0x7f;
export const F32 = 0x7d;
export const V128 = 0x7b;

/** Unsigned LEB128. */
export function unsigned(n: number): number[] {
  const bytes: number[] = [];
  for (; n > 127; n >>>= 7) bytes.push((n & 127) | 128);
  return [...bytes, n];
}

/** Signed LEB128 of a number that is not negative: the sign bit of the last byte must stay clear. */
function signed(n: number): number[] {
  const bytes = unsigned(n);
  const last = bytes.at(-1)!;
  return last < 64 ? bytes : [...bytes.slice(0, -1), last | 128, 0];
}

/** An instruction on vectors. */
export function vector(op: number, ...immediates: number[]): Code {
  return [0xfd, unsigned(op), immediates];
}

export const i32 = (n: number): Code => [0x41, signed(n)];
export const I32_ADD = 0x6a;
export const I32_LT_U = 0x49;
export const load = (offset: number): Code => vector(0, 2, ...unsigned(offset));
export const store: Code = vector(11, 2, 0);
/** A scalar in all four lanes. */
export const SPLAT: Code = vector(19);
export const ADD: Code = vector(0xe4);
export const SUB: Code = vector(0xe5);
export const MUL: Code = vector(0xe6);
export const DIV: Code = vector(0xe7);
export const SQRT: Code = vector(0xe3);

/** Runs `body` until the comparison that ends it is false. */
export const loop = (...body: Code[]): Code => [0x03, 0x40, body, 0x0d, 0, 0x0b];

export interface Local {
  readonly get: Code;
  readonly set: Code;
  /** Sets and leaves the value on the stack. */
  readonly tee: Code;
}

/** local += bytes */
export const advance = (local: Local, bytes: Code): Code => [local.get, bytes, I32_ADD, local.set];
/** local += bytes, and whether it is still below `end`. */
export const advanceBelow = (local: Local, bytes: Code, end: Local): Code => [
  local.get,
  bytes,
  I32_ADD,
  local.tee,
  end.get,
  I32_LT_U,
];

export interface Kernel {
  readonly params: readonly number[];
  readonly locals: readonly number[];
  readonly code: Code;
}

/** `vectors`: how many unnamed vector locals `build` gets besides. */
export function kernel<P extends Record<string, number>, L extends Record<string, number>>(
  params: P,
  locals: L,
  build: (local: { readonly [K in keyof P | keyof L]: Local }, vectors: readonly Local[]) => Code,
  vectors = 0,
): Kernel {
  const names = [...Object.keys(params), ...Object.keys(locals)];
  const localAt = (i: number): Local => ({ get: [0x20, i], set: [0x21, i], tee: [0x22, i] });
  const named = Object.fromEntries(names.map((name, i) => [name, localAt(i)]));
  const unnamed = Array.from({ length: vectors }, (_, i) => localAt(names.length + i));
  return {
    params: Object.values(params),
    locals: [...Object.values(locals), ...unnamed.map(() => V128)],
    code: build(named as unknown as { [K in keyof P | keyof L]: Local }, unnamed),
  };
}

function flat(code: Code): number[] {
  return typeof code === "number" ? [code] : code.flatMap(flat);
}

const sized = (bytes: number[]): number[] => [...unsigned(bytes.length), ...bytes];
const section = (id: number, items: number[][]): number[] => [
  id,
  ...sized([...unsigned(items.length), ...items.flat()]),
];
const nameOf = (text: string): number[] => sized([...new TextEncoder().encode(text)]);

/** The binary module: types, one imported memory, functions, exports, code (sections 1, 2, 3, 7, 10). */
function assemble(kernels: Readonly<Record<string, Kernel>>, shared: boolean): Uint8Array {
  const all = Object.entries(kernels);
  // A memory that threads share has a limit.
  const memory = shared ? [0x02, 0x03, 1, ...unsigned(MAX_PAGES)] : [0x02, 0x00, 1];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(
      1,
      all.map(([, { params }]) => [0x60, params.length, ...params, 0]),
    ),
    ...section(2, [[...nameOf("host"), ...nameOf("memory"), ...memory]]),
    ...section(
      3,
      all.map((_, i) => [i]),
    ),
    ...section(
      7,
      all.map(([name], i) => [...nameOf(name), 0x00, i]),
    ),
    ...section(
      10,
      all.map(([, { locals, code }]) =>
        sized([...unsigned(locals.length), ...locals.flatMap((type) => [1, type]), ...flat(code), 0x0b]),
      ),
    ),
  ]);
}

export interface WasmMemory {
  /** Another one after each `grow`. */
  readonly buffer: ArrayBuffer;
  grow(pages: number): void;
}

/** A memory that can be posted to other threads. */
export interface SharedWasmMemory {
  readonly buffer: SharedArrayBuffer;
}

interface SharedSize {
  readonly initial: number;
  readonly maximum: number;
  readonly shared: true;
}

/** What is used of it: the types that come with Node leave it out. */
declare const WebAssembly: {
  readonly Memory: (new (size: {
    readonly initial: number;
  }) => WasmMemory) &
    (new (
      size: SharedSize,
    ) => SharedWasmMemory);
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (
    module: object,
    imports: { readonly host: { readonly memory: WasmMemory | SharedWasmMemory } },
  ) => { readonly exports: object };
};

export const PAGE_BYTES = 65536;
const MAX_PAGES = 65536;

/** A memory of at least `bytes`, zeros. It takes up no more of the machine's than what is written to. Throws a RangeError above 4 GiB. */
export function createMemory(bytes: number): WasmMemory {
  return new WebAssembly.Memory({ initial: pagesOf(bytes) });
}

/** The same, for several threads. */
export function createSharedMemory(bytes: number): SharedWasmMemory {
  const pages = pagesOf(bytes);
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
}

const pagesOf = (bytes: number) => Math.max(1, Math.ceil(bytes / PAGE_BYTES));

type Functions<F> = { readonly [K in keyof F]: (...args: number[]) => void };

/** Answers functions `F`, by the names of the kernels, that work on a memory of at least one page. */
export function assembleKernels<F extends Functions<F>>(
  kernels: Readonly<Record<keyof F & string, Kernel>>,
): (memory: WasmMemory) => F {
  const module = new WebAssembly.Module(assemble(kernels, false));
  return (memory) => new WebAssembly.Instance(module, { host: { memory } }).exports as F;
}

/** The same for memories that threads share. */
export function assembleSharedKernels<F extends Functions<F>>(
  kernels: Readonly<Record<keyof F & string, Kernel>>,
): (memory: SharedWasmMemory) => F {
  const module = new WebAssembly.Module(assemble(kernels, true));
  return (memory) => new WebAssembly.Instance(module, { host: { memory } }).exports as F;
}
