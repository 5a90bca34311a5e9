import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { html } from "./view.js";

/** What pages are made of. */

/** Loads something, and again when `again` is called or `on` changes: `{ value, error, again }`. */
export function useLoaded(load, on) {
  const [state, setState] = useState({ value: undefined, error: undefined });
  const current = useRef(0);
  const again = useCallback(() => {
    const turn = ++current.current;
    load().then(
      (value) => turn === current.current && setState({ value, error: undefined }),
      (error) => turn === current.current && setState((old) => ({ ...old, error })),
    );
  }, on);
  useEffect(() => {
    setState({ value: undefined, error: undefined });
    again();
    return () => {
      current.current++;
    };
  }, on);
  return { ...state, again };
}

/** What was loaded, or that it is not there yet, or why it is not. */
export function Loaded({ from, children }) {
  if (from.error && from.value === undefined) return html`<${Failure} error=${from.error} />`;
  if (from.value === undefined) return html`<p role="status" class="muted">Loading…</p>`;
  return children(from.value);
}

/** What went wrong, with every wrong field. */
export function Failure({ error }) {
  if (!error) return null;
  const fields = error.fields ?? [];
  return html`<div class="failure" role="alert">
    <p><b>${error.message}</b></p>
    ${fields.length > 1 && html`<ul>${fields.map((field) => html`<li><code>${field.pointer}</code> ${field.message}</li>`)}</ul>`}
    ${error.code === "unauthorized" && html`<p>Enter a key under <a href="#/key">Key</a>.</p>`}
  </div>`;
}

/** A place to drop files, which is a button as well. */
export function Drop({ label, hint, accept, multiple, onFiles, busy }) {
  const [over, setOver] = useState(false);
  const id = `drop-${label.replaceAll(/\W/g, "-")}`;
  const take = (list) => {
    const files = [...list];
    if (files.length > 0) onFiles(files);
  };
  return html`<div
    class=${over ? "drop over" : "drop"}
    onDragOver=${(event) => {
      event.preventDefault();
      setOver(true);
    }}
    onDragLeave=${() => setOver(false)}
    onDrop=${(event) => {
      event.preventDefault();
      setOver(false);
      take(event.dataTransfer.files);
    }}
  >
    <label for=${id}><b>${label}</b><span class="muted">${hint}</span></label>
    <input
      id=${id}
      type="file"
      accept=${accept}
      multiple=${multiple}
      disabled=${busy}
      onChange=${(event) => {
        take(event.target.files);
        event.target.value = "";
      }}
    />
  </div>`;
}

export function Progress({ value, label }) {
  return html`<p class="progress"><progress max="1" value=${value} aria-label=${label}></progress> <span>${label}</span></p>`;
}

/** A bar of `share` (0 to 1) of the width, with its words. */
export function Bar({ share, children }) {
  return html`<span class="bar"><i style=${{ width: `${Math.max(0.5, 100 * share)}%` }}></i><span class="bar-words">${children}</span></span>`;
}

/** A button that does something that takes a while; what goes wrong is handed to `onError`. */
export function Action({ run, onError, children, ...rest }) {
  const [busy, setBusy] = useState(false);
  const click = async () => {
    setBusy(true);
    onError(undefined);
    try {
      await run();
    } catch (error) {
      onError(error);
    } finally {
      setBusy(false);
    }
  };
  return html`<button type="button" disabled=${busy} onClick=${click} ...${rest}>${children}</button>`;
}

/** A table with a caption that only screen readers need. */
export function Table({ caption, head, children }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}>
    <table>
      <caption class="unseen">${caption}</caption>
      <thead><tr>${head.map((text) => html`<th scope="col">${text}</th>`)}</tr></thead>
      <tbody>${children}</tbody>
    </table>
  </div>`;
}
