import type { AutoCandidate, AutoTarget } from "../core/facts.ts";
import { worstOutput } from "./contest.ts";
import { deployment } from "./deployment.ts";
import { type Content, html, type Markup } from "./markup.ts";
import {
  below,
  bytes,
  decibels,
  details,
  duration,
  metricFormat,
  percent,
  ratio,
  section,
  table,
  within,
} from "./parts.ts";
import type { DrawChart } from "./plots.ts";
import type { Report } from "./report.ts";
import { type Trade, tradeChart } from "./trade-chart.ts";

/** What a search has found: the front, the recommendation, and what became of every candidate. Nothing for other jobs. */
export function searchSections({ metrics }: Report, draw: DrawChart): Content {
  const { auto } = metrics;
  if (!auto) return null;
  const { targets, seconds } = auto;
  const several = targets.length > 1;
  const made = auto.candidates.filter(({ spec }) => spec !== null);
  const tried = made.filter((it) => whyUntried(it) === undefined).length;
  return [
    targets.map((target) => targetSections(target, auto.candidates, several, draw)),
    html`<p class="muted">${tried} of ${made.length} candidates were tried, in ${duration(1000 * seconds)}.</p>`,
    section(
      "Jobs that make these models",
      html`<p class="muted">Posted as a job, each makes the same bytes.</p>`,
      auto.candidates.filter(({ on_front }) => on_front).map(specOf),
    ),
  ];
}

/** What was found for one target. */
function targetSections(
  { target, recommendation }: AutoTarget,
  all: readonly AutoCandidate[],
  several: boolean,
  draw: DrawChart,
): Content {
  const { why, next_better } = recommendation;
  const candidates = all.filter((it) => it.target === target);
  const titled = (title: string) => (several ? `${title} for ${target}` : title);
  const front = candidates.filter(({ on_front }) => on_front);
  const rest = candidates.filter((it) => !it.on_front && whyUntried(it) === undefined);
  const measured = candidates.filter(({ measured }) => measured !== null);
  const there = candidates.find(({ deployment }) => deployment?.measured)?.deployment?.measured;
  return [
    section(
      titled("Recommendation"),
      html`<p>${why}</p>`,
      next_better ? html`<p class="muted">${next_better.message}</p>` : null,
    ),
    section(
      titled("What can be had"),
      there ? html`<p>Speeds and latencies are those of ${there.runtime}, each model beside the original.</p>` : null,
      html`<p class="muted">Every model here is better than each other one in size, speed or quality. All were measured in turns, on the same samples. Below a
number: its confidence interval at 95 %.</p>`,
      tradeChart(measured.map(tradeOf), draw),
      frontTable(front),
    ),
    deployment(candidates.find(({ recommended }) => recommended)?.deployment ?? null, "This is the recommended model."),
    rest.length === 0 ? null : section(titled("Candidates that were dropped"), droppedTable(rest)),
    untriedSection(titled("Candidates that were not tried"), candidates),
  ];
}

/** Why a candidate was not tried, if it was not. */
function whyUntried({ dropped, predicted }: AutoCandidate): "budget" | "unpromising" | undefined {
  const code = predicted === null ? dropped?.code : undefined;
  return code === "budget" || code === "unpromising" ? code : undefined;
}

function untriedSection(title: string, candidates: readonly AutoCandidate[]): Content {
  const late = candidates.filter((it) => whyUntried(it) === "budget");
  const worse = candidates.filter((it) => whyUntried(it) === "unpromising");
  if (late.length + worse.length === 0) return null;
  const because = [...Map.groupBy(worse, ({ dropped }) => dropped!.message)];
  return section(
    title,
    late.length === 0
      ? null
      : html`<p>The time for trials was over before: ${late.map(({ name }) => name).join(", ")}.</p>`,
    because.map(([reason, same]) => html`<p>${same.map(({ name }) => name).join(", ")}: ${reason}</p>`),
  );
}

function tradeOf({ name, measured, recommended }: AutoCandidate): Trade {
  const { size, latency, accuracy, fidelity } = measured!;
  const worst = worstOutput({ fidelity });
  return {
    name,
    bytes: size.after_bytes,
    speedup: latency.speedup,
    quality: accuracy
      ? { name: accuracy.metric, value: accuracy.after, interval: accuracy.after_interval }
      : { name: "SQNR", value: worst?.sqnr_db ?? null, interval: worst?.sqnr_interval_db ?? null },
    isMarked: recommended,
  };
}

function frontTable(front: readonly AutoCandidate[]): Markup {
  const metric = front[0]?.measured?.accuracy?.metric;
  const format = metric ? metricFormat(metric) : String;
  return table(
    ["Candidate", "Size", ...(metric ? [metric, "Drop"] : []), "SQNR", "Latency", "Speedup", "Peak memory"],
    front.map(({ name, recommended, measured }) => {
      const { size, accuracy, fidelity, latency, memory } = measured!;
      const worst = worstOutput({ fidelity });
      return [
        recommended ? below(html`<b>${name}</b>`, "recommended") : name,
        below(bytes(size.after_bytes), percent(size.ratio)),
        ...(metric
          ? [
              accuracy ? within(format(accuracy.after), accuracy.after_interval, format) : "–",
              accuracy ? within(format(accuracy.drop), accuracy.interval, format) : "–",
            ]
          : []),
        worst ? within(decibels(worst.sqnr_db), worst.sqnr_interval_db, decibels) : "–",
        duration(latency.after.p50_ms),
        within(ratio(latency.speedup), latency.speedup_interval, ratio),
        bytes(memory.after_peak_bytes),
      ];
    }),
  );
}

const STAGES = {
  planned: "before it was made",
  made: "when it was made",
  tried: "after its trial",
  measured: "after it was measured",
} as const;

function droppedTable(rest: readonly AutoCandidate[]): Markup {
  return table(
    ["Candidate", "Why", "Size", "Speedup", "SQNR"],
    rest.map(({ name, dropped, predicted, measured }) => {
      const worst = measured && worstOutput(measured);
      return [
        name,
        dropped ? below(html`<span class="prose">${dropped.message}</span>`, STAGES[dropped.stage]) : "–",
        predicted ? percent(predicted.size_ratio) : "–",
        measured ? ratio(measured.latency.speedup) : predicted ? ratio(predicted.speedup) : "–",
        worst ? decibels(worst.sqnr_db) : predicted ? decibels(predicted.sqnr_db) : "–",
      ];
    }),
  );
}

function specOf({ name, spec }: AutoCandidate): Content {
  if (spec === null) return null;
  return details(name, html`<pre><code>${JSON.stringify(spec, null, 2)}</code></pre>`);
}
