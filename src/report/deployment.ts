import type { DeploymentFacts } from "../core/facts.ts";
import { type Content, html } from "./markup.ts";
import { bytes, decibels, ratio, section, significant, table } from "./parts.ts";

const ELSEWHERE =
  "Size, accuracy and latency elsewhere on this page are those of onnxruntime on the machine that ran the job.";

/** What a model is like in the runtime that it was made for: what was measured there, and what only was checked. */
export function deployment(facts: DeploymentFacts | null, numbersElsewhere = ELSEWHERE): Content {
  if (!facts) return null;
  return section(
    `Made for ${facts.target}`,
    measured(facts),
    html`<p class="muted">Rules of the runtime, checked on the file that was written. ${numbersElsewhere}</p>`,
    table(
      ["Rule", "Holds", "What the runtime wants", "Where it is not so"],
      facts.rules.map(({ rule, holds, says, broken }) => [
        rule,
        holds ? html`<b class="good">yes</b>` : html`<b class="bad">no</b>`,
        says,
        broken.map(({ name, message }) => (name === "" ? message : `${name}: ${message}`)).join(" "),
      ]),
    ),
  );
}

function measured({ measured, failure, download }: DeploymentFacts): Content {
  const travels =
    download &&
    html`<p>Download (${download.encoding}): ${bytes(download.before_bytes)} before, ${bytes(download.after_bytes)} after.</p>`;
  if (failure !== null)
    return [html`<p><b class="bad">The runtime does not run the result:</b> ${failure}</p>`, travels];
  if (!measured) return [html`<p>Nothing was measured in the runtime itself: it was not there.</p>`, travels];
  const { runtime, before, after, speedup, speedup_interval, runs, threads, sqnr_db } = measured;
  return [
    html`<p>Measured in ${runtime}, ${threads} thread, ${runs} runs in turns: ${significant(before.p50_ms)} ms before, ${significant(after.p50_ms)} ms after (median), ${ratio(speedup)} as fast${
      speedup_interval === null ? "" : ` (${ratio(speedup_interval[0])} to ${ratio(speedup_interval[1])} at 95 %)`
    }.${sqnr_db === null ? "" : ` Its outputs there are those of onnxruntime here up to ${decibels(sqnr_db)}.`}</p>`,
    travels,
  ];
}
