/** What can be tried when a result is poor: as a warning says it, and as the job that tries it. */

/** What a remedy may be written with. */
export interface Known {
  /** A dataset of the job, or a place to put one's id. */
  readonly dataset: string;
  /** The layers whose results lose most, the worst first; empty where that was not measured. */
  readonly worst: readonly string[];
}

export interface Remedy {
  /** What to try, as a part of a sentence. */
  readonly text: string;
  /** The parameters of the job that tries it; undefined where it is no matter of parameters, or too little is known. */
  readonly change?: (known: Known) => Readonly<Record<string, unknown>> | undefined;
}

/** Stands for the id of a dataset that the job did not have. */
export const YOUR_DATASET = "dst_YOUR_DATASET";

/** Leaves the layers that lose most as they are. */
export function excludeWorst(text: string, params: { readonly exclude_nodes: readonly string[] }): Remedy {
  return {
    text,
    change: ({ worst }) =>
      worst.length === 0 ? undefined : { ...params, exclude_nodes: [...new Set([...params.exclude_nodes, ...worst])] },
  };
}
