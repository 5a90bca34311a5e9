/** What is said of layers whose weights a rounding chooses for samples. */

/** Every code of what is said of nodes, with the input that causes it: the guide to codes is made of this. */

/**
 * What a note says: `changed` and `skipped` by the method that was asked for, `simplified` before it or besides, `island` in the audit of what
 * onnxruntime made of the result.
 */
export type NoteKind = "changed" | "skipped" | "simplified" | "island";

export interface NoteFacts {
  readonly kinds: readonly NoteKind[];
  readonly meaning: string;
  /** The input that causes it. */
  readonly cause: string;
}

/** What is said of layers whose weights a rounding chooses for samples, for each of these. */
const CHOOSING = { gptq: "GPTQ", adaround: "AdaRound", stochastic: "stochastic rounding" } as const;

export type Choosing = keyof typeof CHOOSING;

type ChoosingCode = Choosing | `${Choosing}_${"no_gain" | "unseen" | "failed" | "unsupported"}`;

export function notesOfRoundings(): Readonly<Record<ChoosingCode, NoteFacts>> {
  const kinds = ["simplified"] as const;
  const rows = Object.entries(CHOOSING).flatMap(([name, title]): [string, NoteFacts][] => [
    [
      name,
      {
        kinds,
        meaning: `Its weights were rounded by ${title}, with what that gained.`,
        cause: `\`rounding: ${name}\`.`,
      },
    ],
    [
      `${name}_no_gain`,
      {
        kinds,
        meaning: `Rounded to nearest: ${title} was no better on samples.`,
        cause: "Few samples, or weights of 8 bits.",
      },
    ],
    [
      `${name}_unseen`,
      { kinds, meaning: "Rounded to nearest: no sample reaches it.", cause: "A branch that the samples do not take." },
    ],
    [
      `${name}_failed`,
      {
        kinds,
        meaning: "Rounded to nearest: its inputs are zero or not finite.",
        cause: "Samples of zeros, dead layers.",
      },
    ],
    [
      `${name}_unsupported`,
      {
        kinds,
        meaning: `Rounded to nearest: ${title} is not for layers like it.`,
        cause: "Grouped convolutions, recurrent layers, weights that several nodes read or that have very many inputs.",
      },
    ],
  ]);
  return Object.fromEntries(rows) as Record<ChoosingCode, NoteFacts>;
}
