import type { Socket } from "node:net";
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest, preHandlerHookHandler } from "fastify";
import { uuidv7 } from "uuidv7";
import { CoreError } from "../../core/contract.ts";
import { TaskError } from "../../tasks/protocol.ts";
import { type FieldError, PROBLEMS, type ProblemCode, problemType, ServiceError } from "../errors.ts";
import { PROBLEM_MEDIA_TYPE } from "../problem-schema.ts";

// Not imported: a module that imports `node:http` loads all that it could export, WebSockets among it, which costs as much as starting node.
const { STATUS_CODES } = process.getBuiltinModule("node:http");

interface Refusal {
  readonly code: ProblemCode;
  readonly detail: string;
  readonly subject?: string | undefined;
  readonly fields?: readonly FieldError[] | undefined;
  readonly retryAfterSeconds?: number | undefined;
}

/** What Fastify and its plugins call the refusals they make themselves. */
const FRAMEWORK_CODES: Readonly<Record<string, ProblemCode>> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: "unsupported_media_type",
  FST_ERR_CTP_BODY_TOO_LARGE: "too_large",
  FST_INVALID_MULTIPART_CONTENT_TYPE: "unsupported_media_type",
  FST_REQ_FILE_TOO_LARGE: "too_large",
  FST_PARTS_LIMIT: "too_large",
  FST_FILES_LIMIT: "too_large",
  FST_FIELDS_LIMIT: "too_large",
};

function refusalOf(error: FastifyError | Error): Refusal {
  if (error instanceof ServiceError && error.code !== "internal") {
    return {
      code: error.code,
      detail: error.message,
      fields: error.fields,
      retryAfterSeconds: error.retryAfterSeconds,
    };
  }
  if ((error instanceof TaskError || error instanceof CoreError) && error.code !== "internal") {
    const fields = error instanceof TaskError ? error.fields : undefined;
    return { code: error.code, detail: error.message, subject: error.subject, fields };
  }
  if ("statusCode" in error && error.statusCode !== undefined && error.statusCode < 500) {
    return { code: FRAMEWORK_CODES[error.code] ?? "invalid_request", detail: error.message };
  }
  return { code: "internal", detail: "Something went wrong that should not have; the log has the details." };
}

/** Turns whatever is thrown into problem+json. `limits` guard the answers about what is not there. */
export function registerProblems(
  app: FastifyInstance,
  methodsOf: (path: string) => readonly string[],
  limits: preHandlerHookHandler[],
): void {
  app.setErrorHandler((error: FastifyError, request, reply) => sendProblem(error, request, reply));
  app.setNotFoundHandler({ preHandler: limits }, (request, reply) => {
    const path = request.url.split("?")[0]!;
    const methods = methodsOf(path);
    if (methods.length === 0) {
      return sendProblem(new ServiceError("not_found", `There is nothing at ${path}.`), request, reply);
    }
    reply.header("allow", methods.join(", "));
    return sendProblem(new ServiceError("method_not_allowed", `${path} has ${methods.join(", ")}.`), request, reply);
  });
}

export function sendProblem(error: Error, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { code, detail, subject, fields, retryAfterSeconds } = refusalOf(error);
  const { status, title } = PROBLEMS[code];
  if (status === 500) request.log.error({ err: error }, "unexpected error");
  else if (status === 503) request.log.warn({ err: error }, "dependency unavailable");
  // A browser asks its user for a password only where there is a page to see.
  if (status === 401) {
    const isPage = request.routeOptions.config?.page === true;
    reply.header("www-authenticate", isPage ? 'Basic realm="modelpress"' : "Bearer");
  }
  if (retryAfterSeconds !== undefined) reply.header("retry-after", retryAfterSeconds);
  return (
    reply
      .code(status)
      // Refusals of the framework itself come without any hook having run.
      .header("x-request-id", request.id)
      .header("content-type", PROBLEM_MEDIA_TYPE)
      .send(
        JSON.stringify({
          type: problemType(code),
          title,
          status,
          detail,
          code,
          request_id: request.id,
          ...(subject !== undefined && { subject }),
          ...(fields !== undefined && { errors: fields }),
        }),
      )
  );
}

/** What node:http refuses before there is a request. */
const PARSER_CODES: Readonly<Record<string, ProblemCode>> = {
  HPE_HEADER_OVERFLOW: "headers_too_large",
  ERR_HTTP_REQUEST_TIMEOUT: "request_timeout",
};

/** Answers bytes that are not a proper HTTP request, and closes. */
export function answerBrokenRequest(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) return void socket.destroy();
  const code = PARSER_CODES[error.code ?? ""] ?? "invalid_request";
  const { status, title } = PROBLEMS[code];
  const requestId = uuidv7();
  const detail = "The request could not be read as HTTP.";
  const body = JSON.stringify({ type: problemType(code), title, status, detail, code, request_id: requestId });
  socket.end(
    [
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
      `content-type: ${PROBLEM_MEDIA_TYPE}`,
      `content-length: ${Buffer.byteLength(body)}`,
      `x-request-id: ${requestId}`,
      "connection: close",
      "",
      body,
    ].join("\r\n"),
  );
}
