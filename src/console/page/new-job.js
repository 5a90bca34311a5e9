import { useState } from "preact/hooks";
import { get } from "./api.js";
import { Field, Fields, resolve, withField } from "./form.js";
import { bytes, count, percent, words } from "./format.js";
import { plan, start, useOnce } from "./jobs.js";
import { Action, Failure } from "./parts.js";
import { html } from "./view.js";

/** Asking for a job: by a form made from the API's schemas, as JSON, or by saying what one can accept. */

const REQUEST = { $ref: "#/components/schemas/JobRequest" };

/** The schema of the request for a kind of job. */
function requestOf(type, schemas) {
  return resolve(REQUEST, schemas)
    .oneOf.map((member) => resolve(member, schemas))
    .find(
      (member) => resolve(member.properties.type, schemas).const === type || member.properties.type.enum?.[0] === type,
    );
}

const typesOf = (schemas) => Object.keys(resolve(REQUEST, schemas).discriminator.mapping);

export function NewJob({ query, schemas, choices, go }) {
  const [body, setBody] = useState({ type: "quantize", params: { method: "weight_only", bits: 8 } });
  const [found, setFound] = useState(undefined);
  const [error, setError] = useState(undefined);
  useOnce(() => {
    const draft = sessionStorage.getItem("modelpress-draft");
    if (query.draft && draft) setBody(JSON.parse(draft));
    else if (query.job) {
      get(`/v1/jobs/${query.job}`).then(({ type, model_id, params, evaluation, acceptance }) => {
        setBody({ type, ...(model_id && { model_id }), params, evaluation, acceptance });
      }, setError);
    } else {
      setBody((old) => ({
        ...old,
        ...(query.model && { model_id: query.model }),
        ...(query.dataset && { evaluation: { dataset_id: query.dataset } }),
      }));
    }
  });
  const schema = requestOf(body.type, schemas);
  const change = (next) => {
    setFound(undefined);
    setBody(next);
  };
  const common = { schemas, choices };
  return html`<h1 tabindex="-1">New job</h1>
    <form onSubmit=${(event) => event.preventDefault()}>
      <div class="field">
        <label for="kind">What is to be done</label>
        <select id="kind" value=${body.type} onChange=${({ target }) => change({ type: target.value, ...(body.model_id && { model_id: body.model_id }) })}>
          ${typesOf(schemas).map((type) => html`<option value=${type}>${KINDS[type] ?? words(type)}</option>`)}
        </select>
      </div>
      <${Fields} schema=${schema} path="" value=${body} onChange=${change} skip=${["params", "evaluation", "acceptance"]} first=${["model_id"]} ...${common} />
      <${Field} name="params" path="/params" schema=${schema.properties.params} value=${body.params} onChange=${(params) => change(withField(body, "params", params))} required ...${common} />
      <${Evaluation} schema=${schema.properties.evaluation} body=${body} change=${change} ...${common} />
      <fieldset>
        <legend>Limits: what you can accept</legend>
        <${Fields} schema=${schema.properties.acceptance} path="/acceptance" value=${body.acceptance} onChange=${(acceptance) => change(withField(body, "acceptance", emptied(acceptance)))} first=${["max_metric_drop", "min_sqnr_db", "max_size_ratio", "min_speedup"]} ...${common} />
      </fieldset>
      <${AsJson} body=${body} onChange=${change} />
      <p class="actions">
        <${Action} type="submit" onError=${setError} run=${async () => go(`/jobs/${(await start(body)).id}`)}>Start<//>
        <${Action} class="quiet" onError=${setError} run=${async () => setFound(await plan(body))}>Only say what it would do<//>
      </p>
      <${Failure} error=${error} />
      ${found && html`<${Plan} plan=${found} />`}
    </form>`;
}

const KINDS = {
  quantize: "Quantize a model: fewer bits",
  distill: "Train a student: distillation",
  pipeline: "Several steps, one after the other",
  evaluate: "Measure models against each other",
  auto: "Find the best method by what can be accepted",
};

const emptied = (value) => (value && Object.keys(value).length === 0 ? undefined : value);

/** What a result is judged on; of a model with symbolic sizes, a size for each. */
function Evaluation({ schema, body, change, schemas, choices }) {
  const value = body.evaluation;
  const set = (evaluation) => change(withField(body, "evaluation", emptied(evaluation)));
  const [dims, setDims] = useState({ model: undefined, names: [] });
  if (body.model_id && dims.model !== body.model_id) {
    setDims({ model: body.model_id, names: [] });
    get(`/v1/models/${body.model_id}`).then(
      (model) => setDims({ model: model.id, names: symbolsOf(model.inputs) }),
      () => {},
    );
  }
  return html`<fieldset>
    <legend>Judge it on</legend>
    <${Fields} schema=${schema} path="/evaluation" value=${value} onChange=${set} first=${["dataset_id"]} skip=${dims.names.length > 0 ? ["dims"] : []} schemas=${schemas} choices=${choices} />
    ${!value?.dataset_id && html`<p class="muted">Without data the result is compared on random numbers: enough to see that nothing broke, not to know whether answers stay right.</p>`}
    ${
      dims.names.length > 0 &&
      !value?.dataset_id &&
      html`<div class="row">${dims.names.map(
        (name) => html`<div class="field"><label for=${`dim-${name}`}>Size of ${name}</label>
          <input id=${`dim-${name}`} type="number" min="1" step="1" placeholder="1" value=${value?.dims?.[name] ?? ""}
            onInput=${({ target }) => set(withField(value, "dims", emptied(withField(value?.dims, name, target.value === "" ? undefined : Number(target.value)))))} /></div>`,
      )}</div>`
    }
  </fieldset>`;
}

/** Names of sizes that are not fixed; those without one are called by input and axis. */
function symbolsOf(inputs) {
  const names = inputs.flatMap(({ name, shape }) =>
    (shape ?? []).flatMap((dim, axis) => (typeof dim === "string" ? [dim] : dim === null ? [`${name}.${axis}`] : [])),
  );
  return [...new Set(names)];
}

/** The request as it will be sent; a job from elsewhere can be pasted here. */
function AsJson({ body, onChange }) {
  const [typed, setTyped] = useState(undefined);
  const [wrong, setWrong] = useState("");
  const read = (text) => {
    try {
      onChange(JSON.parse(text));
      setWrong("");
      setTyped(undefined);
    } catch (error) {
      setTyped(text);
      setWrong(error.message);
    }
  };
  return html`<details class="more"><summary>As JSON (paste a job here)</summary>
    <label class="unseen" for="json">The job as JSON</label>
    <textarea id="json" rows="12" spellcheck="false" value=${typed ?? JSON.stringify(body, null, 2)} onInput=${({ target }) => read(target.value)}></textarea>
    ${wrong && html`<p role="alert" class="bad">${wrong}</p>`}
  </details>`;
}

function Plan({ plan }) {
  if (plan.type === "quantize") {
    const { size, quantized_nodes, skipped_nodes, warnings, provisional } = plan;
    return html`<section class="card" role="status" aria-label="Plan">
      <h2>It would work</h2>
      <p>${bytes(size.before_bytes)} → ${bytes(size.predicted_bytes)} (${percent(size.ratio)}); ${count(quantized_nodes.length)} nodes changed, ${count(skipped_nodes.length)} left alone.</p>
      ${warnings.length > 0 && html`<ul class="notices">${warnings.map((it) => html`<li>${it.message}</li>`)}</ul>`}
      ${provisional.length > 0 && html`<ul>${provisional.map((it) => html`<li>${it.message}</li>`)}</ul>`}
    </section>`;
  }
  return html`<section class="card" role="status" aria-label="Plan"><h2>It would work</h2><pre tabindex="0"><code>${JSON.stringify(plan, null, 2)}</code></pre></section>`;
}

// ---- by what can be accepted -----------------------------------------------------------------------------------------

/** The methods that are worth a try on any model, without knowing it. */
function candidates(dataset) {
  return [
    { method: "weight_only", bits: 8, format: "qdq" },
    { method: "weight_only", bits: 4 },
    { method: "dynamic" },
    { method: "float16" },
    ...(dataset ? [{ method: "static", dataset_id: dataset }] : []),
  ];
}

export function Accept({ query, schemas, choices, go }) {
  const hasAuto = typesOf(schemas).includes("auto");
  const [form, setForm] = useState({
    model: query.model ?? "",
    dataset: query.dataset ?? "",
    size: "",
    speed: "",
    drop: "",
    sqnr: "",
  });
  const [error, setError] = useState(undefined);
  const set =
    (name) =>
    ({ target }) =>
      setForm({ ...form, [name]: target.value });
  const number = (text, scale = 1) => (text === "" ? undefined : Number(text) / scale);
  const run = async () => {
    const limits = {
      max_size_ratio: number(form.size, 100),
      min_speedup: number(form.speed),
      max_metric_drop: number(form.drop, 100),
      min_sqnr_db: number(form.sqnr),
    };
    const acceptance = Object.fromEntries(Object.entries(limits).filter(([, limit]) => limit !== undefined));
    const jobs = [];
    const refused = [];
    for (const params of candidates(form.dataset)) {
      try {
        jobs.push(
          await start({
            type: "quantize",
            model_id: form.model,
            params,
            acceptance,
            ...(form.dataset && { evaluation: { dataset_id: form.dataset } }),
          }),
        );
      } catch (problem) {
        // A method that does not suit this model is no reason not to try the others.
        refused.push(problem);
      }
    }
    if (jobs.length === 0) throw refused[0];
    go(`/compare/${jobs.map((job) => job.id).join(",")}`);
  };
  const select = (name, label, list, none) => html`<div class="field"><label for=${name}>${label}</label>
    <select id=${name} value=${form[name]} onChange=${set(name)}><option value="">${none}</option>${list.map((it) => html`<option value=${it.id}>${it.name} (${it.id.slice(-6)})</option>`)}</select></div>`;
  const input = (name, label, hint) => html`<div class="field"><label for=${name}>${label}</label>
    <input id=${name} type="number" step="any" min="0" value=${form[name]} onInput=${set(name)} aria-describedby=${`${name}-hint`} /><p id=${`${name}-hint`} class="muted hint">${hint}</p></div>`;
  return html`<h1 tabindex="-1">What can you accept?</h1>
    <p>The usual methods are tried, each as a job of its own, and compared. Leave a limit empty if you have none.
    ${hasAuto && html` Or let <a href="#/new">a job of the kind “auto”</a> search.`}</p>
    <form onSubmit=${(event) => event.preventDefault()}>
      ${select("model", "Model", choices.models, "choose…")}
      ${select("dataset", "Data to calibrate and judge on", choices.datasets, "none: random numbers")}
      <div class="row">
        ${input("size", "At most this size, %", "of the original: 30")}
        ${input("speed", "At least this many times as fast", "1.5")}
        ${form.dataset ? input("drop", "At most this loss of the metric, points", "1 for one per cent; needs labels") : input("sqnr", "At least this SQNR, dB", "20: errors are a tenth of the values")}
      </div>
      <p class="actions"><${Action} type="submit" disabled=${form.model === ""} onError=${setError} run=${run}>Try the usual methods<//></p>
      <${Failure} error=${error} />
    </form>`;
}
