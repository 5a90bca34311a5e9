import { createOpenApiValidator, type OpenApiDocument, type OpenApiValidator } from "./openapi-validator.ts";

/** Calls a running service and checks every answer against the document that it serves. */
export interface Caller {
  readonly url: string;
  readonly document: OpenApiDocument;
  readonly validator: OpenApiValidator;
  call(method: string, path: string, init?: RequestInit): Promise<CheckedAnswer>;
}

export interface CheckedAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Buffer;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers whose form the validator has checked
  readonly json: any;
}

export async function createCaller(url: string): Promise<Caller> {
  const document = (await (await fetch(`${url}/openapi.json`)).json()) as OpenApiDocument;
  const validator = createOpenApiValidator(document);
  return {
    url,
    document,
    validator,
    async call(method, path, init = {}) {
      const response = await fetch(url + path, { redirect: "manual", ...init, method });
      const { status, headers } = response;
      const body = Buffer.from(await response.arrayBuffer());
      const { pathname, searchParams } = new URL(url + path);
      // For the command line: another way to say `POST /v1/jobs/plan`.
      const isPlan = method === "POST" && pathname === "/v1/jobs" && searchParams.get("validate_only") === "true";
      validator.checkAnswer(method, isPlan ? "/v1/jobs/plan" : pathname, { status, headers, body });
      const isJson = /json$/.test(headers.get("content-type")?.split(";")[0] ?? "") && body.length > 0;
      return { status, headers, body, json: isJson ? JSON.parse(body.toString()) : null };
    },
  };
}

/** A form with files and fields, as browsers and curl send it. */
export function formOf(
  files: Readonly<Record<string, Uint8Array>>,
  fields: Readonly<Record<string, string>> = {},
): FormData {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.set(name, value);
  for (const [name, bytes] of Object.entries(files)) form.append("file", new Blob([Buffer.from(bytes)]), name);
  return form;
}
