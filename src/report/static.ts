import type { SensitivityFacts, StaticEvidence, TrialFacts } from "../core/facts.ts";
import { type Content, html, type Markup } from "./markup.ts";
import {
  bytes,
  byteUnit,
  count,
  decibels,
  details,
  metricFormat,
  plural,
  ratio,
  section,
  shortened,
  significant,
  table,
} from "./parts.ts";
import type { DrawChart } from "./plots.ts";
import type { Report } from "./report.ts";

/** What static quantization has found out: its ranges, its corrections, which layers suffer, and what accuracy control made of that. */
export function staticEvidence(report: Report, draw: DrawChart): Content {
  const { quantization } = report;
  if (!quantization) return null;
  return [
    calibration(quantization),
    kernels(quantization.kernels),
    sensitivity(quantization.sensitivity, draw),
    control(report, quantization.control, draw),
  ];
}

function calibration({ calibration, corrections }: StaticEvidence): Markup {
  const { method, tried, samples, tensors, cached } = calibration;
  const others = tried.map((it) => `${it.method} ${decibels(it.sqnr_db)}`).join(", ");
  return section(
    "Calibration and corrections",
    html`<p class="muted">Ranges of ${plural(tensors, "activation")} by <code>${method}</code> over ${plural(samples, "sample")}${
      cached ? ", known from an earlier job with the same model and data" : ""
    }${others === "" ? "" : `, chosen by the outputs of what each method made of them: ${others}`}. A correction is kept when it makes the outputs of samples better that it was not made from.</p>`,
    corrections.length === 0
      ? html`<p>No correction was tried.</p>`
      : table(
          ["Correction", "Without", "With", "Gain", "Kept"],
          corrections.map(({ name, sqnr_before_db, sqnr_after_db, applied }) => [
            name.replaceAll("_", " "),
            decibels(sqnr_before_db),
            decibels(sqnr_after_db),
            signed(sqnr_after_db - sqnr_before_db),
            applied ? html`<b class="good">yes</b>` : "no",
          ]),
        ),
  );
}

const CHOICES = {
  int8: "All that can computes in 8 bits: no other division was faster.",
  mixed: "Some nodes stay in float, because that is no slower than all in 8 bits.",
  float: "All of it computes in float, because that is faster here; weights are stored in few bits.",
} as const;

function kernels(facts: StaticEvidence["kernels"]): Content {
  if (!facts || facts.float_ms === null) return null;
  const { float_ms, int8_speedup, mixed_speedup, predicted_speedup, nodes, cached } = facts;
  return section(
    "Speed of kernels",
    html`<p class="muted">Measured on the machine of the job${cached ? ", by an earlier one" : ""}. ${CHOICES[facts.chosen]} A job with
these nodes as <code>layers</code> and <code>float_where_slower: false</code> makes the same bytes anywhere.</p>`,
    table(
      ["Model", "Against float"],
      [
        ["in float", `${significant(float_ms)} ms`],
        ["all in 8 bits", int8_speedup === null ? "–" : ratio(int8_speedup)],
        ...(mixed_speedup === null
          ? []
          : [["with slow parts in float", `${ratio(mixed_speedup)}, predicted ${ratio(predicted_speedup ?? 1)}`]]),
      ],
    ),
    nodes.length > 0
      ? details(`In float for speed: ${plural(nodes.length, "node")}`, html`<p>${nodes.join(", ")}</p>`)
      : null,
  );
}

/** Bars of the sensitivity chart; the table has all. */
const MAX_BARS = 25;

function sensitivity(facts: readonly SensitivityFacts[], draw: DrawChart): Content {
  if (facts.length === 0) return null;
  const bars = facts.slice(0, MAX_BARS).map((group, i) => ({ ...group, row: i }));
  return section(
    "Sensitivity",
    html`<p class="muted">How much better the outputs become when one group of neighbouring nodes stays in float and all else is
quantized, over calibration samples.</p>`,
    draw({
      title:
        facts.length > bars.length
          ? `The ${bars.length} groups that gain most from staying in float`
          : "What each group gains from staying in float",
      alternative: `${bars[0]!.nodes[0]} gains most, ${decibels(bars[0]!.gain_db)}, of ${plural(facts.length, "group")}`,
      span: "whole",
      draw: ({ plot, width }) => {
        const gains = bars.map(({ gain_db }) => gain_db);
        const [low, high] = [Math.min(0, ...gains), Math.max(0, ...gains)];
        return {
          height: 46 + 36 * bars.length,
          marginTop: 4,
          marginLeft: 14,
          marginRight: 72,
          x: {
            label: "gain (dB)",
            labelArrow: "none",
            domain: [low, high > low ? high : 1],
            grid: true,
            ticks: width > 500 ? 8 : 4,
          },
          y: { axis: null, domain: bars.map(({ row }) => row), padding: 0 },
          marks: [
            plot.barX(bars, { x: "gain_db", y: "row", insetTop: 18, insetBottom: 10, fill: "var(--after)" }),
            plot.ruleX([0]),
            plot.text(bars, {
              x: 0,
              y: "row",
              text: ({ nodes }) => groupName(nodes, Math.floor(width / 9)),
              textAnchor: "start",
              dx: 4,
              dy: -10,
            }),
            plot.text(bars, {
              x: ({ gain_db }) => Math.max(0, gain_db),
              y: "row",
              text: ({ gain_db }) => signed(gain_db),
              textAnchor: "start",
              dx: 5,
              dy: 4,
            }),
          ],
        };
      },
    }),
    details(
      `All ${plural(facts.length, "group")} in numbers`,
      table(
        ["Left in float", "SQNR of the outputs", "Gain"],
        facts.map(({ nodes, sqnr_db, gain_db }) => [nodeList(nodes), decibels(sqnr_db), signed(gain_db)]),
      ),
    ),
  );
}

function control(report: Report, facts: StaticEvidence["control"], draw: DrawChart): Content {
  if (!facts || facts.trials.length === 0) return null;
  const { score, target, original_score, reached, trials } = facts;
  const format = scoreFormat(score);
  const original = report.metrics.size.before_bytes;
  const points = trials.map((trial, i) => ({ ...trial, number: i + 1 }));
  const { unit, factor } = byteUnit(Math.max(original, ...trials.map(({ size_bytes }) => size_bytes)));
  const chosen = points.filter((trial) => trial.chosen);
  const speeds = trials.map(({ speedup }) => speedup);
  const size = ({ size_bytes }: TrialFacts) => size_bytes / factor;
  const isShare = score !== "sqnr_db" && metricFormat(score)(0.5) === "50 %";
  const shown = (value: number) => (isShare ? 100 * value : value);
  const values = [
    ...trials.map((trial) => trial.score),
    target,
    ...(original_score === null ? [] : [original_score]),
  ].map(shown);
  const finite = values.filter(Number.isFinite);
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const margin = (high - low) * 0.15 || 1;
  return section(
    "Accuracy against size",
    html`<p class="muted">${plural(trials.length, "model")} tried, the first with everything quantized, each with some nodes left in float. The
score is ${scoreName(score)}. At least ${format(target)} was wanted, and ${
      reached ? html`<b class="good">was reached</b>` : html`<b class="bad">was not reached</b>`
    }.</p>`,
    draw({
      title: "Score and size of every model that was tried",
      alternative: chosen[0]
        ? `chosen: ${format(chosen[0].score)} at ${bytes(chosen[0].size_bytes)}, ${ratio(chosen[0].speedup)} as fast as the original; wanted ${format(target)}`
        : `${plural(trials.length, "model")}; wanted ${format(target)}`,
      span: "whole",
      legend: [
        ["dot", `a model, larger where faster (${ratio(Math.min(...speeds))} to ${ratio(Math.max(...speeds))})`],
        ["ring good", "chosen"],
        ["dash", "wanted"],
        ...(original_score === null ? [] : [["square", "the original"] as const]),
      ],
      draw: ({ plot, width }) => ({
        height: width > 500 ? 320 : 280,
        marginLeft: 56,
        x: { label: `size (${unit})`, labelArrow: "none", grid: true, nice: true, ticks: width > 500 ? 8 : 5 },
        y: {
          label: isShare ? `${score} (%)` : score === "sqnr_db" ? "SQNR (dB)" : score,
          labelArrow: "none",
          grid: true,
          domain: [low - margin, high + margin],
          ticks: 6,
        },
        r: { domain: [0, Math.max(...speeds)], range: [0, 9] },
        marks: [
          plot.ruleY([shown(target)], { stroke: "var(--ink)", strokeDasharray: "5 4" }),
          plot.line(
            points.toSorted((a, b) => a.size_bytes - b.size_bytes),
            { x: size, y: (trial) => shown(trial.score), stroke: "var(--after)", strokeOpacity: 0.3 },
          ),
          plot.dot(points, {
            x: size,
            y: (trial) => shown(trial.score),
            r: "speedup",
            fill: "var(--after)",
            fillOpacity: 0.75,
            title: (trial) =>
              `model ${trial.number}: ${format(trial.score)}, ${bytes(trial.size_bytes)}, ${ratio(trial.speedup)}`,
          }),
          plot.dot(chosen, { x: size, y: (trial) => shown(trial.score), r: 12, stroke: "var(--good)", strokeWidth: 2 }),
          original_score === null
            ? null
            : plot.dot([original_score], {
                x: original / factor,
                y: shown(original_score),
                symbol: "square",
                r: 5,
                fill: "var(--before)",
                title: () => `the original: ${format(original_score)}, ${bytes(original)}`,
              }),
        ],
      }),
    }),
    details(
      `All ${plural(trials.length, "model")} in numbers`,
      table(
        ["Model", "Score", "Size", "Speed", "Left in float", "Chosen"],
        points.map(({ number, score, size_bytes, speedup, float_nodes, chosen }) => [
          number,
          format(score),
          bytes(size_bytes),
          ratio(speedup),
          float_nodes.length === 0 ? "nothing" : nodeList(float_nodes),
          chosen ? html`<b class="good">yes</b>` : "",
        ]),
      ),
    ),
  );
}

// ---- words -----------------------------------------------------------------------------------------------------------

/** Names of a group that a table shows. */
const MAX_NAMES = 6;

function nodeList(nodes: readonly string[]): Markup {
  const more = nodes.length - MAX_NAMES;
  return html`${nodes.slice(0, MAX_NAMES).map((name, i) => html`${i > 0 ? ", " : null}<code>${shortened(name, 80)}</code>`)}${
    more > 0 ? ` and ${count(more)} more` : null
  }`;
}

function groupName(nodes: readonly string[], most: number): string {
  const more = nodes.length > 1 ? ` and ${count(nodes.length - 1)} more` : "";
  return shortened(nodes[0] ?? "", Math.max(12, most - more.length)) + more;
}

function scoreName(score: string): Content {
  return score === "sqnr_db" ? "the signal to noise ratio of the outputs" : html`<code>${score}</code>`;
}

function scoreFormat(score: string): (value: number) => string {
  return score === "sqnr_db" ? decibels : metricFormat(score);
}

function signed(gainDb: number): string {
  return `${gainDb < 0 ? "−" : "+"}${significant(Math.abs(Number(gainDb.toFixed(2))))} dB`;
}
