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
  /** Where in the parameters of what was asked for the fault is, as far as that is known: `["hints", 0, "teacher"]`. */
  readonly path: readonly (string | number)[];

  constructor(
    code: CoreErrorCode,
    message: string,
    subject?: string,
    options: ErrorOptions & { readonly path?: readonly (string | number)[] } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.subject = subject;
    this.path = options.path ?? [];
  }
}

/** Does `work`. Refusals of it are at `path`, or below. */
export function located<T>(path: readonly (string | number)[], work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof CoreError)) throw error;
    const { code, message, subject } = error;
    throw new CoreError(code, message, subject, { cause: error, path: [...path, ...error.path] });
  }
}

/** Throws `CoreError("cancelled")` once `signal` has fired; long loops call it between steps. */
export function checkCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new CoreError("cancelled", "The work was cancelled.");
}
