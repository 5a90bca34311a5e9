import {
  asSimplified,
  CoreError,
  checkCancelled,
  type Exclusions,
  evaluationInputs,
  type Feeds,
  feedsFor,
  float16Pass,
  largestUnfit,
  type Model,
  type Note,
  observeRanges,
  type Provision,
  planOf,
  removeDeadCode,
  runPasses,
  simplifyPasses,
  type ValueRanges,
} from "../../../../core/index.ts";
import type { JobInputs, JobRequest } from "../../../../tasks/protocol.ts";
import type { Compressed, JobEnvironment } from "../../run/job-environment.ts";
import type { MadeModel } from "../../run/job-result.ts";
import type { JobContext, JobSteps } from "../../run/job-steps.ts";
import type { QuantizeSpec } from "../spec.ts";

export type Float16Spec = QuantizeSpec & { readonly params: { readonly method: "float16" } };

/** All values are looked at on so many samples at most, and for so long: a large model shows its ranges on a few. */
const MAX_SAMPLES = 64;
const BUDGET_MS = 20_000;

/** A plan is waited for. */
const PLAN_BUDGET_MS = 5000;

/** What an evaluation does, where it has to happen once more to look inside the model. */
interface Judging extends Pick<JobInputs<Float16Spec>, "spec" | "models"> {
  readonly threads?: number;
}

/**
 * Converts a model to float16. What float16 cannot hold is seen on the samples that the result will be judged by: the model runs on some
 * of them first, and stays in float32 where its values leave the range. Throws `CoreError` as the evaluation does.
 */
export async function compressFloat16Job(
  request: JobRequest<Float16Spec>,
  original: Model,
  exclude: Exclusions,
  data: MadeModel["data"],
  environment: JobEnvironment,
  { signal }: JobContext,
  steps: JobSteps<string>,
): Promise<Compressed> {
  const conversion = new Float16Conversion(original, request.spec, exclude);
  const onProgress = (fraction: number) => steps.progress("observe", fraction, "Looking at the range of values");
  const look = (limit: Limit) => rangesOf(request, conversion.model, data, limit, environment, signal, onProgress);
  const seen = await look({ samples: MAX_SAMPLES, ms: BUDGET_MS });
  return {
    ...conversion.with(seen.ranges),
    reconsidered: seen.isAll
      ? undefined
      : async () =>
          conversion.with((await look({ samples: Number.POSITIVE_INFINITY, ms: Number.POSITIVE_INFINITY })).ranges),
  };
}

/** What `compressFloat16Job` does. It looks at the samples that the job looks at, unless that takes too long for a plan. */
export async function planFloat16Job(
  request: JobInputs<Float16Spec>,
  original: Model,
  exclude: Exclusions,
  data: MadeModel["data"],
  environment: JobEnvironment,
  { signal }: Pick<JobContext, "signal">,
): Promise<Compressed & { readonly provisional: readonly Provision[] }> {
  const conversion = new Float16Conversion(original, request.spec, exclude);
  const limit = { samples: MAX_SAMPLES, ms: PLAN_BUDGET_MS };
  const { ranges, samples, all } = await rangesOf(request, conversion.model, data, limit, environment, signal);
  const most = Math.min(all, MAX_SAMPLES);
  const message = `Ranges were looked at on ${samples} samples, and the job looks at up to ${most}: nodes whose values leave the range of float16 on others stay in float32.`;
  return {
    ...conversion.with(ranges),
    provisional: samples < most ? [{ code: "ranges_from_few", message, nodes: [] }] : [],
  };
}

/** A model that is simple, and what becomes of it by the ranges of its values. */
class Float16Conversion {
  readonly model: Model;
  readonly #simplified: readonly Note[];
  readonly #keepIo: boolean;
  readonly #exclude: Exclusions;

  constructor(original: Model, { params }: Float16Spec, exclude: Exclusions) {
    const simple = runPasses(original, simplifyPasses(), { settle: true });
    this.model = simple.model;
    this.#simplified = simple.notes.map(asSimplified);
    this.#keepIo = params.keep_io;
    this.#exclude = exclude;
  }

  with(ranges: ValueRanges, nodes: Iterable<string> = []): Compressed {
    const exclude = { ...this.#exclude, nodes: [...this.#exclude.nodes, ...nodes] };
    const pass = float16Pass({ keepIo: this.#keepIo, exclude, ranges });
    const { model, notes } = runPasses(this.model, [pass, removeDeadCode]);
    return {
      ...{ model, notes, simplified: this.#simplified, reference: this.model, plan: planOf(notes) },
      warnings: rangeWarnings(this.model, ranges),
      leaving: (nodes) => this.with(ranges, nodes),
    };
  }
}

interface Limit {
  readonly samples: number;
  readonly ms: number;
}

interface SeenRanges {
  readonly ranges: ValueRanges;
  /** Samples that were looked at, and how many there are. */
  readonly samples: number;
  readonly all: number;
  readonly isAll: boolean;
}

/** The ranges of all values on the samples that are looked at first. */
async function rangesOf(
  { spec, threads, models }: Judging,
  model: Model,
  data: MadeModel["data"],
  limit: Limit,
  { openSession, openTemporary }: JobEnvironment,
  signal: AbortSignal,
  onProgress?: (fraction: number) => void,
): Promise<SeenRanges> {
  const options = threads === undefined ? {} : { threads };
  const session = await openSession({ path: models[spec.model_id]!.files[0]!.path }, options);
  let [isAll, samples] = [true, 0];
  try {
    const judging = { data, spec: { ...spec.evaluation, metric: null }, seed: spec.params.seed, signal };
    const inputs = await evaluationInputs(judging, session);
    const start = performance.now();
    const batches = async function* (): AsyncGenerator<Feeds> {
      for await (const batch of inputs.batches()) {
        checkCancelled(signal);
        isAll = samples < limit.samples && (samples === 0 || performance.now() - start < limit.ms);
        if (!isAll) return;
        onProgress?.(samples / Math.min(limit.samples, inputs.samples));
        yield feedsFor(session.inputs, batch.feeds);
        samples += batch.count;
      }
    };
    const ranges = await observeRanges(model, batches(), { openModel: openTemporary, ...options, signal });
    return { ranges, samples, all: inputs.samples, isAll };
  } catch (error) {
    // What these inputs are to the model itself is said when it is run on them, in the evaluation.
    if (error instanceof CoreError && error.code === "invalid_dataset" && data === undefined) {
      return { ranges: new Map(), samples: 0, all: 0, isAll: true };
    }
    throw error;
  } finally {
    await session.close();
  }
}

function rangeWarnings(model: Model, ranges: ValueRanges): NonNullable<Compressed["warnings"]> {
  const found = largestUnfit(model.nodes(), ranges);
  if (!found) return [];
  const { value, node, largest, count } = found;
  const others = count === 1 ? "It" : `It and ${count - 1} other values`;
  return [
    {
      code: "float16_range",
      message:
        `"${value}", the result of "${node.label}" (${node.opType}), reaches ${largest.toPrecision(4)} on the samples; float16 ends at 65504. ` +
        `${others} stayed in float32, with the nodes that make or read what is so large.`,
      value: largest,
    },
  ];
}
