import { useEffect, useRef, useState } from "preact/hooks";
import { all, follow, get, key, post, remove, request, save } from "./api.js";
import { answers, bytes, time, words } from "./format.js";
import { Action, Failure, Loaded, Progress, Table, useLoaded } from "./parts.js";
import { html } from "./view.js";

/** Jobs: watching one, and what came of it. */

const REFRESH_MS = 3000;
export const isOver = (job) => ["succeeded", "failed", "cancelled"].includes(job.status);

export function Jobs() {
  const jobs = useLoaded(() => all("/v1/jobs"), []);
  useEffect(() => {
    const timer = setInterval(() => document.visibilityState === "visible" && jobs.again(), REFRESH_MS);
    return () => clearInterval(timer);
  }, []);
  return html`<h1 tabindex="-1">Jobs</h1>
    <p class="actions"><a class="button" href="#/new">New job</a> <a class="button quiet" href="#/compare">Compare</a></p>
    <${Loaded} from=${jobs}>
      ${(list) => (list.length === 0 ? html`<p>There is no job yet.</p>` : html`<${JobTable} jobs=${list} />`)}
    <//>`;
}

const methodOf = ({ params }) => params?.method ?? params?.mode ?? "";
export const titleOf = (job) => job.name || `${words(job.type)} ${words(methodOf(job))}`.trim();

export function JobTable({ jobs }) {
  return html`<${Table} caption="Jobs" head=${["Job", "Status", "Result", "Created"]}>
    ${jobs.map(
      (job) => html`<tr>
        <th scope="row"><a href=${`#/jobs/${job.id}`}>${titleOf(job)}</a> <span class="muted">${job.id.slice(-6)}</span></th>
        <td><${Status} status=${job.status} progress=${job.progress} /></td>
        <td>${job.result ? (job.result.accepted ? "within its limits" : "misses a limit") : (job.error?.detail ?? "")}</td>
        <td>${time(job.created_at)}</td>
      </tr>`,
    )}
  <//>`;
}

function Status({ status, progress }) {
  return html`<span class=${`status ${status}`}>${status}${status === "running" && progress ? ` ${Math.round(100 * progress.fraction)} %` : ""}</span>`;
}

/** A job as its events tell of it: the record anew at each change of status, its progress in between. */
function useJob(id) {
  const [job, setJob] = useState(undefined);
  const [progress, setProgress] = useState(undefined);
  const [log, setLog] = useState([]);
  const [error, setError] = useState(undefined);
  useEffect(() => {
    const stop = new AbortController();
    setJob(undefined);
    setProgress(undefined);
    setLog([]);
    setError(undefined);
    const refresh = async () => {
      const now = await get(`/v1/jobs/${id}`);
      if (!stop.signal.aborted) setJob(now);
    };
    (async () => {
      await refresh();
      await follow(
        id,
        (event) => {
          if (event.type === "progress") setProgress(event.data);
          else setLog((lines) => [...lines.slice(-199), event]);
          if (event.type === "status") refresh().catch(setError);
        },
        stop.signal,
      );
      await refresh();
    })().catch((problem) => stop.signal.aborted || setError(problem));
    return () => stop.abort();
  }, [id]);
  return { job, progress, log, error };
}

export function JobPage({ id, go }) {
  const { job, progress, log, error } = useJob(id);
  const [failure, setFailure] = useState(undefined);
  if (!job) return error ? html`<${Failure} error=${error} />` : html`<p role="status" class="muted">Loading…</p>`;
  const at = progress ?? job.progress;
  return html`<h1 tabindex="-1">${titleOf(job)}</h1>
    <p><${Status} status=${job.status} /> <span class="muted">${time(job.created_at)}${job.model_id && html` · <a href=${`#/models/${job.model_id}`}>the model</a>`}</span></p>
    <p class="actions">
      ${!isOver(job) && html`<${Action} class="quiet" onError=${setFailure} run=${() => post(`/v1/jobs/${id}/cancel`)}>Cancel<//>`}
      ${isOver(job) && html`<${Action} class="quiet" onError=${setFailure} run=${async () => go(`/jobs/${(await post(`/v1/jobs/${id}/retry`)).id}`)}>Run it again<//>`}
      <a class="button quiet" href=${`#/new?job=${id}`}>Change and run</a>
      ${
        isOver(job) &&
        html`<${Action} class="quiet danger" onError=${setFailure} run=${async () => {
          if (!confirm("Delete this job and its report? The model it made stays.")) return;
          await remove(`/v1/jobs/${id}`);
          go("/jobs");
        }}>Delete<//>`
      }
    </p>
    <${Failure} error=${failure ?? error} />
    ${!isOver(job) && html`<${Progress} value=${at?.fraction ?? 0} label=${at ? `${words(at.step)}: ${at.message || "at work"}` : job.status === "queued" ? `waiting, place ${job.queue_position ?? "?"}` : "starting"} />`}
    ${job.error && html`<div class="failure" role="alert"><p><b>${job.error.title}</b> (<code>${job.error.code}</code>)</p><p>${job.error.detail}</p></div>`}
    ${job.delivery && html`<p>Delivery: <b>${job.delivery.status}</b>${job.delivery.location && html` as <code>${job.delivery.location}</code>`}. ${job.delivery.detail}</p>`}
    ${job.result && html`<${Result} job=${job} go=${go} />`}
    <details class="more"><summary>What was asked for</summary><pre tabindex="0"><code>${JSON.stringify(job.params, null, 2)}</code></pre></details>
    <details class="more" open=${!isOver(job)}><summary>Log (${log.length})</summary>
      <ol class="log" role="log" tabindex="0" aria-label="Events of the job">${log.map((event) => html`<li><span class="muted">${new Date(event.at).toLocaleTimeString()}</span> ${lineOf(event)}</li>`)}</ol>
    </details>`;
}

function lineOf({ type, data }) {
  if (type === "status") return data.status;
  if (type === "log") return data.message;
  return `${type}: ${JSON.stringify(data)}`;
}

function Result({ job, go }) {
  const { id, result } = job;
  const report = useLoaded(() => get(`/v1/jobs/${id}/artifacts/report.json`), [id]);
  const [error, setError] = useState(undefined);
  const verdict = report.value?.verdict;
  return html`<section class="card" aria-label="Result">
    <h2>${report.value ? `${report.value.origins.before.name ?? "The model"}: ${report.value.title}` : "Result"}</h2>
    <ul class="answers">${answers(result.metrics).map((line) => html`<li>${line}</li>`)}</ul>
    ${verdict && html`<p><b class=${`grade ${verdict.grade}`}>${words(verdict.grade)}</b> <span class="muted">${verdict.reason}</span></p>`}
    ${
      result.metrics.acceptance.length > 0 &&
      html`<p>${
        result.accepted
          ? "Every limit is kept."
          : html`Misses: ${result.metrics.acceptance
              .filter((it) => !it.ok)
              .map((it) => words(it.name))
              .join(", ")}.`
      }</p>`
    }
    ${result.metrics.warnings.length > 0 && html`<ul class="notices">${result.metrics.warnings.map((warning) => html`<li>${warning.message}</li>`)}</ul>`}
    <p class="actions">
      <${Action} onError=${setError} run=${() => openReport(id)}>Open the report<//>
      ${result.artifacts
        .filter((it) => it.name.endsWith(".onnx"))
        .slice(0, 1)
        .map(
          (it) =>
            html`<${Action} onError=${setError} run=${() => save(it.url, it.name)}>Download the model (${bytes(it.size_bytes)})<//>`,
        )}
      ${result.model_id && html`<a class="button quiet" href=${`#/models/${result.model_id}`}>Look at the model</a>`}
      <a class="button quiet" href=${`#/compare/${id}`}>Compare</a>
    </p>
    <${Failure} error=${error} />
    <details class="more"><summary>All files (${result.artifacts.length})</summary>
      <ul>${result.artifacts.map((it) => html`<li><${Action} class="link" onError=${setError} run=${() => save(it.url, it.name)}>${it.name}<//> ${bytes(it.size_bytes)}</li>`)}</ul>
    </details>
  </section>
  ${report.value?.next?.length > 0 && html`<${NextSteps} steps=${report.value.next} go=${go} />`}`;
}

/** Links carry no key: with one, the report is fetched and saved. */
async function openReport(id) {
  const path = `/v1/jobs/${id}/report`;
  if (key() === "") window.open(path, "_blank", "noopener");
  else await save(path, `${id}.html`);
}

function NextSteps({ steps, go }) {
  return html`<section aria-label="What next">
    <h2>What next</h2>
    <ul class="next">
      ${steps.map((step) => {
        const open = () => {
          sessionStorage.setItem("modelpress-draft", JSON.stringify(step.job));
          go("/new?draft=1");
        };
        return html`<li><button type="button" class="quiet" onClick=${open}>${step.title}</button> <span class="muted">${step.why}</span></li>`;
      })}
    </ul>
  </section>`;
}

/** The models and datasets that a form can name. */
export function useChoices(turn) {
  const loaded = useLoaded(
    async () => ({ models: await all("/v1/models"), datasets: await all("/v1/datasets") }),
    [turn],
  );
  return loaded.value ?? { models: [], datasets: [] };
}

/** Whether the request would be refused, and what it would do. */
export const plan = (body) => post("/v1/jobs/plan", body);

export async function start(body) {
  return (await request("/v1/jobs", { method: "POST", body })).json();
}

/** Something that is done once, when a page opens. */
export function useOnce(work) {
  const done = useRef(false);
  useEffect(() => {
    if (done.current) return;
    done.current = true;
    work();
  });
}
