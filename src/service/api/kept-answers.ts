import type { Asker } from "./inspection-lane.ts";

/** Answers that are always the same, so that they are found out once: those of the last questions, as JSON texts, in a bounded room. */
export interface KeptAnswers {
  /**
   * The answer that is kept for `question`, or that `find` gives: once for all who ask at the same time. It goes on until the last of them
   * has gone.
   */
  ask<T>(question: string, asker: Asker, find: (asker: Asker) => Promise<T>): Promise<T>;
}

interface Search {
  readonly answer: Promise<string>;
  readonly stop: AbortController;
  askers: number;
}

/** Keeps at most `maxBytes` of texts; one that takes more than a quarter of them is not kept. */
export function createKeptAnswers(maxBytes: number): KeptAnswers {
  /** The one that was used last is the last. */
  const kept = new Map<string, string>();
  const searches = new Map<string, Search>();
  let bytes = 0;

  function keep(question: string, text: string): void {
    if (2 * text.length > maxBytes / 4) return;
    kept.set(question, text);
    bytes += 2 * text.length;
    for (const [oldest, old] of kept) {
      if (bytes <= maxBytes) break;
      kept.delete(oldest);
      bytes -= 2 * old.length;
    }
  }

  function search<T>(question: string, key: string, find: (asker: Asker) => Promise<T>): Search {
    const stop = new AbortController();
    const answer = find({ key, signal: stop.signal }).then((found) => {
      const text = JSON.stringify(found);
      keep(question, text);
      return text;
    });
    const started = { answer, stop, askers: 0 };
    searches.set(question, started);
    const end = () => {
      if (searches.get(question) === started) searches.delete(question);
    };
    answer.then(end, end);
    return started;
  }

  return {
    async ask<T>(question: string, { key, signal }: Asker, find: (asker: Asker) => Promise<T>): Promise<T> {
      signal.throwIfAborted();
      const known = kept.get(question);
      if (known !== undefined) {
        kept.delete(question);
        kept.set(question, known);
        return JSON.parse(known) as T;
      }
      const running = searches.get(question) ?? search(question, key, find);
      running.askers++;
      const gone = Promise.withResolvers<never>();
      const leave = () => gone.reject(signal.reason);
      signal.addEventListener("abort", leave, { once: true });
      try {
        return JSON.parse(await Promise.race([running.answer, gone.promise])) as T;
      } finally {
        signal.removeEventListener("abort", leave);
        if (--running.askers === 0) {
          // Whoever asks from now on starts anew.
          if (searches.get(question) === running) searches.delete(question);
          running.stop.abort(signal.reason);
        }
      }
    },
  };
}
