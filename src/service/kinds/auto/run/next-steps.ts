/** What is worth doing after a search. */
import { type RequestBody, requestOf } from "../../requests.ts";
import type { Continuations, NextStep, Outcome } from "../../run/next-steps.ts";
import type { AutoSpec } from "../spec.ts";

/** Training a candidate takes minutes. */
const TRAINING_SECONDS = 3600;
const MAX_SECONDS = 86_400;

export function afterSearch(spec: AutoSpec): Continuations {
  return { further: (outcome) => wider(outcome, spec) };
}

function wider({ metrics: { auto }, missed }: Outcome, spec: AutoSpec): NextStep[] {
  const { params, evaluation } = spec;
  const { budget } = params;
  const again = (changes: Partial<AutoSpec["params"]>): RequestBody =>
    requestOf({ ...spec, params: { ...params, ...changes } });
  const waiting = auto?.candidates.filter(({ dropped }) => dropped?.code === "budget").length ?? 0;
  const steps: NextStep[] = [];
  if (waiting > 0 && budget.seconds < MAX_SECONDS) {
    steps.push({
      title: "Search longer",
      why: `The time was over before ${waiting === 1 ? "one candidate was" : `${waiting} candidates were`} tried to the end.`,
      job: again({ budget: { ...budget, seconds: Math.min(MAX_SECONDS, 3 * budget.seconds) } }),
    });
  }
  if (missed.size === 0) return steps;
  if (params.methods !== null) {
    steps.push({
      title: "Search among all methods",
      why: `No model holds the limits with ${params.methods.join(", ")} alone.`,
      job: again({ methods: null }),
    });
  }
  if (!params.training && params.methods === null && evaluation.dataset_id !== null) {
    steps.push({
      title: "Let it train",
      why: "Training with the rounding in it wins back what rounding loses, and narrower students are smaller and faster. It takes minutes for each candidate.",
      job: again({ training: true, budget: { ...budget, seconds: Math.max(TRAINING_SECONDS, budget.seconds) } }),
    });
  }
  return steps;
}
