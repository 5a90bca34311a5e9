import type { Readable } from "node:stream";
import { z } from "zod";
import type { RemoteFile } from "../remote-file.ts";
import { sourceFailed, sourceUnavailable } from "../remote-file.ts";
import type { VersionAddress } from "./address.ts";
import { type MlflowClient, MlflowError } from "./client.ts";

/**
 * Models of MLflow's registry: the ONNX files of a version, and new versions. A version's files are a folder with a file `MLmodel`, which says
 * of what kinds (flavors) the model is. Files are read from and written to servers that serve them (`mlflow-artifacts:`), as `mlflow server` does.
 */

const MAX_MLMODEL_BYTES = 1024 * 1024;
/** What MLflow writes beside a model, and no external data is called. */
const OWN_FILES =
  /^(MLmodel|(conda|python_env|registered_model_meta)(\.yaml)?|(requirements|constraints)\.txt|(serving_)?input_example\.json|input_example_.*|environment_variables\.txt)$/;

/** Of a version that is not there: an alias that is not known is called an invalid value. */
const UNKNOWN_CODES = ["RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"];

const Version = z.object({ version: z.string(), source: z.string().optional(), status: z.string().optional() });
const VersionAnswer = z.object({ model_version: Version });
const VersionsAnswer = z.object({ model_versions: z.array(Version).default([]) });
const UriAnswer = z.object({ artifact_uri: z.string() });
const ListAnswer = z.object({
  files: z.array(z.object({ path: z.string(), is_dir: z.boolean().default(false) })).default([]),
});
const Run = z.object({ info: z.object({ run_id: z.string(), artifact_uri: z.string() }) });
const RunAnswer = z.object({ run: Run });
const RunsAnswer = z.object({ runs: z.array(Run).default([]) });
const ExperimentAnswer = z.object({ experiment: z.object({ experiment_id: z.string() }) });
const CreatedExperiment = z.object({ experiment_id: z.string() });
const Nothing = z.unknown();
const MLmodel = z.object({ flavors: z.record(z.string(), z.object({ data: z.string().optional() }).nullable()) });

/**
 * The `.onnx` of a version, and the external data beside it. Throws `source_failed` for a version that is not there or has no ONNX, and
 * `unavailable` for a server that cannot be asked now.
 */
export async function findVersion(
  client: MlflowClient,
  { name, of }: VersionAddress,
  signal: AbortSignal,
): Promise<readonly RemoteFile[]> {
  return told(signal, async () => {
    const artifact_uri = await placeOf(client, name, of, signal);
    const folder = servedPath(artifact_uri);
    if (folder === undefined) {
      const scheme = /^[\w+.-]{1,32}(?=:)/.exec(artifact_uri)?.[0] ?? "a folder of its own";
      throw sourceFailed(`MLflow does not serve the files of this version itself: they are kept in ${scheme}.`);
    }
    const text = await textOf(await client.artifact(`${folder}/MLmodel`, signal));
    const data = await onnxFileIn(text);
    const beside = data.split("/").slice(0, -1);
    const place = [folder, ...beside].join("/");
    const { files } = await list(client, place, signal);
    const model = data.split("/").at(-1)!;
    const names = files.flatMap(({ path, is_dir }) => (is_dir || OWN_FILES.test(path) ? [] : [path]));
    if (!names.includes(model)) throw sourceFailed(`The version has no file ${data}, although its MLmodel names it.`);
    return names.map((file) => ({
      name: file,
      open: (signal) => told(signal, () => client.artifact(`${place}/${file}`, signal)),
    }));
  });
}

/** Where the files of a version are. Throws an `MlflowError`, and `source_failed` for a version that is not there. */
async function placeOf(
  client: MlflowClient,
  name: string,
  of: VersionAddress["of"],
  signal: AbortSignal,
): Promise<string> {
  const get = <T>(schema: z.ZodType<T>, path: string, fields: object) =>
    client.call(schema, "GET", path, fields, signal);
  try {
    const version =
      "version" in of
        ? of.version
        : (await get(VersionAnswer, "mlflow/registered-models/alias", { name, ...of })).model_version.version;
    return (await get(UriAnswer, "mlflow/model-versions/get-download-uri", { name, version })).artifact_uri;
  } catch (error) {
    if (!(error instanceof MlflowError) || !UNKNOWN_CODES.includes(error.code ?? "")) throw error;
    const called = "version" in of ? `version ${of.version}` : `version with the alias ${of.alias}`;
    throw sourceFailed(`MLflow has no ${called} of a model ${name}.`, error);
  }
}

/** What a new version is made of. */
export interface NewVersion {
  /** The registered model; made where it is not there. */
  readonly name: string;
  /** Found or made; its artifacts are where runs of it keep theirs. */
  readonly experiment: string;
  /** Tells this version from every other one: a second call with the same key makes no second version. */
  readonly key: { readonly tag: string; readonly value: string };
  readonly title: string;
  readonly description: string;
  readonly params: Readonly<Record<string, string>>;
  readonly metrics: Readonly<Record<string, number>>;
  readonly tags: Readonly<Record<string, string>>;
  /** Of the version's folder. */
  readonly files: readonly {
    readonly path: string;
    readonly sizeBytes: number;
    open(): Promise<Readable>;
  }[];
}

/** Makes a version, with a run that has its numbers. Answers its address, `models:/name/4`. Throws an `MlflowError`. */
export async function publishVersion(client: MlflowClient, version: NewVersion, signal: AbortSignal): Promise<string> {
  const { name, key, title, description } = version;
  const post = <T>(schema: z.ZodType<T>, path: string, fields: object) =>
    client.call(schema, "POST", path, fields, signal);
  const tags = asPairs({ [key.tag]: key.value, ...version.tags });
  const now = Date.now();

  const experiment_id = await experimentOf(client, version.experiment, signal);
  const filter = `tags.\`${key.tag}\` = '${key.value}'`;
  const found = await post(RunsAnswer, "mlflow/runs/search", {
    experiment_ids: [experiment_id],
    filter,
    max_results: 1,
  });
  const made = { experiment_id, run_name: title, start_time: now, tags };
  const { info } = found.runs[0] ?? (await post(RunAnswer, "mlflow/runs/create", made)).run;
  const { run_id, artifact_uri } = info;
  const root = servedPath(artifact_uri);
  if (root === undefined) {
    const message = `its experiment ${version.experiment} keeps artifacts where MLflow does not serve them itself`;
    throw new MlflowError(message, { mayPass: false });
  }
  for (const { path, sizeBytes, open } of version.files) {
    const bytes = await open();
    try {
      await client.store(`${root}/model/${path}`, bytes, sizeBytes, signal);
    } finally {
      bytes.destroy();
    }
  }
  const metrics = Object.entries(version.metrics).map(([key, value]) => ({ key, value, timestamp: now, step: 0 }));
  await post(Nothing, "mlflow/runs/log-batch", { run_id, metrics, params: asPairs(version.params), tags: [] });

  const query = { filter: `run_id = '${run_id}'` };
  const { model_versions } = await client.call(VersionsAnswer, "GET", "mlflow/model-versions/search", query, signal);
  let of = model_versions[0];
  if (of === undefined) {
    await unless("RESOURCE_ALREADY_EXISTS", post(Nothing, "mlflow/registered-models/create", { name }));
    const source = `${artifact_uri}/model`;
    const asked = { name, source, run_id, tags, description };
    of = (await post(VersionAnswer, "mlflow/model-versions/create", asked)).model_version;
  }
  await post(Nothing, "mlflow/runs/update", { run_id, status: "FINISHED", end_time: Date.now() });
  return `models:/${name}/${of.version}`;
}

/** The id of an experiment, which is made where it is not there. */
async function experimentOf(client: MlflowClient, name: string, signal: AbortSignal): Promise<string> {
  const find = () =>
    client.call(ExperimentAnswer, "GET", "mlflow/experiments/get-by-name", { experiment_name: name }, signal);
  const found = await unless("RESOURCE_DOES_NOT_EXIST", find());
  if (found !== undefined) return found.experiment.experiment_id;
  const made = await unless(
    "RESOURCE_ALREADY_EXISTS", // By another worker, since.
    client.call(CreatedExperiment, "POST", "mlflow/experiments/create", { name }, signal),
  );
  return made?.experiment_id ?? (await find()).experiment.experiment_id;
}

/** What a call answers; undefined where MLflow says that this is wrong. */
function unless<T>(code: string, call: Promise<T>): Promise<T | undefined> {
  return call.catch((error) => {
    if (error instanceof MlflowError && error.code === code) return undefined;
    throw error;
  });
}

function asPairs(of: Readonly<Record<string, string>>) {
  return Object.entries(of).map(([key, value]) => ({ key, value }));
}

function list(client: MlflowClient, path: string, signal: AbortSignal) {
  return client.call(ListAnswer, "GET", "mlflow-artifacts/artifacts", { path }, signal);
}

/** The path that the server serves an artifact by; undefined for one that it does not serve. */
function servedPath(uri: string): string | undefined {
  const path = /^mlflow-artifacts:(?:\/\/[^/]*)?\/+(.+?)\/*$/.exec(uri)?.[1];
  return path?.split("/").some((part) => part === ".." || part === ".") ? undefined : path;
}

/** The path of the model file in its folder. Throws `source_failed` for a text that names none. */
async function onnxFileIn(text: string): Promise<string> {
  const { parse } = await import("yaml");
  let read: unknown;
  try {
    read = parse(text, { maxAliasCount: 0 });
  } catch (error) {
    throw sourceFailed("The version's MLmodel is not YAML.", error);
  }
  const parsed = MLmodel.safeParse(read);
  if (!parsed.success)
    throw sourceFailed("The version's MLmodel does not say of which kinds the model is.", parsed.error);
  const { flavors } = parsed.data;
  const data = flavors.onnx?.data;
  if (data === undefined) {
    const kinds = Object.keys(flavors).filter((kind) => /^[\w-]{1,40}$/.test(kind));
    throw sourceFailed(`The version is no ONNX model: it is one of ${kinds.slice(0, 10).join(", ") || "no kind"}.`);
  }
  const isStep = (part: string) => part === "" || part === "." || part === "..";
  if (data.split("/").some(isStep)) throw sourceFailed("The version's MLmodel names a file outside of its folder.");
  return data;
}

async function textOf(body: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > MAX_MLMODEL_BYTES) throw sourceFailed(`The version's MLmodel has more than ${MAX_MLMODEL_BYTES} bytes.`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

/** What MLflow did not do, as what a client of ours is told. */
async function told<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    if (!(error instanceof MlflowError)) throw error;
    throw error.mayPass
      ? sourceUnavailable("MLflow", error.message, error)
      : sourceFailed(`MLflow: ${error.message}.`, error);
  }
}
