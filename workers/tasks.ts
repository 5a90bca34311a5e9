import { createHash } from "node:crypto";
import { createReadStream, readFileSync, statSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { constants, createGzip } from "node:zlib";
import {
  CoreError,
  type DatasetOptions,
  inspectDataset,
  inspectModel,
  listLayers,
  openDataset,
} from "../src/core/index.ts";
import { openSession, runtimeVersion } from "../src/core/runtime/session.ts";
import { startSessionThreads } from "../src/core/runtime/threaded-session.ts";
import { DatasetSpec } from "../src/service/dataset-spec.ts";
import { bundleSha256 } from "../src/service/identity.ts";
import { checkExclusions } from "../src/service/kinds/quantize/run/quantize-job.ts";
import type { JobEnvironment } from "../src/service/kinds/run/job-environment.ts";
import { runOf } from "../src/service/kinds/run/job-runs.ts";
import { VERSIONS } from "../src/service/versions.ts";
import type { LocalFile } from "../src/tasks/protocol.ts";
import type { TaskHandlers } from "../src/tasks/task-server.ts";
import { openByteSource, openScratch } from "./byte-source.ts";
import { describeHost } from "./host.ts";
import { imageDecoder } from "./image-decoder.ts";
import { measurePeak } from "./measure-peak.ts";
import { measureWeb } from "./measure-web.ts";
import {
  contentSha256,
  openModel,
  openTemporary,
  openWrittenModel,
  profileTemporary,
  withTemporaryFiles,
  writeModel,
  writeRenamed,
} from "./model-files.ts";
import { openThreadClock } from "./thread-clock.ts";

/** What jobs have of the machine: the runtime, files, and a process of its own for what may crash. */
export const ENVIRONMENT: JobEnvironment = {
  openSession,
  openTemporary,
  profile: profileTemporary,
  startThreads: startSessionThreads,
  measurePeak,
  threadClock: openThreadClock(),
  elsewhere: { "onnxruntime-web": measureWeb },
  files: {
    openModel,
    openWrittenModel,
    writeModel,
    writeRenamed,
    withTemporaryFiles,
    async makeDirectory(path) {
      await mkdir(path, { recursive: true });
      return path;
    },
    async writeBytes(directory, name, bytes) {
      const path = join(directory, name);
      await writeFile(path, bytes);
      return path;
    },
    async writeText(directory, name, mediaType, text) {
      const path = join(directory, name);
      await writeFile(path, text);
      return { name, path, media_type: mediaType };
    },
    async writeCheckpoint(directory, name, bytes) {
      const path = join(directory, `${name}.checkpoint`);
      try {
        await writeFile(path, bytes, { flag: "wx" });
        return path;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "EEXIST") return undefined;
        throw error;
      }
    },
    readBytes: ({ path }) => readFileSync(path),
    openDataset: (file, spec) => openDataset(openByteSource(file.path), datasetOptions(spec)),
    sizeOf: (files) => files.reduce((sum, { path }) => sum + statSync(path).size, 0),
    contentSha256Of: contentSha256,
    async gzipSizeOf(files) {
      let size = 0;
      for (const { path } of files) {
        const packed = createReadStream(path).pipe(createGzip({ level: constants.Z_BEST_COMPRESSION }));
        for await (const chunk of packed) size += (chunk as Buffer).length;
      }
      return size;
    },
    sha256Of: async (files) =>
      bundleSha256(
        await Promise.all(files.map(async ({ name, path }) => ({ name, sha256: await sha256OfFile(path) }))),
      ),
  },
  host: {
    ...describeHost(),
    onnxruntime: runtimeVersion,
    versions: VERSIONS,
  },
};

/** What children do. */
export const TASK_HANDLERS: TaskHandlers = {
  inspect_model: ({ files, dims }, { signal }) =>
    inspectModel(openModel(files), { openSession, source: { path: mainFile(files) }, dims, signal }),
  list_layers: async ({ files }) => listLayers(openModel(files)),
  check_exclusions: async ({ files, exclude }) => checkExclusions(openModel(files), exclude),
  inspect_dataset: ({ file, spec }) => inspectDataset(openByteSource(file.path), datasetOptions(spec)),
  plan_job: (request, context) => runOf(request.spec).plan(request, ENVIRONMENT, context),
  run_job: (request, context) => runOf(request.spec).run(request, ENVIRONMENT, context),
};

async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

function mainFile([file]: readonly LocalFile[]): string {
  if (!file) throw new CoreError("internal", "A model has at least one file.");
  return file.path;
}

/** A spec is stored as it was checked when the dataset was uploaded. */
function datasetOptions(spec: unknown): DatasetOptions {
  return { spec: spec === null ? undefined : DatasetSpec.parse(spec), imageDecoder, openScratch };
}
