import { isListed } from "../listed.ts";

/** How MLflow names models of its registry: `models:/name/3` and `models:/name@alias` for versions, `models:/name` for all of them. */

export interface VersionAddress {
  readonly name: string;
  readonly of: { readonly version: string } | { readonly alias: string };
}

/** MLflow refuses names with a slash or a colon; the rest keeps them out of the syntax of lists and addresses. */
const NAME = "[^/:@,*\\s](?:[^/:@,*\\p{Cc}]{0,254}[^/:@,*\\s])?";
const MODEL = new RegExp(`^models:/(${NAME})$`, "u");
const VERSION = new RegExp(`^models:/(${NAME})(?:/([1-9]\\d{0,9})|@([\\w.-]{1,255}))$`, "u");

/** The name of a registered model; undefined for what is no address of one. */
export function parseModelAddress(text: string): string | undefined {
  return MODEL.exec(text)?.[1];
}

/** Undefined for what is no address of a version. */
export function parseVersionAddress(text: string): VersionAddress | undefined {
  const [, name, version, alias] = VERSION.exec(text) ?? [];
  if (name === undefined) return undefined;
  return { name, of: version === undefined ? { alias: alias! } : { version } };
}

/**
 * Why a registered model is not one that the operator has listed in the variable; undefined for one that is. `name` is undefined where the
 * address could not be read, of which `form` says what it must be.
 */
export function unlistedModel(
  name: string | undefined,
  form: string,
  entries: readonly string[],
  variable: string,
): string | undefined {
  if (name === undefined) return `It must be ${form}.`;
  if (entries.length === 0)
    return `The operator of this service has allowed no registered model: ${variable} lists them.`;
  if (isListed(name, entries)) return undefined;
  return `Its registered model is not one that the operator has allowed (${variable}): those are ${entries.join(", ")}.`;
}
