import { z } from "zod";
import type { Told } from "../catalog.ts";
import { ServiceError } from "../errors.ts";
import type { ListFilter } from "../list-filter.ts";
import { Metadata, Name, PageQuery } from "../schemas.ts";

/** How users call what they have, and how they find it again by that. */

const NOTHING = "says nothing to change: send `name`, `metadata` or both";

/** What may be changed of a model or dataset. */
export const Renaming = z
  .strictObject({
    name: Name.optional(),
    metadata: Metadata.optional().meta({ description: "All pairs from now on: those that are not named are dropped." }),
  })
  .refine((it) => it.name !== undefined || it.metadata !== undefined, NOTHING)
  .meta({ id: "Renaming" });

/** ... and of a job, which need not have a name. */
export const JobRenaming = z
  .strictObject({
    name: Name.nullable().optional(),
    metadata: Metadata.optional().meta({ description: "All pairs from now on: those that are not named are dropped." }),
  })
  .refine((it) => it.name !== undefined || it.metadata !== undefined, NOTHING)
  .meta({ id: "JobRenaming" });

/** What a record is called after a change. */
export function renamed<T extends { readonly name: string | null; readonly metadata: Told["metadata"] }>(
  { name, metadata }: T,
  change: { readonly name?: T["name"] | undefined; readonly metadata?: Told["metadata"] | undefined },
): Pick<T, "name" | "metadata"> {
  return { name: change.name === undefined ? name : change.name, metadata: change.metadata ?? metadata };
}

const METADATA_KEY = /^metadata\.(.{1,64})$/s;

const Moment = z.iso.datetime({ offset: true, error: "must be a time as in 2026-01-31T12:00:00Z" });

/** The filters that all lists have. Pairs of metadata are parameters with names of the user's: OpenAPI cannot list them. */
const FILTERS = {
  name: Name.optional().meta({ description: "The whole name, as it is written." }),
  metadata: z
    .string()
    .regex(/^[^:]{1,64}:/, "write it like key:value")
    .optional()
    .meta({
      description: "A pair that it must have, as in `team:ocr`. For several: `metadata.<key>=<value>`, once for each.",
    }),
  created_after: Moment.optional(),
  created_before: Moment.optional(),
};

const isPair = (value: unknown, key: string) => METADATA_KEY.test(key) && typeof value === "string";

/** A list's query: `more` are the filters that it has besides. */
export function listQuery<Shape extends z.core.$ZodLooseShape>(more: Shape) {
  return PageQuery.extend({ ...FILTERS, ...more })
    .catchall(z.string({ error: "may be given once" }))
    .superRefine((query, context) => {
      const known = new Set([...Object.keys(PageQuery.shape), ...Object.keys(FILTERS), ...Object.keys(more)]);
      const keys = Object.entries(query).flatMap(([key, value]) => (known.has(key) || isPair(value, key) ? [] : [key]));
      if (keys.length > 0) context.addIssue({ code: "unrecognized_keys", keys, input: query });
    });
}

export const RecordsQuery = listQuery({
  sha256: z
    .string()
    .regex(/^[0-9a-f]{64}$/, "must be a sha256 in lower-case hexadecimal")
    .optional()
    .meta({ description: "As in `sha256` of the record." }),
});

/** What a list is asked for besides its own filters. */
export function filterOf(query: Readonly<Record<string, unknown>>): ListFilter {
  const text = (key: string) => {
    const value = query[key];
    return typeof value === "string" ? { [key]: value } : {};
  };
  const pair = typeof query.metadata === "string" ? /^([^:]+):(.*)$/s.exec(query.metadata) : null;
  const named = Object.entries(query).flatMap(([key, value]) => {
    const match = METADATA_KEY.exec(key);
    return match === null ? [] : [[match[1]!, String(value)] as const];
  });
  const pairs = [...named, ...(pair === null ? [] : [[pair[1]!, pair[2]!] as const])];
  for (const [key, value] of pairs) {
    if (pairs.some(([other, its]) => other === key && its !== value)) {
      const message = `It cannot have two values for the key ${key}.`;
      const fields = [{ pointer: `#/query/metadata.${key}`, code: "invalid", message } as const];
      throw new ServiceError("validation_failed", message, { fields });
    }
  }
  return {
    ...text("name"),
    ...text("sha256"),
    ...text("created_after"),
    ...text("created_before"),
    ...(pairs.length > 0 && { metadata: Object.fromEntries(pairs) }),
  };
}
