import fc from "fast-check";
import { at, type OpenApiDocument } from "./openapi-validator.ts";

type Schema = Readonly<Record<string, unknown>>;

/**
 * Values that fit a schema of the document, as far as the document's own schemas go: the keywords that it uses, and no
 * others.
 */
export function arbitraryFor(schema: unknown, document: OpenApiDocument): fc.Arbitrary<unknown> {
  const it = schema as Schema;
  if (typeof it.$ref === "string") return arbitraryFor(at(document, it.$ref.slice(1)), document);
  const alternatives = (it.oneOf ?? it.anyOf) as readonly unknown[] | undefined;
  if (alternatives !== undefined) return fc.oneof(...alternatives.map((one) => arbitraryFor(one, document)));
  if (it.const !== undefined) return fc.constant(it.const);
  if (Array.isArray(it.enum)) return fc.constantFrom(...it.enum);
  if (Array.isArray(it.type)) return fc.oneof(...it.type.map((type) => arbitraryFor({ ...it, type }, document)));
  switch (it.type) {
    case "null":
      return fc.constant(null);
    case "boolean":
      return fc.boolean();
    case "integer": {
      const min = Number(it.minimum ?? -(2 ** 40));
      return fc.integer({ min, max: Math.min(Number(it.maximum ?? 2 ** 40), min + 2 ** 31) });
    }
    case "number": {
      const min = Number(it.minimum ?? it.exclusiveMinimum ?? -1e9);
      const excluded = it.exclusiveMinimum !== undefined;
      return fc.double({ min, minExcluded: excluded, max: Number(it.maximum ?? 1e9), noNaN: true });
    }
    case "string": {
      const length = { minLength: Number(it.minLength ?? 0), maxLength: Math.min(Number(it.maxLength ?? 40), 40) };
      return it.pattern === undefined
        ? fc.string(length)
        : fc.oneof(fc.constant("w:1"), fc.constant("12"), fc.string(length));
    }
    case "array": {
      const length = { minLength: Number(it.minItems ?? 0), maxLength: Math.min(Number(it.maxItems ?? 4), 4) };
      return fc.array(arbitraryFor(it.items, document), length);
    }
    case "object": {
      const properties = (it.properties ?? {}) as Readonly<Record<string, unknown>>;
      if (it.properties === undefined) {
        const values =
          typeof it.additionalProperties === "object"
            ? arbitraryFor(it.additionalProperties, document)
            : fc.jsonValue();
        return fc.dictionary(fc.string({ minLength: 1, maxLength: 10 }), values, { maxKeys: 4 });
      }
      const fields = Object.fromEntries(
        Object.entries(properties).map(([name, one]) => [name, arbitraryFor(one, document)]),
      );
      return fc.record(fields, { requiredKeys: (it.required ?? []) as string[] });
    }
    default:
      return fc.jsonValue();
  }
}
