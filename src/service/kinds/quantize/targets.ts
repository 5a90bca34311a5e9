/** What the machine is like that a model will run on. */
export type TargetName = "x64-vnni" | "x64-avx2" | "arm64" | "portable";

interface Target {
  /** Instruction set extensions it counts on. */
  readonly isa: readonly string[];
  readonly description: string;
  /** What onnxruntime multiplies with signed 8-bit weights fastest there. */
  readonly activations: "uint8" | "int8";
  /** Without dot products x64 adds pairs of products of u8 and s8 in saturating 16 bits. */
  readonly reduceRange: boolean;
}

export const TARGETS: Readonly<Record<TargetName, Target>> = {
  "x64-vnni": {
    isa: ["avx512_vnni", "avx_vnni"],
    description: "x86-64 with 8-bit dot products: int8 does not saturate.",
    activations: "uint8",
    reduceRange: false,
  },
  "x64-avx2": {
    isa: ["avx2"],
    description: "x86-64 without them: 8-bit weights keep one bit free where sums could saturate.",
    activations: "uint8",
    reduceRange: true,
  },
  arm64: {
    isa: ["neon", "dotprod"],
    description: "64-bit Arm.",
    activations: "int8",
    reduceRange: false,
  },
  portable: {
    isa: [],
    description: "Anything that onnxruntime runs on.",
    activations: "uint8",
    reduceRange: true,
  },
};
