/** What each of several files is called beside the others: the end of its path that no other has, of as few parts as tell all of them apart. */
export function tellingNames(paths: readonly string[]): ReadonlyMap<string, string> {
  const distinct = [...new Set(paths)];
  const parts = distinct.map((path) => path.split("/").filter((part) => part !== ""));
  const longest = Math.max(0, ...parts.map(({ length }) => length));
  for (let count = 1; count <= longest; count++) {
    const ends = parts.map((all) => all.slice(-count).join("/"));
    if (new Set(ends).size === ends.length) return new Map(distinct.map((path, i) => [path, ends[i]!]));
  }
  return new Map(distinct.map((path) => [path, path]));
}
