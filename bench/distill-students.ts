/**
 * Students made from a teacher in each of the three ways, before and after distilling: a residual CNN on MNIST whose four equal blocks,
 * channels and kernels can all be made fewer. Accuracies are of the 10,000 test images.
 *
 *   node bench/distill-students.ts [samples] [epochs] [threads]
 */
import { DISTILLATION_LOSS } from "../src/core/distill/objective.ts";
import { distillOffline } from "../src/core/distill/offline.ts";
import { type Derivation, deriveStudent, parameterCount } from "../src/core/distill/student.ts";
import type { Model } from "../src/core/onnx/ir.ts";
import { openSession } from "../src/core/runtime/session.ts";
import { NetworkBuilder } from "../test/support/networks.ts";
import { mnist, mnistSettings, TOP1 } from "./mnist.ts";

const [count = "60000", epochs = "3", threads = "2"] = process.argv.slice(2);
const samples = mnist("training", Number(count));
const evaluation = mnist("test");
const training = mnistSettings({ epochs: Number(epochs), threads: Number(threads) });

function residualNetwork(): Model {
  const width = 32;
  const net = new NetworkBuilder();
  let x = net.maxPool(net.relu(net.batchNorm(net.conv(net.input(["n", 1, 28, 28]), 1, width), width)));
  for (let block = 0; block < 4; block++) {
    const inner = net.relu(net.batchNorm(net.conv(x, width, width), width));
    x = net.relu(net.g.add(net.batchNorm(net.conv(inner, width, width), width), x));
  }
  return net.output(net.linear(net.globalAverage(net.maxPool(x)), width, 10), ["n", 10]);
}

const common = { training, samples, validationSplit: 0.05, evaluation, metric: TOP1, baseline: false } as const;
const labels = { ...DISTILLATION_LOSS, klWeight: 0, labelWeight: 1 };
const start = residualNetwork();
const taught = await distillOffline(
  { ...common, teacher: null, student: start, reinitialize: true, loss: labels },
  { openSession },
);
const teacher = taught.student;
const percent = (x: number) => `${(100 * x).toFixed(2)} %`;
console.log(`teacher: ${parameterCount(teacher)} parameters, ${percent(taught.metrics!.studentAfter)}`);

for (const derivation of [{ keepLayers: 0.5 }, { width: 0.5 }, { rank: 0.5 }] satisfies Derivation[]) {
  const derived = await deriveStudent(teacher, derivation, { openSession, threads: Number(threads), samples });
  const { metrics } = await distillOffline(
    { ...common, teacher, student: derived.model, reinitialize: false, loss: DISTILLATION_LOSS },
    { openSession },
  );
  const share = derived.parameters.student / derived.parameters.teacher;
  console.log(
    `${JSON.stringify(derivation).padEnd(18)} ${derived.parameters.student} parameters (${percent(share)}): ` +
      `${percent(metrics!.studentBefore)} before, ${percent(metrics!.studentAfter)} after`,
  );
}
