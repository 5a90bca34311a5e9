import { itemsThatFit } from "./pages.ts";

/** Which records of a list are asked for. All that are given must hold. */
export interface ListFilter {
  readonly name?: string;
  readonly sha256?: string;
  /** Pairs that a record must have, whatever else it has. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** RFC 3339. Of `created_at`: later than, and earlier than. */
  readonly created_after?: string;
  readonly created_before?: string;
}

interface Listed {
  readonly name: string | null;
  readonly sha256?: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly created_at: string;
}

export function matches(filter: ListFilter, item: Listed): boolean {
  const at = Date.parse(item.created_at);
  return (
    (filter.name === undefined || item.name === filter.name) &&
    (filter.sha256 === undefined || item.sha256 === filter.sha256) &&
    Object.entries(filter.metadata ?? {}).every(([key, value]) => item.metadata[key] === value) &&
    (filter.created_after === undefined || at > Date.parse(filter.created_after)) &&
    (filter.created_before === undefined || at < Date.parse(filter.created_before))
  );
}

/** Records that one request looks through at the most: about 50 ms of Redis. */
const MAX_SCANNED = 10_000;
/** What is read at once while a filter lets few through. */
const BATCH = 500;

/** A list in Redis: its members in order, and what is told of each. */
interface Scan<Summary> {
  readonly limit: number;
  /** Where to begin, as `read` takes it. */
  readonly start: string;
  /** The next members from a place on. */
  readonly read: (from: string, count: number) => Promise<readonly string[]>;
  /** JSON texts, undefined for records that are gone. */
  readonly summariesOf: (members: readonly string[]) => Promise<readonly (string | undefined)[]>;
  readonly isWanted: (summary: Summary) => boolean;
}

/**
 * One page of a list: what is wanted of it, until there are `limit`, or they fill a page, or enough was looked through. `last` is the member
 * that the next page goes on behind, null at the end of the list.
 */
export async function scanPage<Summary>({ limit, start, read, summariesOf, isWanted }: Scan<Summary>): Promise<{
  readonly data: readonly Summary[];
  readonly last: string | null;
}> {
  const data: Summary[] = [];
  const sizes: number[] = [];
  let from = start;
  let last: string | null = null;
  for (let scanned = 0, batch = limit; scanned < MAX_SCANNED; batch = BATCH) {
    const found = await read(from, batch + 1);
    const members = found.slice(0, batch);
    for (const [i, text] of (await summariesOf(members)).entries()) {
      const summary = text === undefined ? undefined : (JSON.parse(text) as Summary);
      if (summary !== undefined && isWanted(summary)) {
        sizes.push(Buffer.byteLength(text!));
        if (data.length === limit || itemsThatFit(sizes) < sizes.length) return { data, last };
        data.push(summary);
      }
      last = members[i]!;
    }
    if (found.length <= batch) return { data, last: null };
    if (data.length === limit) return { data, last };
    scanned += members.length;
    from = `(${last}`;
  }
  return { data, last };
}
