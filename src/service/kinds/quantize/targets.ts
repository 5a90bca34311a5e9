import { DEPLOYMENTS, type Deployment, type DeploymentName } from "./deployments.ts";
import type { QuantizeParams } from "./params.ts";

/** What the machine is like that a model will run on: a kind of processor with onnxruntime, or another runtime. */
export type TargetName = "x64-vnni" | "x64-avx2" | "arm64" | "portable" | DeploymentName;

interface Target {
  /** Instruction set extensions it counts on. */
  readonly isa: readonly string[];
  readonly description: string;
  /** What onnxruntime multiplies with signed 8-bit weights fastest there. */
  readonly activations: "uint8" | "int8";
  /** Without dot products x64 adds pairs of products of u8 and s8 in saturating 16 bits. */
  readonly reduceRange: boolean;
  /** What another runtime than onnxruntime on the CPU wants. */
  readonly deployment?: Deployment;
}

/** A runtime that chooses its own instructions. */
function deployed(name: DeploymentName): Target {
  const deployment = DEPLOYMENTS[name];
  const { description, rules } = deployment;
  return {
    isa: [],
    description,
    activations: rules.activations.is.dtype,
    reduceRange: false,
    deployment,
  };
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
  web: deployed("web"),
  openvino: deployed("openvino"),
  tensorrt: deployed("tensorrt"),
  qnn: deployed("qnn"),
};

/** What a job can name: `auto` is the machine that runs it. */
export type AnyTarget = TargetName | "auto";

/** What the runtime of a target wants; undefined for onnxruntime on a CPU. */
export function deploymentFor(target: AnyTarget): Deployment | undefined {
  return target === "auto" ? undefined : TARGETS[target].deployment;
}

/** What the runtime wants that these parameters name; undefined for onnxruntime on a CPU. */
export function deploymentOf(params: QuantizeParams): Deployment | undefined {
  return deploymentFor("target" in params ? params.target : "auto");
}

/** What of these parameters the runtime that they name cannot take, and what to do. */
export function targetRefusals(params: QuantizeParams): { readonly field: string; readonly message: string }[] {
  const deployment = deploymentOf(params);
  if (!deployment) return [];
  const { runtime, refuses, rules } = deployment;
  const own = refuses
    .filter(({ applies }) => applies(params))
    .map(({ field, says, instead }) => ({ field, message: `${runtime}: ${says} ${instead}` }));
  if (params.method !== "static" || params.activation_dtype === "auto") return own;
  const { says, is } = rules.activations;
  if (params.activation_dtype === is.dtype) return own;
  const message = `${runtime}: ${says} Leave activation_dtype out, or set it to ${is.dtype}.`;
  return [...own, { field: "activation_dtype", message }];
}
