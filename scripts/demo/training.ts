import { mnistFile, NETWORKS } from "../../test/support/mnist.ts";
import type { Client, Job, JobEvent } from "./client.ts";

/** The part of the demo that trains: a teacher for handwritten digits from scratch, and a student of a tenth of its size. */

const IMAGES = 8_000;
const TEST_IMAGES = 2_000;

export interface Trained {
  readonly name: string;
  readonly job: Job;
}

/** What came of a job, in a line. */
export function describeTrained({ name, job }: Trained): string {
  const training = job.result?.metrics.training;
  if (!training) return `${name}: ${job.status}${job.error ? `: ${job.error.detail}` : ""}`;
  const percent = (share: number | null) => `${(100 * (share ?? 0)).toFixed(1)} %`;
  const kilobytes = (job.result.metrics.size.after_bytes / 1000).toFixed(1);
  const baseline =
    training.baseline_metric === null ? "" : `; without its teacher it learns ${percent(training.baseline_metric)}`;
  return (
    `${name}, ${kilobytes} kB: ${percent(training.student_metric)} of ${training.metric_samples} test digits read right, ` +
    `${percent(training.student_before_metric)} before training${baseline}`
  );
}

/** Runs both jobs; `onEvent` is told what each of them says while it trains. */
export async function trainAndDistill(
  client: Client,
  onEvent: (name: string, event: JobEvent) => void,
): Promise<readonly Trained[]> {
  const training = await client.uploadDataset(mnistFile("training", IMAGES), "digits.npz", "digits");
  const test = await client.uploadDataset(mnistFile("test", TEST_IMAGES), "test-digits.npz", "test digits");
  const upload = async (channels: readonly [number, number], hidden: number, name: string) =>
    (await client.uploadModel(NETWORKS.cnn(channels, hidden), name)).id;
  const run = async (name: string, params: object): Promise<Trained> => {
    const { id } = await client.createJob({
      type: "distill",
      name,
      params: { mode: "offline", dataset_id: training.id, ...params },
      evaluation: { dataset_id: test.id, samples: TEST_IMAGES },
    });
    return { name, job: await client.follow(id, (event) => onEvent(name, event)) };
  };

  const teacher = await run("teacher", {
    student: { model_id: await upload([8, 16], 32, "teacher"), init: "reinitialize" },
    loss: { kl_weight: 0, label_weight: 1 },
    training: { epochs: 4, batch_size: 64 },
  });
  if (teacher.job.result === null) return [teacher];
  const student = await run("student", {
    teacher_model_id: teacher.job.result.model_id,
    student: { model_id: await upload([3, 4], 10, "student") },
    training: { epochs: 4, batch_size: 64 },
    baseline: true,
  });
  return [teacher, student];
}
