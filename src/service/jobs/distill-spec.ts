import { z } from "zod";

/** The parameters of training and distillation. */

export const Seed = z
  .int()
  .min(0)
  .max(2 ** 32 - 1)
  .default(0)
  .meta({ description: "Seed of every random choice." });

export const IgnoreLabel = z
  .int()
  .min(-(2 ** 31))
  .max(2 ** 31 - 1)
  .nullable()
  .default(null)
  .meta({
    description:
      "The label of what has none (often -100 or -1): it counts neither in losses nor in metrics. In a distillation the one of `loss` and the " +
      "one of `evaluation` stand in for each other where only one is given.",
  });

const ValueName = z.string().min(1).max(1024);
const Share = z.number().gt(0).lt(1);
const Weight = z.number().min(0).max(1e6);

const UploadedStudent = z
  .strictObject({
    model_id: z.string(),
    init: z.enum(["keep", "reinitialize"]).default("keep").meta({
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
    kind: z.enum(["mse", "cosine", "attention", "rkd_distance", "rkd_angle", "relation", "attention_map"]),
    weight: Weight,
    heads: z
      .int()
      .min(1)
      .max(1024)
      .optional()
      .meta({ description: "Of `relation`: how many parts states are cut into." }),
  })
  .meta({ id: "Hint", description: "A value inside the student that is to become like one inside the teacher." });

export const DistillLoss = z
  .strictObject({
    temperature: z.number().gt(0).max(1000).default(4),
    kl_weight: Weight.default(0.9).meta({ description: "Of the teacher's outputs. 0 trains on labels alone." }),
    label_weight: Weight.default(0.1).meta({ description: "Of the labels. Must be 0 for a dataset without any." }),
    output_loss: z.enum(["kl", "dkd", "mse", "huber", "cosine"]).default("kl").meta({
      description: "How outputs are compared: `kl` and `dkd` are for class scores, the others for any numbers.",
    }),
    label_smoothing: z.number().min(0).lt(1).default(0),
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
    optimizer: z.enum(["sgd", "adam", "adamw"]).default("adamw").meta({ description: "`sgd` has a momentum of 0.9." }),
    learning_rate: z.number().gt(0).max(100).default(0.005),
    schedule: z.enum(["constant", "step", "cosine", "onecycle"]).default("onecycle"),
    warmup_steps: z.int().min(0).max(1_000_000).default(0),
    weight_decay: z.number().min(0).max(10).default(0.0001),
    gradient_clip: z.number().gt(0).nullable().default(null).meta({ description: "Largest norm of the gradient." }),
    validation_split: z.number().min(0).max(0.9).default(0.1).meta({
      description: "Share of the samples that is held out, to keep the weights of the epoch that is best on them.",
    }),
    average_decay: z.number().gt(0).lt(1).nullable().default(null).meta({
      description: "Decay of a moving average of the weights, which is then validated and exported.",
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
  .meta({ id: "OfflineDistillParams", title: "offline distillation" });

export const DistillParams = z.discriminatedUnion("mode", [OfflineDistillParams]).meta({ id: "DistillParams" });
