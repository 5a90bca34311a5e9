/**
 * Adam's update in WebAssembly with vectors of four floats: several times the speed of a loop over typed arrays, whose arithmetic is in
 * double precision (`bench/train-optimizer.ts`). The module is put together here from its instructions, so there is nothing to build.
 */

type Code = number | readonly Code[];

const I32 = 0x7f;
const F32 = 0x7d;
const V128 = 0x7b;
const SIMD = 0xfd;
/** SIMD opcodes above 127 take two bytes. */
const vector = (op: number): Code => (op > 127 ? [SIMD, op, 1] : [SIMD, op]);
const SPLAT = vector(0x13);
const [ADD, SUB, MUL, DIV, SQRT] = [0xe4, 0xe5, 0xe6, 0xe7, 0xe3].map(vector) as [Code, Code, Code, Code, Code];
/** Alignment 2^4, offset 0. */
const LOAD: Code = [vector(0), 4, 0];
const STORE: Code = [vector(0x0b), 4, 0];

const get = (local: number): Code => [0x20, local];
const set = (local: number): Code => [0x21, local];
const tee = (local: number): Code => [0x22, local];

/** Addresses of the four arrays and the end of the first, in bytes. */
const POINTERS = { p: 0, g: 1, m: 2, v: 3, end: 4 } as const;
/** What every element is multiplied by or added to. */
const SCALARS = [
  "scale",
  "coupled",
  "beta1",
  "rest1",
  "beta2",
  "rest2",
  "rate",
  "correction",
  "epsilon",
  "kept",
] as const;
type Scalar = (typeof SCALARS)[number];
export type AdamScalars = Readonly<Record<Scalar, number>>;

const FIRST_VECTOR = 5 + SCALARS.length;
/** Each scalar spread over a vector, then four vectors of the element. */
const spread = (name: Scalar): Code => get(FIRST_VECTOR + SCALARS.indexOf(name));
const [P, G, M, V] = [0, 1, 2, 3].map((i) => FIRST_VECTOR + SCALARS.length + i) as [number, number, number, number];

/**
 * g ← scale·g + coupled·p;  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  p ← kept·p − rate·m / (correction·√v + ε)
 */
const BODY: Code = [
  SCALARS.map((_, i) => [get(5 + i), SPLAT, set(FIRST_VECTOR + i)]),
  [0x03, 0x40],
  [get(POINTERS.p), LOAD, set(P)],
  [get(POINTERS.g), LOAD, spread("scale"), MUL, get(P), spread("coupled"), MUL, ADD, set(G)],
  [get(POINTERS.m), get(POINTERS.m), LOAD, spread("beta1"), MUL, get(G), spread("rest1"), MUL, ADD, tee(M), STORE],
  [get(POINTERS.v), get(POINTERS.v), LOAD, spread("beta2"), MUL],
  [get(G), get(G), MUL, spread("rest2"), MUL, ADD, tee(V), STORE],
  [get(POINTERS.p), get(P), spread("kept"), MUL],
  [get(M), spread("rate"), MUL, get(V), SQRT, spread("correction"), MUL, spread("epsilon"), ADD, DIV, SUB, STORE],
  (["g", "m", "v", "p"] as const).map((name) => [get(POINTERS[name]), [0x41, 16], 0x6a, set(POINTERS[name])]),
  // Again while p < end.
  [get(POINTERS.p), get(POINTERS.end), 0x49, 0x0d, 0],
  0x0b,
];

function flatten(code: Code): number[] {
  return typeof code === "number" ? [code] : code.flatMap(flatten);
}

/** Unsigned LEB128. */
function unsigned(n: number): number[] {
  return n > 127 ? [(n & 127) | 128, ...unsigned(n >>> 7)] : [n];
}

const sized = (bytes: readonly number[]): number[] => [...unsigned(bytes.length), ...bytes];
const text = (name: string): number[] => sized([...new TextEncoder().encode(name)]);
const section = (id: number, ...content: number[]): number[] => [id, ...sized(content)];

function assemble(): Uint8Array<ArrayBuffer> {
  const parameters = [...Array(5).fill(I32), ...SCALARS.map(() => F32)];
  const locals = [1, SCALARS.length + 4, V128];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, 1, 0x60, ...sized(parameters), 0),
    ...section(2, 1, ...text("host"), ...text("memory"), 2, 0, 1),
    ...section(3, 1, 0),
    ...section(7, 1, ...text("adam"), 0, 0),
    ...section(10, 1, ...sized([...locals, ...flatten(BODY), 0x0b])),
  ]);
}

interface WasmMemory {
  readonly buffer: ArrayBuffer;
}

/** The part of WebAssembly that is used here; Node's types leave it to the DOM's. */
declare const WebAssembly: {
  readonly Memory: new (size: { readonly initial: number }) => WasmMemory;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (
    module: object,
    imports: { readonly host: { readonly memory: WasmMemory } },
  ) => { readonly exports: { readonly adam: (...args: number[]) => void } };
};

/** Elements that are copied in, updated and copied out together: four arrays of them fit into a second-level cache. */
const CHUNK = 16384;
const PAGES = (4 * CHUNK * 4) / 65536;

let kernel: { readonly arrays: readonly Float32Array[]; readonly adam: (...args: number[]) => void } | undefined;

function loadKernel() {
  const memory = new WebAssembly.Memory({ initial: PAGES });
  const { adam } = new WebAssembly.Instance(new WebAssembly.Module(assemble()), { host: { memory } }).exports;
  const arrays = [0, 1, 2, 3].map((i) => new Float32Array(memory.buffer, i * CHUNK * 4, CHUNK));
  return { arrays, adam };
}

/** Updates p, m and v in place, in float32 arithmetic: the same on every machine. */
export function updateAdam(
  p: Float32Array,
  g: Float32Array,
  m: Float32Array,
  v: Float32Array,
  scalars: AdamScalars,
): void {
  kernel ??= loadKernel();
  const { arrays, adam } = kernel;
  const values = SCALARS.map((name) => scalars[name]);
  const [pChunk, gChunk, mChunk, vChunk] = arrays as [Float32Array, Float32Array, Float32Array, Float32Array];
  for (let start = 0; start < p.length; start += CHUNK) {
    const end = Math.min(start + CHUNK, p.length);
    pChunk.set(p.subarray(start, end));
    gChunk.set(g.subarray(start, end));
    mChunk.set(m.subarray(start, end));
    vChunk.set(v.subarray(start, end));
    // Whole vectors: up to three elements after the end are computed and not read.
    const bytes = Math.ceil((end - start) / 4) * 16;
    adam(0, CHUNK * 4, CHUNK * 8, CHUNK * 12, bytes, ...values);
    p.set(pChunk.subarray(0, end - start), start);
    m.set(mChunk.subarray(0, end - start), start);
    v.set(vChunk.subarray(0, end - start), start);
  }
}
