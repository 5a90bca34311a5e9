/**
 * Which parameters do nothing in some combinations with others. For every parameter it is said when it is read (`readings.ts` of the kinds): one
 * that is added does not compile until it is. A value that would have no effect is refused when a job is posted; the default may be sent, because
 * it asks for nothing.
 */
import type { z } from "zod";
import { type FieldError, pointerOf } from "../errors.ts";
import { canonicalJson } from "../identity.ts";

export type Json = Readonly<Record<string, unknown>>;

/** When a parameter is read, and what to say of it where it is not: "`name` is for …". */
export interface Condition<P> {
  readonly isRead: (params: P, sent: Json) => boolean;
  readonly isFor: string;
}

export const ALWAYS = "always";

type Reading<P, T> = typeof ALWAYS | Condition<P> | (T extends object ? Readings<P, T> : never);
export type Readings<P, T> = { readonly [K in keyof T]-?: Reading<P, NonNullable<T[K]>> };

export function onlyIf<P>(isRead: Condition<P>["isRead"], isFor: string): Condition<P> {
  return { isRead, isFor };
}

/** The parameters in `sent`, as they came, that would have no effect. `schema` is of the parameters, `readings` of their method. */
export function unreadParams<P>(
  schema: z.ZodType<P>,
  readings: Readings<never, object>,
  params: P,
  given: unknown,
): FieldError[] {
  const sent = asJson(given);
  const isDefault = (path: readonly string[]) => {
    const parsed = schema.safeParse(without(sent, path));
    return parsed.success && canonicalJson(at(parsed.data, path)) === canonicalJson(at(sent, path));
  };
  const found: FieldError[] = [];
  const visit = (readings: Json, given: Json, path: readonly string[]): void => {
    for (const [name, reading] of Object.entries(readings)) {
      const here = [...path, name];
      if (given[name] === undefined || reading === ALWAYS) continue;
      const { isRead, isFor } = reading as Partial<Condition<P>>;
      if (!isRead) visit(reading as Json, asJson(given[name]), here);
      else if (!isRead(params, sent) && !isDefault(here)) {
        const message = `${here.join(".")} would have no effect: it is for ${isFor}.`;
        found.push({ pointer: pointerOf("/params", here), code: "no_effect", message });
      }
    }
  };
  visit(readings as Json, sent, []);
  return found;
}

export function asJson(value: unknown): Json {
  return typeof value === "object" && value !== null ? (value as Json) : {};
}

export function at(value: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>((part, name) => asJson(part)[name], value);
}

function without(value: Json, [name, ...rest]: readonly string[]): Json {
  const { [name!]: inner, ...others } = value;
  return rest.length === 0 ? others : { ...others, [name!]: without(asJson(inner), rest) };
}
