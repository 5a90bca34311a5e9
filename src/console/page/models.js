import { useState } from "preact/hooks";
import { all, get, remove, save, upload } from "./api.js";
import { bytes, count, percent, shape, time } from "./format.js";
import { FromAddress } from "./from-address.js";
import { Action, Bar, Drop, Failure, Loaded, Progress, Table, useLoaded } from "./parts.js";
import { html } from "./view.js";

/** Models: dropping one, and seeing what it is. */

export function ModelDrop({ onUploaded }) {
  const [sent, setSent] = useState(undefined);
  const [error, setError] = useState(undefined);
  const take = async (files) => {
    setError(undefined);
    setSent(0);
    try {
      onUploaded(await upload("/v1/models", files, {}, setSent));
    } catch (problem) {
      setError(problem);
    } finally {
      setSent(undefined);
    }
  };
  return html`<${Drop} label="Drop a model here" hint="An .onnx file, with its data files beside it if it has some" accept="" multiple busy=${sent !== undefined} onFiles=${take} />
    ${sent !== undefined && html`<${Progress} value=${sent} label=${sent < 1 ? `Sending, ${Math.round(100 * sent)} %` : "Looking inside…"} />`}
    <${Failure} error=${error} />
    <${FromAddress} what="models" onAdded=${onUploaded} />`;
}

export function Models({ go }) {
  const models = useLoaded(() => all("/v1/models"), []);
  return html`<h1 tabindex="-1">Models</h1>
    <${ModelDrop} onUploaded=${(model) => go(`/models/${model.id}`)} />
    <${Loaded} from=${models}>
      ${(list) => (list.length === 0 ? html`<p>There is no model yet.</p>` : html`<${ModelTable} models=${list} />`)}
    <//>`;
}

export function ModelTable({ models }) {
  return html`<${Table} caption="Models" head=${["Name", "Size", "Parameters", "Added"]}>
    ${models.map(
      (model) => html`<tr>
        <th scope="row"><a href=${`#/models/${model.id}`}>${model.name}</a>${model.derived_from && html` <span class="muted">made by a job</span>`}</th>
        <td>${bytes(model.size_bytes)}</td>
        <td>${count(model.parameters)}</td>
        <td>${time(model.created_at)}</td>
      </tr>`,
    )}
  <//>`;
}

export function ModelPage({ id, go }) {
  const model = useLoaded(() => get(`/v1/models/${id}`), [id]);
  const layers = useLoaded(() => all(`/v1/models/${id}/layers`, 1000), [id]);
  const [error, setError] = useState(undefined);
  return html`<${Loaded} from=${model}>
    ${(it) => html`<h1 tabindex="-1">${it.name}</h1>
      <p class="actions">
        <a class="button" href=${`#/new?model=${id}`}>Compress it</a>
        <a class="button quiet" href=${`#/accept?model=${id}`}>Say what you can accept</a>
        <${Action} class="quiet" onError=${setError} run=${() => save(`/v1/models/${id}/content`, it.files.length > 1 ? `${it.name}.tar` : it.files[0].name)}>Download<//>
        <${Action} class="quiet danger" onError=${setError} run=${async () => {
          if (!confirm(`Delete ${it.name}?`)) return;
          await remove(`/v1/models/${id}`);
          go("/models");
        }}>Delete<//>
      </p>
      <${Failure} error=${error} />
      ${it.warnings.length > 0 && html`<ul class="notices">${it.warnings.map((warning) => html`<li>${warning.message}</li>`)}</ul>`}
      <dl>
        <dt>Size</dt><dd>${bytes(it.size_bytes)}${it.files.length > 1 && html` in ${it.files.length} files`}</dd>
        <dt>Parameters</dt><dd>${count(it.parameters)}</dd>
        <dt>Operations</dt><dd>${count(it.nodes)}: ${operators(it)}</dd>
        <dt>Multiply-accumulates</dt><dd>${it.macs === null ? "not known: its sizes are symbolic" : count(it.macs)}</dd>
        <dt>Can be trained</dt><dd>${it.trainable.ok ? "yes" : html`no: ${it.trainable.message}`}</dd>
        <dt>Made by</dt><dd>${it.derived_from ? html`<a href=${`#/jobs/${it.derived_from.job_id}`}>a job</a> from <a href=${`#/models/${it.derived_from.model_id}`}>another model</a>` : it.producer || "not said"}</dd>
        <dt>sha256</dt><dd><code>${it.sha256}</code></dd>
        <dt>Id</dt><dd><code>${it.id}</code></dd>
      </dl>
      <h2>Inputs and outputs</h2>
      <${Table} caption="Inputs and outputs" head=${["", "Name", "Type", "Shape"]}>
        ${[...it.inputs.map((value) => ["input", value]), ...it.outputs.map((value) => ["output", value])].map(
          ([kind, value]) =>
            html`<tr><td>${kind}</td><th scope="row"><code>${value.name}</code></th><td>${value.dtype ?? value.type}</td><td><code>${shape(value.shape)}</code></td></tr>`,
        )}
      <//>
      <h2>Where the bytes are</h2>
      <${Weights} model=${it} />
      <${Loaded} from=${layers}>${(list) => html`<${Layers} layers=${list} total=${it.weight_bytes} />`}<//>`}
  <//>`;
}

const MOST_OPERATORS = 6;

function operators({ operators }) {
  const sorted = Object.entries(operators).sort(([, a], [, b]) => b - a);
  const shown = sorted.slice(0, MOST_OPERATORS).map(([op, times]) => `${op} ${count(times)}`);
  return shown.join(", ") + (sorted.length > MOST_OPERATORS ? `, and ${sorted.length - MOST_OPERATORS} more` : "");
}

function Weights({ model }) {
  const dtypes = Object.entries(model.weight_bytes_by_dtype).sort(([, a], [, b]) => b - a);
  const rest = Math.max(0, model.size_bytes - model.weight_bytes);
  return html`<ul class="bars" aria-label="Bytes by type">
    ${[...dtypes, ["the graph itself", rest]].map(
      ([name, size]) =>
        html`<li><${Bar} share=${size / model.size_bytes}>${name}: ${bytes(size)} (${percent(size / model.size_bytes)})<//></li>`,
    )}
  </ul>`;
}

const MOST_LAYERS = 15;

function Layers({ layers, total }) {
  const [whole, setWhole] = useState(false);
  if (layers.length === 0) return html`<p>No operation of it holds weights.</p>`;
  const sorted = [...layers].sort((a, b) => b.bytes - a.bytes);
  const shown = whole ? sorted : sorted.slice(0, MOST_LAYERS);
  return html`<h3>Layers, the largest first</h3>
    <${Table} caption="Layers by size" head=${["Layer", "Operator", "Weight", "Bytes"]}>
      ${shown.map(
        (layer) => html`<tr>
          <th scope="row"><code>${layer.name}</code></th><td>${layer.op}</td><td><code>${shape(layer.shape)}</code> ${layer.dtype}</td>
          <td><${Bar} share=${layer.bytes / sorted[0].bytes}>${bytes(layer.bytes)} (${percent(layer.bytes / total)})<//></td>
        </tr>`,
      )}
    <//>
    ${!whole && sorted.length > MOST_LAYERS && html`<button type="button" class="quiet" onClick=${() => setWhole(true)}>Show all ${sorted.length}</button>`}`;
}
