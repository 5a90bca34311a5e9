import { z } from "zod";
import { UPDATE_ROUNDINGS } from "../../../core/contract.ts";
import { IgnoreLabel, Seed } from "../evaluation.ts";

/** The parameters of training and distillation. */

const ValueName = z.string().min(1).max(1024);
const Share = z.number().gt(0).lt(1);
const Weight = z.number().min(0).max(1e6);

const UploadedStudent = z
  .strictObject({
    model_id: z.string(),
    init: z.enum(["keep", "reinitialize"]).meta({ id: "StudentInit" }).default("keep").meta({
      description: "`keep`: start from the weights in the file. `reinitialize`: draw new ones from the seed.",
    }),
  })
  .meta({ id: "UploadedStudent" });

const Derivation = z
  .union(
    [
      z.strictObject({ keep_layers: Share }).meta({ id: "DeriveLayers", description: "Share of the repeated blocks." }),
      z.strictObject({ width: Share }).meta({ id: "DeriveWidth", description: "Share of the channels." }),
      z
        .strictObject({ rank: Share })
        .meta({ id: "DeriveRank", description: "Share of the parameters that factorized layers keep." }),
    ],
    { error: "must be one of { keep_layers }, { width } and { rank }, a share between 0 and 1" },
  )
  .meta({ id: "Derivation", description: "How the student is made from the teacher, with its weights." });

const DerivedStudent = z.strictObject({ derive: Derivation }).meta({ id: "DerivedStudent" });

const Hint = z
  .strictObject({
    teacher: ValueName,
    student: ValueName,
    kind: z
      .enum(["mse", "cosine", "attention", "rkd_distance", "rkd_angle", "relation", "attention_map"])
      .meta({ id: "HintKind" }),
    weight: Weight,
    heads: z
      .int()
      .min(1)
      .max(1024)
      .optional()
      .meta({ description: "Of `relation`: how many parts states are cut into." }),
  })
  .refine(({ kind, heads }) => kind === "relation" || heads === undefined, {
    path: ["heads"],
    error: "is for hints of the kind relation alone",
  })
  .meta({ id: "Hint", description: "A value inside the student that is to become like one inside the teacher." });

const Temperature = z.number().gt(0).max(1000);
const Smoothing = z.number().min(0).lt(1).default(0);

const OUTPUT_LOSS =
  "How outputs are compared: `kl` is for class scores and for shares, of which each is compared by itself; the others are for any numbers. Null: `kl` where it can be, else `mse` (`meaning` of the models' outputs).";

export const DistillLoss = z
  .strictObject({
    temperature: Temperature.default(4),
    kl_weight: Weight.default(0.9).meta({ description: "Of the teacher's outputs. 0 trains on labels alone." }),
    label_weight: Weight.default(0.1).meta({ description: "Of the labels. Must be 0 for a dataset without any." }),
    output_loss: z
      .enum(["kl", "dkd", "mse", "huber", "cosine"])
      .meta({ id: "TeacherLossKind" })
      .nullable()
      .default(null)
      .meta({ description: OUTPUT_LOSS.replace("; the others", "; `dkd` is for class scores; the others") }),
    label_smoothing: Smoothing,
    ignore_label: IgnoreLabel,
    alpha: Weight.default(1).meta({ description: "Of `dkd`: the weight of the target class." }),
    beta: Weight.default(8).meta({ description: "Of `dkd`: the weight of all other classes." }),
    hints: z.array(Hint).max(100).default([]),
    outputs: z
      .array(z.strictObject({ teacher: ValueName, student: ValueName }).meta({ id: "OutputPair" }))
      .min(1)
      .max(100)
      .nullable()
      .default(null)
      .meta({
        description: "Which outputs mean the same; null pairs them by name, or the only one with the only one.",
      }),
  })
  .meta({ id: "DistillLoss" });

const Augmentation = z
  .strictObject({
    input: ValueName,
    flip: z.boolean().default(false).meta({ description: "Mirror half of the images left to right." }),
    shift_pixels: z.int().min(0).max(1024).default(0),
    cutout_pixels: z.int().min(0).max(4096).default(0).meta({ description: "Side of a square that is blanked." }),
    fill: z.number().default(0).meta({ description: "What black is in the dataset." }),
  })
  .meta({ id: "Augmentation", description: "Random changes of the images [N, C, H, W] of one input." });

const Training = z
  .strictObject({
    epochs: z.int().min(1).max(500).default(10),
    batch_size: z.int().min(1).max(65_536).default(128),
    optimizer: z
      .enum(["sgd", "adam", "adamw"])
      .meta({ id: "OptimizerName" })
      .default("adamw")
      .meta({ description: "`sgd` has a momentum of 0.9." }),
    learning_rate: z.number().gt(0).max(100).default(0.005),
    schedule: z.enum(["constant", "step", "cosine", "onecycle"]).meta({ id: "ScheduleName" }).default("onecycle"),
    warmup_steps: z.int().min(0).max(1_000_000).default(0),
    weight_decay: z.number().min(0).max(10).default(0.0001),
    gradient_clip: z.number().gt(0).nullable().default(null).meta({ description: "Largest norm of the gradient." }),
    validation_split: z.number().min(0).max(0.9).default(0.1).meta({
      description: "Share of the samples that is held out, to keep the weights of the epoch that is best on them.",
    }),
    average_decay: z.number().gt(0).lt(1).nullable().default(null).meta({
      description: "Decay of a moving average of the weights, which is then validated and exported.",
    }),
    update_rounding: z.enum(UPDATE_ROUNDINGS).meta({ id: "UpdateRounding" }).nullable().default(null).meta({
      description:
        "Keeps weights in bfloat16 while they are trained, and says how an update is rounded to it: `stochastic` up or down by chance, so that small updates are kept on average, `nearest` loses those below half a step. Null keeps float32.",
    }),
    patience: z.int().min(1).max(500).nullable().default(null).meta({
      description: "Stop after so many epochs without a better one.",
    }),
    augmentation: Augmentation.nullable().default(null),
  })
  .meta({ id: "Training" });

/** To a model that is trained already, with the rounding in it. */
export const QatTraining = Training.extend({
  epochs: Training.shape.epochs.unwrap().default(3),
  batch_size: Training.shape.batch_size.unwrap().default(64),
  learning_rate: Training.shape.learning_rate.unwrap().optional().meta({
    description: "When it is not given: 0.0001 for weights of 8 bits, 0.001 for fewer, which have further to go.",
  }),
  schedule: Training.shape.schedule.unwrap().default("cosine"),
  weight_decay: Training.shape.weight_decay.unwrap().default(0),
}).meta({ id: "QatTraining" });

export const OfflineDistillParams = z
  .strictObject({
    mode: z.literal("offline"),
    teacher_model_id: z.string().nullable().default(null).meta({
      description: "Any model that runs: it need not be trainable. Null, with `kl_weight` 0, is plain training.",
    }),
    dataset_id: z.string().meta({ description: "What is trained on." }),
    student: z.union([UploadedStudent, DerivedStudent], {
      error: "must be { model_id, init } or { derive: { keep_layers | width | rank } }",
    }),
    loss: DistillLoss.prefault({}),
    training: Training.prefault({}),
    baseline: z.boolean().default(false).meta({
      description:
        "Also train the same student from the same start on the labels alone, to measure what the teacher adds.",
    }),
    seed: Seed,
  })
  .meta({ id: "OfflineDistillParams" });

const Positive = z.number().gt(0).max(1e6);

/** How one network's outputs are compared with another's that learns at the same time. */
const OutputLoss = z
  .enum(["kl", "mse", "huber", "cosine"])
  .meta({ id: "OutputLossKind" })
  .nullable()
  .default(null)
  .meta({ description: OUTPUT_LOSS });

const OnlineLoss = z
  .strictObject({
    temperature: Temperature.default(1),
    kl_weight: Positive.default(1).meta({ description: "Of what a network learns from the others." }),
    label_weight: Positive.default(1).meta({ description: "Of the labels, for every network." }),
    teacher_kl_weight: Weight.default(0).meta({
      description:
        "Of what the teacher learns from the student. For peers it must be 0: they all learn by `kl_weight`.",
    }),
    output_loss: OutputLoss,
    label_smoothing: Smoothing,
    ignore_label: IgnoreLabel,
  })
  .meta({ id: "OnlineLoss" });

const MAX_PEERS = 8;

export const OnlineDistillParams = z
  .strictObject({
    mode: z.literal("online"),
    dataset_id: z.string().meta({ description: "What is trained on; it must have labels." }),
    teacher_model_id: z.string().nullable().default(null).meta({
      description: "A teacher that is trained along and must be trainable. Null: peers teach each other.",
    }),
    student: z.union([UploadedStudent, DerivedStudent], {
      error: "must be { model_id, init } or { derive: { keep_layers | width | rank } }",
    }),
    peers: z
      .int()
      .min(2)
      .max(MAX_PEERS)
      .nullable()
      .default(null)
      .meta({
        description:
          "How many networks teach each other: the student, `peer_students`, and for the rest copies of the student with weights of their own. " +
          "Null is 2, or as many as `peer_students` make; with a teacher it must be null.",
      }),
    peer_students: z
      .array(UploadedStudent)
      .max(MAX_PEERS - 1)
      .default([])
      .meta({ description: "Peers of other architectures, or of the same from other weights." }),
    update: z.enum(["simultaneous", "alternating"]).meta({ id: "PeerUpdate" }).default("simultaneous").meta({
      description:
        "`simultaneous`: all networks are updated from the same values in one step. `alternating`: in turn, each from what the others answer by then.",
    }),
    loss: OnlineLoss.prefault({}),
    training: Training.prefault({}),
    baseline: z.boolean().default(false).meta({
      description: "Also train the student from the same start on the labels alone, to measure what the others add.",
    }),
    seed: Seed,
  })
  .meta({ id: "OnlineDistillParams" });

/** What the kinds of self distillation have in common. */
const SELF = {
  mode: z.literal("self"),
  dataset_id: z.string().meta({ description: "What is trained on; it must have labels." }),
  student: UploadedStudent,
};

const BornAgainLoss = z
  .strictObject({
    temperature: Temperature.default(1),
    kl_weight: Positive.default(1).meta({ description: "Of the generation before, from the second one on." }),
    label_weight: Weight.default(1).meta({ description: "Of the labels, from the second generation on." }),
    output_loss: OutputLoss,
    label_smoothing: Smoothing,
    ignore_label: IgnoreLabel,
  })
  .meta({ id: "BornAgainLoss" });

const BornAgainParams = z
  .strictObject({
    ...SELF,
    self_kind: z.literal("born_again"),
    generations: z.int().min(2).max(10).default(3).meta({
      description:
        "At the most: one that is no better than the one before is the last. The first learns from labels alone.",
    }),
    average: z.boolean().default(false).meta({
      description: "Make one model of all generations that answers with their mean: as many times as large and slow.",
    }),
    loss: BornAgainLoss.prefault({}),
    training: Training.prefault({}),
    seed: Seed,
  })
  .meta({ id: "BornAgainParams" });

const OwnTeacherLoss = z
  .strictObject({
    temperature: Temperature.default(3),
    kl_weight: Positive.default(0.1).meta({ description: "Of the last layer's answers, for each exit." }),
    label_weight: Weight.default(0.9).meta({ description: "Of the labels, for each exit; the last layer's is 1." }),
    feature_weight: Weight.default(0.03).meta({
      description: "Of the last layer's features, for each exit but the first.",
    }),
    label_smoothing: Smoothing,
    ignore_label: IgnoreLabel,
  })
  .meta({ id: "OwnTeacherLoss" });

const OwnTeacherParams = z
  .strictObject({
    ...SELF,
    self_kind: z.literal("be_your_own_teacher"),
    exits: z.int().min(1).max(8).default(3).meta({ description: "How many exits at the most, at the ends of stages." }),
    exit_values: z.array(ValueName).min(1).max(8).nullable().default(null).meta({
      description: "The values that exits are to read, instead of a number of them.",
    }),
    keep_exits: z.boolean().default(false).meta({
      description:
        "Keep the exits as further outputs `exit_1`, `exit_2`, …; otherwise they are dropped after training.",
    }),
    loss: OwnTeacherLoss.prefault({}),
    training: Training.prefault({}),
    baseline: z.boolean().default(false).meta({
      description: "Also train the network from the same start without exits, to measure what they add.",
    }),
    seed: Seed,
  })
  .meta({ id: "OwnTeacherParams" });

const MeanTeacherLoss = z
  .strictObject({
    temperature: Temperature.default(1),
    kl_weight: Positive.default(1).meta({ description: "Of the average's answers." }),
    label_weight: Positive.default(1),
    output_loss: OutputLoss,
    label_smoothing: Smoothing,
    ignore_label: IgnoreLabel,
  })
  .meta({ id: "MeanTeacherLoss" });

const MeanTeacherTraining = Training.extend({
  average_decay: z.number().gt(0).lt(1).default(0.99).meta({
    description: "Decay of the moving average of the weights, which teaches, is validated and exported.",
  }),
}).meta({ id: "MeanTeacherTraining" });

const MeanTeacherParams = z
  .strictObject({
    ...SELF,
    self_kind: z.literal("mean_teacher"),
    loss: MeanTeacherLoss.prefault({}),
    training: MeanTeacherTraining.prefault({}),
    baseline: z.boolean().default(false).meta({
      description: "Also train the network from the same start on the labels alone, without an average.",
    }),
    seed: Seed,
  })
  .meta({ id: "MeanTeacherParams" });

export const SelfDistillParams = z
  .discriminatedUnion("self_kind", [BornAgainParams, OwnTeacherParams, MeanTeacherParams])
  .meta({ id: "SelfDistillParams" });

export const DistillParams = z
  .discriminatedUnion("mode", [OfflineDistillParams, OnlineDistillParams, SelfDistillParams])
  .meta({ id: "DistillParams" });

export type DistillParams = z.output<typeof DistillParams>;
export type OfflineParams = z.output<typeof OfflineDistillParams>;
export type OnlineParams = z.output<typeof OnlineDistillParams>;
export type SelfParams = z.output<typeof SelfDistillParams>;

/**
 * The offline distillation that reads the same models and data and learns the same labels: what holds for its networks, data and labels
 * holds for the other modes as well. What their networks learn from each other is not in it, unless there is a teacher.
 */
export function offlineView(params: DistillParams): OfflineParams {
  if (params.mode === "offline") return params;
  const { dataset_id, student, training, seed, loss } = params;
  const teacher = params.mode === "online" ? params.teacher_model_id : null;
  const isFirstGeneration = params.mode === "self" && params.self_kind === "born_again";
  return {
    mode: "offline",
    teacher_model_id: teacher,
    dataset_id,
    student,
    loss: {
      temperature: loss.temperature,
      kl_weight: teacher === null ? 0 : loss.kl_weight,
      label_weight: isFirstGeneration ? 1 : loss.label_weight,
      output_loss: "output_loss" in loss ? loss.output_loss : null,
      label_smoothing: loss.label_smoothing,
      ignore_label: loss.ignore_label,
      alpha: 1,
      beta: 8,
      hints: [],
      outputs: null,
    },
    training,
    baseline: false,
    seed,
  };
}

/** Of peers that teach each other: what each starts from. Those that are not named are copies of the student with weights of their own. */
export function peersOf({ student, peers, peer_students }: OnlineParams): readonly {
  readonly student: OnlineParams["student"];
  readonly reinitialize: boolean;
}[] {
  const named = [student, ...peer_students];
  const count = Math.max(peers ?? 2, named.length);
  return Array.from({ length: count }, (_, i) => {
    const own = named[i] ?? student;
    return { student: own, reinitialize: i >= named.length || ("init" in own && own.init === "reinitialize") };
  });
}
