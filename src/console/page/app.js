import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { all, get, key, setKey } from "./api.js";
import { Compare } from "./compare.js";
import { DatasetDrop, DatasetPage, Datasets } from "./datasets.js";
import { JobPage, Jobs, JobTable, useChoices } from "./jobs.js";
import { ModelDrop, ModelPage, Models, ModelTable } from "./models.js";
import { Accept, NewJob } from "./new-job.js";
import { Failure, Loaded, useLoaded } from "./parts.js";
import { html } from "./view.js";
import { Webhooks } from "./webhooks.js";

/** The console: which page there is for an address, and what all pages have. */

const go = (path) => {
  location.hash = path;
};

function addressOf(hash) {
  const [path, search = ""] = hash.replace(/^#/, "").split("?");
  return {
    parts: path.split("/").filter((part) => part !== ""),
    query: Object.fromEntries(new URLSearchParams(search)),
  };
}

function useAddress() {
  const [address, setAddress] = useState(addressOf(location.hash));
  useEffect(() => {
    const follow = () => setAddress(addressOf(location.hash));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return address;
}

function Home({ schemas, choices }) {
  const jobs = useLoaded(() => all("/v1/jobs", 100), []);
  const models = useLoaded(() => all("/v1/models", 100), []);
  return html`<h1 tabindex="-1">Make a model smaller</h1>
    <ol class="steps">
      <li><h2>Your model</h2><${ModelDrop} onUploaded=${(model) => go(`/models/${model.id}`)} /></li>
      <li><h2>Your data, if you have some</h2><${DatasetDrop} onUploaded=${(dataset) => go(`/datasets/${dataset.id}`)} schemas=${schemas} choices=${choices} /></li>
      <li><h2>A job</h2><p class="actions"><a class="button" href="#/accept">Say what you can accept</a> <a class="button quiet" href="#/new">Choose a method</a></p></li>
    </ol>
    <${Loaded} from=${jobs}>${(list) => list.length > 0 && html`<h2>Newest jobs</h2><${JobTable} jobs=${list.slice(0, 5)} />`}<//>
    <${Loaded} from=${models}>${(list) => list.length > 0 && html`<h2>Newest models</h2><${ModelTable} models=${list.slice(0, 5)} />`}<//>`;
}

function KeyPage() {
  const [text, setText] = useState(key());
  const [said, setSaid] = useState("");
  const [error, setError] = useState(undefined);
  const save = async (event) => {
    event.preventDefault();
    setKey(text.trim());
    setError(undefined);
    try {
      await get("/v1/capabilities");
      setSaid(text.trim() === "" ? "Without a key the service answers as well." : "The service knows this key.");
    } catch (problem) {
      setSaid("");
      setError(problem);
    }
  };
  return html`<h1 tabindex="-1">Key</h1>
    <p>A service with keys answers only to those who send one. It is kept in this tab until you close it, and sent to this service only.</p>
    <form onSubmit=${save}>
      <div class="field"><label for="key">API key</label><input id="key" type="password" autocomplete="off" value=${text} onInput=${({ target }) => setText(target.value)} /></div>
      <p class="actions"><button type="submit">Use it</button></p>
      <p role="status">${said}</p>
      <${Failure} error=${error} />
    </form>`;
}

const LINKS = [
  ["", "Home"],
  ["models", "Models"],
  ["datasets", "Datasets"],
  ["jobs", "Jobs"],
  ["compare", "Compare"],
  ["webhooks", "Webhooks"],
  ["key", "Key"],
];

function page([first, second], common) {
  if (first === undefined) return html`<${Home} ...${common} />`;
  if (first === "models")
    return second ? html`<${ModelPage} id=${second} ...${common} />` : html`<${Models} ...${common} />`;
  if (first === "datasets")
    return second ? html`<${DatasetPage} id=${second} ...${common} />` : html`<${Datasets} ...${common} />`;
  if (first === "jobs") return second ? html`<${JobPage} id=${second} ...${common} />` : html`<${Jobs} />`;
  if (first === "new") return html`<${NewJob} key=${location.hash} ...${common} />`;
  if (first === "accept") return html`<${Accept} key=${location.hash} ...${common} />`;
  if (first === "compare")
    return html`<${Compare} ids=${(second ?? "").split(",").filter((id) => id !== "")} ...${common} />`;
  if (first === "webhooks") return html`<${Webhooks} />`;
  if (first === "key") return html`<${KeyPage} />`;
  return html`<h1 tabindex="-1">There is no such page</h1><p><a href="#/">To the start</a></p>`;
}

function App() {
  const { parts, query } = useAddress();
  const schemas = useLoaded(() => get("/console/schemas.json"), []);
  const choices = useChoices(location.hash);
  const main = useRef(null);
  const path = parts.join("/");
  const isFirst = useRef(true);
  // A page that has changed is told to those who do not see it: its heading gets the focus, and the window its title.
  useEffect(() => {
    const heading = main.current?.querySelector("h1");
    if (!isFirst.current && parts[0] !== "compare") heading?.focus();
    isFirst.current = false;
    document.title = `${heading?.textContent ?? LINKS.find(([link]) => link === parts[0])?.[1] ?? "modelpress"} – modelpress`;
  }, [path]);
  return html`<header class="top">
      <a class="brand" href="#/">modelpress</a>
      <nav aria-label="Pages">${LINKS.map(([link, name]) => html`<a href=${`#/${link}`} aria-current=${(parts[0] ?? "") === link ? "page" : null}>${name}</a>`)}<a href="/docs">API</a></nav>
    </header>
    <main id="main" ref=${main} tabindex="-1">
      <${Loaded} from=${schemas}>${(loaded) => page(parts, { query, schemas: loaded, choices, go })}<//>
    </main>`;
}

// "Skip to content" is no page.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main")?.focus();
});

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
