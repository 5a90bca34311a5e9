/** How far the outputs of a quantized model are from those of the float model, on a few samples whose float outputs are kept. */
import { checkCancelled } from "../../errors.ts";
import type { Model } from "../../onnx/ir.ts";
import { floatsOf, isFloat, type Tensor } from "../../onnx/tensor.ts";
import type { CalibrateOptions, Feeds } from "../calibration/calibrate.ts";

export type OutputRunOptions = Pick<CalibrateOptions, "openModel" | "threads" | "signal">;

type Outputs = Readonly<Record<string, Tensor>>;

export class OutputReference {
  readonly #samples: readonly Feeds[];
  readonly #outputsOf: (sample: Feeds) => Promise<Outputs>;
  readonly #options: OutputRunOptions;
  #outputs: Promise<readonly Outputs[]> | undefined;

  /** `outputsOf`: what the float model gives out for a sample; asked once for each. */
  constructor(samples: readonly Feeds[], outputsOf: (sample: Feeds) => Promise<Outputs>, options: OutputRunOptions) {
    this.#samples = samples;
    this.#outputsOf = outputsOf;
    this.#options = options;
  }

  /** `outputs`: those of the float model, for each of the samples. */
  static of(samples: readonly Feeds[], outputs: readonly Outputs[], options: OutputRunOptions): OutputReference {
    const known = new Map(samples.map((sample, i) => [sample, outputs[i]!]));
    return new OutputReference(samples, async (sample) => known.get(sample)!, options);
  }

  /** Asks for the outputs of the float model, if that has not been done. */
  load(): Promise<readonly Outputs[]> {
    this.#outputs ??= this.#ask();
    return this.#outputs;
  }

  async #ask(): Promise<readonly Outputs[]> {
    const outputs: Outputs[] = [];
    for (const sample of this.#samples) outputs.push(await this.#outputsOf(sample));
    return outputs;
  }

  /**
   * 10·log10 of signal over noise, of the output that is worst: outputs of different size count alike. Integer outputs have no say; a model
   * without a float output, and one that is exact, has the answer Infinity. `beside`: the model runs on a thread of its own where there are several, for
   * the caller to go on meanwhile.
   */
  async sqnrDb(model: Model, { beside = false }: { readonly beside?: boolean } = {}): Promise<number> {
    const signal = new Map<string, number>();
    const noise = new Map<string, number>();
    const reference = await this.load();
    const ownThread = beside && (this.#options.threads ?? 1) > 1;
    const results = await runAll(model, this.#samples, this.#options, ownThread);
    results.forEach((outputs, i) => {
      for (const [name, expected] of Object.entries(reference[i]!)) {
        if (!isFloat(expected.dtype)) continue;
        const [x, y] = [floatsOf(expected), floatsOf(outputs[name]!)];
        let s = 0;
        let n = 0;
        for (let k = 0; k < x.length; k++) {
          // Infinities, which masks use, are no signal.
          if (x[k]! - x[k]! !== 0) continue;
          s += x[k]! * x[k]!;
          n += (x[k]! - y[k]!) ** 2;
        }
        signal.set(name, (signal.get(name) ?? 0) + s);
        noise.set(name, (noise.get(name) ?? 0) + n);
      }
    });
    let worst = Number.POSITIVE_INFINITY;
    for (const [name, n] of noise) {
      const ratio = n === 0 ? Number.POSITIVE_INFINITY : signal.get(name)! / n;
      // NaN: the quantized model gives out something that is no number.
      worst = Number.isNaN(ratio) ? 0 : Math.min(worst, ratio);
    }
    return 10 * Math.log10(worst);
  }
}

async function runAll(
  model: Model,
  samples: readonly Feeds[],
  { openModel, threads, signal }: OutputRunOptions,
  ownThread: boolean,
): Promise<Record<string, Tensor>[]> {
  const alone = threads === undefined ? {} : { threads };
  const session = await openModel(model, ownThread ? { threads: 1, ownThread } : alone);
  try {
    const outputs: Record<string, Tensor>[] = [];
    for (const feeds of samples) {
      checkCancelled(signal);
      outputs.push(await session.run(feeds, undefined, signal));
    }
    return outputs;
  } finally {
    await session.close();
  }
}
