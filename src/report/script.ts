import { createHash } from "node:crypto";
import { Markup } from "./markup.ts";

/**
 * Makes tables sortable and searchable, and texts copied by a click. It is all the script that the page has, and the page is whole without it: it
 * adds buttons, shows the controls that are hidden until then, and writes the service's own address into commands. Cells may say what they are sorted
 * by in `data-key`.
 */
const SCRIPT = `"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    const key = cell.dataset.key ?? cell.textContent;
    return key !== "" && Number.isFinite(Number(key)) ? Number(key) : key;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b
    : typeof a !== typeof b ? (typeof a === "number" ? -1 : 1)
    : a < b ? -1 : a > b ? 1 : 0;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    // An explanation is a link, and a button has none in it: its words go in, its title stays.
    button.title = head.querySelector("[title]")?.title ?? "";
    button.append(head.textContent);
    head.replaceChildren();
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [keyOf(row, column), row]);
      rows.sort(([a], [b]) => (down ? compare(b, a) : compare(a, b)));
      body.append(...rows.map(([, row]) => row));
    });
  });
  const controls = table.closest("section").querySelector(".controls");
  if (!controls) continue;
  const words = controls.querySelector("input");
  const outcome = controls.querySelector("select");
  const shown = controls.querySelector("output");
  const filter = () => {
    const wanted = words.value.toLowerCase().split(" ").filter((word) => word !== "");
    let count = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      const fits = (outcome.value === "" || row.dataset.outcome === outcome.value) && wanted.every((word) => text.includes(word));
      row.hidden = !fits;
      if (fits) count++;
    }
    shown.textContent = count === body.rows.length ? "" : count + " of " + body.rows.length;
  };
  words.addEventListener("input", filter);
  outcome.addEventListener("change", filter);
  controls.hidden = false;
}
if (location.protocol.startsWith("http")) {
  for (const origin of document.querySelectorAll("[data-origin]")) origin.textContent = location.origin;
}
for (const text of document.querySelectorAll("pre.copy")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);
      button.textContent = "Selected: press Ctrl+C";
    }
  });
  text.before(button);
}
`;

export const REPORT_SCRIPT = new Markup(SCRIPT);

/** What the page may do: nothing but look as it likes and run the one script above, known by its hash. It loads nothing. */
export const REPORT_POLICY = `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${createHash("sha256").update(SCRIPT).digest("base64")}'`;
