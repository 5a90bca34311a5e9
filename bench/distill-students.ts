/**
 * Students made from a teacher in each of the three ways, before and after distilling: a residual CNN on MNIST whose four equal blocks,
 * channels and kernels can all be made fewer. The teacher is trained first, on all 60,000 images, or read from the file when it is there; the
 * students see fewer of them. Accuracies are of the 10,000 test images, which nothing was chosen by.
 *
 *   node bench/distill-students.ts TEACHER.onnx [samples] [epochs] [threads]
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { DISTILLATION_LOSS } from "../src/core/distill/objective.ts";
import { distillOffline } from "../src/core/distill/offline.ts";
import { type Derivation, deriveStudent } from "../src/core/distill/student.ts";
import type { Model } from "../src/core/onnx/ir.ts";
import { loadModel } from "../src/core/onnx/load.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { openSession } from "../src/core/runtime/session.ts";
import { NetworkBuilder } from "../test/support/networks.ts";
import { mnist, mnistSettings, TOP1 } from "./mnist.ts";

const [path, count = "30000", epochs = "3", threads = "2"] = process.argv.slice(2);
if (!path) throw new Error("Where is the teacher kept? node bench/distill-students.ts TEACHER.onnx");
const evaluation = mnist("test");
const training = mnistSettings({ epochs: Number(epochs), threads: Number(threads) });

function residualNetwork(): Model {
  const width = 32;
  const net = new NetworkBuilder();
  let x = net.maxPool(net.relu(net.batchNorm(net.conv(net.input(["n", 1, 28, 28]), 1, width), width)));
  x = net.maxPool(net.relu(net.batchNorm(net.conv(x, width, width), width)));
  for (let block = 0; block < 4; block++) {
    const inner = net.relu(net.batchNorm(net.conv(x, width, width), width));
    x = net.relu(net.g.add(net.batchNorm(net.conv(inner, width, width), width), x));
  }
  return net.output(net.linear(net.globalAverage(x), width, 10), ["n", 10]);
}

const common = { training, validationSplit: 0.05, evaluation, metric: TOP1, baseline: false } as const;
const percent = (x: number) => `${(100 * x).toFixed(2)} %`;

if (!existsSync(path)) {
  const { student } = await distillOffline(
    {
      ...common,
      samples: mnist("training"),
      teacher: null,
      student: residualNetwork(),
      reinitialize: true,
      loss: { ...DISTILLATION_LOSS, klWeight: 0, labelWeight: 1 },
    },
    { openSession },
  );
  writeFileSync(path, modelToBytes(student));
}
const teacher = loadModel(readFileSync(path));
const samples = mnist("training", Number(count));

for (const derivation of [{ keepLayers: 0.5 }, { width: 0.5 }, { rank: 0.5 }] satisfies Derivation[]) {
  const derived = await deriveStudent(teacher, derivation, { openSession, threads: Number(threads), samples });
  const { metrics } = await distillOffline(
    { ...common, samples, teacher, student: derived.model, reinitialize: false, loss: DISTILLATION_LOSS },
    { openSession },
  );
  const { teacher: best, studentBefore, studentAfter } = metrics!;
  const share = derived.parameters.student / derived.parameters.teacher;
  console.log(
    `teacher ${derived.parameters.teacher} parameters, ${percent(best!)}; ${JSON.stringify(derivation)}: ` +
      `${derived.parameters.student} (${percent(share)}), ${percent(studentBefore)} before, ${percent(studentAfter)} after`,
  );
}
