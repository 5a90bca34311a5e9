/**
 * XᵀX of what layers multiply their weights with, computed by onnxruntime: the model is given a product of each input with itself, so that
 * activations are never copied out, and only [depth, depth] floats come back from each run.
 */
import { onnxOfDtype } from "../../onnx/dtype.ts";
import type { Attr, Model, Node, Value } from "../../onnx/ir.ts";
import { tensorOf } from "../../onnx/tensor.ts";
import { type CalibrateOptions, type Feeds, observe } from "../calibration/calibrate.ts";
import type { Observer } from "../calibration/observers.ts";

/** A layer and the rows of X that its weight meets: of a MatMul or Gemm those of its input, of a Conv the patches under its filters. */
export interface GramSite {
  /** Position among all nodes of the model. */
  readonly index: number;
  readonly depth: number;
  /** Dims of a filter bank [M, C, …]; undefined for MatMul and Gemm. */
  readonly filters: readonly number[] | undefined;
}

export interface Grams {
  /** [depth, depth], of three batches in four. */
  readonly fit: Float32Array;
  /** Of the others; the same array when there are less than four. */
  readonly judge: Float32Array;
}

/** Every so manieth batch is for judging. */
const JUDGED_EVERY = 4;

/**
 * Sums XᵀX over batches, by the index of the node. Sites that share an input share the result. A node that no batch reaches has none.
 * Takes 8 · depth² bytes for each input.
 */
export async function observeGrams(
  model: Model,
  sites: readonly GramSite[],
  batches: AsyncIterable<Feeds>,
  options: CalibrateOptions,
): Promise<ReadonlyMap<number, Grams>> {
  const copy = model.clone();
  const nodes = [...copy.nodes()];
  const made = new Map<Value, Map<string, Value>>();
  const names = new Map<number, string>();
  const observers = new Map<string, GramObserver>();
  for (const site of sites) {
    const node = nodes[site.index]!;
    const ofInput = made.get(node.inputs[0]!) ?? new Map<string, Value>();
    made.set(node.inputs[0]!, ofInput);
    const key = rowsKey(node, site);
    const gram = ofInput.get(key) ?? addGram(node, site);
    ofInput.set(key, gram);
    names.set(site.index, gram.name);
    if (!observers.has(gram.name)) observers.set(gram.name, new GramObserver(site.depth));
  }
  await observe(copy, observers, batches, options);
  return new Map(
    [...names].flatMap(([index, name]) => {
      const grams = observers.get(name)!.result();
      return grams ? [[index, grams] as const] : [];
    }),
  );
}

class GramObserver implements Observer {
  readonly #sums: [Float32Array, Float32Array];
  #batches = 0;

  constructor(depth: number) {
    this.#sums = [new Float32Array(depth * depth), new Float32Array(depth * depth)];
  }

  /** One product, or in a Loop those of all its turns. */
  observe(values: Float32Array): void {
    if (values.length === 0) return;
    this.#batches++;
    const sum = this.#sums[this.#batches % JUDGED_EVERY === 0 ? 1 : 0]!;
    for (let start = 0; start < values.length; start += sum.length) {
      for (let i = 0; i < sum.length; i++) sum[i] = sum[i]! + values[start + i]!;
    }
  }

  result(): Grams | undefined {
    if (this.#batches === 0) return undefined;
    const [fit, judge] = this.#sums;
    return { fit, judge: this.#batches < JUDGED_EVERY ? fit : judge };
  }
}

/** Equal for layers that see the same rows of the same input. */
function rowsKey(node: Node, { filters }: GramSite): string {
  if (!filters) return `${isTransposed(node)}`;
  return `${filters.slice(1)} ${[...windowOf(node)].map(([name, { value }]) => `${name}=${value}`)}`;
}

function isTransposed(node: Node): boolean {
  return node.opType === "Gemm" && node.int("transA", 0) !== 0;
}

/** The attributes that say which patches a Conv looks at. */
function windowOf(node: Node): Map<string, Attr> {
  return new Map([...node.attrs].filter(([name]) => WINDOW.has(name)));
}

const WINDOW: ReadonlySet<string> = new Set(["auto_pad", "dilations", "pads", "strides"]);

/** XᵀX before `node`, in its graph. */
function addGram(node: Node, { depth, filters }: GramSite): Value {
  const { graph } = node;
  const op = (opType: string, inputs: readonly Value[], attrs: Readonly<Record<string, Attr>> = {}): Value =>
    graph.insertBefore(node, { opType, inputs, outputs: 1, attrs }).outputs[0]!;
  const transposed = (value: Value, perm: readonly number[]) =>
    op("Transpose", [value], { perm: { type: "ints", value: perm } });

  let x = op("Cast", [node.inputs[0]!], { to: { type: "int", value: onnxOfDtype("float32") } });
  if (isTransposed(node)) x = transposed(x, [1, 0]);
  if (filters) {
    // A filter for each place of a patch, which is 1 there and 0 elsewhere, gives the patch itself.
    const places = Float32Array.from({ length: depth * depth }, (_, i) => (i % (depth + 1) === 0 ? 1 : 0));
    const pick = graph.addInitializer("places", tensorOf("float32", [depth, ...filters.slice(1)], places));
    const patches = op("Conv", [x, pick], Object.fromEntries(windowOf(node)));
    x = transposed(patches, [0, ...filters.slice(2).map((_, axis) => axis + 2), 1]);
  }
  const shape = graph.addInitializer("rows", tensorOf("int64", [2], [-1, depth]));
  const rows = op("Reshape", [x, shape]);
  return op("MatMul", [transposed(rows, [1, 0]), rows]);
}
