import type { AutoRecommendation, JobMetrics } from "../../../core/contract.ts";

/** What a file of a candidate's model is called among the artifacts of the search. */
export function artifactName(candidate: string, file: string): string {
  return `${candidate}.${file}`;
}

/** What a search has found, with the ids of the models that were stored, by the names of their candidates. */
export function withModelIds(metrics: JobMetrics, ids: ReadonlyMap<string, string>, original: string): JobMetrics {
  const { auto } = metrics;
  if (!auto) return metrics;
  const idOf = (name: string, on_front: boolean) => ids.get(name) ?? (on_front ? original : null);
  const recommended = (it: AutoRecommendation): AutoRecommendation => ({
    ...it,
    model_id: ids.get(it.candidate) ?? original,
    next_better: it.next_better && { ...it.next_better, model_id: ids.get(it.next_better.candidate) ?? original },
  });
  return {
    ...metrics,
    auto: {
      ...auto,
      candidates: auto.candidates.map((it) => ({ ...it, model_id: idOf(it.name, it.on_front) })),
      recommendation: recommended(auto.recommendation),
      targets: auto.targets.map((it) => ({ ...it, recommendation: recommended(it.recommendation) })),
    },
  };
}
