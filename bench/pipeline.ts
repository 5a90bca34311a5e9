/**
 * One pipeline over HTTP, on the service as `npm start` runs it: a teacher is trained on MNIST, a student learns from it, and is quantized. Prints what
 * there is after every step, then runs the same again with the job's process killed (`kill -9`) while the student learns, and compares the files.
 *
 *   node bench/pipeline.ts [samples] [epochs of the teacher] [epochs of the student]
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Client, type Job, type JobEvent } from "../scripts/demo/client.ts";
import { startStack } from "../scripts/demo/stack.ts";
import { mnistFile, NETWORKS } from "../test/support/mnist.ts";
import { descendants } from "../test/support/processes.ts";

const [samples = "5000", teacherEpochs = "4", studentEpochs = "6"] = process.argv.slice(2);

interface Measured {
  readonly size: { readonly after_bytes: number };
  readonly accuracy: { readonly after: number };
  readonly latency: { readonly after: { readonly p50_ms: number }; readonly cpu: string };
  readonly memory: { readonly after_peak_bytes: number };
}

interface Step {
  readonly name: string;
  readonly parameters: number;
  readonly metrics: Measured;
}

const stack = await startStack({ LOG_LEVEL: "warn", JOB_THREADS: "1" });
try {
  const client = new Client(stack.url);
  const training = (await client.uploadDataset(mnistFile("training", Number(samples)), "training.npz", "training")).id;
  const test = (await client.uploadDataset(mnistFile("test", 10_000), "test.npz", "test")).id;
  const teacher = (await client.uploadModel(NETWORKS.cnn([16, 32], 64), "teacher")).id;
  const student = (await client.uploadModel(NETWORKS.cnn([8, 16], 32), "student")).id;
  const offline = (params: object) => ({ mode: "offline", dataset_id: training, seed: 1, ...params });
  const body = {
    type: "pipeline",
    model_id: teacher,
    params: {
      steps: [
        {
          type: "distill",
          name: "teacher",
          params: offline({
            student: { model_id: "previous", init: "reinitialize" },
            loss: { kl_weight: 0, label_weight: 1 },
            training: { epochs: Number(teacherEpochs) },
          }),
        },
        {
          type: "distill",
          name: "student",
          params: offline({
            teacher_model_id: "previous",
            student: { model_id: student, init: "reinitialize" },
            training: { epochs: Number(studentEpochs) },
          }),
        },
        { type: "quantize", name: "int8", params: { method: "static", dataset_id: training } },
      ],
    },
    evaluation: { dataset_id: test, latency: { runs: 50, batch_size: 32, threads: 1 } },
  };

  const ended = async (id: string): Promise<Job> => {
    for (;;) {
      const job = await client.job(id);
      if (job.finished_at === null) await sleep(250);
      else if (job.status === "succeeded") return job;
      else throw new Error(JSON.stringify(job.error));
    }
  };
  const epochsOf = async (id: string): Promise<readonly string[]> => {
    const answer = await client.request(`/v1/jobs/${id}/events?limit=1000`);
    const { data } = (await answer.json()) as { data: JobEvent[] };
    return data.flatMap((event) =>
      event.type === "metric" && event.data.epoch !== undefined ? [`${event.data.step} ${event.data.epoch}`] : [],
    );
  };
  const submit = async () => (await client.createJob(body)).id;
  const hashesOf = (job: Job) =>
    (job.result!.artifacts as unknown as { name: string; sha256: string }[])
      .filter(({ name }) => name.endsWith(".onnx"))
      .map(({ name, sha256 }) => `${name} ${sha256}`);
  const stepsOf = (job: Job) => (job.result as unknown as { steps: (Step & { readonly model_id: string })[] }).steps;

  const whole = await ended(await submit());
  const steps = stepsOf(whole);
  console.log(`${steps[0]!.metrics.latency.cpu}, ${samples} images, one thread, batches of 32 for the latency\n`);
  console.log("| after | parameters | bytes | top-1 of 10,000 | median latency |");
  console.log("|---|---:|---:|---:|---:|");
  for (const { name, parameters, metrics } of steps) {
    console.log(
      `| ${name} | ${parameters} | ${metrics.size.after_bytes} | ${(100 * metrics.accuracy.after).toFixed(2)} % | ${metrics.latency.after.p50_ms.toFixed(2)} ms |`,
    );
  }
  const [first, last] = [steps[0]!, steps.at(-1)!];
  const times = (of: (step: Step) => number) => (of(first) / of(last)).toFixed(1);
  console.log(
    `| the last against the first | ${times((step) => step.parameters)}x fewer | ${times(({ metrics }) => metrics.size.after_bytes)}x smaller | ` +
      `${(100 * (last.metrics.accuracy.after - first.metrics.accuracy.after)).toFixed(2)} points | ${times(({ metrics }) => metrics.latency.after.p50_ms)}x faster |`,
  );

  const id = await submit();
  while (!(await epochsOf(id)).includes("student 2")) await sleep(50);
  const [worker] = await descendants(stack.pid, "workers/main.ts");
  const [child] = await descendants(worker!, "workers/child.ts");
  process.kill(child!, "SIGKILL");
  const resumed = await ended(id);
  const again = await epochsOf(id);
  const repeated = again.filter((epoch, i) => again.indexOf(epoch) !== i);
  const same = `${stepsOf(resumed).map(({ model_id }) => model_id)}` === `${steps.map(({ model_id }) => model_id)}`;
  console.log(
    `\nkilled while the student learned its third epoch; epochs that were learned again: ${repeated.join(", ") || "none"}`,
  );
  console.log(`whole:   ${hashesOf(whole).join(", ")}`);
  console.log(
    `resumed: ${hashesOf(resumed).join(", ")}; the models of all steps are ${same ? "the same" : "NOT the same"}`,
  );
  if (!same || `${hashesOf(whole)}` !== `${hashesOf(resumed)}`) process.exitCode = 1;
} finally {
  await stack.close();
}
