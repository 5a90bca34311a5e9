import { createHash } from "node:crypto";
import { z } from "zod";
import { ServiceError } from "../errors.ts";
import { whatItMustBe } from "../field-errors.ts";
import type { Access } from "./operation.ts";

/** Who makes a request. */
export interface Caller {
  /** Names the key in logs, quotas and idempotency; never secret. */
  readonly name: string;
  readonly scopes: ReadonlySet<Exclude<Access, "open">>;
}

/** Knows which key is whose. */
export interface ApiKeys {
  /**
   * The caller behind an `Authorization` header; undefined when it names none. `basic`: the key may come as a password, which browsers send
   * by themselves once they know it, also for pages of others: so nowhere but where a page needs it.
   */
  identify(authorization: string | undefined, options?: { readonly basic: boolean }): Caller | undefined;
  /** Whether everybody may do everything, because there are no keys. */
  readonly open: boolean;
}

/**
 * The file that `API_KEYS_FILE` names: a JSON list of keys by the sha256 of their text, so that reading the file gives
 * no access.
 *
 *     [{ "name": "ci", "sha256": "<printf %s KEY | sha256sum>", "scopes": ["read", "write"] },
 *      { "name": "ops", "sha256": "…", "scopes": ["read", "write", "admin"] }]
 *
 * `read`: every GET. `write`: uploads, jobs, deletions. `admin`: the queue page. Default: read and write.
 */
const KeysFile = z
  .array(
    z.strictObject({
      name: z.string().regex(/^[\w.-]{1,64}$/, "must be 1 to 64 letters, digits, dots, dashes or underscores"),
      sha256: z.string().regex(/^[0-9a-f]{64}$/, "must be a sha256 in lower-case hexadecimal"),
      scopes: z.array(z.enum(["read", "write", "admin"])).default(["read", "write"]),
    }),
  )
  .min(1, "must name at least one key")
  .refine((keys) => new Set(keys.map((key) => key.name)).size === keys.length, "two keys have the same name")
  .refine((keys) => new Set(keys.map((key) => key.sha256)).size === keys.length, "two entries are the same key");

/** Reads the text of a keys file. Throws an Error that lists everything that is wrong with it. */
export function parseApiKeys(text: string): ApiKeys {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new Error("The API keys file is not JSON.", { cause });
  }
  const parsed = KeysFile.safeParse(json, { error: whatItMustBe });
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `  ${["", ...issue.path].join("/")} ${issue.message}`);
    throw new Error(`The API keys file is wrong:\n${problems.join("\n")}`);
  }
  const callers = new Map(
    parsed.data.map(({ name, sha256, scopes }) => [sha256, { name, scopes: new Set(scopes) } satisfies Caller]),
  );
  return {
    open: false,
    identify(authorization, { basic } = { basic: false }) {
      const key = keyOf(authorization ?? "", basic);
      // Looking up by hash leaks no timing that helps to guess a key.
      return key === undefined ? undefined : callers.get(createHash("sha256").update(key).digest("hex"));
    },
  };
}

/** The key in `Bearer <key>`, or, where that is allowed, in `Basic` as the password (of any user): that is what browsers can send. */
function keyOf(authorization: string, basic: boolean): string | undefined {
  const [, scheme, credentials = ""] = /^(Bearer|Basic) +(\S{1,1024})$/i.exec(authorization) ?? [];
  if (scheme?.toLowerCase() !== "basic") return scheme && credentials;
  if (!basic) return undefined;
  return /^[^:]*:(.+)$/.exec(Buffer.from(credentials, "base64").toString())?.[1];
}

/** The caller where there are no keys. */
export const ANYBODY: Caller = { name: "anybody", scopes: new Set(["read", "write", "admin"]) };

/** For a service that only its own machine can reach. */
export const OPEN_TO_ALL: ApiKeys = { open: true, identify: () => ANYBODY };

/** `unauthorized` for a stranger, `forbidden` for a caller without the scope, nothing for who may. */
export function accessRefusal(caller: Caller | undefined, access: Access): ServiceError | undefined {
  if (access === "open") return undefined;
  if (caller === undefined) {
    return new ServiceError("unauthorized", "Send `Authorization: Bearer <key>` with one of the service's API keys.");
  }
  if (caller.scopes.has(access)) return undefined;
  return new ServiceError("forbidden", `The key "${caller.name}" does not have the scope "${access}".`);
}
