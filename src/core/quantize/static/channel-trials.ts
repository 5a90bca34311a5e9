/** Whether scaling channels helps: each way is tried on a few samples. */
import type { CorrectionFacts } from "../../facts.ts";
import type { Model } from "../../onnx/ir.ts";
import type { Note, NoteSink } from "../../passes/pass.ts";
import type { Feeds, OnOutputs } from "../calibration/calibrate.ts";
import { DEFAULT_METHOD } from "../calibration/calibration-methods.ts";
import { Calibrator } from "./calibration.ts";
import { scalingSites } from "./channel-scaling.ts";
import { type BalanceOptions, balanceChannels, equalizeWeights } from "./equalize.ts";
import type { OutputReference } from "./output-error.ts";
import type { PipelineOptions, PipelineRuntime } from "./pipeline.ts";
import { quantizeStatic, type StaticOptions } from "./quantize-static.ts";
import type { FloatNode } from "./storage.ts";

/** What a correction is tried with. */
export interface Trial {
  readonly few: readonly Feeds[];
  /** What follows those in calibration, and is judged by. */
  readonly following: readonly Feeds[];
  /** Those that nothing is judged by, as far as there are enough. */
  readonly unjudged: readonly Feeds[];
  /** Takes what the original gives out for samples that it is shown. */
  readonly onOutputs: OnOutputs;
  readonly reference: OutputReference;
  readonly options: PipelineOptions;
  /** Layers that no trial can round. */
  readonly broken: ReadonlyMap<string, FloatNode>;
  readonly runtime: PipelineRuntime;
  /** Closes at the end what is still loaded. */
  readonly loaded: AsyncDisposableStack;
}

/**
 * Scales channels between layers, and then between normalizations and layers. Where it was left to us, each is kept only if a model that is
 * calibrated on few samples becomes better by it. The calibrator of what came out of it has seen those samples, and those that follow them as far as they were judged by.
 */
export async function scaleChannels(original: Calibrator, trial: Trial) {
  const { few, following, options, onOutputs, reference } = trial;
  const { equalize, smoothQuantAlpha, perChannel } = options;
  const notes: Note[] = [];
  const facts: CorrectionFacts[] = [];
  let calibrator = original;
  const isWanted = equalize !== false || smoothQuantAlpha !== null;
  const inserted = new Map<string, FloatNode>();
  if (!isWanted || scalingSites(original.model, { inserting: true }).length === 0) {
    return { calibrator, notes, facts, inserted };
  }
  const { channels } = await original.observe(each(few), { onOutputs, keep: true });
  const balance = (of: Omit<BalanceOptions, "perChannel">) => (model: Model, note: NoteSink) =>
    balanceChannels(model, (name) => channels.get(name), { ...of, perChannel }, note);
  const corrections = [
    {
      name: "equalization",
      wanted: equalize,
      apply: equalize === true ? equalizeWeights : balance({ layers: true, normalizations: undefined }),
    },
    {
      name: "smooth_quant",
      wanted: smoothQuantAlpha ?? false,
      apply: balance({ layers: false, normalizations: smoothQuantAlpha ?? undefined }),
    },
  ];
  let sqnrDb: number | undefined;
  // What is judged by is seen beside, for trials not to know it, and added to the rest when they are over.
  let beside: Calibrator | undefined;
  for (const { name, wanted, apply } of corrections) {
    if (wanted === false) continue;
    const candidate = calibrator.model.clone();
    const said: Note[] = [];
    const changed = apply(candidate, (note) => said.push(note));
    if (changed.size === 0) continue;
    if (!beside) {
      beside = calibrator.beside();
      await beside.observe(each(following), { onOutputs, keep: true });
    }
    await reference.load();
    const forked = calibrator.forked(candidate, changed);
    // Both are judged at once, unless something has to be loaded for the second.
    const unscaled = sqnrDb ?? trialSqnrDb(calibrator, trial);
    if (!forked) await unscaled;
    const other = forked ?? (await anew(candidate, calibrator, trial));
    const [before, reached] = await Promise.all([unscaled, trialSqnrDb(other, trial)]);
    const applied = wanted !== "auto" || reached > before;
    facts.push({ name, sqnr_before_db: before, sqnr_after_db: reached, applied });
    sqnrDb = applied ? reached : before;
    if (!applied) {
      if (!forked) await other.close();
      continue;
    }
    beside = forked && beside.forked(candidate, changed);
    calibrator = other;
    notes.push(...said);
  }
  if (beside) calibrator.merge(beside);
  const known = new Set([...original.model.nodes()].map((node) => node.name));
  for (const node of calibrator.model.nodes()) if (!known.has(node.name)) inserted.set(node.name, BALANCING);
  return { calibrator, notes, facts, inserted };
}

/** Of a model that what was seen of another does not tell about. One float model is loaded at a time. */
async function anew(model: Model, before: Calibrator, { few, loaded, runtime }: Trial): Promise<Calibrator> {
  await before.close();
  const calibrator = loaded.use(Calibrator.of(model, runtime));
  await calibrator.observe(each(few), { keep: true });
  return calibrator;
}

/**
 * How good a model is when all of it is quantized with what few samples show: the same for every way to find ranges, so that what is
 * decided by it, and with it a calibration, serves them all.
 */
async function trialSqnrDb({ model, calibration }: Calibrator, { reference, options, broken }: Trial): Promise<number> {
  const { activationDType, perChannel, reduceRange, percentile, weightBits } = options;
  const ranged = { method: DEFAULT_METHOD, percentile, activationDType, perChannel, reduceRange, weightBits };
  const trial: StaticOptions = { ...ranged, excludeNodes: broken };
  return reference.sqnrDb(quantizeStatic(model, calibration, trial).model, { beside: true });
}

async function* each<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}

/** Of a product that scales channels; its note is that of the node whose channels it scales. */
const BALANCING: FloatNode = { code: "channels_scaled", message: "It scales channels against each other." };
