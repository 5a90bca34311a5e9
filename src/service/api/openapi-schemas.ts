import { z } from "zod";

/**
 * Zod schemas as the schemas of an OpenAPI document. Requests and answers are written differently on purpose: a request is closed, so
 * that a typo is found by the compiler of the client; an answer is open, so that a client that was generated yesterday reads what is
 * added tomorrow. Generators that compile everywhere want the rest: no titles, scalar defaults, every list of names a component.
 */

export type Json = Record<string, unknown>;

export const BINARY = { type: "string", format: "binary" };

const PREFIX = "#/components/schemas/";

/**
 * Collects the named schemas. One that reads the same in requests and answers is one component; where they differ because answers have
 * every default filled in, the answer's is called `Effective…`.
 */
export class Components {
  readonly #forms = { input: new Map<string, Json>(), output: new Map<string, Json>() };
  readonly #answers: Json[] = [];

  /** The schema as OpenAPI has it, with references to the named ones in it. */
  schemaOf(schema: z.ZodType, io: "input" | "output"): Json {
    const {
      $schema,
      $defs = {},
      ...root
    } = z.toJSONSchema(schema, {
      io,
      target: "draft-2020-12",
      override: improve,
    }) as Json;
    const definitions = $defs as Record<string, Json>;
    const tidied = tidy(root, io, definitions);
    for (const [name, definition] of reachable(root, definitions)) {
      // A list of names is open in an answer, and stands where it is used.
      if (io === "output" && isList(definition)) continue;
      this.#forms[io].set(name, tidy(definition, io, definitions));
    }
    if (io === "output") this.#answers.push(tidied);
    return tidied;
  }

  /** All of them by name. Call it last: it also rewrites, in answers that `schemaOf` has given, references to `Effective…`. */
  schemas(): Json {
    const { input, output } = this.#forms;
    const effective = new Set<string>();
    // A schema also differs when one that it refers to does.
    for (let size = -1; size !== effective.size; ) {
      size = effective.size;
      for (const [name, form] of output) {
        const request = input.get(name);
        if (request === undefined) continue;
        const differs = comparable(form) !== comparable(request) || referencesOf(form).some((it) => effective.has(it));
        if (differs) effective.add(name);
      }
    }
    const named = new Map(input);
    for (const answer of this.#answers) renameReferences(answer, effective);
    for (const [name, form] of output) {
      renameReferences(form, effective);
      if (effective.has(name)) named.set(`Effective${name}`, form);
      else if (!input.has(name)) named.set(name, form);
    }
    return Object.fromEntries([...named].sort(([a], [b]) => (a < b ? -1 : 1)));
  }
}

/** Called for each schema while it is converted, with the zod schema it comes from. */
function improve({ zodSchema, jsonSchema }: { zodSchema: z.core.$ZodTypes; jsonSchema: Json }): void {
  const { def } = zodSchema._zod;
  if (def.type === "union") tellApart(def, jsonSchema);
  if (def.type === "file") {
    for (const key of Object.keys(jsonSchema)) delete jsonSchema[key];
    Object.assign(jsonSchema, BINARY);
  }
  // Constants are named after their values: of signs, and of a tab above all, there is no name to make.
  if (def.type === "enum" && Object.values(def.entries).some((value) => !/\w/.test(String(value))))
    delete jsonSchema.enum;
  if (def.type === "tuple") unfoldTuple(jsonSchema);
  // A boolean that may have one value only: Java makes an enum of it, whose default is a boolean.
  if (typeof jsonSchema.const === "boolean") {
    jsonSchema.description = `${jsonSchema.description ?? ""} Always \`${jsonSchema.const}\`.`.trim();
    delete jsonSchema.const;
  }
  // The format says it; the pattern is 250 characters of calendar.
  if (jsonSchema.format === "date-time") delete jsonSchema.pattern;
  // Bounds of JavaScript's numbers, not of the field.
  if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
  if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
  if (jsonSchema.type === "integer") jsonSchema.format = "int64";
  if (jsonSchema.type === "number") jsonSchema.format = "double";
  if (def.type === "record") delete jsonSchema.propertyNames;
}

/** A tuple of one kind of things is a list of a fixed length: `items: false` stops whole generators. */
function unfoldTuple(jsonSchema: Json): void {
  const items = jsonSchema.prefixItems as readonly Json[];
  if (new Set(items.map((item) => JSON.stringify(item))).size !== 1) throw new Error("A tuple must be of one kind.");
  delete jsonSchema.prefixItems;
  Object.assign(jsonSchema, { type: "array", items: items[0], minItems: items.length, maxItems: items.length });
}

/**
 * Objects that a union in a request chooses from are `oneOf`: of `anyOf` generators make one object that needs the fields of all. A
 * discriminator maps each value to one object, so there is none where a member is a union itself: its members stand in its place, and are told
 * apart by their constants.
 */
function tellApart(def: z.core.$ZodUnionDef, jsonSchema: Json): void {
  const members = membersOf(def);
  const names = members.map((member) => z.globalRegistry.get(member)?.id);
  const discriminator = "discriminator" in def ? (def.discriminator as string) : undefined;
  if (!names.every((name) => name !== undefined)) {
    if (discriminator !== undefined) throw new Error("The members of a union must be named.");
    return;
  }
  delete jsonSchema.anyOf;
  jsonSchema.oneOf = names.map((name) => ({ $ref: `#/$defs/${name}` }));
  if (discriminator === undefined || members.length !== def.options.length) return;
  const mapping: Record<string, string> = {};
  for (const [i, member] of members.entries()) {
    const values = member._zod.propValues?.[discriminator] ?? new Set();
    for (const value of values) if (value !== undefined) mapping[String(value)] = PREFIX + names[i];
  }
  jsonSchema.discriminator = { propertyName: discriminator, mapping };
}

/** What a union chooses from, those of unions in it too. */
function membersOf({ options }: z.core.$ZodUnionDef): readonly z.core.$ZodType[] {
  return options.flatMap((option) => {
    const { def } = option._zod;
    return def.type === "union" ? membersOf(def as z.core.$ZodUnionDef) : [option];
  });
}

/** What bounds a value. Answers have none: a limit of today may be raised. */
const BOUNDS = [
  ...["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
  ...["minLength", "maxLength", "pattern", "minItems", "maxItems"],
];

/** Points references at the components, makes lists of constants enums, and opens answers. */
function tidy(value: unknown, io: "input" | "output", definitions: Record<string, Json>): Json {
  const walk = (node: unknown): unknown => {
    if (Array.isArray(node)) return node.map(walk);
    if (node === null || typeof node !== "object") return node;
    const { $ref, ...siblings } = node as Json;
    const name = typeof $ref === "string" ? $ref.replace("#/$defs/", "") : undefined;
    if (name !== undefined && io === "output" && isList(definitions[name]!)) {
      return walk({ ...definitions[name], ...siblings });
    }
    const out: Json = name === undefined ? {} : { $ref: PREFIX + name };
    for (const [key, child] of Object.entries(siblings)) out[key] = key === "properties" ? fields(child) : walk(child);
    listConstants(out);
    foldNull(out);
    tellDefault(out, io);
    return io === "output" ? opened(out) : out;
  };
  const fields = (properties: unknown) =>
    Object.fromEntries(Object.entries(properties as Json).map(([name, field]) => [name, walk(field)]));
  return walk(value) as Json;
}

/** `anyOf` of numbers is one enum. */
function listConstants(schema: Json): void {
  const constants = Array.isArray(schema.anyOf) ? schema.anyOf.map((it: Json) => it.const) : [];
  if (constants.length === 0 || !constants.every((it) => typeof it === "number")) return;
  schema.type = constants.every(Number.isInteger) ? "integer" : "number";
  schema.enum = constants;
  delete schema.anyOf;
}

/** "This or null" of a plain type is a list of two types. Of a component, or of several, it stays a union with null. */
function foldNull(schema: Json): void {
  if (!Array.isArray(schema.anyOf) || schema.anyOf.length !== 2) return;
  const [value, none] = schema.anyOf as [Json, Json];
  if (none.type !== "null" || typeof value.type !== "string" || value.enum !== undefined) return;
  delete schema.anyOf;
  Object.assign(schema, { ...value, ...schema, type: [value.type, "null"] });
}

/**
 * A default that is no scalar, or one of a union, does not compile in Go and Java: it is told in words. The empty one says that
 * everything below has a default. Answers have everything filled in.
 */
function tellDefault(schema: Json, io: "input" | "output"): void {
  const value = schema.default;
  if (value === undefined) return;
  const isUnion = Array.isArray(schema.anyOf) || Array.isArray(schema.oneOf) || Array.isArray(schema.type);
  const isScalar = value !== null && typeof value !== "object";
  if (io === "input" && isScalar && !isUnion) return;
  delete schema.default;
  if (io === "output" || (typeof value === "object" && value !== null && Object.keys(value).length === 0)) return;
  schema.description = `${schema.description ?? ""} Unless given: \`${JSON.stringify(value)}\`.`.trim();
}

/** A schema of an answer, less what would refuse values that later versions add. The values that are known are told. */
function opened(schema: Json): Json {
  const { const: constant, enum: list, ...open } = schema;
  for (const bound of BOUNDS) delete open[bound];
  if (open.additionalProperties === false) delete open.additionalProperties;
  const values = (constant === undefined ? list : [constant]) as readonly unknown[] | undefined;
  if (values === undefined) return open;
  open.type ??= typeof values[0];
  const known = values.filter((value) => value !== null).map((value) => `\`${value}\``);
  const told = constant !== undefined ? `Always ${known[0]}.` : `Now one of ${known.join(", ")}; more may be added.`;
  open.description = `${open.description ?? ""} ${told}`.trim();
  return open;
}

/** The definitions that a schema refers to, those that they refer to, and so on. */
function reachable(root: Json, definitions: Readonly<Record<string, Json>>): ReadonlyMap<string, Json> {
  const found = new Map<string, Json>();
  const visit = (node: unknown): void => {
    if (node === null || typeof node !== "object") return;
    for (const [key, child] of Object.entries(node)) {
      if (key !== "$ref") visit(child);
      else {
        const name = String(child).replace("#/$defs/", "");
        if (found.has(name)) continue;
        found.set(name, definitions[name]!);
        visit(definitions[name]);
      }
    }
  };
  visit(root);
  return found;
}

function isList(schema: Json): boolean {
  return Array.isArray(schema.enum);
}

/** A bound that only requests have is no difference; that they refuse unknown fields is one. */
function comparable(schema: Json): string {
  return JSON.stringify(schema, (key, value) => (BOUNDS.includes(key) ? undefined : value));
}

function referencesOf(node: unknown): string[] {
  if (node === null || typeof node !== "object") return [];
  return Object.entries(node).flatMap(([key, child]) =>
    key === "$ref" ? [String(child).slice(PREFIX.length)] : referencesOf(child),
  );
}

function renameReferences(node: unknown, effective: ReadonlySet<string>): void {
  if (node === null || typeof node !== "object") return;
  for (const [key, child] of Object.entries(node)) {
    const name = typeof child === "string" && child.startsWith(PREFIX) ? child.slice(PREFIX.length) : undefined;
    if (name !== undefined && effective.has(name)) (node as Json)[key] = `${PREFIX}Effective${name}`;
    else renameReferences(child, effective);
  }
}
