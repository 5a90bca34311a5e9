import type { JobMetrics } from "../../src/core/index.ts";
import type { Model } from "../../src/core/onnx/ir.ts";
import { type Tensor, tensorOf } from "../../src/core/onnx/tensor.ts";
import { Random } from "../../src/core/random.ts";
import { samplesOf, splitSamples } from "../../src/core/train/samples.ts";
import { DISTILL_RUN } from "../../src/service/kinds/distill/run/distill-job.ts";
import { writeNpz } from "./dataset-writers.ts";
import { type JobOptions, NO_PEAK, planJob, type Ran, runJob } from "./job-run.ts";

export type { Ran };

import { NetworkBuilder } from "./networks.ts";
import { runModel } from "./open-model.ts";
import { top1 } from "./top1.ts";

/** Distillation jobs on points around four centres, small enough for the process of a test. */

export const WIDTH = 8;
export const CLASSES = 4;

export interface Points {
  readonly x: Tensor;
  readonly labels: Tensor;
}

/** Points around four centres, half of which lie close together, so that not all are classified right. */
export function points(count: number, seed: number): Points {
  const random = new Random(seed, "points");
  const x = new Float32Array(count * WIDTH);
  random.fillNormal(x);
  const labels = BigInt64Array.from({ length: count }, () => BigInt(random.integer(CLASSES)));
  for (let i = 0; i < count; i++) x[i * WIDTH + Number(labels[i])]! += 1.5;
  return { x: tensorOf("float32", [count, WIDTH], x), labels: tensorOf("int64", [count], labels) };
}

/** x [n, 8] → logits [n, 4], with one hidden layer. */
export const network = (hidden: number, seed: number): Model => deeper([hidden], seed);

/** The same with as many hidden layers as widths. */
export function deeper(widths: readonly number[], seed: number): Model {
  const net = new NetworkBuilder(seed);
  let [x, from] = [net.input(["n", WIDTH]), WIDTH];
  for (const width of widths) {
    x = net.relu(net.linear(x, from, width));
    from = width;
  }
  return net.output(net.linear(x, from, CLASSES), ["n", CLASSES]);
}

export const parametersOf = (hidden: number) => WIDTH * hidden + hidden + hidden * CLASSES + CLASSES;

export const TRAINING = points(200, 1);
export const JUDGING = points(90, 2);
export const DATASETS = { train: writeNpz({ ...TRAINING }), judge: writeNpz({ ...JUDGING }) };
export const SPLIT = { epochs: 3, batch_size: 30, validation_split: 0.25, learning_rate: 0.1 };

export async function run(
  params: object,
  models: JobOptions["models"],
  more: Partial<JobOptions> & { readonly evaluation?: object } = {},
): Promise<Ran> {
  const { evaluation, ...rest } = more;
  return runJob(DISTILL_RUN, { ...optionsOf(params, models, evaluation), environment: NO_PEAK, ...rest });
}

const optionsOf = (params: object, models: JobOptions["models"], evaluation: object = {}): JobOptions => ({
  body: {
    type: "distill",
    params: { dataset_id: "train", training: SPLIT, ...params },
    evaluation: { dataset_id: "judge", layer_errors: false, latency: { runs: 2 }, ...evaluation },
  },
  models,
  datasets: DATASETS,
});

export const plan = (params: object, models: JobOptions["models"]) => planJob(DISTILL_RUN, optionsOf(params, models));

/** Share of the points that a model puts into their class, by any of its outputs. */
export async function scoreOf(model: Model, { x, labels }: Points = JUDGING, output = "logits"): Promise<number> {
  return top1((await runModel(model, { x }))[output]!, labels);
}

/** The points that a job holds out. */
export function heldOut(seed = 0): Points {
  const { validation } = splitSamples(samplesOf({ x: TRAINING.x }, { labels: TRAINING.labels }), 0.25, seed);
  const all = validation!.gather(Uint32Array.from({ length: validation!.count }, (_, i) => i));
  return { x: all.feeds.x!, labels: all.targets.labels! };
}

export const trainingOf = ({ metrics }: { metrics: JobMetrics }) => metrics.training!;
export const bytesOf = (ran: Ran, name = "model.onnx") => Buffer.from(ran.files.get(name)!).toString("base64");

/** The same without what depends on the time of day. */
export const untimed = (training: object) =>
  JSON.parse(JSON.stringify(training, (key, value) => (key === "samples_per_second" ? 0 : value)));

/** Of each epoch that was told of. */
export const epochsOf = ({ news }: Ran) =>
  news.flatMap((it) =>
    it.kind === "metric" && it.data.epoch !== undefined
      ? [`${it.data.phase} ${it.data.network ?? "-"} ${it.data.epoch} of ${it.data.epochs}`]
      : [],
  );

export const upTo = (epochs: number, phase: string, network = "-") =>
  Array.from({ length: epochs }, (_, i) => `${phase} ${network} ${i + 1} of ${epochs}`);
