import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/**
 * The part of MLflow's REST API that the service uses, in memory, answering as `mlflow server` 3.17 was seen to: `bench/mlflow` drives a real one.
 */
export interface MlflowServer {
  readonly url: string;
  /** By path below `mlflow-artifacts:/`. */
  readonly artifacts: ReadonlyMap<string, Buffer>;
  readonly versions: readonly Readonly<Version>[];
  readonly runs: ReadonlyMap<string, Readonly<Run>>;
  /** Answers to the next requests whose path ends so. */
  readonly refusals: Map<string, { readonly status: number; readonly code?: string }>;
  /** The `authorization` of every request. */
  readonly seen: (string | undefined)[];
  /** Registers a version whose folder has these files. `uri`: where they are, if not served. */
  register(name: string, files: Readonly<Record<string, string | Buffer>>, uri?: string): string;
  alias(name: string, alias: string, version: string): void;
  close(): Promise<void>;
}

interface Version {
  readonly name: string;
  readonly version: string;
  readonly source: string;
  readonly run_id: string;
  readonly tags: readonly Pair[];
  readonly description: string;
}

interface Run {
  readonly experiment: string;
  readonly tags: readonly Pair[];
  metrics: readonly { readonly key: string; readonly value: number }[];
  params: readonly Pair[];
  status: string;
}

interface Pair {
  readonly key: string;
  readonly value: string;
}

class Refusal extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string) {
    super(`Secret of the operator: ${code}`);
    this.status = status;
    this.code = code;
  }
}

export async function startMlflowServer(): Promise<MlflowServer> {
  const artifacts = new Map<string, Buffer>();
  const versions: Version[] = [];
  const runs = new Map<string, Run>();
  const models = new Set<string>();
  const experiments = new Map<string, string>();
  const aliases = new Map<string, string>();
  const refusals: MlflowServer["refusals"] = new Map();
  const seen: (string | undefined)[] = [];

  const absent = () => new Refusal(404, "RESOURCE_DOES_NOT_EXIST");
  const versionOf = (name: unknown, version: unknown) => {
    const found = versions.find((it) => it.name === name && it.version === version);
    if (found === undefined) throw absent();
    return found;
  };
  const runOf = (id: string) => ({
    info: { run_id: id, artifact_uri: `mlflow-artifacts:/${runs.get(id)!.experiment}/${id}/artifacts` },
  });
  const add = (version: Omit<Version, "version">) => {
    const added = { ...version, version: String(versions.filter(({ name }) => name === version.name).length + 1) };
    versions.push(added);
    return added;
  };

  // biome-ignore lint/suspicious/noExplicitAny: what the service sends is what is looked at
  const calls: Readonly<Record<string, (it: any) => object>> = {
    "GET model-versions/get-download-uri": ({ name, version }) => ({ artifact_uri: versionOf(name, version).source }),
    "GET registered-models/alias": ({ name, alias }) => {
      const version = aliases.get(`${name}@${alias}`);
      if (version === undefined) throw new Refusal(400, "INVALID_PARAMETER_VALUE");
      return { model_version: versionOf(name, version) };
    },
    "GET experiments/get-by-name": ({ experiment_name }) => {
      const experiment_id = experiments.get(experiment_name);
      if (experiment_id === undefined) throw absent();
      return { experiment: { experiment_id } };
    },
    "POST experiments/create": ({ name }) => {
      if (experiments.has(name)) throw new Refusal(400, "RESOURCE_ALREADY_EXISTS");
      experiments.set(name, String(experiments.size + 1));
      return { experiment_id: experiments.get(name) };
    },
    "POST runs/search": ({ experiment_ids, filter }) => {
      const [, key, value] = /^tags\.`([^`]+)` = '([^']+)'$/.exec(filter)!;
      const fits = ([, run]: [string, Run]) =>
        experiment_ids.includes(run.experiment) && run.tags.some((tag) => tag.key === key && tag.value === value);
      // As protobuf prints it: an empty list is left out.
      const found = [...runs].filter(fits).map(([id]) => runOf(id));
      return found.length === 0 ? {} : { runs: found };
    },
    "POST runs/create": ({ experiment_id, tags }) => {
      const id = `run${runs.size + 1}`;
      runs.set(id, { experiment: experiment_id, tags, metrics: [], params: [], status: "RUNNING" });
      return { run: runOf(id) };
    },
    "POST runs/log-batch": ({ run_id, metrics, params }) => Object.assign(runs.get(run_id)!, { metrics, params }) && {},
    "POST runs/update": ({ run_id, status }) => Object.assign(runs.get(run_id)!, { status }) && {},
    "POST registered-models/create": ({ name }) => {
      if (models.has(name)) throw new Refusal(400, "RESOURCE_ALREADY_EXISTS");
      models.add(name);
      return { registered_model: { name } };
    },
    "GET model-versions/search": ({ filter }) => {
      const run = /^run_id = '([^']+)'$/.exec(filter)![1];
      const found = versions.filter(({ run_id }) => run_id === run);
      return found.length === 0 ? {} : { model_versions: found };
    },
    "POST model-versions/create": (version) => {
      if (!models.has(version.name)) throw absent();
      return { model_version: add(version) };
    },
  };

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url!, "http://mlflow");
    const body = Buffer.concat(await Array.fromAsync(request));
    seen.push(request.headers.authorization);
    const path = decodeURIComponent(url.pathname);
    const refused = [...refusals].find(([end]) => path.endsWith(end));
    if (refused !== undefined) {
      refusals.delete(refused[0]);
      const { status, code } = refused[1];
      if (code !== undefined) throw new Refusal(status, code);
      return void response.writeHead(status).end("<html>Bad gateway</html>");
    }
    const artifact = path.split("/api/2.0/mlflow-artifacts/artifacts")[1];
    if (artifact === undefined) {
      const method = path.split("/api/2.0/mlflow/")[1];
      const fields = request.method === "GET" ? Object.fromEntries(url.searchParams) : JSON.parse(body.toString());
      const call = calls[`${request.method} ${method}`];
      if (call === undefined) throw new Refusal(404, "ENDPOINT_NOT_FOUND");
      return void response.end(JSON.stringify(call(fields)));
    }
    if (request.method === "PUT") {
      artifacts.set(artifact.slice(1), body);
      return void response.end();
    }
    if (artifact === "") {
      const folder = `${url.searchParams.get("path")}/`;
      const below = [...artifacts.keys()].filter((it) => it.startsWith(folder)).map((it) => it.slice(folder.length));
      const names = new Set(below.map((it) => it.split("/")[0]!));
      const files = [...names].map((path) => ({ path, is_dir: !below.includes(path), file_size: 1 }));
      return void response.end(JSON.stringify(files.length === 0 ? {} : { files }));
    }
    const bytes = artifacts.get(artifact.slice(1));
    if (bytes === undefined) throw absent();
    response.end(bytes);
  }

  const server = createServer((request, response) => {
    handle(request, response).catch((error) => {
      const { status = 500, code = "INTERNAL_ERROR", message } = error as Refusal;
      response.writeHead(status).end(JSON.stringify({ error_code: code, message }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ...{ artifacts, versions, runs, refusals, seen },
    register(name, files, uri) {
      models.add(name);
      const folder = `0/models/m-${versions.length}/artifacts`;
      for (const [file, bytes] of Object.entries(files)) artifacts.set(`${folder}/${file}`, Buffer.from(bytes));
      const source = uri ?? `mlflow-artifacts:/${folder}`;
      return add({ name, source, run_id: "none", tags: [], description: "" }).version;
    },
    alias: (name, alias, version) => void aliases.set(`${name}@${alias}`, version),
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
