/**
 * Which parameters do nothing in some combinations with others. For every parameter it is said here when it is read: one that is added does not
 * compile until it is. A value that would have no effect is refused when a job is posted; the default may be sent, because it asks for nothing.
 */
import { type FieldError, pointerOf } from "../errors.ts";
import { canonicalJson } from "../identity.ts";
import { DistillParams } from "./distill/params.ts";
import type { JobSpec } from "./kinds.ts";
import { stepPointer } from "./pipeline/spec.ts";
import type { SingleSpec } from "./pipeline/steps.ts";
import { QuantizeParams } from "./quantize/params.ts";

type Json = Readonly<Record<string, unknown>>;

/** When a parameter is read, and what to say of it where it is not: "`name` is for …". */
interface Condition<P> {
  readonly isRead: (params: P, sent: Json) => boolean;
  readonly isFor: string;
}

export const ALWAYS = "always";

type Reading<P, T> = typeof ALWAYS | Condition<P> | (T extends object ? Readings<P, T> : never);
type Readings<P, T> = { readonly [K in keyof T]-?: Reading<P, NonNullable<T[K]>> };

type Quantization = QuantizeParams;
type QuantizationOf<M extends Quantization["method"]> = Extract<Quantization, { method: M }>;
type Loss = Extract<DistillParams, { mode: "offline" }>["loss"];

function onlyIf<P>(isRead: Condition<P>["isRead"], isFor: string): Condition<P> {
  return { isRead, isFor };
}

// ---- training --------------------------------------------------------------------------------------------------------

type Training = Extract<DistillParams, { mode: "offline" }>["training"];

function trainingReadings<P extends { readonly training: { readonly validation_split: number } }>() {
  return {
    epochs: ALWAYS,
    batch_size: ALWAYS,
    optimizer: ALWAYS,
    learning_rate: ALWAYS,
    schedule: ALWAYS,
    warmup_steps: ALWAYS,
    weight_decay: ALWAYS,
    gradient_clip: ALWAYS,
    validation_split: ALWAYS,
    average_decay: ALWAYS,
    update_rounding: ALWAYS,
    patience: onlyIf<P>(
      ({ training }) => training.validation_split > 0,
      "trainings that are validated: validation_split must be above 0",
    ),
    augmentation: ALWAYS,
  } as const satisfies Readings<P, Training>;
}

const FOR_OUTPUTS = "what is learned from outputs: kl_weight must be above 0";

/** Of the losses of a distillation from a teacher that stays as it is. */
function lossReadings<P>(lossOf: (params: P) => Loss): Readings<P, Loss> {
  const learns = (params: P, ...losses: readonly Loss["output_loss"][]) => {
    const { kl_weight, output_loss } = lossOf(params);
    return kl_weight > 0 && (losses.length === 0 || losses.includes(output_loss));
  };
  const forDkd = onlyIf<P>((params) => learns(params, "dkd"), "the output_loss dkd, with a kl_weight above 0");
  return {
    temperature: onlyIf((params) => learns(params, "kl", "dkd"), "the output_loss kl or dkd, with a kl_weight above 0"),
    kl_weight: ALWAYS,
    label_weight: ALWAYS,
    output_loss: onlyIf((params) => learns(params), FOR_OUTPUTS),
    label_smoothing: onlyIf(
      (params) => lossOf(params).label_weight > 0,
      "labels that are learned: label_weight must be above 0",
    ),
    ignore_label: ALWAYS,
    alpha: forDkd,
    beta: forDkd,
    hints: ALWAYS,
    outputs: ALWAYS,
  };
}

/** Of `temperature`, where outputs are always learned. */
function forKl<P extends { readonly loss: { readonly output_loss: string } }>() {
  return onlyIf<P>(({ loss }) => loss.output_loss === "kl", "the output_loss kl");
}

// ---- by method and mode ----------------------------------------------------------------------------------------------

const COMMON = { exclude_nodes: ALWAYS, exclude_ops: ALWAYS, seed: ALWAYS } as const;

const hasActivations = ({ bits }: QuantizationOf<"qat">) => bits.activations !== null;
const FOR_ACTIVATIONS = "activations that are quantized: bits.activations must not be null";

/** When the parameters of methods are read. */
export const QUANTIZATIONS: {
  readonly [M in Quantization["method"]]: Readings<QuantizationOf<M>, QuantizationOf<M>>;
} = {
  simplify: { method: ALWAYS, ...COMMON },
  float16: { method: ALWAYS, keep_io: ALWAYS, target: ALWAYS, ...COMMON },
  dynamic: { method: ALWAYS, weight_dtype: ALWAYS, per_channel: ALWAYS, target: ALWAYS, ...COMMON },
  static: {
    ...{ method: ALWAYS, dataset_id: ALWAYS, samples: ALWAYS, calibration: ALWAYS },
    // `auto` tries it at its default, and only for a result that is poor.
    percentile: onlyIf(({ calibration }) => calibration === "percentile", "the calibration percentile"),
    ...{ activation_dtype: ALWAYS, per_channel: ALWAYS, rounding: ALWAYS, candidates: ALWAYS, equalize: ALWAYS },
    ...{ smooth_quant_alpha: ALWAYS, bias_correction: ALWAYS, float_where_slower: ALWAYS, layers: ALWAYS },
    ...{ max_metric_drop: ALWAYS, min_sqnr_db: ALWAYS },
    max_trials: onlyIf(
      ({ max_metric_drop, min_sqnr_db }) => max_metric_drop !== null || min_sqnr_db !== null,
      "the search for max_metric_drop or min_sqnr_db, and neither is set",
    ),
    target: ALWAYS,
    ...COMMON,
  },
  weight_only: {
    ...{ method: ALWAYS, bits: ALWAYS, block_size: ALWAYS, symmetric: ALWAYS, algorithm: ALWAYS, rounding: ALWAYS },
    ...{ candidates: ALWAYS, dataset_id: ALWAYS },
    samples: onlyIf(
      ({ rounding }) => rounding !== "nearest",
      "roundings that look at samples: nearest looks at weights alone",
    ),
    ...{ format: ALWAYS, embeddings: ALWAYS },
    accuracy_level: onlyIf(({ format }) => format === "matmulnbits", "the format matmulnbits"),
    target: ALWAYS,
    ...COMMON,
  },
  qat: {
    ...{ method: ALWAYS, dataset_id: ALWAYS, bits: ALWAYS, algorithm: ALWAYS },
    teacher: onlyIf(
      ({ teacher, loss }) => teacher === null || loss!.kl_weight > 0 || loss!.hints.length > 0,
      "what is learned from it: loss.kl_weight must be above 0, or there must be hints",
    ),
    loss: lossReadings<QuantizationOf<"qat">>(({ loss }) => loss!),
    epochs: ALWAYS,
    training: {
      ...trainingReadings<QuantizationOf<"qat">>(),
      epochs: onlyIf(
        (_, sent) => (sent.epochs ?? null) === null || sent.epochs === at(sent, ["training", "epochs"]),
        "jobs that do not set epochs itself: set one of the two",
      ),
    },
    samples: onlyIf(hasActivations, FOR_ACTIVATIONS),
    calibration: onlyIf(hasActivations, FOR_ACTIVATIONS),
    percentile: onlyIf(
      (params) => hasActivations(params) && params.calibration === "percentile",
      "the calibration percentile",
    ),
    target: onlyIf(hasActivations, FOR_ACTIVATIONS),
    ...COMMON,
  },
};

type Of<M> = Extract<DistillParams, M>;

const TRAINED = { mode: ALWAYS, dataset_id: ALWAYS, student: ALWAYS, seed: ALWAYS } as const;
const LEARNED = { kl_weight: ALWAYS, label_weight: ALWAYS, label_smoothing: ALWAYS, ignore_label: ALWAYS } as const;

const OFFLINE: Readings<Of<{ mode: "offline" }>, Of<{ mode: "offline" }>> = {
  ...TRAINED,
  teacher_model_id: ALWAYS,
  loss: lossReadings(({ loss }) => loss),
  training: trainingReadings<Of<{ mode: "offline" }>>(),
  baseline: ALWAYS,
};

const ONLINE: Readings<Of<{ mode: "online" }>, Of<{ mode: "online" }>> = {
  ...TRAINED,
  ...{ teacher_model_id: ALWAYS, peers: ALWAYS, peer_students: ALWAYS, update: ALWAYS, baseline: ALWAYS },
  loss: { ...LEARNED, teacher_kl_weight: ALWAYS, output_loss: ALWAYS, temperature: forKl() },
  training: trainingReadings<Of<{ mode: "online" }>>(),
};

const SELF: {
  readonly [K in Of<{ mode: "self" }>["self_kind"]]: Readings<Of<{ self_kind: K }>, Of<{ self_kind: K }>>;
} = {
  born_again: {
    ...TRAINED,
    ...{ self_kind: ALWAYS, generations: ALWAYS, average: ALWAYS },
    loss: { ...LEARNED, output_loss: ALWAYS, temperature: forKl() },
    training: trainingReadings<Of<{ self_kind: "born_again" }>>(),
  },
  be_your_own_teacher: {
    ...TRAINED,
    ...{ self_kind: ALWAYS, exit_values: ALWAYS, keep_exits: ALWAYS, baseline: ALWAYS },
    exits: onlyIf(
      ({ exit_values }) => exit_values === null,
      "exits that are not named: exit_values says which there are",
    ),
    loss: {
      ...LEARNED,
      temperature: ALWAYS,
      feature_weight: onlyIf(
        ({ exits, exit_values }) => (exit_values?.length ?? exits) > 1,
        "exits but the first, and there is one",
      ),
    },
    training: trainingReadings<Of<{ self_kind: "be_your_own_teacher" }>>(),
  },
  mean_teacher: {
    ...TRAINED,
    ...{ self_kind: ALWAYS, baseline: ALWAYS },
    loss: { ...LEARNED, output_loss: ALWAYS, temperature: forKl() },
    training: trainingReadings<Of<{ self_kind: "mean_teacher" }>>(),
  },
};

function readingsOf(params: Quantization | DistillParams): Readings<never, object> {
  if ("method" in params) return QUANTIZATIONS[params.method];
  if (params.mode === "self") return SELF[params.self_kind];
  return params.mode === "online" ? ONLINE : OFFLINE;
}

// ---- checking --------------------------------------------------------------------------------------------------------

/** The parameters in `sent`, as they came, that would have no effect in a job of this spec. */
export function unreadParams(spec: JobSpec, sent: unknown): readonly FieldError[] {
  // Of these every parameter is read.
  if (spec.type === "evaluate" || spec.type === "auto") return [];
  if (spec.type !== "pipeline") return unreadOf(spec, asJson(sent));
  const steps = asJson(sent).steps as readonly unknown[];
  return spec.params.steps.flatMap((step, i) =>
    unreadOf(step, asJson(asJson(steps[i]).params)).map((field) => ({
      ...field,
      pointer: stepPointer(i, field.pointer),
    })),
  );
}

function unreadOf({ type, params }: Pick<SingleSpec, "type" | "params">, sent: Json): FieldError[] {
  const schema = type === "quantize" ? QuantizeParams : DistillParams;
  const isDefault = (path: readonly string[]) => {
    const parsed = schema.safeParse(without(sent, path));
    return parsed.success && canonicalJson(at(parsed.data, path)) === canonicalJson(at(sent, path));
  };
  const found: FieldError[] = [];
  const visit = (readings: Json, given: Json, path: readonly string[]): void => {
    for (const [name, reading] of Object.entries(readings)) {
      const here = [...path, name];
      if (given[name] === undefined || reading === ALWAYS) continue;
      const { isRead, isFor } = reading as Partial<Condition<typeof params>>;
      if (!isRead) visit(reading as Json, asJson(given[name]), here);
      else if (!isRead(params, sent) && !isDefault(here)) {
        const message = `${here.join(".")} would have no effect: it is for ${isFor}.`;
        found.push({ pointer: pointerOf("/params", here), code: "no_effect", message });
      }
    }
  };
  visit(readingsOf(params) as Json, sent, []);
  return found;
}

function asJson(value: unknown): Json {
  return typeof value === "object" && value !== null ? (value as Json) : {};
}

function at(value: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>((part, name) => asJson(part)[name], value);
}

function without(value: Json, [name, ...rest]: readonly string[]): Json {
  const { [name!]: inner, ...others } = value;
  return rest.length === 0 ? others : { ...others, [name!]: without(asJson(inner), rest) };
}
