import type { Readable } from "node:stream";
import { ServiceError } from "./errors.ts";

/** A file that somebody else keeps, and that was not read yet. */
export interface RemoteFile {
  /** What it is called there. */
  readonly name: string;
  /** What its bytes are, where its keeper says so. */
  readonly sha256?: string;
  /** Its bytes. Throws `source_failed` for what the keeper refuses, and `unavailable` for what may pass. */
  open(signal: AbortSignal): Promise<Readable>;
}

/** What a client has named is not to be had. `message` is a sentence, and tells nothing of who the operator is to the keeper. */
export function sourceFailed(message: string, cause?: unknown): ServiceError {
  return new ServiceError("source_failed", message, { cause });
}

/** The keeper cannot be asked now. `message` goes on from a colon. */
export function sourceUnavailable(keeper: string, message: string, cause?: unknown): ServiceError {
  const sentence = `${keeper} cannot be asked now: ${message}.`;
  return new ServiceError("unavailable", sentence, { cause, retryAfterSeconds: 10 });
}

/** Whether the same request may be answered otherwise later: it was not the request that was wrong. */
export function mayPass(status: number): boolean {
  return status >= 500 || status === 408 || status === 429;
}

/** What an error of a connection is called: its code where it has one. */
export function reasonOf(error: unknown): string {
  const { code, cause, name } = error as Error & { readonly code?: unknown };
  if (typeof code === "string") return code;
  return cause instanceof Error && name !== "AbortError" ? reasonOf(cause) : name;
}
