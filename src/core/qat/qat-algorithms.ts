/** How the scales of activations can be learned, by name. */
export const QAT_ALGORITHMS = ["lsq", "pact"] as const;
export type QatAlgorithm = (typeof QAT_ALGORITHMS)[number];
