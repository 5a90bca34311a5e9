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
  observeRanges,
  planOf,
  removeDeadCode,
  runPasses,
  simplifyPasses,
  type ValueRanges,
} from "../../../../core/index.ts";
import type { JobRequest } from "../../../../tasks/protocol.ts";
import type { Compressed, JobEnvironment } from "../../run/job-environment.ts";
import type { MadeModel } from "../../run/job-result.ts";
import type { JobContext, JobSteps } from "../../run/job-steps.ts";
import type { QuantizeSpec } from "../spec.ts";

export type Float16Spec = QuantizeSpec & { readonly params: { readonly method: "float16" } };

/** All values are looked at on so many samples at most, and for so long: a large model shows its ranges on a few. */
const MAX_SAMPLES = 64;
const BUDGET_MS = 20_000;

/** What an evaluation does, where it has to happen once more to look inside the model. */
type Judging = Pick<JobRequest<Float16Spec>, "spec" | "threads" | "models">;

/**
 * Converts a model to float16. What float16 cannot hold is seen on the samples that the result will be judged by: the model runs on some
 * of them first, and stays in float32 where its values leave the range. Throws `CoreError` as the evaluation does.
 */
export async function compressFloat16Job(
  request: Judging,
  original: Model,
  exclude: Exclusions,
  data: MadeModel["data"],
  environment: JobEnvironment,
  { signal }: JobContext,
  steps: JobSteps<string>,
): Promise<Compressed> {
  const simple = runPasses(original, simplifyPasses());
  const simplified = simple.notes.map(asSimplified);
  const look = (limit: Limit) => rangesOf(request, simple.model, data, limit, environment, signal, steps);
  const make = (ranges: ValueRanges, exclude: Exclusions): Compressed => {
    const { keep_io: keepIo } = request.spec.params;
    const { model, notes } = runPasses(simple.model, [float16Pass({ keepIo, exclude, ranges }), removeDeadCode]);
    return {
      model,
      notes,
      simplified,
      reference: simple.model,
      plan: planOf(notes),
      warnings: rangeWarnings(simple.model, ranges),
      leaving: (nodes) => make(ranges, { ...exclude, nodes: [...exclude.nodes, ...nodes] }),
    };
  };
  const seen = await look({ samples: MAX_SAMPLES, ms: BUDGET_MS });
  return {
    ...make(seen.ranges, exclude),
    reconsidered: seen.isAll
      ? undefined
      : async () =>
          make((await look({ samples: Number.POSITIVE_INFINITY, ms: Number.POSITIVE_INFINITY })).ranges, exclude),
  };
}

interface Limit {
  readonly samples: number;
  readonly ms: number;
}

/** The ranges of all values on the first samples, and whether these are all. */
async function rangesOf(
  { spec, threads, models }: Judging,
  model: Model,
  data: MadeModel["data"],
  limit: Limit,
  { openSession, openTemporary }: JobEnvironment,
  signal: AbortSignal,
  steps: JobSteps<string>,
): Promise<{ readonly ranges: ValueRanges; readonly isAll: boolean }> {
  const session = await openSession({ path: models[spec.model_id]!.files[0]!.path }, { threads });
  let isAll = true;
  try {
    const judging = { data, spec: { ...spec.evaluation, metric: null }, seed: spec.params.seed, signal };
    const inputs = await evaluationInputs(judging, session);
    const start = performance.now();
    const batches = async function* (): AsyncGenerator<Feeds> {
      let samples = 0;
      for await (const batch of inputs.batches()) {
        checkCancelled(signal);
        isAll = samples < limit.samples && (samples === 0 || performance.now() - start < limit.ms);
        if (!isAll) return;
        steps.progress("observe", samples / Math.min(limit.samples, inputs.samples), "Looking at the range of values");
        yield feedsFor(session.inputs, batch.feeds);
        samples += batch.count;
      }
    };
    return { ranges: await observeRanges(model, batches(), { openModel: openTemporary, threads, signal }), isAll };
  } catch (error) {
    // What these inputs are to the model itself is said when it is run on them, in the evaluation.
    if (error instanceof CoreError && error.code === "invalid_dataset" && data === undefined) {
      return { ranges: new Map(), isAll: true };
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
