/** What is seen of a float model's activations: all that its quantized models are made from. */
import type { Model, Value } from "../../onnx/ir.ts";
import type { Tensor } from "../../onnx/tensor.ts";
import type { Affine } from "../../operators/operator-record.ts";
import { type CalibrateOptions, type Feeds, type OnOutputs, TappedModel } from "../calibration/calibrate.ts";
import { ActivationObserver, ChannelObserver, type Observer } from "../calibration/observers.ts";
import { type ChannelFactors, type Summary, scaledSummary, summaryOfWhole } from "../calibration/summaries.ts";
import { type ScaledValue, scalingSites } from "./channel-scaling.ts";
import { placeQuantizers, RECONSIDERED } from "./placement.ts";
import { stretchesIn } from "./stretched.ts";

/** By the names of values. */
export interface Calibration {
  readonly activations: ReadonlyMap<string, ActivationObserver>;
  /** Values that are affine in an observed one, and were not observed themselves. */
  readonly derived: ReadonlyMap<string, Affine & { readonly base: string }>;
  /** Of values that meet weights, along the axis that the weights reduce over. */
  readonly channels: ReadonlyMap<string, ChannelObserver>;
  readonly batches: number;
}

/** Observes everything that some placement of quantizers in `model`, in the form that `prepareStatic` gives it, may need. */
export async function calibrate(
  model: Model,
  batches: AsyncIterable<Feeds>,
  options: CalibrateOptions,
): Promise<Calibration> {
  await using calibrator = Calibrator.of(model, options);
  return await calibrator.observe(batches);
}

/** What a value of a calibrated model is: one of the model that runs, with its channels scaled. */
interface View {
  readonly base: string;
  readonly by: readonly ChannelFactors[];
}

/** The model that runs, and the axes of the channels that may come to be scaled, by the names of its values. */
interface Source {
  readonly tapped: TappedModel;
  readonly axes: ReadonlyMap<string, number>;
}

/**
 * Calibrates a model in several passes, loaded once. For a model that differs from it in the channels of some values nothing else has to run: they are
 * scaled when they have been seen.
 */
export class Calibrator {
  readonly model: Model;
  readonly #source: Source;
  readonly #seen: Calibration;
  /** Of values that are not those of the same name in the model that runs. */
  readonly #views: ReadonlyMap<string, View>;
  /** What was seen of values that may come to be scaled, by their names in the model that runs. */
  readonly #kept = new Map<string, Summary[]>();
  #batches: number;

  private constructor(model: Model, source: Source, seen: Calibration, views: ReadonlyMap<string, View> = new Map()) {
    this.model = model;
    this.#source = source;
    this.#seen = seen;
    this.#views = views;
    this.#batches = seen.batches;
  }

  /** Of a model in the form that `prepareStatic` gives it, of which nothing was seen. */
  static of(model: Model, options: CalibrateOptions): Calibrator {
    const seen = nothingSeen(model);
    const axes = new Map<string, number>();
    for (const { value, axis } of scalingSites(model, { inserting: true }).flatMap(({ values }) => values)) {
      if ((seen.channels.get(value.name)?.axis ?? axis) === axis) axes.set(value.name, axis);
    }
    const axisOf = (name: string) => seen.channels.get(name)?.axis ?? axes.get(name);
    const summarized = new Map([...seen.activations.keys()].map((name) => [name, axisOf(name)]));
    const tapped = new TappedModel(model, seen.activations.keys(), options, { summarized });
    return new Calibrator(model, { tapped, axes }, seen);
  }

  /** Of the same model, loaded once for both, of which it has seen nothing. */
  beside(): Calibrator {
    return new Calibrator(this.model, this.#source, nothingSeen(this.model), this.#views);
  }

  /**
   * Of a model that differs from this one's in the `scaled` values, by name, or has more of them: it knows what that model would have shown for the same
   * samples. Either one may go on from there, but not both. Undefined where what was kept does not tell.
   */
  forked(model: Model, scaled: ReadonlyMap<string, ScaledValue>): Calibrator | undefined {
    const nothing = nothingSeen(model);
    const activations = new Map<string, ActivationObserver>();
    const channels = new Map<string, ChannelObserver>();
    const views = new Map<string, View>();
    for (const [name, fresh] of nothing.activations) {
      const { base, by } = scaled.get(name) ?? { base: name };
      const [known, knownChannels] = [this.#seen.activations.get(base), this.#seen.channels.get(base)];
      const freshChannels = nothing.channels.get(name);
      if (!known || (freshChannels && freshChannels.axis !== knownChannels?.axis)) return undefined;
      const view = this.#viewOf(base);
      const now = { ...view, by: by ? [...view.by, by] : view.by };
      views.set(name, now);
      activations.set(name, by ? fresh : known);
      if (freshChannels) channels.set(name, by ? freshChannels : knownChannels!);
      if (!by) continue;
      const kept = this.#kept.get(now.base) ?? [];
      if (kept.length < this.#batches) return undefined;
      for (const summary of kept) showScaled(summary, now, fresh, freshChannels);
    }
    const seen = { activations, channels, derived: nothing.derived, batches: this.#batches };
    const fork = new Calibrator(model, this.#source, seen, views);
    for (const [name, summaries] of this.#kept) fork.#kept.set(name, [...summaries]);
    return fork;
  }

  /** Goes on from what a calibrator of the same model has seen beside it. */
  merge(other: Calibrator): void {
    for (const [name, activation] of this.#seen.activations) activation.merge(other.#seen.activations.get(name)!);
    for (const [name, observer] of this.#seen.channels) observer.merge(other.#seen.channels.get(name)!);
    this.#batches += other.#batches;
  }

  /** What has been seen. It is no longer valid when more is. */
  get calibration(): Calibration {
    return { ...this.#seen, batches: this.#batches };
  }

  /**
   * Shows `batches` to all observers, and the outputs of the model that runs to `onOutputs`. What forks need is kept where it is asked for.
   */
  async observe(
    batches: AsyncIterable<Feeds>,
    { onOutputs, keep = false }: { readonly onOutputs?: OnOutputs; readonly keep?: boolean } = {},
  ): Promise<Calibration> {
    const readers = Map.groupBy(this.#seen.activations.keys(), (name) => this.#viewOf(name).base);
    const observers = new Map([...readers].map(([base, names]) => [base, this.#observerOf(base, names, keep)]));
    this.#batches += await this.#source.tapped.observe(observers, batches, onOutputs);
    return this.calibration;
  }

  /** Shows a value of the model that runs to all that are told by it. */
  #observerOf(base: string, names: readonly string[], keep: boolean): Observer {
    const axis = this.#source.axes.get(base);
    const of = names.map((name) => ({
      view: this.#viewOf(name),
      activation: this.#seen.activations.get(name)!,
      channels: this.#seen.channels.get(name),
    }));
    const [scaled, same] = [of.filter(({ view }) => view.by.length > 0), of.filter(({ view }) => view.by.length === 0)];
    const tell = (summary: Summary) => {
      for (const { view, activation, channels } of scaled) showScaled(summary, view, activation, channels);
      if (!keep || !summary.channels || axis === undefined) return;
      const kept = this.#kept.get(base) ?? [];
      // Of its own: it is cut out of a sample of all values.
      kept.push({ ...summary, sample: summary.sample.slice() });
      this.#kept.set(base, kept);
    };
    return {
      observe: (values, dims) => {
        for (const { activation } of same) activation.observe(values);
        if (axis === undefined || (scaled.length === 0 && !keep)) {
          for (const { channels } of same) channels?.observe(values, dims);
          return;
        }
        const summary = summaryOfWhole(values, dims, axis);
        for (const { channels } of same) channels?.observeSummary(summary);
        tell(summary);
      },
      observeSummary: (summary) => {
        for (const { activation, channels } of same) {
          activation.observeSummary(summary);
          channels?.observeSummary(summary);
        }
        tell(summary);
      },
    };
  }

  #viewOf(name: string): View {
    return this.#views.get(name) ?? { base: name, by: [] };
  }

  /** The outputs of the model that runs. */
  run(feeds: Feeds): Promise<Record<string, Tensor>> {
    return this.#source.tapped.run(feeds);
  }

  /** Frees the memory of the loaded model; it is loaded again when it has to run. */
  close(): Promise<void> {
    return this.#source.tapped.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Shows what becomes of a value by a view of it. */
function showScaled(
  summary: Summary,
  { by }: View,
  activation: ActivationObserver,
  channels: ChannelObserver | undefined,
): void {
  const scaled = by.reduce(scaledSummary, summary);
  activation.observeSummary(scaled);
  channels?.observeSummary(scaled);
}

function nothingSeen(model: Model): Calibration {
  const { units, aliases } = placeQuantizers(model);
  const activations = new Map<string, ActivationObserver>();
  const channels = new Map<string, ChannelObserver>();
  const derived = new Map(
    [...aliases].map(([value, { base, factor, shift }]) => [value.name, { base: base.name, factor, shift }]),
  );
  const nameOf = (value: Value) => derived.get(value.name)?.base ?? value.name;
  const watch = (value: Value) => {
    const name = nameOf(value);
    if (!activations.has(name)) activations.set(name, new ActivationObserver());
  };
  for (const { node, rule, outputs, quantized, reason } of units) {
    // Units that only lost out to their neighbours may be quantized under another placement.
    if (!quantized && !RECONSIDERED.has(reason!.code)) continue;
    for (const index of rule.activations(node)) {
      const input = node.inputs[index];
      if (input && !input.constant) watch(input);
    }
    for (const output of outputs) if (output.name !== "") watch(output);
    const operand = rule.weight?.(node);
    const name = operand && nameOf(node.inputs[rule.activations(node)[0]!]!);
    if (name !== undefined && !channels.has(name)) channels.set(name, new ChannelObserver(operand!.activationAxis));
  }
  for (const value of aliases.keys()) watch(value);
  // Under its own name: what an operator stretches is told by it.
  for (const { input } of stretchesIn(model)) {
    if (!activations.has(input.name)) activations.set(input.name, new ActivationObserver());
  }
  return { activations, derived, channels, batches: 0 };
}
