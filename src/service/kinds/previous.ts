/** How the steps of a pipeline name the model that the step before has made. */

/** In a step of a pipeline the id of the model that the step before has made; in the first step the pipeline's own `model_id`. */
export const PREVIOUS = "previous";

/** Whether a field of `value` that ends in `model_id` says `previous`. */
export function isPrevious(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  return Object.entries(value).some(([key, child]) =>
    key.endsWith("model_id") ? child === PREVIOUS : isPrevious(child),
  );
}

/** `value` with `fed` for every field ending in `model_id` that says `previous`. */
export function withFed<T>(value: T, fed: string | null): T {
  if (Array.isArray(value)) return value.map((item) => withFed(item, fed)) as T;
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, child]) => [
      key,
      key.endsWith("model_id") && child === PREVIOUS ? fed : withFed(child, fed),
    ]),
  ) as T;
}
