/**
 * Whether a name is on a list that the operator keeps: as it is, or by an entry that ends with `*`, which stands for every name that begins as it
 * does. Names are case-sensitive.
 */
export function isListed(name: string, entries: readonly string[]): boolean {
  return entries.some((entry) => (entry.endsWith("*") ? name.startsWith(entry.slice(0, -1)) : name === entry));
}
