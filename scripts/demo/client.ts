import { setTimeout as sleep } from "node:timers/promises";

/** The few calls of the HTTP interface that the demo and the benches need, as they stand in openapi.yaml. */

export interface Job {
  readonly id: string;
  readonly status: "queued" | "running" | "cancelling" | "succeeded" | "failed" | "cancelled";
  readonly progress: { readonly step: string; readonly fraction: number; readonly message: string } | null;
  readonly started_at: string | null;
  readonly finished_at: string | null;
  readonly result: {
    readonly model_id: string;
    readonly artifacts: readonly { readonly name: string; readonly size_bytes: number; readonly url: string }[];
    readonly metrics: Metrics;
  } | null;
  readonly error: { readonly code: string; readonly detail: string } | null;
}

/** The part of `result.metrics` that is read here. */
export interface Metrics {
  readonly size: { readonly before_bytes: number; readonly after_bytes: number; readonly ratio: number };
  readonly fidelity: {
    readonly samples: number;
    readonly outputs: readonly { readonly name: string; readonly sqnr_db: number | null; readonly cosine: number }[];
  };
  readonly training: {
    readonly metric: string | null;
    readonly metric_samples: number;
    readonly teacher_metric: number | null;
    readonly student_before_metric: number | null;
    readonly student_metric: number | null;
    readonly baseline_metric: number | null;
  } | null;
  readonly latency: { readonly before: { readonly p50_ms: number }; readonly speedup: number };
}

export interface JobEvent {
  readonly id: number;
  readonly at: string;
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** An answer other than 2xx, with the problem document's own words. */
class RequestError extends Error {
  override readonly name = "RequestError";
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const PATIENCE_MS = 30_000;
const RETRY_MS = 500;

export class Client {
  readonly #url: string;

  constructor(url: string) {
    this.#url = url;
  }

  /** The body of a 2xx answer. Throws a `RequestError` for any other. */
  async request(path: string, init: RequestInit = {}): Promise<Response> {
    const response = await fetch(`${this.#url}${path}`, init);
    if (response.ok) return response;
    const problem = (await response.json().catch(() => ({}))) as { title?: string; detail?: string; code?: string };
    const why = [problem.code, problem.detail ?? problem.title].filter(Boolean).join(": ");
    throw new RequestError(response.status, `${init.method ?? "GET"} ${path} answered ${response.status} (${why})`);
  }

  /** Sends a model's bytes and answers its id. */
  uploadModel(bytes: Uint8Array<ArrayBuffer>, name: string): Promise<{ id: string }> {
    return this.#upload("/v1/models", bytes, "model.onnx", name);
  }

  uploadDataset(
    bytes: Uint8Array<ArrayBuffer>,
    filename: string,
    name: string,
  ): Promise<{ id: string; samples: number }> {
    return this.#upload("/v1/datasets", bytes, filename, name);
  }

  async #upload<T>(path: string, bytes: Uint8Array<ArrayBuffer>, filename: string, name: string): Promise<T> {
    const form = new FormData();
    form.set("name", name);
    form.set("file", new Blob([bytes]), filename);
    const response = await this.request(path, { method: "POST", body: form });
    return (await response.json()) as T;
  }

  async createJob(body: unknown): Promise<Job> {
    const headers = { "content-type": "application/json" };
    const response = await this.request("/v1/jobs", { method: "POST", headers, body: JSON.stringify(body) });
    return (await response.json()) as Job;
  }

  async job(id: string): Promise<Job> {
    return (await (await this.request(`/v1/jobs/${id}`)).json()) as Job;
  }

  /**
   * Follows the job's event stream to its end, taking it up again where it broke off, and answers the finished job. Gives up when the
   * service cannot be reached, or has no access to its records, for half a minute.
   */
  async follow(id: string, onEvent: (event: JobEvent) => void): Promise<Job> {
    let last = 0;
    for (let deadline = Date.now() + PATIENCE_MS; ; await sleep(RETRY_MS)) {
      try {
        const response = await this.request(`/v1/jobs/${id}/events`, {
          headers: { accept: "text/event-stream", "last-event-id": String(last) },
        });
        for await (const event of parseEvents(response.body!)) {
          last = event.id;
          onEvent(event);
        }
        const job = await this.job(id);
        if (job.finished_at !== null) return job;
        deadline = Date.now() + PATIENCE_MS;
      } catch (error) {
        const isRefusal = error instanceof RequestError && error.status < 500;
        if (isRefusal || Date.now() > deadline) throw error;
      }
    }
  }
}

/** The events of a `text/event-stream`: https://html.spec.whatwg.org/multipage/server-sent-events.html */
async function* parseEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<JobEvent> {
  let text = "";
  for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const fields = new Map<string, string>();
      for (const line of text.slice(0, end).split("\n")) {
        const [, name, value] = /^([a-z]+): ?(.*)$/.exec(line) ?? [];
        if (name !== undefined) fields.set(name, value!);
      }
      text = text.slice(end + 2);
      const data = fields.get("data");
      if (data !== undefined) yield JSON.parse(data) as JobEvent;
    }
  }
}
