import { randomBytes } from "node:crypto";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DatasetFacts, ModelFacts } from "../../src/core/index.ts";
import type { JobQueue } from "../../src/service/jobs/job-store.ts";
import { methodOf } from "../../src/service/kinds/kinds.ts";
import { TaskError, type TaskKind, type TaskRunner, type Tasks } from "../../src/tasks/protocol.ts";

/** Stand-ins for the queue and the child processes: for tests of what the API does before, after and without them. */

export function createMemoryQueue(): JobQueue & { readonly waiting: string[] } {
  const waiting: string[] = [];
  return {
    waiting,
    async enqueue(job) {
      if (!waiting.includes(job.id)) waiting.push(job.id);
    },
    async remove(id) {
      const index = waiting.indexOf(id);
      if (index >= 0) waiting.splice(index, 1);
      return index >= 0;
    },
    async signalCancel() {},
    async position(id) {
      const index = waiting.indexOf(id);
      return index < 0 ? null : index + 1;
    },
    counts: async () => ({ waiting: waiting.length, delayed: 0, active: 0 }),
    workers: async () => [{ name: "memory", refusals: [] }],
  };
}

/** A "model" is a file that starts with this text; more lines in it are ignored. */
const MEMORY_MODEL = "memory model\n";

type Results = {
  [K in TaskKind]?: (request: Tasks[K]["request"], signal: AbortSignal | undefined) => Promise<Tasks[K]["result"]>;
};

/** Tasks that recognise `MEMORY_MODEL` files and any dataset; `overrides` replaces some of them. */
export function createMemoryTasks(overrides: Results = {}): TaskRunner & { readonly ran: string[] } {
  const ran: string[] = [];
  const results: Results = {
    async inspect_model({ files, dims }) {
      const text = await startOf(files[0]!.path);
      if (!text.startsWith(MEMORY_MODEL)) {
        throw new TaskError({ code: "invalid_model", message: "This is not an ONNX model.", subject: files[0]!.name });
      }
      return { ...MODEL_FACTS, macs: dims.w === undefined ? null : 1000 * dims.w };
    },
    async list_layers() {
      return [
        {
          ...{ name: "MatMul.0", op: "MatMul", weight: "w", shape: [4, 2], parameters: 8, bytes: 32, dtype: "float32" },
          ...{ weight_min: -1, weight_max: 1, channel_range_spread: null, dead_channels: null },
        } as const,
      ];
    },
    async inspect_dataset({ file }) {
      const text = await startOf(file.path);
      if (text.startsWith("pickle"))
        throw new TaskError({ code: "invalid_dataset", message: "Object arrays are refused." });
      return text.startsWith("labels") ? { ...DATASET_FACTS, has_labels: true } : DATASET_FACTS;
    },
    async plan_job({ spec }) {
      const size = { before_bytes: 100, predicted_bytes: 50, ratio: 0.5 };
      return {
        type: "quantize",
        method: methodOf(spec),
        weights: [],
        values: [],
        quantized_nodes: [],
        skipped_nodes: [],
        size,
        warnings: [],
        provisional: [],
      };
    },
    ...overrides,
  };
  return {
    ran,
    prepare() {},
    async withRoom(use, signal) {
      const directory = await mkdtemp(join(tmpdir(), "memory-room-"));
      try {
        return await use({
          directory,
          async run(kind, request, options) {
            ran.push(kind);
            const task = results[kind];
            if (task === undefined) throw new Error(`${kind} is not part of this test`);
            return task(request, options.signal ?? signal);
          },
        });
      } finally {
        await rm(directory, { recursive: true, force: true });
      }
    },
    check: async () => {},
    close: async () => {},
  };
}

async function startOf(path: string): Promise<string> {
  await using file = await open(path);
  const { bytesRead, buffer } = await file.read({ length: 100 });
  return buffer.toString("latin1", 0, bytesRead);
}

export const MODEL_FACTS: ModelFacts = {
  ir_version: 8,
  opset_imports: { "ai.onnx": 17 },
  producer: "test",
  inputs: [{ name: "x", dtype: "float32", shape: ["n", "w"] }],
  outputs: [{ name: "y", dtype: "float32", shape: ["n", 2] }],
  nodes: 1,
  operators: { MatMul: 1 },
  parameters: 8,
  weight_bytes: 32,
  weight_bytes_by_dtype: { float32: 32 },
  activation_bytes: null,
  macs: null,
  trainable: { ok: true, subject: null, message: null },
  non_finite_weights: [],
};

export const DATASET_FACTS: DatasetFacts = {
  samples: 10,
  fields: [{ name: "x", dtype: "float32", shape: [4] }],
  has_labels: false,
  classes: null,
};

/** A "model" with bytes of its own. */
export function modelBytes(size = 100): Buffer {
  const bytes = Buffer.concat([Buffer.from(MEMORY_MODEL), randomBytes(Math.max(0, size - MEMORY_MODEL.length))]);
  return bytes.subarray(0, size);
}

/** A task that ends the way a child process may end. */
export function failingTask(code: TaskError["code"]): () => Promise<never> {
  return () => Promise.reject(new TaskError({ code, message: "It failed at /secret path." }));
}
