/** Lists come in pages that are bounded in bytes as well as in count, so that no answer can grow without end. */

export interface Page<T> {
  readonly data: readonly T[];
  readonly next_cursor: string | null;
}

/** Of the JSON texts of one page; a page has one item at least. */
const PAGE_BYTES = 256 * 1024;

/** How many of the first items fit into a page, given their sizes in bytes. */
export function itemsThatFit(sizes: Iterable<number>): number {
  let count = 0;
  let bytes = 0;
  for (const size of sizes) {
    bytes += size;
    if (count > 0 && bytes > PAGE_BYTES) break;
    count++;
  }
  return count;
}

/** A page of what is all known already, from a cursor that counts. */
export function partOf<T>(
  all: readonly T[],
  { limit, cursor = "0" }: { limit: number; cursor?: string | undefined },
): Page<T> {
  const start = Number(cursor);
  const wanted = all.slice(start, start + limit);
  const data = wanted.slice(0, itemsThatFit(wanted.map((item) => Buffer.byteLength(JSON.stringify(item)))));
  const next = start + data.length;
  return { data, next_cursor: data.length > 0 && next < all.length ? String(next) : null };
}
