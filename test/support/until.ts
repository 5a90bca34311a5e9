import { setTimeout as sleep } from "node:timers/promises";

/** Asks until there is an answer. The limit is for what never comes: no test depends on how long anything takes. */
export async function until<T>(
  what: string,
  ask: () => Promise<T | undefined | false> | T | undefined | false,
  withinMs = 90_000,
): Promise<T> {
  for (const start = performance.now(); performance.now() - start < withinMs; await sleep(20)) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
  }
  throw new Error(`Not within ${withinMs} ms: ${what}`);
}
