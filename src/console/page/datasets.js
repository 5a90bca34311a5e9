import { useState } from "preact/hooks";
import { all, get, remove, upload } from "./api.js";
import { Field } from "./form.js";
import { bytes, count, shape, time } from "./format.js";
import { FromAddress } from "./from-address.js";
import { Action, Drop, Failure, Loaded, Progress, Table, useLoaded } from "./parts.js";
import { html } from "./view.js";

/** Datasets: dropping one, saying how it is to be read, and seeing what is in it. */

/** What the file itself does not say, by how its name ends: the kind of its spec. */
const SPECS = [
  [/\.zip$/i, "images"],
  [/\.csv$/i, "csv"],
  [/\.jsonl$/i, "jsonl"],
  [/\.parquet$/i, "parquet"],
  [/\.npy$/i, "array"],
];

export function DatasetDrop({ onUploaded, schemas, choices }) {
  const [file, setFile] = useState(undefined);
  const [spec, setSpec] = useState(undefined);
  const [sent, setSent] = useState(undefined);
  const [error, setError] = useState(undefined);
  const send = async (chosen, how) => {
    setError(undefined);
    setSent(0);
    try {
      onUploaded(
        await upload("/v1/datasets", [chosen], { spec: how === undefined ? "" : JSON.stringify(how) }, setSent),
      );
      setFile(undefined);
    } catch (problem) {
      setError(problem);
    } finally {
      setSent(undefined);
    }
  };
  const take = ([chosen]) => {
    const kind = SPECS.find(([ending]) => ending.test(chosen.name))?.[1];
    if (kind === undefined) return send(chosen);
    setFile(chosen);
    setSpec({ kind });
  };
  return html`<${Drop} label="Drop data here" hint="Samples: .npz, .npy, .safetensors, .csv, .jsonl, .parquet, or a .zip of images" accept="" busy=${sent !== undefined} onFiles=${take} />
    ${
      file &&
      html`<section class="card" aria-label="How to read the file">
        <h2>How is ${file.name} to be read?</h2>
        <${Field} name="spec" path="/spec" schema=${{ $ref: "#/components/schemas/DatasetSpec" }} value=${spec} onChange=${setSpec} schemas=${schemas} choices=${choices} required />
        <p class="actions">
          <button type="button" disabled=${sent !== undefined} onClick=${() => send(file, spec)}>Upload</button>
          <button type="button" class="quiet" onClick=${() => setFile(undefined)}>Never mind</button>
        </p>
      </section>`
    }
    ${sent !== undefined && html`<${Progress} value=${sent} label=${sent < 1 ? `Sending, ${Math.round(100 * sent)} %` : "Reading the samples…"} />`}
    <${Failure} error=${error} />
    <${FromAddress} what="datasets" onAdded=${onUploaded} />`;
}

export function Datasets({ go, schemas, choices }) {
  const datasets = useLoaded(() => all("/v1/datasets"), []);
  return html`<h1 tabindex="-1">Datasets</h1>
    <${DatasetDrop} onUploaded=${(dataset) => go(`/datasets/${dataset.id}`)} schemas=${schemas} choices=${choices} />
    <${Loaded} from=${datasets}>
      ${(list) =>
        list.length === 0
          ? html`<p>There is no dataset yet. Without one, results are compared on random numbers, which say nothing about accuracy.</p>`
          : html`<${Table} caption="Datasets" head=${["Name", "Samples", "Labels", "Size", "Added"]}>
              ${list.map(
                (it) =>
                  html`<tr><th scope="row"><a href=${`#/datasets/${it.id}`}>${it.name}</a></th><td>${count(it.samples)}</td><td>${it.has_labels ? "yes" : "no"}</td><td>${bytes(it.size_bytes)}</td><td>${time(it.created_at)}</td></tr>`,
              )}
            <//>`}
    <//>`;
}

export function DatasetPage({ id, go }) {
  const dataset = useLoaded(() => get(`/v1/datasets/${id}`), [id]);
  const [error, setError] = useState(undefined);
  return html`<${Loaded} from=${dataset}>
    ${(it) => html`<h1 tabindex="-1">${it.name}</h1>
      <p class="actions">
        <a class="button" href=${`#/new?dataset=${id}`}>Use it in a job</a>
        <${Action} class="quiet danger" onError=${setError} run=${async () => {
          if (!confirm(`Delete ${it.name}?`)) return;
          await remove(`/v1/datasets/${id}`);
          go("/datasets");
        }}>Delete<//>
      </p>
      <${Failure} error=${error} />
      ${it.warnings.length > 0 && html`<ul class="notices">${it.warnings.map((warning) => html`<li>${warning.message}</li>`)}</ul>`}
      <dl>
        <dt>Samples</dt><dd>${count(it.samples)}</dd>
        <dt>Labels</dt><dd>${it.has_labels ? (it.class_count === null ? "yes" : `${count(it.class_count)} classes`) : "none"}</dd>
        <dt>Size</dt><dd>${bytes(it.size_bytes)}</dd>
        <dt>Id</dt><dd><code>${it.id}</code></dd>
      </dl>
      <h2>Fields</h2>
      <${Table} caption="Fields of a sample" head=${["Name", "Type", "Shape of a sample", "Values"]}>
        ${it.fields.map(
          (field) =>
            html`<tr><th scope="row"><code>${field.name}</code></th><td>${field.dtype}</td><td><code>${shape(field.shape)}</code></td><td>${field.content ? `${field.content.min} to ${field.content.max}` : "images"}</td></tr>`,
        )}
      <//>`}
  <//>`;
}
