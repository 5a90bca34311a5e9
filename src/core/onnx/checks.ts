import { isFieldSet } from "@bufbuild/protobuf";
import {
  type AttributeProto,
  AttributeProtoSchema,
  AttributeProto_AttributeType as AttributeType,
  type FunctionProto,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type OperatorSetIdProto,
  type TensorProto,
  type ValueInfoProto,
} from "onnx-buf";
import { CoreError } from "../errors.ts";
import type { ExternalData } from "./external-data.ts";
import { IR_VERSIONS, LIMITS, quoted } from "./limits.ts";
import { checkMadeElements, checkWindow, KnownValues, labelOf } from "./operand-checks.ts";
import { checkSparseTensor, checkTensor } from "./tensor-checks.ts";

/**
 * Everything a model must hold before the library builds a graph of it or onnxruntime sees the file. The message has been through
 * `scanModelBytes`, so it is well-formed and of bearable size; here its parts are held against each other.
 * Throws `invalid_model` or `limit_exceeded` with the node, tensor or file at fault.
 */
export function checkModelProto(proto: ModelProto, external: ExternalData): void {
  const version = proto.irVersion;
  if (version === 0n || !proto.graph) throw invalid("This is not an ONNX model: it has no version or no graph.");
  if (version < BigInt(IR_VERSIONS.min) || version > BigInt(IR_VERSIONS.max)) {
    throw invalid(
      `The model is written in version ${version} of the ONNX format; ${IR_VERSIONS.min} to ${IR_VERSIONS.max} are read.`,
    );
  }
  if (proto.trainingInfo.length > 0) throw invalid("The model carries training graphs; export it for inference.");
  const imports = opsetsOf(proto.opsetImport, "The model");
  const functions = functionsOf(proto.functions);
  const checks = new ModelChecks(functions);
  for (const fn of proto.functions) checks.function(fn);
  checks.graph(proto.graph, { imports, external, outer: new KnownValues(), depth: 1, inFunction: false });
  checks.expansion(proto.graph);
}

/** Operators the service knows. A model may import other sets (optimizers leave such lines behind) but not use them. */
const DOMAINS = new Set(["", "ai.onnx.ml", "com.microsoft"]);

/** The two names of the standard operator set are one. */
export function normalized(domain: string): string {
  return domain === "ai.onnx" ? "" : domain;
}

function opsetsOf(imports: readonly OperatorSetIdProto[], whose: string): ReadonlyMap<string, bigint> {
  if (imports.length > LIMITS.opsetImports)
    throw tooMany(`${whose} imports`, imports.length, "operator sets", LIMITS.opsetImports);
  const versions = new Map<string, bigint>();
  for (const { domain, version } of imports) {
    checkName(domain, `${whose} imports an operator set`);
    const other = versions.get(normalized(domain));
    if (other !== undefined && other !== version) {
      throw invalid(`${whose} imports versions ${other} and ${version} of the operator set ${quoted(domain)}.`, domain);
    }
    if (version < 1n || version > 0x7fffffffn) {
      throw invalid(`${whose} imports version ${version} of the operator set ${quoted(domain)}.`, domain);
    }
    versions.set(normalized(domain), version);
  }
  if (versions.size === 0) throw invalid(`${whose} does not say which operator set it is written in.`);
  return versions;
}

/** What tells functions apart. */
export function functionKey(domain: string, name: string, overload: string): string {
  return JSON.stringify([normalized(domain), name, overload]);
}

function functionsOf(protos: readonly FunctionProto[]): ReadonlyMap<string, FunctionProto> {
  if (protos.length > LIMITS.functions) throw tooMany("The model has", protos.length, "functions", LIMITS.functions);
  const functions = new Map<string, FunctionProto>();
  for (const proto of protos) {
    const { domain, name, overload } = proto;
    for (const part of [domain, name, overload]) checkName(part, "A function");
    // The library takes "Conv" for the operator; a file must not be able to make it something else.
    if (DOMAINS.has(normalized(domain))) {
      throw invalid(`The function ${quoted(name)} is defined in the domain of the standard operators.`, name);
    }
    const key = functionKey(domain, name, overload);
    if (functions.has(key)) throw invalid(`The function ${quoted(name)} is defined twice.`, name);
    functions.set(key, proto);
  }
  return functions;
}

/** Where a graph stands: what it may use, what it can see, and what is not allowed in it. */
interface Context {
  readonly imports: ReadonlyMap<string, bigint>;
  /** Undefined where external data is not allowed. */
  readonly external: ExternalData | undefined;
  readonly outer: KnownValues;
  readonly depth: number;
  readonly inFunction: boolean;
}

/** The field of an attribute that holds its value, by type; every other one must be empty. */
const VALUE_FIELDS: ReadonlyMap<AttributeType, keyof typeof AttributeProtoSchema.field> = new Map([
  [AttributeType.FLOAT, "f"],
  [AttributeType.INT, "i"],
  [AttributeType.STRING, "s"],
  [AttributeType.TENSOR, "t"],
  [AttributeType.GRAPH, "g"],
  [AttributeType.SPARSE_TENSOR, "sparseTensor"],
  [AttributeType.TYPE_PROTO, "tp"],
  [AttributeType.FLOATS, "floats"],
  [AttributeType.INTS, "ints"],
  [AttributeType.STRINGS, "strings"],
  [AttributeType.TENSORS, "tensors"],
  [AttributeType.GRAPHS, "graphs"],
  [AttributeType.SPARSE_TENSORS, "sparseTensors"],
  [AttributeType.TYPE_PROTOS, "typeProtos"],
]);

/** Types whose value is a message: without it there is nothing to read. */
const MESSAGE_TYPES = new Set([
  AttributeType.TENSOR,
  AttributeType.GRAPH,
  AttributeType.SPARSE_TENSOR,
  AttributeType.TYPE_PROTO,
]);

class ModelChecks {
  readonly #functions: ReadonlyMap<string, FunctionProto>;
  #nodes = 0;
  #initializers = 0;
  #made = 0;

  constructor(functions: ReadonlyMap<string, FunctionProto>) {
    this.#functions = functions;
  }

  graph(proto: GraphProto, context: Context): void {
    if (context.depth > LIMITS.graphDepth) {
      throw new CoreError(
        "limit_exceeded",
        `Graphs are nested more than ${LIMITS.graphDepth} deep.`,
        proto.name || undefined,
      );
    }
    checkName(proto.name, "A graph");
    this.#initializers += proto.initializer.length + proto.sparseInitializer.length;
    if (this.#initializers > LIMITS.initializers) {
      throw tooMany("The model has", this.#initializers, "initializers", LIMITS.initializers);
    }
    const known = new KnownValues(context.outer);
    for (const tensor of proto.initializer) {
      if (tensor.name === "") throw invalid("An initializer has no name.");
      this.#tensor(tensor, context.external);
      known.addTensor(tensor.name, tensor);
    }
    for (const sparse of proto.sparseInitializer) {
      checkSparseTensor(sparse);
      checkName(sparse.values!.name, "A sparse initializer");
      if (sparse.values!.name === "") throw invalid("A sparse initializer has no name.");
    }
    for (const info of proto.input) if (info.name === "") throw invalid("A graph input has no name.");
    for (const info of [...proto.input, ...proto.valueInfo, ...proto.output]) checkValueInfo(info, known);
    for (const node of proto.node) this.#node(node, known, context);
  }

  function(proto: FunctionProto): void {
    const imports = opsetsOf(proto.opsetImport, `The function ${quoted(proto.name)}`);
    for (const name of [...proto.input, ...proto.output, ...proto.attribute]) checkName(name, "A value of a function");
    const context: Context = { imports, external: undefined, outer: new KnownValues(), depth: 1, inFunction: true };
    const known = new KnownValues();
    for (const attribute of proto.attributeProto)
      this.#attribute(attribute, `function ${quoted(proto.name)}`, known, context);
    for (const info of proto.valueInfo) checkValueInfo(info, known);
    for (const node of proto.node) this.#node(node, known, context);
  }

  /** Function calls are expanded by the runtime: refuses recursion, and doubling that would make a small file a huge graph. */
  expansion(graph: GraphProto): void {
    const sizes = new Map<FunctionProto, number | "open">();
    const sizeOf = (nodes: readonly NodeProto[], depth: number): number => {
      let size = nodes.length;
      for (const node of nodes) {
        for (const { g, graphs } of node.attribute) {
          for (const body of g ? [g, ...graphs] : graphs) size += sizeOf(body.node, depth);
        }
        const callee = this.#functions.get(functionKey(node.domain, node.opType, node.overload));
        if (!callee) continue;
        const known = sizes.get(callee);
        if (known === "open") throw invalid(`The function ${quoted(callee.name)} calls itself.`, callee.name);
        if (depth >= LIMITS.functionDepth) {
          throw new CoreError(
            "limit_exceeded",
            `Functions call each other more than ${LIMITS.functionDepth} deep.`,
            callee.name,
          );
        }
        if (known === undefined) {
          sizes.set(callee, "open");
          sizes.set(callee, sizeOf(callee.node, depth + 1));
        }
        size += sizes.get(callee) as number;
      }
      if (size > LIMITS.nodes) throw tooMany("With its functions expanded the model has", size, "nodes", LIMITS.nodes);
      return size;
    };
    for (const fn of this.#functions.values()) sizeOf(fn.node, 0);
    sizeOf(graph.node, 0);
  }

  #node(node: NodeProto, known: KnownValues, context: Context): void {
    if (++this.#nodes > LIMITS.nodes) throw tooMany("The model has", this.#nodes, "nodes", LIMITS.nodes);
    for (const name of [node.name, node.opType, node.domain, node.overload]) checkName(name, "A node");
    const label = labelOf(node);
    const what = `node ${quoted(label)} (${quoted(node.opType).slice(1, -1)})`;
    if (node.input.length > LIMITS.operands || node.output.length > LIMITS.operands) {
      throw tooMany(`The ${what} has`, Math.max(node.input.length, node.output.length), "operands", LIMITS.operands);
    }
    for (const name of node.input) checkName(name, `An input of ${what}`);
    for (const name of node.output) checkName(name, `An output of ${what}`);
    this.#operator(node, what, label, context);

    if (node.attribute.length > LIMITS.attributes) {
      throw tooMany(`The ${what} has`, node.attribute.length, "attributes", LIMITS.attributes);
    }
    const names = new Set<string>();
    for (const attribute of node.attribute) {
      if (names.has(attribute.name)) {
        throw invalid(`The ${what} has the attribute ${quoted(attribute.name)} twice.`, label);
      }
      names.add(attribute.name);
      // External data may stand in initializers and in what is one in all but name.
      const external = node.opType === "Constant" && attribute.name === "value" ? context.external : undefined;
      this.#attribute(
        attribute,
        what,
        known,
        { ...context, external: attribute.t ? external : context.external },
        label,
      );
    }

    if (normalized(node.domain) !== "ai.onnx.ml") {
      if (node.opType === "Constant" && node.output[0]) {
        const tensor = node.attribute.find(({ name }) => name === "value")?.t;
        if (tensor) known.addTensor(node.output[0], tensor);
      }
      known.addNode(node);
      checkWindow(node, known);
      this.#made += checkMadeElements(node, known);
      if (this.#made > LIMITS.madeElementsTotal) {
        throw new CoreError(
          "limit_exceeded",
          `The model makes more than ${LIMITS.madeElementsTotal} elements out of constant shapes.`,
          label,
        );
      }
    }
  }

  #operator(node: NodeProto, what: string, label: string, context: Context): void {
    const domain = normalized(node.domain);
    if (node.opType === "") throw invalid(`The node ${quoted(label)} does not say which operator it is.`, label);
    if (this.#functions.has(functionKey(domain, node.opType, node.overload))) return;
    if (!DOMAINS.has(domain)) {
      throw invalid(
        `The ${what} uses an operator of the domain ${quoted(domain)}; the standard ones and com.microsoft are supported.`,
        label,
      );
    }
    if (!context.imports.has(domain)) {
      throw invalid(
        `The ${what} uses an operator of ${quoted(domain || "ai.onnx")}, which the model does not import.`,
        label,
      );
    }
  }

  #attribute(attribute: AttributeProto, what: string, known: KnownValues, context: Context, label?: string): void {
    const { name, type } = attribute;
    checkName(name, `An attribute of the ${what}`);
    if (name === "") throw invalid(`The ${what} has an attribute without a name.`, label);
    const field = VALUE_FIELDS.get(type);
    if (!field) throw invalid(`The attribute ${quoted(name)} of the ${what} does not say its type.`, label);
    if (attribute.refAttrName !== "" && !context.inFunction) {
      throw invalid(
        `The attribute ${quoted(name)} of the ${what} refers to a function's attribute outside of any.`,
        label,
      );
    }
    for (const other of VALUE_FIELDS.values()) {
      if (other !== field && isFieldSet(attribute, AttributeProtoSchema.field[other])) {
        throw invalid(`The attribute ${quoted(name)} of the ${what} has a value of another type than it says.`, label);
      }
    }
    if (
      MESSAGE_TYPES.has(type) &&
      attribute.refAttrName === "" &&
      !isFieldSet(attribute, AttributeProtoSchema.field[field])
    ) {
      throw invalid(`The attribute ${quoted(name)} of the ${what} has no value.`, label);
    }
    if (attribute.t) this.#tensor(attribute.t, context.external);
    for (const tensor of attribute.tensors) this.#tensor(tensor, undefined);
    if (attribute.sparseTensor) checkSparseTensor(attribute.sparseTensor);
    for (const sparse of attribute.sparseTensors) checkSparseTensor(sparse);
    for (const body of attribute.g ? [attribute.g, ...attribute.graphs] : attribute.graphs) {
      this.graph(body, { ...context, outer: known, depth: context.depth + 1 });
    }
  }

  #tensor(proto: TensorProto, external: ExternalData | undefined): void {
    checkName(proto.name, "A tensor");
    checkTensor(proto, external);
  }
}

function checkValueInfo(info: ValueInfoProto, known: KnownValues): void {
  checkName(info.name, "A value");
  if (info.type?.value.case !== "tensorType") return;
  const dims = info.type.value.value.shape?.dim;
  if (!dims) return;
  if (dims.length > LIMITS.rank) {
    throw new CoreError(
      "limit_exceeded",
      `The value ${quoted(info.name)} is declared with ${dims.length} axes (at most ${LIMITS.rank}).`,
      info.name,
    );
  }
  for (const { value } of dims) {
    if (value.case === "dimParam") checkName(value.value, "A dimension");
    if (value.case === "dimValue" && value.value > BigInt(LIMITS.elements)) {
      throw new CoreError(
        "limit_exceeded",
        `The value ${quoted(info.name)} is declared with a dimension of ${value.value}.`,
        info.name,
      );
    }
  }
  known.declareRank(info.name, dims.length);
}

/** U+FFFD is what bytes that are not UTF-8 decode to: two different names could become one. */
function checkName(name: string, whose: string): void {
  if (name.length > LIMITS.nameLength) {
    throw new CoreError(
      "limit_exceeded",
      `${whose} has a name of ${name.length} characters (at most ${LIMITS.nameLength}): ${quoted(name)}.`,
    );
  }
  if (name.includes("\uFFFD") || name.includes("\0")) {
    throw invalid(`${whose} has a name that is not valid text: ${quoted(name)}.`);
  }
}

function invalid(message: string, subject?: string): CoreError {
  return new CoreError("invalid_model", message, subject);
}

function tooMany(start: string, count: number, what: string, limit: number): CoreError {
  return new CoreError("limit_exceeded", `${start} ${count} ${what} (at most ${limit}).`);
}
