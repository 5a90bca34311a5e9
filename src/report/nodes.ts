import { layersThatLoseMost } from "../core/evaluate/lossy-layers.ts";
import type { NodeNote } from "../core/facts.ts";
import { type Content, html, type Markup } from "./markup.ts";
import { count, decibels, details, plural, section, shortened, table } from "./parts.ts";
import type { Report } from "./report.ts";
import { inWords, term } from "./terms.ts";

/** What became of every node, and why; above all, what stayed float. */

/** Rows of the table of nodes; `report.json` has all of them. */
const MAX_ROWS = 1000;

type Outcome = "float" | "slow" | "changed" | "simplified";

/** In the order in which a reader wants them: first what is left to ask about. */
const OUTCOMES: Readonly<Record<Outcome, { readonly label: string; readonly choice: string }>> = {
  float: { label: "left alone", choice: "left as they were" },
  slow: { label: "runs in float", choice: "compressed, and run in float all the same" },
  changed: { label: "compressed", choice: "compressed" },
  simplified: { label: "simplified", choice: "simplified before" },
};

interface Row extends NodeNote {
  readonly outcome: Outcome;
}

export function nodeSection({ nodes, metrics, layer_errors, quantization, optimized_operators }: Report): Content {
  const { coverage, training } = metrics;
  // Training rewrites no nodes.
  if (training && nodes.length === 0) return null;
  const skipped = new Set(coverage.skipped_nodes.map(keyOf));
  const rows: Row[] = [
    ...coverage.skipped_nodes.map((note) => ({ ...note, outcome: "float" as const })),
    ...coverage.float_islands.map((note) => ({ ...note, outcome: "slow" as const })),
    ...nodes
      .filter((note) => note.outcome !== "skipped" || !skipped.has(keyOf(note)))
      .map((note) => ({ ...note, outcome: note.outcome === "skipped" ? ("float" as const) : note.outcome })),
  ];
  const costs: Costs = {
    gains: new Map(quantization?.sensitivity.flatMap(({ nodes, gain_db }) => nodes.map((node) => [node, gain_db]))),
    ratios: new Map(layer_errors?.map(({ node, sqnr_db }) => [node, sqnr_db])),
    places: new Map(layersThatLoseMost(layer_errors, Number.POSITIVE_INFINITY).map(({ node }, i) => [node, i])),
  };
  const order = Object.keys(OUTCOMES);
  rows.sort(
    (a, b) => costOf(b.name, costs) - costOf(a.name, costs) || order.indexOf(a.outcome) - order.indexOf(b.outcome),
  );
  return section(
    "Nodes: what they cost, and what stayed float",
    reasons(rows.filter(({ outcome }) => outcome === "float" || outcome === "slow")),
    operators(rows),
    rows.length > 0 ? nodeTable(rows, costs) : null,
    details(
      "Operators that onnxruntime runs",
      table(
        ["Operator", "Nodes"],
        Object.entries(optimized_operators).map(([op, nodes]) => [html`<code>${shortened(op, 80)}</code>`, nodes]),
      ),
    ),
  );
}

/** What is known of what nodes cost in accuracy, by name. */
interface Costs {
  /** Decibels that the outputs gain when the node stays in float. */
  readonly gains: ReadonlyMap<string, number>;
  /** Of the results. */
  readonly ratios: ReadonlyMap<string, number | null>;
  /** Among those that lose most: 0 loses most of all. */
  readonly places: ReadonlyMap<string, number>;
}

/** Higher costs more: by what float would gain, else by how much of its error the node adds. Nodes that add none, or of which nothing is known, come last. */
function costOf(name: string, { gains, places }: Costs): number {
  return gains.get(name) ?? LESS_THAN_MEASURED - (places.get(name) ?? UNKNOWN_PLACE);
}

/** Below every gain, in dB. */
const LESS_THAN_MEASURED = -1000;
const UNKNOWN_PLACE = 1e9;

function keyOf({ name, op, code }: NodeNote): string {
  return `${code} ${op} ${name}`;
}

/** Every reason once, with how many nodes share it. */
function reasons(rows: readonly Row[]): Content {
  if (rows.length === 0) return html`<p>Every node that was looked at was compressed.</p>`;
  const groups = [...Map.groupBy(rows, ({ outcome, code }) => `${outcome} ${code}`).values()];
  groups.sort((a, b) => b.length - a.length);
  return table(
    ["Reason", "Nodes", "For example"],
    groups.slice(0, MAX_REASONS).map((group) => {
      const { code, message, name, outcome } = group[0]!;
      return [
        inWords(code),
        plural(group.length, "node"),
        html`<code>${shortened(name, 60)}</code>: ${shortened(message, 240)}${outcome === "slow" ? " (found in the graph that runs)" : null}`,
      ];
    }),
  );
}

const MAX_REASONS = 40;

function operators(rows: readonly Row[]): Content {
  const byOperator = new Map<string, { changed: number; float: number }>();
  for (const { op, outcome } of rows) {
    if (outcome !== "changed" && outcome !== "float") continue;
    const row = byOperator.get(op) ?? { changed: 0, float: 0 };
    row[outcome]++;
    byOperator.set(op, row);
  }
  if (byOperator.size === 0) return null;
  return details(
    `By operator: ${plural(byOperator.size, "operator")}`,
    table(
      ["Operator", "Compressed", "Left alone"],
      [...byOperator]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([op, { changed, float }]) => [html`<code>${shortened(op, 80)}</code>`, changed, float]),
    ),
  );
}

function nodeTable(rows: readonly Row[], { ratios }: Costs): Markup {
  const shown = rows.slice(0, MAX_ROWS);
  const present = (Object.keys(OUTCOMES) as Outcome[]).filter((outcome) => rows.some((row) => row.outcome === outcome));
  const ratioCell = (name: string) => {
    const db = ratios.get(name);
    if (db === undefined) return html`<td></td>`;
    return html`<td data-key="${db ?? 999}">${decibels(db)}</td>`;
  };
  return html`<p class="muted">Those that cost most accuracy first, where that was measured.</p><div class="controls" hidden><label>Find <input type="search" placeholder="node, operator, reason"></label>
<label>Show <select><option value="">all nodes</option>${present.map(
    (outcome) => html`<option value="${outcome}">${OUTCOMES[outcome].choice}</option>`,
  )}</select></label> <output></output></div>
<div class="scroll tall"><table class="sortable"><thead><tr>${[
    "Node",
    "Operator",
    "Outcome",
    term("sqnr"),
    "Reason",
    "Why",
  ].map((text) => html`<th scope="col">${text}</th>`)}</tr></thead><tbody>${shown.map(
    ({ name, op, outcome, code, message }) =>
      html`<tr data-outcome="${outcome}"><th scope="row"><code>${shortened(name, 120)}</code></th><td><code>${shortened(op, 60)}</code></td><td>${
        OUTCOMES[outcome].label
      }</td>${ratioCell(name)}<td>${inWords(code)}</td><td class="prose">${shortened(message, 240)}</td></tr>`,
  )}</tbody></table></div>${
    rows.length > shown.length
      ? html`<p class="muted">${count(rows.length - shown.length)} more are in report.json.</p>`
      : null
  }`;
}
