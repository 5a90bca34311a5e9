import { useState } from "preact/hooks";
import { post } from "./api.js";
import { Action, Failure } from "./parts.js";
import { html } from "./view.js";

/** Files that the service fetches itself, from where the operator has allowed it to. */

const SCHEMES = [
  ["s3://", "s3"],
  ["models:/", "mlflow"],
  ["hf://", "huggingface"],
];

const kindOf = (url) => SCHEMES.find(([scheme]) => url.startsWith(scheme))?.[1] ?? "https";

/** `what`: `models` or `datasets`. */
export function FromAddress({ what, onAdded }) {
  const [url, setUrl] = useState("");
  const [error, setError] = useState(undefined);
  const id = `address-${what}`;
  const add = async () => {
    const files = url
      .trim()
      .split(/\n+/)
      .map((line) => ({ url: line.trim() }));
    onAdded(await post(`/v1/${what}/from-source`, { source: { kind: kindOf(files[0].url), files } }));
  };
  return html`<details class="more"><summary>Or fetch it from an address</summary>
    <form onSubmit=${(event) => event.preventDefault()}>
      <div class="field"><label for=${id}>${what === "models" ? "Addresses, one a line: the .onnx, and its data files if it has some" : "Address"}</label>
        <textarea id=${id} rows="2" placeholder=${what === "models" ? "https://…  s3://bucket/key  models:/name/3  hf://org/name/model.onnx" : "https://…  s3://bucket/key  hf://datasets/org/name/data.parquet"} value=${url} onInput=${({ target }) => setUrl(target.value)}></textarea>
      </div>
      <p class="actions"><${Action} type="submit" class="quiet" onError=${setError} run=${add}>Fetch<//></p>
      <${Failure} error=${error} />
    </form>
  </details>`;
}
