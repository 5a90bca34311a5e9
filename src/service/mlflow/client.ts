import type { Readable } from "node:stream";
import type { Agent, Dispatcher } from "undici";
import type { z } from "zod";
import { mayPass, reasonOf } from "../remote-file.ts";

/** Where an MLflow tracking server is, and who asks it. */
export interface MlflowEndpoint {
  /** Without a slash at its end. */
  readonly url: string;
  readonly credentials: { readonly username: string; readonly password: string } | { readonly token: string } | null;
}

/** What MLflow did not do, in words that go on from a colon. They tell nothing of who the operator is to it. */
export class MlflowError extends Error {
  override readonly name = "MlflowError";
  /** MLflow's name of what was wrong (`RESOURCE_DOES_NOT_EXIST`); null for answers without one. */
  readonly code: string | null;
  readonly mayPass: boolean;

  constructor(
    message: string,
    of: { readonly code?: string | null; readonly mayPass: boolean; readonly cause?: unknown },
  ) {
    super(message, { cause: of.cause });
    this.code = of.code ?? null;
    this.mayPass = of.mayPass;
  }
}

export interface MlflowClient {
  /** One call of the REST API (mlflow.org/docs/latest/api_reference/rest-api.html), by its path below `/api/2.0/`. Throws an `MlflowError`. */
  call<T>(schema: z.ZodType<T>, method: "GET" | "POST", path: string, fields: object, signal: AbortSignal): Promise<T>;
  /** The bytes of an artifact that the server serves, by its path below `mlflow-artifacts:/`. Throws an `MlflowError`. */
  artifact(path: string, signal: AbortSignal): Promise<Readable>;
  /** Stores an artifact in place of what is there. Throws an `MlflowError`, and what reading `bytes` throws. */
  store(path: string, bytes: Readable, sizeBytes: number, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

const CONNECT_TIMEOUT_MS = 5_000;
const ANSWER_TIMEOUT_MS = 30_000;
const MAX_ANSWER_BYTES = 4 * 1024 * 1024;
const MAX_ERROR_BYTES = 16_384;

export function createMlflowClient({ url: base, credentials }: MlflowEndpoint): MlflowClient {
  let agent: Agent | undefined;
  const headers = { "user-agent": "modelpress", ...authorizationOf(credentials) };

  async function send(path: string, options: Pick<Dispatcher.RequestOptions, "method" | "body"> & Sent) {
    const { method, body = null, signal, more = {} } = options;
    const undici = await import("undici");
    agent ??= new undici.Agent({
      connect: { timeout: CONNECT_TIMEOUT_MS },
      headersTimeout: ANSWER_TIMEOUT_MS,
      bodyTimeout: ANSWER_TIMEOUT_MS,
    });
    const answer = await undici
      .request(`${base}/api/2.0/${path}`, {
        ...{ method, body, signal, dispatcher: agent },
        headers: { ...headers, ...more },
      })
      .catch((error) => {
        if (signal.aborted) throw signal.reason;
        throw new MlflowError(`it could not be reached (${reasonOf(error)})`, { mayPass: true, cause: error });
      });
    if (answer.statusCode >= 200 && answer.statusCode < 300) return answer.body;
    const code = codeIn(await textOf(answer.body, MAX_ERROR_BYTES).catch(() => ""));
    const message = ["it answered", answer.statusCode, code].filter((part) => part !== null).join(" ");
    throw new MlflowError(message, { code, mayPass: mayPass(answer.statusCode) });
  }

  return {
    async call(schema, method, path, fields, signal) {
      const query = method === "GET" ? `?${new URLSearchParams(fields as Record<string, string>)}` : "";
      const sent =
        method === "GET" ? {} : { body: JSON.stringify(fields), more: { "content-type": "application/json" } };
      const body = await send(`${path}${query}`, { method, signal, ...sent });
      const parsed = schema.safeParse(jsonIn(await textOf(body, MAX_ANSWER_BYTES)));
      if (parsed.success) return parsed.data;
      throw new MlflowError(`it answered ${path} in a form that is not known here`, {
        mayPass: false,
        cause: parsed.error,
      });
    },
    artifact: (path, signal) => send(artifactPath(path), { method: "GET", signal }),
    async store(path, bytes, sizeBytes, signal) {
      const more = { "content-length": String(sizeBytes), "content-type": "application/octet-stream" };
      const body = await send(artifactPath(path), { method: "PUT", body: bytes, more, signal });
      await body.dump({ limit: MAX_ERROR_BYTES });
    },
    close: async () => agent?.destroy(),
  };
}

interface Sent {
  readonly signal: AbortSignal;
  readonly more?: Record<string, string>;
}

function artifactPath(path: string): string {
  return `mlflow-artifacts/artifacts/${path.split("/").map(encodeURIComponent).join("/")}`;
}

function authorizationOf(credentials: MlflowEndpoint["credentials"]): Record<string, string> {
  if (credentials === null) return {};
  if ("token" in credentials) return { authorization: `Bearer ${credentials.token}` };
  const { username, password } = credentials;
  return { authorization: `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}` };
}

/** The text of a body. Throws an `MlflowError` for one of more bytes. */
async function textOf(body: Readable, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxBytes) throw new MlflowError(`it answered more than ${maxBytes} bytes`, { mayPass: false });
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** MLflow's own name of an error; nothing else of what it says is told. */
function codeIn(text: string): string | null {
  const { error_code } = Object(jsonIn(text)) as { readonly error_code?: unknown };
  return typeof error_code === "string" && /^[A-Z_]{1,60}$/.test(error_code) ? error_code : null;
}
