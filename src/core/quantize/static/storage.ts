/**
 * What static quantization does with the weights that no calibrated kernel reads: they take up less of the file, in forms that are as fast as
 * float. Codes of convolutions, products and recurrent layers are turned into floats when the model is loaded; tables are looked up in codes; LSTM
 * has a kernel of its own, which finds the ranges of its activations while it runs, and takes 8 bits. Codes of 4 and 2 bits are in blocks, as those of
 * `weight_only` are.
 */
import type { Model, Node, Value } from "../../onnx/ir.ts";
import { arrayOf } from "../../onnx/tensor.ts";
import { operatorOf } from "../../operators/operators.ts";
import { distinctNotes, type NodeTest, type Note } from "../../passes/pass.ts";
import { WeightViews } from "../../passes/weight-views.ts";
import type { WeightUse } from "../plan.ts";
import type { RoundedWeights } from "../rounding/round-layers.ts";
import { QuantizedWeights } from "../weights/codes.ts";
import { gatherBlockQuantized } from "../weights/contrib.ts";
import { dynamicLstm } from "../weights/dynamic.ts";
import { gatherCodes } from "../weights/gather.ts";
import { planWeights, type RewriteForm, rewriteWeights, type WeightDecision } from "../weights/rewrite.ts";
import type { WeightSlot } from "../weights/slots.ts";
import { storeCodes } from "../weights/storage.ts";
import { isFloatConstant, type Refusal } from "./operators.ts";
import type { WeightBits } from "./stored-weights.ts";

/** Why a node computes in float although there is a kernel. */
export interface FloatNode extends Refusal {
  /** Whether nothing is said against rounding its weights: they are stored in few bits. */
  readonly storesWeights?: boolean;
  /** In how many; as many as weights that kernels read in 8 bits, unless given. */
  readonly weightBits?: WeightBits;
}

const BROKEN: FloatNode = {
  code: "non_finite_weight",
  message: "Its weight holds NaN or an infinity, and has no scale.",
};

/** The layers whose weights have no scale, by the name of the node. Every weight is read once. */
export function brokenLayers(model: Model): Map<string, FloatNode> {
  const isBroken = new Map<Value, boolean>();
  const broken = new Map<string, FloatNode>();
  for (const node of model.nodes()) {
    for (const { input } of operatorOf(node)?.weights ?? []) {
      const weight = node.inputs[input];
      if (!isFloatConstant(weight)) continue;
      if (!isBroken.has(weight!)) isBroken.set(weight!, !isAllFinite(arrayOf(weight!.constant!, "float32")));
      if (isBroken.get(weight!)) broken.set(node.name, BROKEN);
    }
  }
  return broken;
}

function isAllFinite(values: Float32Array): boolean {
  // Of numbers only, the difference from itself is 0. A loop takes a tenth of what a call for each of millions of weights does.
  for (let i = 0; i < values.length; i++) if (values[i]! - values[i]! !== 0) return false;
  return true;
}

export interface StaticStorageOptions {
  readonly perChannel: boolean;
  /** Of weights that nothing else is said of; 8 unless given. */
  readonly weightBits?: WeightBits | undefined;
  /** Weights by name that are rounded already, in blocks. */
  readonly rounded?: { readonly stored: RoundedWeights } | undefined;
  /** For processors that add pairs of 8-bit products in 16 bits. */
  readonly reduceRange: boolean;
  readonly excludeNodes?: ReadonlyMap<string, FloatNode>;
  readonly isExcluded?: NodeTest;
  /** Stores only those weights that the job asks for. */
  readonly onlyAsked?: boolean;
  /** Stores only tables that rows are looked up in. */
  readonly onlyTables?: boolean;
}

/** Weights of 4 and 2 bits that share a scale. */
const BLOCK_SIZE = 32;

/**
 * Stores what is left of float weights in `model`, which has its Q/DQ pairs, in place. `notes` are about the same nodes; answers them with
 * those replaced that a node has no more use for, and the weights that are stored.
 */
export function storeFloatWeights(
  model: Model,
  notes: readonly Note[],
  options: StaticStorageOptions,
): { readonly notes: Note[]; readonly uses: readonly WeightUse[] } {
  const { keepsWeights, forms } = storageOf(model, options);
  const said: Note[] = [];
  const uses = rewriteWeights(
    model,
    new WeightViews(),
    keepsWeights,
    () => forms,
    (note) => said.push(note),
  );
  const known = new Map(notes.map((note) => [note.name, note]));
  const stored = new Map(said.filter(({ outcome }) => outcome === "changed").map((note) => [note.name, note]));
  const all = distinctNotes([
    ...notes.map((note) => {
      const now = note.outcome === "skipped" ? stored.get(note.name) : undefined;
      return now?.code === "stored_codes" ? { ...now, message: `${now.message} ${note.message}` } : (now ?? note);
    }),
    ...said.filter(({ name }) => !known.has(name)),
  ]);
  return { notes: all, uses };
}

/** What `storeFloatWeights` will do with each weight of `model`, which stays as it is. */
export function planFloatWeights(
  model: Model,
  views: WeightViews,
  options: StaticStorageOptions,
): readonly WeightDecision[] {
  const { keepsWeights, forms } = storageOf(model, options);
  return planWeights(model, views, keepsWeights, () => forms).decisions;
}

/** Which nodes keep their weights as they are, and the forms that those of others get: the first that suits them. */
function storageOf(
  model: Model,
  { perChannel, reduceRange, weightBits = 8, rounded, ...options }: StaticStorageOptions,
): { readonly keepsWeights: NodeTest; readonly forms: readonly RewriteForm[] } {
  const { excludeNodes, isExcluded, onlyAsked, onlyTables } = options;
  const asked = (node: Node) => excludeNodes?.get(node.name);
  const keepsWeights = (node: Node) => {
    const inFloat = asked(node);
    if (onlyAsked && inFloat?.code !== "asked") return true;
    if (onlyTables && operatorOf(node)?.constants?.[0] !== "embedding") return true;
    return isExcluded?.(node) || (inFloat !== undefined && inFloat.storesWeights !== true);
  };
  const weights = new QuantizedWeights(rounded?.stored);
  const blocks = { blockSize: BLOCK_SIZE, symmetric: false, accuracyLevel: 0 } as const;
  const inBits = ([8, 4, 2] as const).map((bits) => ({
    bits,
    store: storeCodes(model, weights, { ...blocks, bits, symmetric: bits === 8 }),
    lookUp: bits === 8 ? () => undefined : gatherBlockQuantized(model, weights, { ...blocks, bits }, NONE),
  }));
  const formsOf = ([slot]: readonly WeightSlot[]) => {
    const wanted = asked(slot!.node)?.weightBits ?? weightBits;
    return inBits.find(({ bits }) => bits === wanted)!;
  };
  const isNamed = ([slot]: readonly WeightSlot[]) => (asked(slot!.node)?.weightBits ?? 8) !== 8;
  return {
    keepsWeights,
    forms: [
      (slots) => formsOf(slots).lookUp(slots),
      // A kernel that takes 8 bits is no use to who asks for fewer by name.
      (slots) => (isNamed(slots) ? formsOf(slots).store(slots) : undefined),
      dynamicLstm(model, weights, { perChannel, reduceRange }),
      gatherCodes(weights),
      (slots) => formsOf(slots).store(slots),
    ],
  };
}

const NONE: ReadonlySet<string> = new Set();
