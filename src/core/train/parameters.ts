import { CoreError } from "../errors.ts";
import type { Model, Node, Use, Value } from "../onnx/ir.ts";
import { elementCount, floatsOf, isFloat, type Tensor, tensorOf } from "../onnx/tensor.ts";
import type { ConstantRole, Fan } from "../operators/operator-record.ts";
import { operatorOf } from "../operators/operators.ts";
import { Random } from "../random.ts";
import { allocateParameters, type Floats, type ParameterArrays } from "./parameter-kernels.ts";

/** What a parameter does in its layer; settles how it starts and whether it decays. */
export type ParameterRole = ConstantRole;

export interface Parameter {
  /** The name of the constant in the model. */
  readonly name: string;
  readonly role: ParameterRole;
  readonly dims: readonly number[];
  /** The current values. The optimizer writes here, and sessions read it without a copy. */
  readonly data: Floats;
  /** Room for the optimizer's state. */
  readonly slots: ParameterArrays["slots"];
  /** Room for a sum of gradients. */
  readonly sum: Floats;
  /** How many inputs one output sums over, and how many outputs one input reaches; for weights. */
  readonly fan: Fan;
  /** Whether what the layer makes goes into a rectifier. */
  readonly rectified: boolean;
}

/** The floating constants of the main graph that a training run learns, in the order of their first use. */
export function findParameters(model: Model): readonly { readonly value: Value; readonly role: ParameterRole }[] {
  const found = new Map<Value, ParameterRole>();
  const learned = new Set<Value>();
  for (const node of model.graph.nodes) {
    for (const value of node.inputs) {
      if (!value || found.has(value) || !isLearnable(value)) continue;
      const role = roleOf(value, learned);
      if (!role) continue;
      found.set(value, role);
      learned.add(value);
    }
    if (node.inputs.some((value) => value && learned.has(value))) for (const value of node.outputs) learned.add(value);
  }
  return [...found].map(([value, role]) => ({ value, role }));
}

/** The first node of the main graph in whose bodies something stands that would be a parameter in the main graph. */
export function findOwnerOfParameters(model: Model): Node | undefined {
  const holds = (node: Node): boolean =>
    node
      .bodies()
      .some((body) =>
        body.nodes.some(
          (inner) =>
            inner.inputs.some(
              (value, index) => value && isLearnable(value) && roleAt({ node: inner, index }, new Set()),
            ) || holds(inner),
        ),
      );
  return model.graph.nodes.find(holds);
}

function isLearnable(value: Value): boolean {
  return value.constant !== undefined && isFloat(value.constant.dtype) && elementCount(value.constant.dims) > 1;
}

function roleOf(value: Value, learned: ReadonlySet<Value>): ParameterRole | undefined {
  for (const { node, index } of value.uses) {
    const role = roleAt({ node, index }, learned);
    if (role) return role;
  }
  return undefined;
}

function roleAt({ node, index }: Use, learned: ReadonlySet<Value>): ParameterRole | undefined {
  if (node.domain !== "") return undefined;
  const { constants, affine } = operatorOf(node) ?? {};
  const role = constants?.[index];
  if (role) {
    if (!affine) return role;
    // It must meet something learned to count: a constant that meets the model's input normalises it.
    const other = node.inputs[1 - index];
    return other && learned.has(other) ? role : undefined;
  }
  if (!isMovedBy({ node, index })) return undefined;
  for (const output of node.outputs) {
    const passed = roleOf(output, learned);
    if (passed) return passed;
  }
  return undefined;
}

/** Whether a weight is only brought into shape here. */
function isMovedBy({ node, index }: Use): boolean {
  const { moves, constants } = operatorOf(node) ?? {};
  return constants?.[index] === undefined && (moves === "all" || (moves === "first" && index === 0));
}

/** Throws `unsupported` unless the constant is float32. */
export function checkTrainableDType({ name, constant }: Value): void {
  if (constant!.dtype === "float32") return;
  throw new CoreError("unsupported", `Only float32 weights can be trained; "${name}" is ${constant!.dtype}.`, name);
}

/** The parameters that float32 constants hold. */
export function parametersOf(found: ReturnType<typeof findParameters>): readonly Parameter[] {
  const arrays = allocateParameters(found.map(({ value }) => elementCount(value.constant!.dims)));
  return found.map(({ value, role }, i) => {
    const constant = value.constant!;
    const use = firstUse(value);
    arrays[i]!.data.set(floatsOf(constant));
    return {
      name: value.name,
      role,
      dims: constant.dims,
      ...arrays[i]!,
      fan: fanOf(constant.dims, use),
      rectified: use !== undefined && isRectified(use.node),
    };
  });
}

/** The first use that is not a mere change of shape. */
function firstUse(value: Value): Use | undefined {
  const use = value.uses[0];
  if (!use || !isMovedBy(use)) return use;
  return firstUse(use.node.outputs[0]!);
}

function fanOf(dims: readonly number[], use: Use | undefined): Fan {
  const operand = use && operatorOf(use.node)?.weights?.find(({ input }) => input === use.index);
  return operand?.fan?.(use!.node, dims) ?? { in: dims.at(-2) ?? 1, out: dims.at(-1) ?? 1 };
}

/** Whether the output reaches a rectifier through nothing but normalisation, addition and pooling. */
function isRectified(node: Node): boolean {
  return node.outputs.some((output) =>
    output.uses.some(({ node: next }) => {
      if (operatorOf(next)?.rectifies) return true;
      return ["BatchNormalization", "Add", "MaxPool", "Mul"].includes(next.opType) && isRectified(next);
    }),
  );
}

/** Weight decay is for weights: biases, scales and slopes only shift or scale what the weights make. */
export function decays({ role, dims }: Parameter): boolean {
  return (role === "weight" || role === "embedding") && dims.filter((dim) => dim > 1).length > 1;
}

/**
 * Starting values drawn anew from `seed`: He's normal distribution for weights before a rectifier, σ² = 2/fan_in (He et al. 2015),
 * Glorot's for other weights, σ² = 2/(fan_in + fan_out) (Glorot and Bengio 2010), σ = 0.02 for embeddings; 1 for scales, 0.25 for slopes,
 * 0 for biases. Each parameter has a stream of its own, so that its values do not depend on what else there is.
 */
export function reinitialize(parameter: Parameter, seed: number): void {
  const { data, name, role, fan, rectified } = parameter;
  const constants: Partial<Record<ParameterRole, number>> = { scale: 1, bias: 0, slope: 0.25 };
  const constant = constants[role];
  if (constant !== undefined) {
    data.fill(constant);
    return;
  }
  new Random(seed, `initial ${name}`).fillNormal(data);
  const variance = role === "embedding" ? 0.02 ** 2 : rectified ? 2 / fan.in : 2 / (fan.in + fan.out);
  const deviation = Math.sqrt(variance);
  for (let i = 0; i < data.length; i++) data[i]! *= deviation;
}

/** The parameter as a tensor over its own memory: what is fed changes with the next update. */
export function liveTensor({ dims, data }: { dims: readonly number[]; data: Floats }): Tensor {
  return tensorOf("float32", dims, data);
}
