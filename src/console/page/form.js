import { words } from "./format.js";
import { html } from "./view.js";

/** Forms that are made from the schemas of the API: what the service accepts is what can be chosen. */

/** A schema with its reference followed. */
export function resolve(schema, schemas) {
  let at = schema ?? {};
  while (at.$ref !== undefined) at = { ...schemas[at.$ref.split("/").at(-1)], ...without(at, "$ref") };
  // A field that may be null is one that may be left out: null is what leaving it out means.
  return Array.isArray(at.type) ? { ...at, type: at.type.find((type) => type !== "null") } : at;
}

const without = (object, key) => Object.fromEntries(Object.entries(object).filter(([name]) => name !== key));

/** A value with one field set, or taken out where it is undefined: what is not said, the service's defaults say. */
export function withField(value, name, field) {
  const rest = without(value ?? {}, name);
  return field === undefined ? rest : { ...rest, [name]: field };
}

/** The members of a union, without null. */
function membersOf(schema, schemas) {
  const list = schema.oneOf ?? schema.anyOf;
  return list?.map((member) => resolve(member, schemas)).filter((member) => member.type !== "null");
}

/** What a union is told apart by: the property that is a constant in every member. */
function discriminatorOf(members) {
  const [first] = members;
  return Object.keys(first?.properties ?? {}).find((name) =>
    members.every((member) => constantOf(member.properties?.[name]) !== undefined),
  );
}

const constantOf = (schema) => schema?.const ?? (schema?.enum?.length === 1 ? schema.enum[0] : undefined);

/** The least that can be said of a schema: its constants. */
function seedOf(schema, schemas) {
  const constants = Object.entries(schema.properties ?? {})
    .map(([name, field]) => [name, constantOf(resolve(field, schemas))])
    .filter(([name, value]) => value !== undefined && (schema.required ?? []).includes(name));
  return Object.fromEntries(constants);
}

const idOf = (path) => `field-${path.replaceAll(/\W+/g, "-")}`;

/**
 * One value of a schema. `path` is its JSON pointer; `choices` are the resources that ids may name:
 * `{ models: [{ id, name }], datasets: [...] }`.
 */
export function Field({ name, path, schema: raw, value, onChange, required, schemas, choices }) {
  const schema = resolve(raw, schemas);
  const members = membersOf(schema, schemas);
  const common = { name, path, required, schemas, choices, value, onChange, description: schema.description };
  if (constantOf(schema) !== undefined && !schema.enum?.[1]) return null;
  if (members?.length > 1) return html`<${Union} ...${common} members=${members} />`;
  const one = members?.length === 1 ? { ...members[0], default: schema.default } : schema;
  const resources = resourcesOf(name, choices);
  if (one.properties) return html`<${Group} ...${common} schema=${one} />`;
  if (one.enum)
    return html`<${Select} ...${common} options=${one.enum.filter((it) => it !== null)} fallback=${one.default} />`;
  if (one.type === "array" && resources) return html`<${Several} ...${common} resources=${resources} />`;
  if (resources && one.type === "string") return html`<${Resource} ...${common} resources=${resources} />`;
  if (one.type === "boolean") return html`<${Select} ...${common} options=${[true, false]} fallback=${one.default} />`;
  if (one.type === "integer" || one.type === "number") return html`<${NumberField} ...${common} schema=${one} />`;
  if (one.type === "string") return html`<${TextField} ...${common} schema=${one} />`;
  return html`<${JsonField} ...${common} schema=${one} />`;
}

function resourcesOf(name, choices) {
  if (/model_ids?$/.test(name) || name === "teacher") return choices.models;
  if (/dataset_id$/.test(name)) return choices.datasets;
  return undefined;
}

/** All fields of an object: what must be said, and the rest to be opened. `first` names optional fields that are shown as well. */
export function Fields({ schema: raw, value = {}, onChange, path, schemas, choices, first = [], skip = [] }) {
  const schema = resolve(raw, schemas);
  const required = new Set(schema.required ?? []);
  const names = Object.keys(schema.properties ?? {}).filter((name) => !skip.includes(name));
  const isShown = (name) =>
    (required.has(name) && resolve(schema.properties[name], schemas).default === undefined) || first.includes(name);
  const field = (name) =>
    html`<${Field}
      key=${name}
      name=${name}
      path=${`${path}/${name}`}
      schema=${schema.properties[name]}
      value=${value[name]}
      required=${required.has(name)}
      schemas=${schemas}
      choices=${choices}
      onChange=${(next) => onChange(withField(value, name, next))}
    />`;
  const rest = names.filter(
    (name) => !isShown(name) && constantOf(resolve(schema.properties[name], schemas)) === undefined,
  );
  return html`${names.filter(isShown).map(field)}
  ${rest.length > 0 && html`<details class="more"><summary>More settings (${rest.length})</summary>${rest.map(field)}</details>`}`;
}

function Label({ path, name, required, description, children }) {
  const id = idOf(path);
  return html`<div class="field">
    <label for=${id}>${words(name)}${required && html` <span class="muted">(required)</span>`}</label>
    ${children(id)}
    ${description && html`<p class="muted hint" id=${`${id}-hint`}>${plain(description)}</p>`}
  </div>`;
}

/** Descriptions are written for readers of Markdown. */
const plain = (text) => text.replaceAll("`", "");

const described = (id, description) => (description ? { "aria-describedby": `${id}-hint` } : {});

function Group({ name, path, schema, value, onChange, schemas, choices, required }) {
  return html`<fieldset>
    <legend>${words(name)}</legend>
    <${Fields} schema=${schema} path=${path} value=${value ?? {}} onChange=${(next) => onChange(Object.keys(next).length === 0 && !required ? undefined : next)} schemas=${schemas} choices=${choices} />
  </fieldset>`;
}

function Union({ name, path, members, value, onChange, schemas, choices, required, description }) {
  const objects = members.every((member) => member.properties);
  if (!objects) return html`<${JsonField} ...${{ name, path, value, onChange, required, description, schema: {} }} />`;
  const tag = discriminatorOf(members);
  const tagOf = (member) => (tag ? constantOf(member.properties[tag]) : Object.keys(member.properties)[0]);
  const chosen = members.find((member) =>
    tag
      ? value?.[tag] === tagOf(member)
      : value !== undefined && Object.keys(member.properties).some((field) => field in value),
  );
  const choose = (event) => {
    const member = members.find((it) => String(tagOf(it)) === event.target.value);
    onChange(member && (tag ? seedOf(member, schemas) : { [tagOf(member)]: undefined }));
  };
  return html`<fieldset>
    <legend>${words(name)}</legend>
    <${Label} path=${path} name=${tag ?? "which"} required=${required} description=${chosen?.description ?? description}>
      ${(id) => html`<select id=${id} value=${chosen ? String(tagOf(chosen)) : ""} onChange=${choose}>
        <option value="">choose…</option>
        ${members.map((member) => html`<option value=${String(tagOf(member))}>${words(String(tagOf(member)))}</option>`)}
      </select>`}
    <//>
    ${chosen && html`<${Fields} schema=${chosen} path=${path} value=${value} onChange=${onChange} schemas=${schemas} choices=${choices} />`}
  </fieldset>`;
}

function Select({ options, fallback, value, onChange, ...rest }) {
  const text = (option) => (option === true ? "yes" : option === false ? "no" : words(String(option)));
  return html`<${Label} ...${rest}>
    ${(id) => html`<select
      id=${id}
      ...${described(id, rest.description)}
      value=${value === undefined ? "" : String(value)}
      onChange=${(event) => onChange(options.find((option) => String(option) === event.target.value))}
    >
      <option value="">${fallback === undefined || fallback === null ? "not set" : `default: ${text(fallback)}`}</option>
      ${options.map((option) => html`<option value=${String(option)}>${text(option)}</option>`)}
    </select>`}
  <//>`;
}

function Resource({ resources, value, onChange, ...rest }) {
  return html`<${Label} ...${rest}>
    ${(
      id,
    ) => html`<select id=${id} ...${described(id, rest.description)} value=${value ?? ""} onChange=${(event) => onChange(event.target.value || undefined)}>
      <option value="">${resources.length === 0 ? "nothing uploaded yet" : "choose…"}</option>
      ${value && !resources.some((it) => it.id === value) && html`<option value=${value}>${value}</option>`}
      ${resources.map((it) => html`<option value=${it.id}>${it.name} (${it.id.slice(-6)})</option>`)}
    </select>`}
  <//>`;
}

function Several({ resources, value = [], onChange, ...rest }) {
  const toggle = (id) => {
    const next = value.includes(id) ? value.filter((it) => it !== id) : [...value, id];
    onChange(next.length === 0 ? undefined : next);
  };
  return html`<fieldset>
    <legend>${words(rest.name)}</legend>
    ${rest.description && html`<p class="muted hint">${plain(rest.description)}</p>`}
    ${resources.map((it) => html`<label class="check"><input type="checkbox" checked=${value.includes(it.id)} onChange=${() => toggle(it.id)} /> ${it.name} (${it.id.slice(-6)})</label>`)}
  </fieldset>`;
}

function NumberField({ schema, value, onChange, ...rest }) {
  return html`<${Label} ...${rest}>
    ${(id) => html`<input
      id=${id}
      type="number"
      step=${schema.type === "integer" ? 1 : "any"}
      min=${schema.minimum}
      max=${schema.maximum}
      placeholder=${schema.default ?? ""}
      ...${described(id, rest.description)}
      value=${value ?? ""}
      onInput=${({ target }) => onChange(target.value === "" ? undefined : Number(target.value))}
    />`}
  <//>`;
}

function TextField({ schema, value, onChange, ...rest }) {
  return html`<${Label} ...${rest}>
    ${(id) => html`<input
      id=${id}
      type="text"
      placeholder=${schema.default ?? ""}
      ...${described(id, rest.description)}
      value=${value ?? ""}
      onInput=${({ target }) => onChange(target.value === "" ? undefined : target.value)}
    />`}
  <//>`;
}

/** Lists and what else has no field of its own: as JSON; names may be given one a line. */
function JsonField({ schema, value, onChange, ...rest }) {
  const isNames = schema.type === "array" && schema.items?.type === "string";
  const text = value === undefined ? "" : isNames ? value.join("\n") : JSON.stringify(value);
  const read = (typed) => {
    if (typed.trim() === "") return onChange(undefined);
    if (isNames) return onChange(typed.split("\n").filter((line) => line.trim() !== ""));
    try {
      onChange(JSON.parse(typed));
    } catch {
      // What is not JSON yet is sent as it stands, and refused with a reason.
      onChange(typed);
    }
  };
  return html`<${Label} ...${rest}>
    ${(id) => html`<textarea id=${id} rows=${isNames ? 3 : 2} ...${described(id, rest.description)} placeholder=${isNames ? "one a line" : "JSON"} value=${text} onChange=${({ target }) => read(target.value)}></textarea>`}
  <//>`;
}
