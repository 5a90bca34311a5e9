import { readFileSync } from "node:fs";
import type { InferenceSession, Tensor as WebTensor } from "onnxruntime-web";
import type { ElsewhereAnswer } from "../src/core/index.ts";
import { arrayOf, type Tensor, tensorOf } from "../src/core/onnx/tensor.ts";
import type { ElsewhereRequest } from "../src/service/kinds/run/job-environment.ts";
import type { LocalFile } from "../src/tasks/protocol.ts";
import { openThreadClock } from "./thread-clock.ts";

/** Runs that are not counted: compilers of WebAssembly work in tiers. */
const WARM_UP_RUNS = 3;
/** No round begins after this, unless the request says otherwise. */
const MAX_MS = 20_000;

type Web = typeof import("onnxruntime-web");
type Feeds = Readonly<Record<string, Tensor>>;

/** The package is optional. */
async function load(): Promise<Web | undefined> {
  try {
    return await import("onnxruntime-web");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ERR_MODULE_NOT_FOUND") return undefined;
    throw error;
  }
}

function open({ InferenceSession }: Web, [main, ...rest]: readonly LocalFile[]): Promise<InferenceSession> {
  return InferenceSession.create(new Uint8Array(readFileSync(main!.path)), {
    executionProviders: ["wasm"],
    ...(rest.length > 0 && {
      externalData: rest.map(({ name, path }) => ({ path: name, data: new Uint8Array(readFileSync(path)) })),
    }),
  });
}

function toWeb({ Tensor }: Web, session: InferenceSession, feeds: Feeds): Record<string, WebTensor> {
  return Object.fromEntries(
    session.inputNames.flatMap((name) => {
      const tensor = feeds[name];
      if (!tensor) return [];
      const { dtype, dims } = tensor;
      return [[name, new Tensor(dtype as "float32", arrayOf(tensor, dtype as "float32"), [...dims])]];
    }),
  );
}

/** The float32 outputs. */
function fromWeb(outputs: Readonly<Record<string, WebTensor>>): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(outputs).flatMap(([name, { type, dims, data }]) =>
      type === "float32" ? [[name, tensorOf("float32", dims, data as Float32Array<ArrayBuffer>)]] : [],
    ),
  );
}

async function measure({ before, after, feeds, runs, maxMs = MAX_MS }: ElsewhereRequest): Promise<ElsewhereAnswer> {
  const web = await load();
  if (!web) {
    return {
      missing:
        "onnxruntime-web is not installed on this worker, so nothing was measured there: npm install --include=optional brings it.",
    };
  }
  web.env.wasm.numThreads = 1;
  const start = performance.now();
  const result = await open(web, after);
  const loadMs = performance.now() - start;
  const original = await open(web, before);
  const models = [
    { session: original, feeds: toWeb(web, original, feeds.before), samplesMs: [] as number[] },
    { session: result, feeds: toWeb(web, result, feeds.after), samplesMs: [] as number[] },
  ] as const;
  const outputs = fromWeb(await result.run(models[1].feeds));
  const begin = performance.now();
  // WebAssembly runs in this thread: what that waits for a processor is not the model's.
  const now = openThreadClock() ?? (() => performance.now());
  for (let run = -WARM_UP_RUNS; run < runs && (run < 1 || performance.now() - begin < maxMs); run++) {
    for (const { session, feeds, samplesMs } of models) {
      const start = now();
      await session.run(feeds);
      if (run >= 0) samplesMs.push(now() - start);
    }
  }
  const [beforeMs, afterMs] = models.map(({ samplesMs }) => samplesMs) as [number[], number[]];
  return {
    runtime: `onnxruntime-web ${web.env.versions.web ?? web.env.versions.common}, WebAssembly, Node ${process.versions.node}`,
    ...{ threads: 1, loadMs, beforeMs, afterMs, outputs },
  };
}

process.on("disconnect", () => process.exit());
process.once("message", (request: ElsewhereRequest) => {
  const answer = (message: ElsewhereAnswer) => process.send?.(message);
  measure(request).then(answer, (error: unknown) =>
    answer({ failure: error instanceof Error ? error.message : String(error) }),
  );
});
