/** The challengers of a contest that run. */
import type { Session } from "../runtime/session.ts";
import type { Comparison, Comparisons } from "./comparison.ts";
import type { ContestOptions } from "./contest.ts";

/** The challengers of a group: those that run, and their sessions while they are open. */
export class Field {
  readonly #options: ContestOptions;
  readonly #group: readonly number[];
  readonly #sessions = new Map<number, Session>();
  readonly #out = new Set<number>();
  /** Places of those that the comparison was given, in its order. */
  #given: readonly number[] = [];

  constructor(options: ContestOptions, group: readonly number[]) {
    this.#options = options;
    this.#group = group;
  }

  isOut(place: number): boolean {
    return this.#out.has(place);
  }

  /** Does something that may show that a challenger does not run. */
  async trying<T>(place: number, work: () => Promise<T>): Promise<T | undefined> {
    if (this.#out.has(place)) return undefined;
    try {
      return await work();
    } catch (error) {
      this.#fail(place, error);
      return undefined;
    }
  }

  #fail(place: number, error: unknown): undefined {
    if (this.#options.signal?.aborted) throw error;
    const failure = this.#options.onFailure(this.#group[place]!, error);
    if (failure !== undefined) throw failure;
    this.#out.add(place);
  }

  /** Loads all that run; `judging`: in the form that answers are judged by. */
  async open(threads: number, judging: boolean): Promise<void> {
    const { challengers, openSession } = this.#options;
    for (const [place, index] of this.#group.entries()) {
      const { path, roundedPath } = challengers[index]!;
      const isRounded = judging && roundedPath !== undefined;
      // Onnxruntime 1.30 does not survive all fusions across the Casts of the form that rounds.
      const session = await this.trying(place, () =>
        openSession({ path: isRounded ? roundedPath : path }, { threads, ...(isRounded && { optimization: "basic" }) }),
      );
      if (session) this.#sessions.set(place, session);
    }
  }

  async close(): Promise<void> {
    for (const session of this.#sessions.values()) await session.close();
    this.#sessions.clear();
  }

  present(): readonly { readonly place: number; readonly session: Session }[] {
    return [...this.#sessions].map(([place, session]) => ({ place, session }));
  }

  challengers() {
    const present = this.present();
    this.#given = present.map(({ place }) => place);
    return present.map(({ place, session }) => ({
      session,
      pairs: this.#options.challengers[this.#group[place]!]!.pairs,
      onFailure: (error: unknown) => this.#fail(place, error),
    }));
  }

  /** By places, what was compared. */
  compared({ comparisons }: Comparisons): readonly (Comparison | undefined)[] {
    const found: (Comparison | undefined)[] = this.#group.map(() => undefined);
    for (const [i, place] of this.#given.entries()) found[place] = comparisons[i];
    return found;
  }
}
