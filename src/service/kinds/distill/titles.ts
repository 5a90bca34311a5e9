import type { DistillParams } from "./params.ts";

const SELF_KINDS = {
  born_again: "self distillation: each generation teaches the next (born again)",
  be_your_own_teacher: "self distillation: the last layer teaches early exits",
  mean_teacher: "self distillation: the average of its weights teaches (mean teacher)",
} as const;

/** How a training goes, in words. */
export function titleOf(params: DistillParams): string {
  const { student } = params;
  if (params.mode === "self") return SELF_KINDS[params.self_kind];
  const made = "derive" in student ? derived(student.derive) : "";
  if (params.mode === "online") {
    return params.teacher_model_id === null
      ? `online distillation: peers teach each other${made}`
      : `online distillation with a teacher that learns along${made}`;
  }
  return params.teacher_model_id === null ? `trained on labels${made}` : `distilled from a trained teacher${made}`;
}

function derived(derive: object): string {
  const words: Readonly<Record<string, (share: number) => string>> = {
    keep_layers: (share) => `${percent(share)} of its layers`,
    width: (share) => `${percent(share)} of its width`,
    rank: (share) => `rank cut to ${percent(share)}`,
  };
  const parts = Object.entries(derive)
    .filter(([key, share]) => key in words && typeof share === "number")
    .map(([key, share]) => words[key]!(share as number));
  return parts.length === 0 ? "" : `, student with ${parts.join(", ")}`;
}

function percent(share: number): string {
  return `${Number((100 * share).toFixed(1))} %`;
}
