/** Whether a model that was made for a runtime is what that runtime wants: every rule by itself, with the nodes that break it. */
import type { ArtifactRules, QdqPattern, RuleCheck, RuleName } from "../facts.ts";
import type { Model, Node, Value } from "../onnx/ir.ts";
import { integersOf } from "../onnx/tensor.ts";
import { operatorOf } from "../operators/operators.ts";

type Broken = RuleCheck["broken"][number];

/** What is told of one rule. */
const MAX_TOLD = 5;

type Check<R extends RuleName> = (model: Model, is: NonNullable<ArtifactRules[R]>["is"]) => Iterable<Broken>;

const CHECKS: { readonly [R in RuleName]: Check<R> } = {
  *domains(model, allowed) {
    for (const node of model.nodes()) {
      if (isOnnx(node) || allowed.includes(node.domain)) continue;
      yield at(node, `${node.domain}.${node.opType} is an operator of another domain.`);
    }
  },
  *opset(model, { min, max }) {
    const { opset } = model;
    if (opset < min || opset > max) {
      yield { name: "", message: `The model is in operator set ${opset}; ${min} to ${max} can be read.` };
    }
  },
  *refused(model, operators) {
    for (const node of model.nodes()) {
      if (isOnnx(node) && operators.includes(node.opType)) yield at(node, `There is no ${node.opType}.`);
    }
  },
  *activations(model, { dtype, symmetric }) {
    for (const node of model.nodes()) {
      if (!isQuantize(node) && !(isDequantize(node) && !node.inputs[0]?.constant)) continue;
      if (isQuantize(node) && node.inputs[0]?.constant) continue;
      const zeroPoint = node.inputs[2]?.constant;
      const stored = zeroPoint?.dtype ?? "uint8";
      if (stored !== dtype) yield at(node, `It rounds to ${stored}, not to ${dtype}.`);
      else if (symmetric && zeroPoint && integersOf(zeroPoint).some((code) => code !== 0)) {
        yield at(node, `Its zero point is ${integersOf(zeroPoint).find((code) => code !== 0)}.`);
      }
    }
  },
  *weights(model, { dtypes, symmetric }) {
    for (const node of model.nodes()) {
      const codes = isDequantize(node) ? node.inputs[0]?.constant : undefined;
      // Biases have a rule of their own, and a single number is an operand.
      if (!codes || codes.dtype === "int32" || codes.dims.length === 0) continue;
      const zeroPoint = node.inputs[2]?.constant;
      if (!dtypes.includes(codes.dtype)) yield at(node, `It reads a constant of ${codes.dtype}.`);
      else if (symmetric && zeroPoint && integersOf(zeroPoint).some((code) => code !== 0)) {
        yield at(node, "The zero point of its weight is not 0.");
      }
    }
  },
  *biases(model, wanted) {
    for (const node of layersOf(model)) {
      const bias = node.inputs[BIAS];
      if (!bias || !isLayerInEightBits(node)) continue;
      const stored = dequantizing(bias)?.inputs[0]?.constant?.dtype ?? "float32";
      if (stored !== wanted) yield at(node, `Its bias is stored as ${stored}.`);
    }
  },
  *pairs(model, where) {
    // Weights alone may be stored in few bits: then nothing is rounded while the model runs.
    const rounds = [...model.nodes()].some((node) => isQuantize(node) && !node.inputs[0]?.constant);
    for (const node of rounds ? layersOf(model) : []) {
      if (!isLayerInEightBits(node)) continue;
      const output = node.outputs[0]!;
      const activation = node.inputs.find((input) => input && !isConstantCodes(input) && input !== node.inputs[BIAS]);
      if (activation && !activation.constant && !dequantizing(activation)) {
        yield at(node, "Its weight is quantized and its other input is not.");
      } else if (where === "around" && (output.isGraphOutput || !output.uses.every(({ node }) => isQuantize(node)))) {
        yield at(node, "Its inputs are quantized and its output is not.");
      }
    }
  },
  *quantized(model, operators) {
    for (const node of model.nodes()) {
      if (!isDequantize(node) || node.inputs[0]?.constant) continue;
      const [output] = node.outputs;
      const other = output!.uses.find(({ node: reader }) => !isOnnx(reader) || !operators.includes(reader.opType));
      if (other) yield at(other.node, `${other.node.opType} reads a rounded value.`);
      else if (output!.isGraphOutput) yield { name: output!.name, message: "An output of the model is rounded." };
    }
  },
  *fixedShapes(model) {
    for (const input of model.graph.inputs) {
      const { name, shape } = input;
      if (shape && !shape.some((size) => typeof size !== "number")) continue;
      yield { name, message: `The sizes of the input ${name} are not all fixed.` };
    }
  },
};

/** Checks every rule of a runtime on a model; in the order of the record. Nothing is run. */
export function checkArtifact(model: Model, rules: ArtifactRules): readonly RuleCheck[] {
  return (Object.keys(rules) as RuleName[]).map((rule) => checkRule(rule, model, rules));
}

function checkRule<R extends RuleName>(rule: R, model: Model, rules: ArtifactRules): RuleCheck {
  const { is, says, source } = rules[rule]!;
  const check = CHECKS[rule] as (model: Model, is: unknown) => Iterable<Broken>;
  const broken = [...check(model, is)];
  return { rule, says, source, holds: broken.length === 0, broken: broken.slice(0, MAX_TOLD) };
}

/** How pairs are put into a model for a runtime; undefined where that is as onnxruntime's kernels on the CPU want it. */
export function patternFor({ activations, pairs, quantized, biases }: ArtifactRules): QdqPattern | undefined {
  if (!pairs && !quantized && !biases && !activations.is.symmetric) return undefined;
  return {
    symmetric: activations.is.symmetric,
    outputs: pairs ? OUTPUTS[pairs.is] : "kernels",
    operators: quantized?.is ?? null,
    biases: biases?.is ?? "kernels",
  };
}

const OUTPUTS = { inputs: "never", around: "always" } as const;

/** The input of layers that is their bias. */
const BIAS = 2;

function at(node: Node, message: string): Broken {
  return { name: node.label, message };
}

function isOnnx({ domain }: Node): boolean {
  return domain === "" || domain === "ai.onnx";
}

function isQuantize(node: Node): boolean {
  return isOnnx(node) && node.opType === "QuantizeLinear";
}

function isDequantize(node: Node): boolean {
  return isOnnx(node) && node.opType === "DequantizeLinear";
}

/** The node that a value is dequantized by. */
function dequantizing(value: Value | undefined): Node | undefined {
  return value?.producer && isDequantize(value.producer) ? value.producer : undefined;
}

function isConstantCodes(value: Value): boolean {
  return dequantizing(value)?.inputs[0]?.constant !== undefined;
}

/** Nodes that multiply with weights. */
function* layersOf(model: Model): Iterable<Node> {
  for (const node of model.nodes()) {
    if (operatorOf(node)?.weights?.some(({ inputAxis }) => inputAxis !== undefined)) yield node;
  }
}

/** Whether the weight of a layer is stored in 8 bits between which and the layer there is nothing but a DequantizeLinear. */
function isLayerInEightBits(node: Node): boolean {
  const weight = operatorOf(node)?.weights?.find(({ inputAxis }) => inputAxis !== undefined);
  const codes = weight && dequantizing(node.inputs[weight.input])?.inputs[0]?.constant;
  return codes?.dtype === "int8" || codes?.dtype === "uint8";
}
