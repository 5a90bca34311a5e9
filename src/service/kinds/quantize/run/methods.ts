/** The methods of quantization: one record each, of which everything that differs between them is read. */
import {
  asSimplified,
  dynamicPass,
  type Exclusions,
  type Model,
  type Pass,
  type Provision,
  planOf,
  removeDeadCode,
  runPasses,
  simplifyFully,
  simplifyPasses,
  unfuse,
  type WeightUse,
  weightOnlyPass,
} from "../../../../core/index.ts";
import type { JobInputs, JobRequest } from "../../../../tasks/protocol.ts";
import type { Compressed, JobEnvironment } from "../../run/job-environment.ts";
import type { MadeModel } from "../../run/job-result.ts";
import type { JobContext, JobSteps } from "../../run/job-steps.ts";
import { excludeWorst, type Remedy } from "../../run/remedies.ts";
import { isRounded, type QuantizeSpec } from "../spec.ts";
import { TARGETS, type TargetName } from "../targets.ts";
import { lookingAtSamples, openSamples } from "./calibration-samples.ts";
import { compressFloat16Job, planFloat16Job } from "./float16-job.ts";
import { planQatJob, trainQatJob } from "./qat-job.ts";
import { compressRoundedJob, weightOptions } from "./rounded-job.ts";
import { compressStaticJob, planStaticJob } from "./static-job.ts";

type Params = QuantizeSpec["params"];
type ParamsOf<M extends Params["method"]> = Extract<Params, { method: M }>;
type SpecOf<P extends Params> = QuantizeSpec & { readonly params: P };

/** What a method is given: a job, and its model in the type that the method starts from. */
export interface MethodCall<P extends Params> {
  readonly request: JobInputs<SpecOf<P>>;
  readonly original: Model;
  readonly exclude: Exclusions;
  readonly environment: JobEnvironment;
  readonly context: JobContext;
  /** The job's own data to judge by, if it has any. */
  readonly evaluationData: () => Promise<MadeModel["data"]>;
}

export interface RunningCall<P extends Params> extends MethodCall<P> {
  readonly request: JobRequest<SpecOf<P>>;
  readonly steps: JobSteps<string>;
}

export interface Planned extends Pick<Compressed, "model" | "notes" | "plan" | "calibrated" | "warnings"> {
  readonly provisional?: readonly Provision[];
}

/** Another job on the same model, whose result is smaller. */
interface Smaller {
  readonly title: string;
  readonly why: string;
  /** Its parameters, with a dataset of this job or a place to put one's id. */
  readonly change: (dataset: string) => Readonly<Record<string, unknown>>;
}

const QUARTER: Smaller = {
  title: "Smaller: 8-bit weights",
  why: "A quarter of the bytes of float32, without data.",
  change: () => ({ method: "weight_only", bits: 8 }),
};
const EIGHTH_BY_GPTQ: Smaller = {
  title: "Smaller still: 4-bit weights, rounded by GPTQ on samples",
  why: "About half the bytes of 8 bits. GPTQ keeps much of what rounding to nearest loses.",
  change: (dataset) => ({ method: "weight_only", bits: 4, algorithm: "gptq", dataset_id: dataset }),
};
const EIGHTH_BY_TRAINING: Smaller = {
  title: "Smaller still: 4-bit weights, trained with the rounding in them",
  why: "Weights of 4 bits need training to stay accurate; the float model itself teaches, without labels.",
  change: (dataset) => ({ method: "qat", dataset_id: dataset, bits: { weights: 4 } }),
};

export interface Method<P extends Params> {
  /** Shares of the whole job that have passed when each step begins, in ascending order. */
  readonly steps: (spec: SpecOf<P>) => Readonly<Record<string, number>>;
  /** Whether models of narrower floats are taken to float32 first. */
  readonly startsFromFloat32: boolean;
  /** What it is meant for, and has to say something of: every layer with weights, or what it changes. */
  readonly speaksOf: "layers" | "changes";
  /** What can be tried when a result differs too much from the original, the most promising first. */
  readonly remedies: (params: P) => readonly Remedy[];
  /** Whether most of what it makes computes in float, which 8 bits make faster. */
  readonly staysInFloat: boolean;
  /** What is smaller still. */
  readonly smaller?: (params: P) => Smaller | undefined;
  readonly compress: (call: RunningCall<P>) => Promise<Compressed>;
  /** A model of the nodes and the size that `compress` would make; what needs all of the data is not right yet. */
  readonly plan: (call: MethodCall<P>) => Promise<Planned>;
}

const EXCLUDE_WORST = "exclude_nodes with the layers that lose most";

/** The signal to noise ratio to ask for where the result was too poor. */
function wantedDb({ min_sqnr_db }: ParamsOf<"static">): number {
  return typeof min_sqnr_db === "number" ? min_sqnr_db : 25;
}

/** The shares of a job whose method is a pass: most of it is judging the result. */
const PASS_STEPS = { load: 0, compress: 0.02, write: 0.05, evaluate: 0.3, report: 0.98 } as const;

export const METHODS: { readonly [M in Params["method"]]: Method<ParamsOf<M>> } = {
  simplify: {
    steps: () => PASS_STEPS,
    startsFromFloat32: false,
    speaksOf: "changes",
    remedies: () => [{ text: "leave the nodes that were fused as they are (exclude_nodes)" }],
    staysInFloat: true,
    smaller: () => QUARTER,
    compress: (call) => compressing(call, () => applySimplify(call)),
    plan: applySimplify,
  },
  float16: {
    steps: () => ({ load: 0, observe: 0.02, write: 0.2, evaluate: 0.35, report: 0.98 }),
    startsFromFloat32: false,
    speaksOf: "layers",
    remedies: (params) => [excludeWorst("leave the layers that lose most in float32 (exclude_nodes)", params)],
    staysInFloat: true,
    smaller: () => QUARTER,
    compress: async ({ request, original, exclude, environment, context, steps, evaluationData }) =>
      compressFloat16Job(request, original, exclude, await evaluationData(), environment, context, steps),
    plan: async ({ request, original, exclude, environment, context, evaluationData }) =>
      planFloat16Job(request, original, exclude, await evaluationData(), environment, context),
  },
  dynamic: {
    steps: () => PASS_STEPS,
    startsFromFloat32: true,
    speaksOf: "layers",
    remedies: (params) => [
      excludeWorst("leave the layers that lose most in float (exclude_nodes)", params),
      {
        text: "weight_only with 8 bits, whose activations stay in float",
        change: () => ({ method: "weight_only", bits: 8 }),
      },
      {
        text: "static with samples of your data",
        change: ({ dataset }) => ({ method: "static", dataset_id: dataset }),
      },
    ],
    // Of most models only the products compute in 8 bits.
    staysInFloat: true,
    smaller: () => EIGHTH_BY_TRAINING,
    compress: (call) => compressing(call, () => applyPasses(call)),
    plan: async (call) => applyPasses(call),
  },
  weight_only: {
    steps: (spec) =>
      isRounded(spec) ? { load: 0, round: 0.02, write: 0.5, evaluate: 0.55, report: 0.98 } : PASS_STEPS,
    startsFromFloat32: true,
    speaksOf: "layers",
    remedies: weightOnlyRemedies,
    staysInFloat: true,
    smaller: ({ bits }) => (bits === 8 ? EIGHTH_BY_GPTQ : undefined),
    compress(call) {
      const { request, original, exclude, environment, context, steps } = call;
      const { spec } = request;
      if (!isRounded(spec)) return compressing(call, () => applyPasses(call));
      const rounded = { ...request, spec };
      return lookingAtSamples(rounded, environment, context, () =>
        compressRoundedJob(rounded, original, exclude, environment, context, steps),
      );
    },
    async plan(call) {
      const { request, environment } = call;
      const { spec, models } = request;
      const planned = applyPasses(call);
      if (!isRounded(spec)) return planned;
      const samples = await openSamples({ ...request, spec }, models[spec.model_id]!.facts, environment);
      return { ...planned, calibrated: samples.calibrated };
    },
  },
  static: {
    steps: () => ({
      ...{ load: 0, prepare: 0.01, equalize: 0.05, calibrate: 0.15, kernels: 0.27, round: 0.3, correct: 0.35 },
      ...{ rank: 0.4, control: 0.5, write: 0.6, evaluate: 0.62, report: 0.98 },
    }),
    startsFromFloat32: true,
    speaksOf: "layers",
    remedies: (params) => [
      {
        text: "min_sqnr_db or max_metric_drop, which leave in float what costs most",
        change: () => ({ ...params, min_sqnr_db: params.max_metric_drop === null ? wantedDb(params) : null }),
      },
      {
        text: "more samples, like those that the model will see",
        change: () => ({ ...params, samples: Math.min(100_000, 4 * params.samples) }),
      },
      excludeWorst(EXCLUDE_WORST, params),
      { text: "dynamic or weight_only", change: () => ({ method: "weight_only", bits: 8 }) },
    ],
    staysInFloat: false,
    smaller: () => EIGHTH_BY_TRAINING,
    compress: ({ request, original, exclude, environment, context, steps }) =>
      lookingAtSamples(request, environment, context, () =>
        compressStaticJob(request, original, exclude, environment, context, steps),
      ),
    async plan({ request, original, exclude, environment, context }) {
      const { spec, models } = request;
      const planned = await lookingAtSamples(request, environment, context, () =>
        planStaticJob(request, original, exclude, environment, context),
      );
      const samples = await openSamples(request, models[spec.model_id]!.facts, environment);
      return { ...planned, calibrated: samples.calibrated };
    },
  },
  qat: {
    steps: () => ({
      ...{ load: 0, read: 0.01, prepare: 0.02, equalize: 0.025, calibrate: 0.03, round: 0.05, correct: 0.08 },
      ...{ train: 0.1, write: 0.88, evaluate: 0.89, report: 0.99 },
    }),
    startsFromFloat32: true,
    speaksOf: "layers",
    remedies: (params) => [
      {
        text: "more epochs, or more samples",
        change: () => ({ ...params, epochs: Math.min(500, 3 * params.training.epochs) }),
      },
      {
        text: "a larger learning_rate, which weights of few bits need",
        change: () => ({
          ...params,
          training: { ...params.training, learning_rate: 3 * params.training.learning_rate! },
        }),
      },
      {
        text: "more bits, for weights or activations",
        change: () =>
          params.bits.weights === 8 && params.bits.activations === 8
            ? undefined
            : { ...params, bits: { weights: params.bits.weights === 2 ? 4 : 8, activations: 8 } },
      },
      excludeWorst(EXCLUDE_WORST, params),
    ],
    staysInFloat: false,
    compress: ({ request, original, exclude, environment, context, steps }) =>
      trainQatJob(request, original, exclude, environment, context, steps),
    async plan({ request, original, exclude, environment, context }) {
      const planned = await planQatJob(request, original, exclude, environment, context);
      // Scales are learned: no more is decided than what becomes of nodes.
      return { ...planned, plan: planOf(planned.notes) };
    },
  },
};

/** The method of a job. What its name is settles what its parameters are. */
export function methodOfJob({ params }: QuantizeSpec): Method<Params> {
  return METHODS[params.method] as unknown as Method<Params>;
}

function compressing<P extends Params>(call: RunningCall<P>, apply: () => Compressed | Promise<Compressed>) {
  return call.steps.run("compress", `Applying ${call.request.spec.params.method}`, apply);
}

function weightOnlyRemedies(params: ParamsOf<"weight_only">): readonly Remedy[] {
  const { bits, rounding, block_size } = params;
  const smaller: Remedy = {
    text: "a smaller block_size",
    change: () => (block_size! > 16 ? { ...params, block_size: block_size! / 2 } : undefined),
  };
  const exclude = excludeWorst(EXCLUDE_WORST, params);
  if (bits === 8) return [smaller, exclude];
  const { block_size: _, ...rest } = params;
  return [
    rounding === "nearest"
      ? {
          text: "algorithm gptq with samples of your data",
          change: ({ dataset }) => ({ ...params, algorithm: "gptq", rounding: "gptq", dataset_id: dataset }),
        }
      : { text: "more samples", change: () => ({ ...params, samples: Math.min(100_000, 4 * params.samples) }) },
    { text: "8 bits", change: () => ({ ...rest, bits: 8 }) },
    smaller,
    exclude,
  ];
}

// ---- methods that are passes -----------------------------------------------------------------------------------------

type PassParams = ParamsOf<"dynamic" | "weight_only">;

type PassOf<P> = (
  params: P,
  target: TargetName,
  exclude: Exclusions,
  onWeights: (uses: readonly WeightUse[]) => void,
) => Pass;

/** The passes that do what methods are named for. */
const PASSES: { readonly [M in PassParams["method"]]: PassOf<Extract<PassParams, { method: M }>> } = {
  dynamic: (params, target, exclude, onWeights) =>
    dynamicPass({ perChannel: params.per_channel, reduceRange: TARGETS[target].reduceRange, exclude }, onWeights),
  weight_only: (params, _target, exclude, onWeights) =>
    weightOnlyPass(weightOptions(params, exclude), undefined, onWeights),
};

/** Constants are computed by onnxruntime, as they would be at every load of the model. */
async function applySimplify({
  original,
  exclude,
  environment: { openTemporary },
  context: { signal },
}: MethodCall<ParamsOf<"simplify">>): Promise<Compressed> {
  const evaluate = async (constants: Model) => {
    const session = await openTemporary(constants);
    try {
      return await session.run({}, undefined, signal);
    } finally {
      await session.close();
    }
  };
  const { model, notes } = await simplifyFully(original, { evaluate, exclude, signal });
  return { model, notes, simplified: [], reference: original, plan: planOf(notes) };
}

function applyPasses(call: MethodCall<PassParams>): Compressed {
  const { original, exclude, environment } = call;
  const { params } = call.request.spec;
  const pass = PASSES[params.method] as PassOf<PassParams>;
  const simple = runPasses(original, [...simplifyPasses(), unfuse], { settle: true });
  const uses: WeightUse[] = [];
  const { model, notes } = runPasses(simple.model, [
    pass(params, params.target === "auto" ? environment.host.target : params.target, exclude, (found) =>
      uses.push(...found),
    ),
    removeDeadCode,
  ]);
  return {
    model,
    notes,
    simplified: simple.notes.map(asSimplified),
    reference: simple.model,
    plan: planOf(notes, uses),
    leaving: (nodes) => applyPasses({ ...call, exclude: { ...exclude, nodes: [...exclude.nodes, ...nodes] } }),
  };
}
