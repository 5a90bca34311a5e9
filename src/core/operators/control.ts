import type { Records } from "./operator-record.ts";
import { UNKNOWN } from "./result-types.ts";

/** Operators that run bodies, and those of sequences and optionals. */
export const CONTROL = {
  If: { since: 1, sizedBy: [0] },
  /** Trip counts and conditions are among its inputs. */
  Loop: { since: 1, sizedBy: "all" },
  Scan: { since: 8 },
  SequenceAt: { since: 11, results: [UNKNOWN], sizedBy: [1] },
  SequenceConstruct: { since: 11, results: [UNKNOWN] },
  SequenceEmpty: { since: 11, results: [UNKNOWN] },
  SequenceErase: { since: 11, results: [UNKNOWN], sizedBy: [1] },
  SequenceInsert: { since: 11, results: [UNKNOWN], sizedBy: [2] },
  SequenceLength: { since: 11, results: ["int64"] },
  SequenceMap: { since: 17, results: [UNKNOWN] },
  SplitToSequence: { since: 11, results: [UNKNOWN], sizedBy: [1] },
  ConcatFromSequence: { since: 11, results: [UNKNOWN] },
  Optional: { since: 15, results: [UNKNOWN] },
  OptionalGetElement: { since: 15, results: [UNKNOWN] },
  OptionalHasElement: { since: 15, results: ["bool"] },
} as const satisfies Records;
