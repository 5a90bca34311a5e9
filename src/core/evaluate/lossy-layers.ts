/** Which layers an error comes from. */
import type { LayerError } from "../facts.ts";

/** A layer that the job has changed, with an error. */
export type LossyLayer = LayerError & { readonly sqnr_db: number };

/**
 * At most `most` layers that lose most, the worst first: by the noise that a layer adds, as a share of the signal, which is 10^(−s/10) with the
 * ratio s (dB) of its result, less the same of what it reads. Layers that the job has left alone lose nothing themselves: leaving them alone
 * would change nothing.
 */
export function layersThatLoseMost(errors: readonly LayerError[] | null, most: number): readonly LossyLayer[] {
  return (errors ?? [])
    .flatMap((layer) => {
      const { sqnr_db, changed } = layer;
      if (sqnr_db === null || !changed) return [];
      const added = noiseOf(sqnr_db) - noiseOf(layer.input_sqnr_db);
      return added > 0 ? [{ layer: { ...layer, sqnr_db }, added }] : [];
    })
    .toSorted((a, b) => b.added - a.added)
    .slice(0, most)
    .map(({ layer }) => layer);
}

function noiseOf(db: number | null): number {
  return db === null ? 0 : 10 ** (-db / 10);
}
