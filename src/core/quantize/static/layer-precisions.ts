/** What a layer can compute in where it does not in 8 bits: floats, with weights that are stored as they are or in few bits. */
export const LAYER_PRECISIONS = ["float32", "int8_weights", "int4_weights"] as const;

export type LayerPrecision = (typeof LAYER_PRECISIONS)[number];
