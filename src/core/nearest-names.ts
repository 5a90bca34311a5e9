/** "Did you mean": the names that a misspelt one is nearest to. */

/** Names that differ more than this are no slip of the keyboard. */
const MAX_EDITS = 6;
/** Longer names are compared by case and by how they end only. */
const MAX_LENGTH = 200;
/** Rows of edit-distance tables that one question may take: a second or two, for the worst of models. */
const MAX_ROWS = 1e6;
/** Shorter words end too many names. */
const MIN_TAIL = 3;

/**
 * At most `count` of the known names, nearest first: the same but for case; one that ends in the other after a separator ("conv1" for
 * "/backbone/conv1"); then by edit distance, up to a third of the name's length and 6.
 */
export function nearestNames(name: string, known: Iterable<string>, count = 3): string[] {
  const lower = name.toLowerCase();
  const most = Math.min(MAX_EDITS, Math.max(1, Math.floor(name.length / 3)));
  const found: { readonly name: string; readonly distance: number }[] = [];
  let rows = 0;
  for (const other of new Set(known)) {
    if (other === "") continue;
    const otherLower = other.toLowerCase();
    if (otherLower === lower) found.push({ name: other, distance: 0 });
    else if (isTail(lower, otherLower) || isTail(otherLower, lower)) found.push({ name: other, distance: 0.5 });
    else if (name.length <= MAX_LENGTH && Math.abs(other.length - name.length) <= most && rows < MAX_ROWS) {
      rows += name.length;
      const distance = editDistance(lower, otherLower, most);
      if (distance <= most) found.push({ name: other, distance });
    }
  }
  // The sort is stable: names that are equally near stay in the order of the model.
  return found
    .sort((a, b) => a.distance - b.distance)
    .slice(0, count)
    .map((it) => it.name);
}

function isTail(short: string, long: string): boolean {
  return short.length >= MIN_TAIL && long.endsWith(short) && /[/.:_]/.test(long[long.length - short.length - 1] ?? "");
}

/**
 * The fewest characters to insert, delete, replace or swap with their neighbour that make one word of the other (optimal string alignment:
 * nothing is edited twice), or `most` + 1 when they are more. Only the diagonal band of that width is computed.
 */
export function editDistance(a: string, b: string, most: number): number {
  const far = most + 1;
  let above = new Array<number>(b.length + 1).fill(far);
  let row = Array.from({ length: b.length + 1 }, (_, j) => Math.min(j, far));
  let isHopeless = false;
  for (let i = 1; i <= a.length; i++) {
    const next = new Array<number>(b.length + 1).fill(far);
    if (i <= most) next[0] = i;
    const [from, to] = [Math.max(1, i - most), Math.min(b.length, i + most)];
    for (let j = from; j <= to; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      const isSwapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const swapped = isSwapped ? above[j - 2]! + 1 : far;
      next[j] = Math.min(replaced, swapped, row[j]! + 1, next[j - 1]! + 1, far);
    }
    // A swap reaches back two rows: when neither has anything near, there is no way on.
    const isFar = next.every((distance) => distance >= far);
    if (isFar && isHopeless) return far;
    isHopeless = isFar;
    [above, row] = [row, next];
  }
  return row[b.length]!;
}

/** "Did you mean …?" with a space before it, or nothing. */
export function didYouMean(nearest: readonly string[]): string {
  if (nearest.length === 0) return "";
  return ` Did you mean ${nearest.map((name) => JSON.stringify(name)).join(" or ")}?`;
}
