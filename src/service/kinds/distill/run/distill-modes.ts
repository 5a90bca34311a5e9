import {
  averageModels,
  type BornAgainDistillation,
  checkObjective,
  checkOnline,
  checkOwnTeacher,
  comparedOutputs,
  type Distillation,
  type DistillationLoss,
  distillBornAgain,
  distillMeanTeacher,
  distillOffline,
  distillOnline,
  distillOwnTeacher,
  type Exit,
  type KeptOutputs,
  type MeanTeacherDistillation,
  type Model,
  type OfflineDistillation,
  type OnlineDistillation,
  OPTIMIZERS,
  type OwnTeacherDistillation,
  type PhaseHooks,
  SCHEDULES,
  type TrainedExit,
  type TrainingSettings,
} from "../../../../core/index.ts";
import { ignoredLabels } from "../labels.ts";
import {
  type DistillParams,
  type OfflineParams,
  type OnlineParams,
  offlineView,
  peersOf,
  type SelfParams,
} from "../params.ts";
import type { DistillSpec } from "../spec.ts";
import type { DistillInputs } from "./distill-inputs.ts";

/** What a mode makes. */
export type Trained = Distillation & { readonly exits?: readonly TrainedExit[] };

/** What a mode would train. */
export interface Planned {
  /** Those that are trained, by name; in generations, one. */
  readonly networks: readonly { readonly name: string; readonly model: Model }[];
  readonly exits: readonly Exit[];
  /** A model of the structure that the result will have; of peers that of the first. */
  readonly result: Model;
}

/** One mode of distillation, put together from a spec and what it reads. */
export interface DistillMode {
  /** `kept` is what other jobs have kept of a teacher that does not learn. */
  run(hooks: PhaseHooks, kept?: KeptOutputs): Promise<Trained>;
  /** Throws `CoreError` as `run` would, without training; its path begins at `params.loss`, or with `networks` or `exits`. */
  plan(hooks: Pick<PhaseHooks, "openSession">): Promise<Planned>;
}

/** The mode that a spec asks for. */
export function modeOf(spec: DistillSpec, inputs: DistillInputs, threads: number): DistillMode {
  const { params } = spec;
  const common = { inputs, loss: lossOf(spec), training: settingsOf(params, threads) };
  if (params.mode === "offline") return offlineMode(params, common);
  return params.mode === "online" ? onlineMode(params, common) : selfMode(params, common);
}

/** The ids of models that a mode trains besides its student and teacher. */
export function otherModels(params: DistillParams): readonly string[] {
  return params.mode === "online" ? params.peer_students.map(({ model_id }) => model_id) : [];
}

interface Common {
  readonly inputs: DistillInputs;
  readonly loss: DistillationLoss;
  readonly training: TrainingSettings;
}

function offlineMode(params: OfflineParams, { inputs, loss, training }: Common): DistillMode {
  const { student, samples } = inputs;
  const teacher = inputs.teacher?.model ?? null;
  const spec: OfflineDistillation = {
    teacher,
    student,
    reinitialize: isDrawnAnew(params.student),
    loss,
    training,
    samples,
    validationSplit: params.training.validation_split,
    evaluation: inputs.evaluation,
    metric: inputs.metric,
    baseline: params.baseline,
  };
  return {
    run: (hooks, kept) => distillOffline({ ...spec, kept }, hooks),
    async plan({ openSession }) {
      const batchSize = batchOf(inputs, training);
      await checkObjective({ teacher, student, loss, samples, batchSize }, { openSession, threads: 1 });
      return { networks: [{ name: "student", model: student }], exits: [], result: student };
    },
  };
}

/** What all modes but the first are given. */
function dataOf({ inputs }: Common, { training }: OnlineParams | SelfParams) {
  const { samples, evaluation, metricOf } = inputs;
  return { samples, evaluation, metricOf, validationSplit: training.validation_split };
}

function onlineMode(params: OnlineParams, common: Common): DistillMode {
  const { inputs, loss, training } = common;
  const { seed } = params;
  const teacher = inputs.teacher?.model;
  // Of peers that draw their weights anew each has a seed of its own, whatever the others do.
  const draw = (i: number, isDrawn: boolean) => ({ reinitializeSeed: isDrawn ? (seed + i) >>> 0 : undefined });
  const peers = peersOf(params).map(({ student, reinitialize }, i) => ({
    name: `peer_${i + 1}`,
    model: ("model_id" in student && inputs.others.get(student.model_id)) || inputs.student,
    ...draw(i, reinitialize),
  }));
  const taught = teacher && [
    { name: "student", model: inputs.student, ...draw(0, isDrawnAnew(params.student)) },
    { name: "teacher", model: teacher },
  ];
  const spec: OnlineDistillation = {
    ...dataOf(common, params),
    networks: taught ?? peers,
    teacher: teacher && "teacher",
    update: params.update,
    loss: { ...loss, klWeight: params.loss.kl_weight, teacherKlWeight: params.loss.teacher_kl_weight },
    training,
    baseline: params.baseline,
  };
  return {
    run: (hooks) => distillOnline(spec, hooks),
    async plan(hooks) {
      await checkOnline(spec, { ...hooks, batchSize: batchOf(inputs, training) });
      const networks = spec.networks.map(({ name, model }) => ({ name, model }));
      return { networks, exits: [], result: inputs.student };
    },
  };
}

function selfMode(params: SelfParams, common: Common): DistillMode {
  const { inputs, training } = common;
  const model = inputs.student;
  const reinitialize = isDrawnAnew(params.student);
  const data = { ...dataOf(common, params), model, reinitialize };
  const { kl_weight, label_weight } = params.loss;
  const loss = { ...common.loss, klWeight: kl_weight, labelWeight: label_weight };
  const network = (name: string): Planned => ({ networks: [{ name, model }], exits: [], result: model });
  /** Every generation, and a student of its own average, learns at least the labels. */
  const learnsLabels = async ({ openSession }: Pick<PhaseHooks, "openSession">, name: string) => {
    const learned = { teacher: null, student: model, loss: common.loss, samples: inputs.samples };
    await checkObjective({ ...learned, batchSize: batchOf(inputs, training) }, { openSession, threads: 1 });
    return network(name);
  };
  switch (params.self_kind) {
    case "born_again": {
      const { generations, average } = params;
      const spec: BornAgainDistillation = { ...data, loss, training, generations, average };
      return {
        run: (hooks) => distillBornAgain(spec, hooks),
        async plan(hooks) {
          const planned = await learnsLabels(hooks, "generation_1");
          if (!average) return planned;
          return {
            ...planned,
            result: averageModels(Array(generations).fill(model), comparedOutputs(model, model, loss)),
          };
        },
      };
    }
    case "be_your_own_teacher": {
      const spec: OwnTeacherDistillation = {
        ...data,
        training,
        loss: { ...loss, featureWeight: params.loss.feature_weight },
        exits: params.exit_values ?? params.exits,
        keepExits: params.keep_exits,
        baseline: params.baseline,
      };
      return {
        run: (hooks) => distillOwnTeacher(spec, hooks),
        async plan(hooks) {
          const found = await checkOwnTeacher(spec, { ...hooks, batchSize: batchOf(inputs, training) });
          const planned = { ...network("student"), exits: found.exits };
          return params.keep_exits ? { ...planned, result: found.model } : planned;
        },
      };
    }
    case "mean_teacher": {
      const averageDecay = params.training.average_decay;
      const spec: MeanTeacherDistillation = {
        ...data,
        loss,
        training: { ...training, averageDecay },
        baseline: params.baseline,
      };
      return {
        run: (hooks) => distillMeanTeacher(spec, hooks),
        plan: (hooks) => learnsLabels(hooks, "student"),
      };
    }
  }
}

/** Samples of one step. */
function batchOf({ counts }: DistillInputs, { batchSize }: TrainingSettings): number {
  return Math.min(batchSize, counts.training);
}

function isDrawnAnew(student: OfflineParams["student"]): boolean {
  return "model_id" in student && student.init === "reinitialize";
}

export function lossOf(spec: DistillSpec): DistillationLoss {
  const view = { ...spec, params: offlineView(spec.params) };
  const { loss } = view.params;
  return {
    ignoreLabel: ignoredLabels(view).training,
    temperature: loss.temperature,
    klWeight: loss.kl_weight,
    labelWeight: loss.label_weight,
    outputLoss: loss.output_loss,
    labelSmoothing: loss.label_smoothing,
    alpha: loss.alpha,
    beta: loss.beta,
    hints: loss.hints.map(({ heads, ...hint }) => (heads === undefined ? hint : { ...hint, heads })),
    ...(loss.outputs && { outputs: loss.outputs }),
  };
}

export function settingsOf(
  { training, seed }: Pick<DistillParams, "training" | "seed">,
  threads: number,
): TrainingSettings {
  const { augmentation } = training;
  return {
    epochs: training.epochs,
    batchSize: training.batch_size,
    optimizer: OPTIMIZERS[training.optimizer],
    learningRate: training.learning_rate,
    schedule: SCHEDULES[training.schedule],
    warmupSteps: training.warmup_steps,
    weightDecay: training.weight_decay,
    gradientClip: training.gradient_clip,
    averageDecay: training.average_decay,
    ...(training.update_rounding !== null && { updateRounding: training.update_rounding }),
    augmentation: augmentation && {
      input: augmentation.input,
      flip: augmentation.flip,
      shiftPixels: augmentation.shift_pixels,
      cutoutPixels: augmentation.cutout_pixels,
      fill: augmentation.fill,
    },
    patience: training.patience,
    seed,
    threads,
  };
}
