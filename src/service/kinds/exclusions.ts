/** Nodes and operators that a job leaves alone, by name. */
export interface NamedExclusions {
  readonly nodes: readonly string[];
  readonly ops: readonly string[];
}

/** What the job excludes by its parameters, if anything. */
export function exclusionsIn({ params }: { readonly params: object }): NamedExclusions | undefined {
  if (!("exclude_nodes" in params && "exclude_ops" in params)) return undefined;
  const { exclude_nodes: nodes, exclude_ops: ops } = params as { exclude_nodes: string[]; exclude_ops: string[] };
  return nodes.length + ops.length > 0 ? { nodes, ops } : undefined;
}
