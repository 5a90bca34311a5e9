/** When the parameters of trainings are read. */
import type { FieldError } from "../../errors.ts";
import { ALWAYS, onlyIf, type Readings, unreadParams } from "../unread-params.ts";
import { DistillParams } from "./params.ts";
import type { DistillSpec } from "./spec.ts";

type Loss = Extract<DistillParams, { mode: "offline" }>["loss"];

type Training = Extract<DistillParams, { mode: "offline" }>["training"];

export function trainingReadings<P extends { readonly training: { readonly validation_split: number } }>() {
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
export function lossReadings<P>(lossOf: (params: P) => Loss): Readings<P, Loss> {
  const learns = (params: P, ...losses: readonly Loss["output_loss"][]) => {
    const { kl_weight, output_loss } = lossOf(params);
    return kl_weight > 0 && (losses.length === 0 || losses.includes(output_loss ?? "kl"));
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
function forKl<P extends { readonly loss: { readonly output_loss: string | null } }>() {
  return onlyIf<P>(({ loss }) => (loss.output_loss ?? "kl") === "kl", "the output_loss kl");
}

// ---- by mode -----

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

function readingsOf(params: DistillParams): Readings<never, object> {
  if (params.mode === "self") return SELF[params.self_kind];
  return params.mode === "online" ? ONLINE : OFFLINE;
}

export function unread({ params }: Pick<DistillSpec, "params">, sent: unknown): readonly FieldError[] {
  return unreadParams(DistillParams, readingsOf(params), params, sent);
}
