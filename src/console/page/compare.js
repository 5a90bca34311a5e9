import { useEffect, useState } from "preact/hooks";
import { all, get } from "./api.js";
import { bytes, milliseconds, percent, words, worstSqnr } from "./format.js";
import { isOver, titleOf } from "./jobs.js";
import { Loaded, Table, useLoaded } from "./parts.js";
import { html } from "./view.js";

/** Jobs side by side: one plot of size against quality, and a table. */

const REFRESH_MS = 2000;
const MOST = 20;

export function Compare({ ids, go }) {
  const list = useLoaded(() => all("/v1/jobs"), []);
  const jobs = useLoaded(() => Promise.all(ids.slice(0, MOST).map((id) => get(`/v1/jobs/${id}`))), [ids.join()]);
  const waiting = jobs.value?.some((job) => !isOver(job));
  useEffect(() => {
    if (!waiting) return;
    const timer = setInterval(jobs.again, REFRESH_MS);
    return () => clearInterval(timer);
  }, [waiting, ids.join()]);
  const toggle = (id) => {
    const next = ids.includes(id) ? ids.filter((it) => it !== id) : [...ids, id];
    go(`/compare/${next.join(",")}`);
  };
  return html`<h1 tabindex="-1">Compare</h1>
    <${Loaded} from=${jobs}>${(chosen) => (chosen.length === 0 ? html`<p>Choose jobs below.</p>` : html`<${Comparison} jobs=${chosen} />`)}<//>
    <h2>Which jobs</h2>
    <${Loaded} from=${list}>
      ${(known) =>
        html`<div class="choose">${known
          .filter((job) => job.status !== "failed" && job.status !== "cancelled")
          .map(
            (job) =>
              html`<label class="check"><input type="checkbox" checked=${ids.includes(job.id)} onChange=${() => toggle(job.id)} /> ${titleOf(job)} <span class="muted">${job.id.slice(-6)} · ${job.status}</span></label>`,
          )}</div>`}
    <//>`;
}

/** What a result is as good as: the metric of the labels if all have the same, else the SQNR. */
function qualityOf(done) {
  const metric = done[0]?.result.metrics.accuracy?.metric;
  if (metric && done.every((job) => job.result.metrics.accuracy?.metric === metric)) {
    return {
      name: metric,
      of: (metrics) => metrics.accuracy.after,
      text: (value) => String(Number(value.toPrecision(4))),
    };
  }
  return {
    name: "SQNR (dB)",
    of: (metrics) => worstSqnr(metrics),
    text: (value) => (value === null ? "identical" : `${value.toFixed(1)} dB`),
  };
}

function Comparison({ jobs }) {
  const done = jobs.filter((job) => job.result);
  const open = jobs.filter((job) => !job.result);
  const quality = qualityOf(done);
  const samples = done.map(({ result: { metrics } }) => (metrics.accuracy ?? metrics.fidelity).samples);
  const [fewest, most] = [Math.min(...samples), Math.max(...samples)];
  return html`${fewest < most && html`<ul class="notices"><li>Not all were judged on as many samples: ${fewest} to ${most}.</li></ul>`}
    ${done.length > 0 && html`<${Plot} jobs=${done} quality=${quality} />`}
    <${Table} caption="Jobs compared" head=${["", "Job", "Size", "Median latency", "Speed", quality.name, "Memory", "Limits"]}>
      ${done.map((job, i) => {
        const { size, latency, memory } = job.result.metrics;
        return html`<tr>
          <td>${i + 1}</td>
          <th scope="row"><a href=${`#/jobs/${job.id}`}>${titleOf(job)}</a> <span class="muted">${job.id.slice(-6)}</span></th>
          <td>${bytes(size.after_bytes)} (${percent(size.ratio)})</td>
          <td>${milliseconds(latency.after.p50_ms)}</td>
          <td>${latency.speedup.toFixed(2)}×</td>
          <td>${quality.text(quality.of(job.result.metrics))}</td>
          <td>${bytes(memory.after_peak_bytes)}</td>
          <td>${job.result.metrics.acceptance.length === 0 ? "none" : job.result.accepted ? "kept" : "missed"}</td>
        </tr>`;
      })}
      ${open.map(
        (job) =>
          html`<tr><td></td><th scope="row"><a href=${`#/jobs/${job.id}`}>${titleOf(job)}</a></th><td colspan="6">${job.status}${job.progress && !isOver(job) && ` ${Math.round(100 * job.progress.fraction)} %`}${job.error && `: ${job.error.detail}`}</td></tr>`,
      )}
    <//>
    <p role="status" class="unseen">${open.length === 0 ? "All jobs have ended." : `${open.length} jobs are not finished.`}</p>`;
}

const [WIDTH, HEIGHT, LEFT, BOTTOM] = [640, 320, 70, 46];

/** Places of dots, those of equal results moved to the right of each other. */
function besideEachOther(wanted) {
  const apart = 20;
  const placed = [];
  for (const { x, y } of wanted) {
    const covers = (at) => placed.find((other) => Math.hypot(other.x - at, other.y - y) < apart * 0.8);
    let free = x;
    for (let other = covers(free); other; other = covers(free)) free = other.x + apart;
    placed.push({ x: free, y });
  }
  return placed;
}

/** Size from left to right, quality upwards, a larger dot is faster; further up and further left is better. */
function Plot({ jobs, quality }) {
  const [shown, setShown] = useState(undefined);
  const points = jobs.map((job, i) => {
    const { size, latency } = job.result.metrics;
    return { i, job, x: size.after_bytes, y: quality.of(job.result.metrics), speed: latency.speedup };
  });
  const original = jobs[0].result.metrics.size.before_bytes;
  const finite = points.map(({ y }) => y).filter((y) => y !== null);
  const [low, high] = finite.length === 0 ? [0, 1] : [Math.min(...finite), Math.max(...finite)];
  const margin = (high - low) * 0.15 || 1;
  const [bottom, top] = [low - margin, high + margin];
  const right = Math.max(original, ...points.map(({ x }) => x)) * 1.05;
  const atX = (x) => LEFT + ((WIDTH - LEFT - 16) * x) / right;
  // What is identical has no end of decibels: it stands at the upper edge.
  const atY = (y) => (y === null ? 12 : 12 + (HEIGHT - BOTTOM - 12) * (1 - (y - bottom) / (top - bottom)));
  const radius = (speed) => Math.min(16, 6 + 3 * Math.max(0, speed));
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  const places = besideEachOther(points.map(({ x, y }) => ({ x: atX(x), y: atY(y) })));
  const words_ = points.map(
    ({ i, job, x, y, speed }) =>
      `${i + 1}: ${titleOf(job)}, ${bytes(x)}, ${quality.text(y)}, ${speed.toFixed(2)} times as fast`,
  );
  return html`<figure>
    <figcaption>Size against ${words(quality.name)}: further up and to the left is better, larger dots are faster</figcaption>
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${words_.join("; ")}>
      ${ticks.map(
        (share) => html`<g class="grid">
        <line x1=${LEFT} x2=${WIDTH - 16} y1=${atY(bottom + share * (top - bottom))} y2=${atY(bottom + share * (top - bottom))} />
        <text x=${LEFT - 8} y=${atY(bottom + share * (top - bottom)) + 4} text-anchor="end">${Number((bottom + share * (top - bottom)).toPrecision(3))}</text>
        <text x=${atX(share * right)} y=${HEIGHT - BOTTOM + 20} text-anchor=${share === 1 ? "end" : "middle"}>${bytes(share * right)}</text>
      </g>`,
      )}
      <line class="original" x1=${atX(original)} x2=${atX(original)} y1="12" y2=${HEIGHT - BOTTOM} />
      <text x=${atX(original) - 6} y=${HEIGHT - BOTTOM - 8} text-anchor="end">the original</text>
      ${points.map(
        ({
          i,
          speed,
          job,
        }) => html`<g class=${job.result.accepted ? "point" : "point missed"} onMouseEnter=${() => setShown(i)} onMouseLeave=${() => setShown(undefined)}>
        <circle cx=${places[i].x} cy=${places[i].y} r=${radius(speed)} />
        <text x=${places[i].x} y=${places[i].y + 4} text-anchor="middle">${i + 1}</text>
      </g>`,
      )}
    </svg>
    <p class="muted">${shown === undefined ? "Numbers are those of the table; red ones miss a limit." : words_[shown]}</p>
  </figure>`;
}
