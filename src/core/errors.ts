/**
 * The one error type of the library. `code` is stable and machine-readable, `message` is a sentence for a person,
 * `subject` names the node, tensor, field or file that is at fault.
 */
export type CoreErrorCode =
  | "invalid_model"
  | "invalid_dataset"
  | "invalid_params"
  | "unsupported"
  | "limit_exceeded"
  | "non_finite"
  | "cancelled"
  | "internal";

export class CoreError extends Error {
  override readonly name = "CoreError";
  readonly code: CoreErrorCode;
  readonly subject: string | undefined;

  constructor(code: CoreErrorCode, message: string, subject?: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.subject = subject;
  }
}

/** Throws `CoreError("cancelled")` once `signal` has fired; long loops call it between steps. */
export function checkCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new CoreError("cancelled", "The work was cancelled.");
}
