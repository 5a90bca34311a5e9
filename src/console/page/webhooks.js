import { useState } from "preact/hooks";
import { post } from "./api.js";
import { time } from "./format.js";
import { Action, Failure } from "./parts.js";
import { html } from "./view.js";

/** Webhooks: a secret for each URL that jobs tell of what becomes of them. */

export function Webhooks() {
  const [url, setUrl] = useState("");
  const [made, setMade] = useState(undefined);
  const [error, setError] = useState(undefined);
  const make = async () => {
    setMade(undefined);
    setMade(await post("/v1/webhook-secrets", { url }));
  };
  return html`<h1 tabindex="-1">Webhooks</h1>
    <p>A job can tell a URL what becomes of it: put the URL under <b>webhook</b> of a <a href="#/new">new job</a>. What is sent is signed, with a secret that only you and that URL have. Make it first, and give it to the receiver, which checks the signature as <a href="https://www.standardwebhooks.com" rel="noreferrer">Standard Webhooks</a> says.</p>
    <form onSubmit=${(event) => event.preventDefault()}>
      <div class="field"><label for="receiver">URL of the receiver</label><input id="receiver" type="url" placeholder="https://ci.example.com/hooks" value=${url} onInput=${({ target }) => setUrl(target.value)} /></div>
      <p class="actions"><${Action} type="submit" onError=${setError} run=${make}>Make a secret<//></p>
      <p class="muted">A URL that has one gets a new one; for a day everything is signed with both.</p>
      <${Failure} error=${error} />
    </form>
    ${
      made &&
      html`<section class="card" aria-label="The secret" role="status">
        <h2>The secret of ${made.url}</h2>
        <p><code class="secret">${made.secret}</code></p>
        <p>It is not shown again.${made.previous_valid_until && html` The one before is signed with as well until ${time(made.previous_valid_until)}.`}</p>
        <p class="actions"><${Action} class="quiet" onError=${setError} run=${() => navigator.clipboard.writeText(made.secret)}>Copy it<//></p>
      </section>`
    }`;
}
