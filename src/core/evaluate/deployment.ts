/** A result beside what the runtime wants that it is made for: rules that are checked, and what was measured there. */
import type {
  ArtifactRules,
  DeploymentFacts,
  DownloadFacts,
  ElsewhereFacts,
  JobMetrics,
  RuleCheck,
  Warning,
} from "../facts.ts";
import type { Model } from "../onnx/ir.ts";
import { floatsOf, type Tensor } from "../onnx/tensor.ts";
import { speedupInterval, timingOf } from "../runtime/latency.ts";
import { checkArtifact } from "../targets/check-artifact.ts";

type Outputs = Readonly<Record<string, Tensor>>;

/** What came of running both models in turns in another runtime: times in milliseconds, and what the result gives out there. */
export type ElsewhereAnswer =
  | { readonly missing: string }
  | { readonly failure: string }
  | {
      readonly runtime: string;
      readonly threads: number;
      readonly loadMs: number;
      readonly beforeMs: readonly number[];
      readonly afterMs: readonly number[];
      readonly outputs: Outputs;
    };

export interface DeploymentOptions {
  readonly target: string;
  /** What the runtime is called. */
  readonly runtime: string;
  readonly rules: ArtifactRules;
  readonly model: Model;
  /** Absent where the runtime cannot be on this machine. */
  readonly answer?: ElsewhereAnswer | undefined;
  /** What the result gives out in onnxruntime for what it was fed there. */
  readonly outputs?: Outputs | undefined;
  readonly download: DownloadFacts | null;
}

export interface Deployed {
  readonly facts: DeploymentFacts;
  readonly warnings: readonly Warning[];
  /** A result that breaks a rule, or does not run where it should, misses limits that nobody has to ask for. */
  readonly acceptance: JobMetrics["acceptance"];
}

/** Checks a result, and puts together what was found. Nothing is run here. */
export function describeDeployment(options: DeploymentOptions): Deployed {
  const { target, runtime, answer, outputs, download } = options;
  const rules = checkArtifact(options.model, options.rules);
  const failure = answer && "failure" in answer ? answer.failure : null;
  const measured = answer && "runtime" in answer ? factsOf(answer, outputs) : null;
  const broken = rules.filter(({ holds }) => !holds);
  const warnings: Warning[] = [];
  if (broken.length > 0) {
    warnings.push({ code: "target_rules_broken", message: toldOf(runtime, broken), value: broken.length });
  }
  if (failure !== null) {
    warnings.push({ code: "target_does_not_run", message: `${runtime} does not run the result: ${failure}`, value: 0 });
  }
  if (answer && "missing" in answer) {
    warnings.push({ code: "target_not_measured", message: answer.missing, value: 0 });
  }
  return {
    facts: { target, rules, measured, failure, download },
    warnings,
    acceptance: [
      ...(broken.length > 0 ? [{ name: "max_broken_target_rules", limit: 0, value: broken.length, ok: false }] : []),
      ...(failure !== null ? [{ name: "runs_in_target", limit: 1, value: 0, ok: false }] : []),
    ],
  };
}

function toldOf(runtime: string, broken: readonly RuleCheck[]): string {
  const told = broken.map(
    ({ rule, broken: [first] }) => `${rule} (${first!.name ? `${first!.name}: ` : ""}${first!.message})`,
  );
  return `The result is not as ${runtime} wants it: ${told.join("; ")}`;
}

function factsOf(answer: Extract<ElsewhereAnswer, { runtime: string }>, outputs: Outputs | undefined): ElsewhereFacts {
  const [before, after] = [timingOf(answer.beforeMs), timingOf(answer.afterMs)];
  return {
    runtime: answer.runtime,
    before,
    after,
    speedup: before.p50_ms / after.p50_ms,
    speedup_interval: speedupInterval(answer.beforeMs, answer.afterMs),
    runs: answer.afterMs.length,
    threads: answer.threads,
    load_ms: answer.loadMs,
    sqnr_db: outputs ? sqnrDb(outputs, answer.outputs) : null,
  };
}

/** 10·log10(Σx² / Σ(x−y)²) over all float32 outputs, between -200 and 200; null when they are identical, and where there are none. */
function sqnrDb(expected: Outputs, actual: Outputs): number | null {
  let [signal, noise] = [0, 0];
  for (const [name, tensor] of Object.entries(expected)) {
    const other = actual[name];
    if (tensor.dtype !== "float32" || !other) continue;
    const values = floatsOf(other);
    floatsOf(tensor).forEach((x, i) => {
      signal += x * x;
      noise += (x - values[i]!) ** 2;
    });
  }
  return noise === 0 ? null : Math.min(Math.max(10 * Math.log10(signal / noise), -200), 200);
}
