import { formOf } from "./calls.ts";
import { modelBytes } from "./memory-workers.ts";
import type { TestServer } from "./server.ts";

/** Requests for jobs, to servers whose children are stand-ins. */

/** Uploads a model, and tells its id. */
export async function addModel(api: TestServer): Promise<string> {
  return (await api.call("POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes() }) })).json.id;
}

/** A quantization of that model; `parts` come on top. */
export function quantization(modelId: string, parts: object = {}) {
  return { type: "quantize", model_id: modelId, params: { method: "dynamic" }, ...parts };
}

/** Sends JSON. */
export function postJson(api: TestServer, path: string, body: unknown, headers: Readonly<Record<string, string>> = {}) {
  return api.call("POST", path, {
    body: JSON.stringify(body),
    headers: { "content-type": "application/json", ...headers },
  });
}
