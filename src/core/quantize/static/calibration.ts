/** What is seen of a float model's activations: all that its quantized models are made from. */
import type { Model, Value } from "../../onnx/ir.ts";
import type { Tensor } from "../../onnx/tensor.ts";
import type { Affine } from "../../operators/operator-record.ts";
import { type CalibrateOptions, type Feeds, type OnOutputs, TappedModel } from "../calibration/calibrate.ts";
import { ActivationObserver, ChannelObserver, type Observer } from "../calibration/observers.ts";
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

/** Calibrates a model in several passes, loaded once. */
export class Calibrator {
  readonly model: Model;
  readonly #options: CalibrateOptions;
  readonly #activations: ReadonlyMap<string, ActivationObserver>;
  readonly #derived: Calibration["derived"];
  readonly #channels: ReadonlyMap<string, ChannelObserver>;
  readonly #tapped: TappedModel;
  #batches: number;

  private constructor(model: Model, seen: Calibration, options: CalibrateOptions, like?: TappedModel) {
    this.model = model;
    this.#options = options;
    this.#activations = seen.activations;
    this.#derived = seen.derived;
    this.#channels = seen.channels;
    this.#batches = seen.batches;
    const summarized = new Map([...seen.activations.keys()].map((name) => [name, seen.channels.get(name)?.axis]));
    this.#tapped = new TappedModel(model, seen.activations.keys(), options, { summarized, like });
  }

  /** Of a model in the form that `prepareStatic` gives it, of which nothing was seen. */
  static of(model: Model, options: CalibrateOptions): Calibrator {
    return new Calibrator(model, nothingSeen(model), options);
  }

  /**
   * Of a model that differs from this one's in the values of the given names, or has more of them, and was shown the same samples: of all other
   * values it knows what was seen here. Either one may go on from there, but not both. The new one has `unseen` to observe.
   */
  forked(
    model: Model,
    changed: ReadonlySet<string>,
  ): { readonly calibrator: Calibrator; readonly unseen: Set<string> } {
    const nothing = nothingSeen(model);
    const knownOr = <T>(known: ReadonlyMap<string, T>, all: ReadonlyMap<string, T>) =>
      new Map([...all].map(([name, fresh]) => [name, changed.has(name) ? fresh : (known.get(name) ?? fresh)]));
    const activations = knownOr(this.#activations, nothing.activations);
    const channels = knownOr(this.#channels, nothing.channels);
    const seen = { activations, channels, derived: nothing.derived, batches: this.#batches };
    const unseen = new Set(
      [...activations].flatMap(([name, it]) => (this.#activations.get(name) === it ? [] : [name])),
    );
    return { calibrator: new Calibrator(model, seen, this.#options, this.#tapped), unseen };
  }

  /** What has been seen. It is no longer valid when more is. */
  get calibration(): Calibration {
    return {
      activations: this.#activations,
      derived: this.#derived,
      channels: this.#channels,
      batches: this.#batches,
    };
  }

  /**
   * Shows `batches` to all observers, or to those of the given names, which have not seen them yet; and the outputs of the model to `onOutputs`.
   */
  async observe(
    batches: AsyncIterable<Feeds>,
    { only, onOutputs }: { readonly only?: ReadonlySet<string>; readonly onOutputs?: OnOutputs } = {},
  ): Promise<Calibration> {
    const observers = new Map<string, Observer>();
    for (const [name, activation] of this.#activations) {
      if (only && !only.has(name)) continue;
      const channels = this.#channels.get(name);
      observers.set(name, {
        observe: (values, dims) => {
          activation.observe(values);
          channels?.observe(values, dims);
        },
        observeSummary: (summary) => {
          activation.observeSummary(summary);
          channels?.observeSummary(summary);
        },
      });
    }
    const count = await this.#tapped.observe(observers, batches, onOutputs);
    if (!only) this.#batches += count;
    return this.calibration;
  }

  /** The outputs of the model. */
  run(feeds: Feeds): Promise<Record<string, Tensor>> {
    return this.#tapped.run(feeds);
  }

  /** Frees the memory of the loaded model; it is loaded again when it has to run. */
  close(): Promise<void> {
    return this.#tapped.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
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
