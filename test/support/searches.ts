import { createHash } from "node:crypto";
import type { AutoCandidate } from "../../src/core/index.ts";
import { bundleSha256 } from "../../src/service/identity.ts";
import { AUTO_RUN } from "../../src/service/kinds/auto/run/auto-job.ts";
import { writeNpz } from "./dataset-writers.ts";
import { type JobOptions, NO_PEAK, type Ran, runJob } from "./job-run.ts";
import { DATASETS, deeper, points } from "./points.ts";

/** Searches in the process of a test, on a perceptron and points around four centres. */

export const TRAINING = 400;
const MODELS = { own: deeper([32, 32], 1) };
export const GIVEN = { ...DATASETS, train: writeNpz({ ...points(TRAINING, 1) }) };

export const optionsOf = (params: object, evaluation: object = {}, more: Partial<JobOptions> = {}): JobOptions => ({
  body: {
    ...{ type: "auto", model_id: "own", params: { dataset_id: "train", ...params } },
    evaluation: { latency: { runs: 3 }, ...evaluation },
  },
  ...{ models: MODELS, datasets: GIVEN, environment: NO_PEAK, ...more },
});

export const search = (...given: Parameters<typeof optionsOf>) => runJob(AUTO_RUN, optionsOf(...given));
export const candidatesOf = ({ metrics }: Ran) => metrics.auto!.candidates;
export const named = (ran: Ran, name: string): AutoCandidate => candidatesOf(ran).find((it) => it.name === name)!;
export const progressOf = ({ news }: Ran) => news.flatMap((it) => (it.kind === "progress" ? [it.progress] : []));
export const triedOf = ({ news }: Ran) =>
  news.flatMap((it) => (it.kind === "metric" && it.data.candidate !== undefined ? [it.data] : []));
export const sha256Of = (bytes: Uint8Array) =>
  bundleSha256([{ name: "model.onnx", sha256: createHash("sha256").update(bytes).digest("hex") }]);

export const budget = (candidates: number) => ({ budget: { seconds: 200, candidates } });
/** Of quality nothing is foretold: everything is tried. */
export const ALL = { objective: "metric" };
/** Methods that measure nothing while they make a model. */
export const STEADY = { ...ALL, methods: ["dynamic", "weight_only", "float16", "simplify"] };
