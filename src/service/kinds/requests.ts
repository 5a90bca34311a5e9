import type { z } from "zod";
import { canonicalJson } from "../identity.ts";
import { type JobSpec, kindOf } from "./kinds.ts";

/** The body of `POST /v1/jobs` that asks for a job. */
export interface RequestBody {
  readonly type: string;
  readonly model_id?: string;
  readonly params: object;
  readonly evaluation?: object;
  readonly acceptance?: object;
}

/** The shortest request that asks for a job: what its defaults say anyway is left out. */
export function requestOf(spec: JobSpec): RequestBody {
  const { type, params, evaluation, acceptance } = spec;
  const model = "model_id" in spec && spec.model_id !== null ? { model_id: spec.model_id } : {};
  return withoutDefaults(kindOf(spec).request, { type, ...model, params, evaluation, acceptance }) as RequestBody;
}

/** `value` without the fields that parsing puts there anyway. Answers it whole where it does not parse. */
function withoutDefaults<T extends object>(schema: z.ZodType, value: T): object {
  const parsed = schema.safeParse(value);
  if (!parsed.success) return value;
  const wanted = canonicalJson(parsed.data);
  const isSame = (candidate: object) => {
    const result = schema.safeParse(candidate);
    return result.success && canonicalJson(result.data) === wanted;
  };
  let whole: Fields = structuredClone(value) as Fields;
  /** Takes out of the object at `path` what is not needed, from the outside inwards. */
  const shorten = (path: readonly string[]): void => {
    const at = path.reduce((node, key) => node[key] as Fields, whole);
    for (const key of Object.keys(at)) {
      const without = withChange(whole, path, ({ [key]: _, ...rest }) => rest);
      if (isSame(without)) whole = without;
      else if (isFields(at[key])) shorten([...path, key]);
    }
  };
  shorten([]);
  return whole;
}

type Fields = Record<string, unknown>;

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null;
}

/** A copy in which the object or list at `path` is changed; lists keep their length. */
function withChange(node: Fields, path: readonly string[], change: (at: Fields) => Fields): Fields {
  const [key, ...rest] = path;
  if (key === undefined) return change(node);
  const child = withChange(node[key] as Fields, rest, change);
  return Array.isArray(node)
    ? (node.map((item, i) => (String(i) === key ? child : item)) as unknown as Fields)
    : { ...node, [key]: child };
}
