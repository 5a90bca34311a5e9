/**
 * One look for all who ask within `ms`, so that asking often costs nothing: those who come while it is looked get what is found then.
 */
export function sharedFor<T>(
  ms: number,
  look: () => Promise<T>,
  now: () => number = () => performance.now(),
): () => Promise<T> {
  let last: { readonly found: Promise<T>; readonly at: number } | undefined;
  return () => {
    if (last === undefined || now() - last.at >= ms) {
      last = { found: look(), at: now() };
      last.found.catch(() => {}); // Whoever asked hears of it.
    }
    return last.found;
  };
}
