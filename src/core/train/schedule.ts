/** How the learning rate changes. Progress u runs from 0 (first step) to 1 (after the last); η is the rate that was asked for. */
export type ScheduleSpec =
  | { readonly kind: "constant" }
  /** η·factor^k after the k-th of `at`, fractions of the run. */
  | { readonly kind: "step"; readonly at: readonly number[]; readonly factor: number }
  /** From η to η·final along half a cosine (Loshchilov and Hutter 2017). */
  | { readonly kind: "cosine"; readonly final: number }
  /** From η/25 up to η over the first `rise` of the run, then down to η/25/10⁴, both along half cosines (Smith and Topin 2019). */
  | { readonly kind: "onecycle"; readonly rise: number };

export const SCHEDULES = {
  constant: { kind: "constant" },
  step: { kind: "step", at: [0.6, 0.8, 0.9], factor: 0.1 },
  cosine: { kind: "cosine", final: 0 },
  onecycle: { kind: "onecycle", rise: 0.3 },
} as const satisfies { [K in ScheduleSpec["kind"]]: ScheduleSpec & { kind: K } };

const ONE_CYCLE_START = 1 / 25;
const ONE_CYCLE_END = ONE_CYCLE_START / 1e4;

const cosine = (from: number, to: number, u: number) => to + ((from - to) * (1 + Math.cos(Math.PI * u))) / 2;

/** The factor of the learning rate at progress u. */
function factorAt(spec: ScheduleSpec, u: number): number {
  switch (spec.kind) {
    case "constant":
      return 1;
    case "step":
      return spec.factor ** spec.at.filter((at) => u >= at).length;
    case "cosine":
      return cosine(1, spec.final, u);
    case "onecycle":
      return u < spec.rise
        ? cosine(ONE_CYCLE_START, 1, u / spec.rise)
        : cosine(1, ONE_CYCLE_END, (u - spec.rise) / (1 - spec.rise));
  }
}

/**
 * The learning rate of step `step` (from 0) of `steps`. The first `warmupSteps` rise linearly to the schedule's value; the schedule itself
 * runs over the steps after them.
 */
export function learningRateAt(
  spec: ScheduleSpec,
  options: {
    readonly learningRate: number;
    readonly step: number;
    readonly steps: number;
    readonly warmupSteps: number;
  },
): number {
  const { learningRate, step, steps, warmupSteps } = options;
  if (step < warmupSteps) return learningRate * factorAt(spec, 0) * ((step + 1) / warmupSteps);
  // The last step stands at u = 1, so that a schedule that ends at a value reaches it.
  const last = Math.max(1, steps - warmupSteps - 1);
  return learningRate * factorAt(spec, Math.min(1, (step - warmupSteps) / last));
}
