import type { Collection, Told } from "../catalog.ts";
import { canonicalJson } from "../identity.ts";

interface Uploaded extends Told {
  readonly id: string;
  readonly created_at: string;
  readonly identity: string;
  readonly owner?: string;
  readonly facts: unknown;
}

/** What a client has said of its upload. No metadata at all is nothing said. */
export interface Said {
  readonly owner: string;
  readonly name: string | undefined;
  readonly metadata: Readonly<Record<string, string>> | undefined;
}

/**
 * What is known of bytes that come again: their facts, which need not be found out twice; and the record that answers for them, when one of the
 * same key is called as this upload asks. An upload that says no name asks for none. Both undefined for bytes that are new.
 */
export async function earlierUpload<R extends Uploaded>(
  collection: Pick<Collection<R, unknown>, "sameContent" | "give">,
  content: string,
  said: Said,
): Promise<{ readonly record: R | undefined; readonly facts: R["facts"] | undefined }> {
  const same = await collection.sameContent(content);
  for (const record of same) {
    if (isCalled(record, said) && (await collection.give(record.id))) return { record, facts: record.facts };
  }
  return { record: undefined, facts: same[0]?.facts };
}

function isCalled(record: Uploaded, { owner, name, metadata = {} }: Said): boolean {
  if (record.owner !== undefined && record.owner !== owner) return false;
  const isUnsaid = Object.keys(metadata).length === 0;
  return (
    (name === undefined || record.name === name) &&
    (isUnsaid || canonicalJson(record.metadata) === canonicalJson(metadata))
  );
}
