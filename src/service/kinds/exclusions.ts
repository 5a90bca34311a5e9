/** What a job calls by its name in the model: nodes and operators that it leaves alone, and nodes that it says how to compute. */
export interface NamedExclusions {
  readonly nodes: readonly string[];
  readonly ops: readonly string[];
  readonly layers: readonly string[];
}

/** What the job names by its parameters, if anything. */
export function exclusionsIn({ params }: { readonly params: object }): NamedExclusions | undefined {
  if (!("exclude_nodes" in params && "exclude_ops" in params)) return undefined;
  const named = params as { exclude_nodes: string[]; exclude_ops: string[]; layers?: Readonly<Record<string, string>> };
  const { exclude_nodes: nodes, exclude_ops: ops } = named;
  const layers = Object.keys(named.layers ?? {});
  return nodes.length + ops.length + layers.length > 0 ? { nodes, ops, layers } : undefined;
}
