/** The service, over HTTP: everything that the console knows comes from here. */

const KEY = "modelpress-key";

/** The key lives as long as the tab, and goes nowhere but to this service. */
export const key = () => sessionStorage.getItem(KEY) ?? "";
export function setKey(text) {
  if (text === "") sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, text);
}

const authorization = () => (key() === "" ? {} : { authorization: `Bearer ${key()}` });

/** An answer that is not 2xx, in the service's own words. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? body.title ?? `The service answered ${status}.`);
    this.status = status;
    this.code = body.code ?? "unknown";
    this.fields = body.errors ?? [];
  }
}

async function answerOf(response) {
  if (response.ok) return response;
  throw new Problem(response.status, await response.json().catch(() => ({})));
}

export async function request(path, { method = "GET", body, headers = {}, signal } = {}) {
  const isJson = body !== undefined && !(body instanceof FormData);
  const response = await fetch(path, {
    method,
    headers: { ...authorization(), ...(isJson && { "content-type": "application/json" }), ...headers },
    body: isJson ? JSON.stringify(body) : body,
    signal,
  }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The service cannot be reached." });
  });
  return answerOf(response);
}

/** The JSON of an answer. */
export async function get(path, options) {
  return (await request(path, options)).json();
}

export const post = (path, body) => get(path, { method: "POST", body });

export const remove = (path) => request(path, { method: "DELETE" });

/** All of a list, page after page, up to `most`. */
export async function all(path, most = 200) {
  const items = [];
  const join = path.includes("?") ? "&" : "?";
  for (let cursor = null; ; ) {
    const page = await get(`${path}${join}limit=100${cursor === null ? "" : `&cursor=${encodeURIComponent(cursor)}`}`);
    items.push(...page.data);
    cursor = page.next_cursor;
    if (cursor === null || items.length >= most) return items;
  }
}

/**
 * Uploads files as a form, and says how much of them is sent (0 to 1). `fetch` cannot say that; XMLHttpRequest can.
 */
export function upload(path, files, fields, onProgress) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value !== "") form.append(name, value);
  for (const file of files) form.append("file", file, file.name);
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    call.open("POST", path);
    if (key() !== "") call.setRequestHeader("authorization", `Bearer ${key()}`);
    call.upload.addEventListener("progress", ({ loaded, total }) => onProgress(total === 0 ? 1 : loaded / total));
    call.addEventListener("error", () => reject(new Problem(0, { detail: "The upload was interrupted." })));
    call.addEventListener("load", () => {
      let body = {};
      try {
        body = JSON.parse(call.responseText);
      } catch {}
      if (call.status >= 200 && call.status < 300) resolve(body);
      else reject(new Problem(call.status, body));
    });
    call.send(form);
  });
}

/** Follows the events of a job until it has ended, taking the stream up again where it broke off. */
export async function follow(id, onEvent, signal) {
  let last = 0;
  while (!signal.aborted) {
    try {
      const headers = { accept: "text/event-stream", "last-event-id": String(last) };
      const response = await request(`/v1/jobs/${id}/events`, { headers, signal });
      for await (const event of messages(response.body)) {
        last = event.id;
        onEvent(event);
      }
      return;
    } catch (error) {
      if (signal.aborted || (error instanceof Problem && error.status >= 400 && error.status < 500)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

/** The events of a stream of server-sent events. */
async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const data = text
        .slice(0, end)
        .split("\n")
        .filter((line) => line.startsWith("data:"));
      text = text.slice(end + 2);
      if (data.length > 0) yield JSON.parse(data.map((line) => line.slice(5)).join("\n"));
    }
  }
}

/**
 * Opens or saves a file of the service. Links carry no key: where there is one, the file is fetched with it and saved.
 */
export async function save(path, name) {
  const link = document.createElement("a");
  const blob = key() === "" ? undefined : await (await request(path)).blob();
  link.href = blob ? URL.createObjectURL(blob) : path;
  link.download = name;
  link.click();
  if (blob) setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
