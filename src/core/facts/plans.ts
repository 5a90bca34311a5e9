/** What is said of nodes, and what a job would do. */
import type { ProvisionCode, WarningCode } from "../codes.ts";
import type { NoteCode } from "../note-codes.ts";

/** Why something is so of a node. `code` is stable snake_case, `message` a sentence. */
export interface NoteReason {
  readonly code: NoteCode;
  readonly message: string;
}

/** Why a node was, or was not, touched. */
export interface NodeNote extends NoteReason {
  readonly name: string;
  readonly op: string;
}

/** What nobody asked about and should be known; `WARNINGS` says of each code what its `value` is. */
export interface Warning {
  readonly code: WarningCode;
  readonly message: string;
  readonly value: number;
}

/** How a weight is quantized. */
export interface WeightPlan {
  readonly name: string;
  /** The nodes that read it so. */
  readonly nodes: readonly string[];
  readonly bits: number;
  readonly signed: boolean;
  readonly symmetric: boolean;
  /** What has a scale of its own. */
  readonly granularity: "tensor" | "channel" | "block";
  readonly block_size: number | null;
  /** What it looks like in the file: the code of the notes on the nodes. */
  readonly storage: string;
}

/** A value that is rounded while the model runs. */
export interface ValuePlan {
  readonly name: string;
  readonly dtype: "uint8" | "int8";
}

/** Why entries of a plan may come out otherwise in the job. */
export interface Provision {
  readonly code: ProvisionCode;
  readonly message: string;
  /** The nodes that it may concern; none: any. */
  readonly nodes: readonly string[];
}

export interface QuantizePlan {
  readonly method: string;
  readonly weights: readonly WeightPlan[];
  readonly values: readonly ValuePlan[];
  readonly quantized_nodes: readonly NodeNote[];
  readonly skipped_nodes: readonly NodeNote[];
  readonly size: { readonly before_bytes: number; readonly predicted_bytes: number; readonly ratio: number };
  /** Those that are known before anything is computed. */
  readonly warnings: readonly Warning[];
  /** Nothing: the job does what the plan says. */
  readonly provisional: readonly Provision[];
}

export interface DistillPlan {
  readonly teacher_parameters: number | null;
  readonly student_parameters: number;
  /** Outputs that are taken to mean the same. */
  readonly outputs: readonly { readonly teacher: string; readonly student: string }[];
  readonly training_samples: number;
  readonly validation_samples: number;
  /** Of one run; a baseline is a second run. */
  readonly optimizer_steps: number;
  /** Those that are trained; of generations the first. */
  readonly networks: readonly { readonly name: string; readonly parameters: number }[];
  readonly exits: readonly { readonly name: string; readonly value: string; readonly macs_share: number }[];
}
