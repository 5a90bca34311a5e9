import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { CoreError } from "../../../src/core/errors.ts";
import { type Attr, Graph, Model, type Node, type Value } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { printModel } from "../../../src/core/onnx/print.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { tensorOf } from "../../../src/core/onnx/tensor.ts";
import { removeDeadCode } from "../../../src/core/passes/dead-code.ts";
import { checkInvariants } from "../../../src/core/passes/pass.ts";
import { branches, GraphMaker, loop, mlp } from "../../support/graphs.ts";

function usesOf(value: Value): string[] {
  return value.uses.map(({ node, index }) => `${node.label}:${index}`).sort();
}

function emptyModel(): Model {
  return new Model({ irVersion: 8, opsets: [["", 17]], graphName: "main" });
}

/** x → a = Relu → b = Tanh → y = Sigmoid; y is the output. */
function chain() {
  const model = emptyModel();
  const { graph } = model;
  const x = graph.addInput("x", "float32", ["n", 4]);
  const node = (opType: string, input: Value, output: string) =>
    graph.append({ opType, name: opType, inputs: [input], outputs: [output] }).outputs[0]!;
  const a = node("Relu", x, "a");
  const b = node("Tanh", a, "b");
  const y = node("Sigmoid", b, "y");
  y.retype("float32", ["n", 4]);
  graph.addOutput(y);
  return { model, graph, x, a, b, y };
}

test("uses follow every change of an input", () => {
  const { graph, x, a, b } = chain();
  assert.deepEqual(usesOf(x), ["Relu:0"]);
  const tanh = b.producer!;
  tanh.setInput(0, x);
  assert.deepEqual(usesOf(x), ["Relu:0", "Tanh:0"]);
  assert.deepEqual(usesOf(a), []);
  tanh.setInput(2, a);
  assert.deepEqual(tanh.inputs, [x, undefined, a]);
  tanh.setInput(2, undefined);
  assert.deepEqual(usesOf(a), []);
  graph.remove(a.producer!);
  assert.deepEqual(usesOf(x), ["Tanh:0"]);
});

test("a node whose output is read, or given out, cannot be removed", () => {
  const { graph, a, y } = chain();
  for (const value of [a, y]) {
    assert.throws(() => graph.remove(value.producer!), { name: "CoreError", code: "internal", subject: value.name });
  }
});

test("an initializer that is read cannot be removed; one that is not also leaves the inputs", () => {
  const { graph, a } = chain();
  const w = graph.addInitializer("w", tensorOf("float32", [1], [1]));
  graph.setOverridable(w, true);
  a.producer!.setInput(1, w);
  assert.throws(() => graph.removeInitializer(w), CoreError);
  a.producer!.setInput(1, undefined);
  graph.removeInitializer(w);
  assert.equal(graph.initializers.size, 0);
  assert.deepEqual(
    graph.inputs.map(({ name }) => name),
    ["x"],
  );
});

test("replacing an output keeps the model's interface: name, type and declaration", () => {
  const { model, graph, b, y } = chain();
  graph.replaceUses(y, b);
  assert.deepEqual(
    graph.outputs.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
    [{ name: "y", dtype: "float32", shape: ["n", 4] }],
  );
  graph.remove(y.producer!);
  checkInvariants(model, "test");
  assert.match(printModel(model), /y = Tanh\(a\)/);
});

test("a value may be put behind itself: the node that makes the replacement goes on reading the original", () => {
  const { model, graph, a, b } = chain();
  const twice = graph.insertAfter(a.producer!, { opType: "Add", inputs: [a, a], outputs: ["twice"] });
  graph.replaceUses(a, twice.outputs[0]!);
  assert.deepEqual(usesOf(a), ["twice:0", "twice:1"]);
  assert.deepEqual(b.producer!.inputs, twice.outputs);
  checkInvariants(model, "test");
});

test("outputs that would become one value, an input, or a value of another graph are refused", () => {
  const { graph, x, a, b, y } = chain();
  graph.addOutput(b);
  assert.equal(graph.canReplace(y, x), false, "an input");
  assert.equal(graph.canReplace(y, b), false, "another output");
  assert.equal(graph.canReplace(y, a), true);
  assert.throws(() => graph.replaceUses(y, x), { code: "unsupported", subject: "y" });

  const model = branches();
  const body = model.graph.nodes[0]!.bodies()[0]!;
  assert.equal(body.canReplace(body.outputs[0]!, model.graph.inputs[1]!), false);
});

test("removing a node lets go of what its bodies read outside", () => {
  const model = branches();
  const { graph } = model;
  const shared = [...graph.initializers].find(({ name }) => name === "shared")!;
  const [node] = graph.nodes;
  assert.equal(shared.uses.length, 2);
  assert.equal(node!.bodies()[0]!.owner, node);
  graph.removeOutput(node!.outputs[0]!);
  graph.remove(node!);
  assert.equal(shared.uses.length, 0);
  assert.equal(graph.inputs[1]!.uses.length, 0);
});

test("replacing a body lets go of what the old one read", () => {
  const model = branches();
  const [node] = model.graph.nodes;
  const shared = [...model.graph.initializers].find(({ name }) => name === "shared")!;
  const body = new Graph(model, "constant");
  body.addOutput(body.addInitializer("zero", tensorOf("float32", [1, 16], new Float32Array(16))));
  node!.setAttr("else_branch", { type: "graph", value: body });
  assert.equal(shared.uses.length, 1);
  assert.equal(body.owner, node);
  checkInvariants(model, "test");
});

test("a value of an outer graph that a body gives out keeps its own declaration", () => {
  const make = new GraphMaker();
  const condition = make.input("condition", [], "bool");
  const x = make.input("x", ["n", 4]);
  const a = make.op("Relu", [x]);
  const body = (value: Value) => {
    const graph = new Graph(make.model, "body");
    graph.addOutput(value);
    return graph;
  };
  make.output(make.op("If", [condition], { then_branch: body(a), else_branch: body(a) }), "y", ["n", 4]);
  assert.equal(a.isGraphOutput, true);
  const bytes = modelToBytes(make.model);
  const loaded = loadModel(bytes);
  assert.ok(Buffer.from(bytes).equals(modelToBytes(loaded)));
  const relu = loaded.graph.nodes[0]!;
  assert.throws(() => loaded.graph.remove(relu), CoreError, "a body still gives it out");
});

test("names given to outputs are taken", () => {
  const { model, graph } = chain();
  graph.append({ opType: "Relu", inputs: [], outputs: ["fresh"] });
  assert.equal(model.freshName("fresh"), "fresh_1");
  assert.equal(graph.append({ opType: "Relu", inputs: [], outputs: 1 }).outputs[0]!.name, "Relu_output_0");
});

test("a Constant node is a constant whichever attribute holds it", () => {
  const forms: Record<string, [Attr, string, number[], number[]]> = {
    value: [{ type: "tensor", value: tensorOf("float32", [1], [1.5]) }, "float32", [1], [1.5]],
    value_float: [{ type: "float", value: 1.5 }, "float32", [], [1.5]],
    value_floats: [{ type: "floats", value: [1.5, -1] }, "float32", [2], [1.5, -1]],
    value_int: [{ type: "int", value: -3 }, "int64", [], [-3]],
    value_ints: [{ type: "ints", value: [4, 5] }, "int64", [2], [4, 5]],
  };
  for (const [name, [attr, dtype, dims, values]] of Object.entries(forms)) {
    const node = emptyModel().graph.append({ opType: "Constant", inputs: [], outputs: 1, attrs: { [name]: attr } });
    const constant = node.outputs[0]!.constant!;
    assert.deepEqual([constant.dtype, [...constant.dims]], [dtype, dims], name);
    const array = dtype === "int64" ? BigInt64Array : Float32Array;
    assert.deepEqual(Array.from(new array(constant.bytes.slice().buffer), Number), values);
  }
  const string = { value_string: { type: "string", value: "a" } } as const;
  const node = emptyModel().graph.append({ opType: "Constant", inputs: [], outputs: 1, attrs: string });
  assert.equal(node.outputs[0]!.constant, undefined);
});

test("a clone is independent: changing it leaves the original alone", () => {
  for (const build of [mlp, branches, loop]) {
    const model = build();
    const text = printModel(model, { digests: true });
    const copy = model.clone();
    for (const graph of copy.graphs()) {
      graph.append({ opType: "Relu", inputs: [graph.nodes[0]!.outputs[0]], outputs: 1 });
      graph.addInitializer("w", tensorOf("float32", [], [0]));
      graph.nodes[0]!.setAttr("odd", { type: "int", value: 1 });
    }
    copy.requireOpset("com.microsoft", 1);
    checkInvariants(copy, "test");
    assert.equal(printModel(model, { digests: true }), text);
    assert.notEqual(printModel(copy), text);
  }
});

test("values, nodes and bodies of a clone belong to the clone", () => {
  const model = branches();
  const copy = model.clone();
  const originals = new Set([...model.graphs()]);
  for (const graph of copy.graphs()) {
    assert.equal(graph.model, copy);
    assert.ok(!originals.has(graph));
    for (const node of graph.nodes) {
      for (const body of node.bodies()) assert.equal(body.owner, node);
      for (const value of [...node.inputs, ...node.outputs]) assert.ok(!value || !originals.has(value.graph));
    }
  }
});

// ---- random editing ---------------------------------------------------------------------------------------------------

type Edit = readonly [kind: number, a: number, b: number];

/** What a node at `position` can read: inputs, initializers, and outputs of nodes before it. */
function visible(graph: Graph, position: number): Value[] {
  const before = graph.nodes.slice(0, position).flatMap((node) => node.outputs);
  return [...graph.inputs, ...graph.initializers, ...before];
}

/** Applies an edit if it is legal, and says whether it was. */
function apply(model: Model, [kind, a, b]: Edit): boolean {
  const { graph } = model;
  const at = a % (graph.nodes.length + 1);
  const values = visible(graph, at);
  const value = values[b % values.length]!;
  const node: Node | undefined = graph.nodes[at];
  switch (kind) {
    case 0: {
      const init = { opType: "Add", inputs: [value, values[(a + b) % values.length]], outputs: 1 } as const;
      if (node) graph.insertBefore(node, init);
      else graph.append(init);
      return true;
    }
    case 1:
      if (!node || node.inputs.length === 0) return false;
      node.setInput(b % node.inputs.length, value);
      return true;
    case 2: {
      const from = node?.outputs[0];
      if (!from || !graph.canReplace(from, value)) return false;
      graph.replaceUses(from, value);
      return true;
    }
    case 3:
      if (!node || node.outputs.some((output) => output.uses.length > 0 || output.isGraphOutput)) return false;
      graph.remove(node);
      return true;
    case 4:
      graph.addInitializer("w", tensorOf("float32", [], [b]));
      return true;
    default:
      if (value.isGraphOutput) return false;
      graph.addOutput(value);
      return true;
  }
}

test("whatever is edited, use-def edges stay true and the model can be saved, loaded and cloned", () => {
  const edits = fc.array(fc.tuple(fc.nat(5), fc.nat(1000), fc.nat(1000)), { maxLength: 60 });
  fc.assert(
    fc.property(edits, fc.constantFrom(mlp, branches, loop), (list, build) => {
      const model = build();
      const outputs = model.graph.outputs.map(({ name }) => name);
      for (const edit of list) if (apply(model, edit)) checkInvariants(model, `edit ${edit}`);
      assert.deepEqual(
        model.graph.outputs.slice(0, outputs.length).map(({ name }) => name),
        outputs,
        "the interface stays",
      );
      const text = printModel(model, { digests: true });
      assert.equal(printModel(model.clone(), { digests: true }), text);
      assert.equal(printModel(loadModel(modelToBytes(model)), { digests: true }), text);
    }),
    { numRuns: 150, seed: 1 },
  );
});

test("a graph that reads a value before it is defined is not cloned into one that reads nothing", () => {
  const { model, graph, a } = chain();
  const late = graph.append({ opType: "Relu", inputs: [a], outputs: 1 });
  a.producer!.setInput(0, late.outputs[0]);
  assert.throws(() => model.clone(), { code: "internal", message: /before it is defined/ });
});

/** The name that `base`, `base_1`, `base_2`, … leads to, by trying them one after the other. */
function triedNames(taken: Set<string>, base: string): string {
  let name = base;
  for (let i = 1; taken.has(name); i++) name = `${base}_${i}`;
  taken.add(name);
  return name;
}

test("a fresh name is the first of base, base_1, base_2, … that is not taken, whatever was claimed in between", () => {
  const word = fc.constantFrom("a", "a_1", "a_2", "a_1_1", "b", "b_1");
  const step = fc.record({ claim: fc.boolean(), name: word });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), fc.nat({ max: 40 }), (steps, cloneAt) => {
      let model = emptyModel();
      const taken = new Set<string>();
      steps.forEach(({ claim, name }, i) => {
        if (i === cloneAt) model = model.clone();
        if (claim) {
          model.claimName(name);
          taken.add(name);
        } else assert.equal(model.freshName(name), triedNames(taken, name));
      });
    }),
  );
});

/** Calls of `Set.prototype.has` with a string while `work` runs: what looking for names costs. */
function nameLookups(work: () => void): number {
  const { has } = Set.prototype;
  let count = 0;
  Set.prototype.has = function (this: Set<unknown>, value: unknown) {
    if (typeof value === "string") count++;
    return has.call(this, value);
  };
  try {
    work();
  } finally {
    Set.prototype.has = has;
  }
  return count;
}

test("8,000 equal names are found in two lookups each", () => {
  const model = emptyModel();
  const lookups = nameLookups(() => {
    for (let i = 0; i < 8000; i++) model.freshName("w");
  });
  assert.ok(lookups <= 16_000, `${lookups} lookups`);
});

test("lists of nodes, uses and inputs are of the moment: a pass may go through them while it rewrites", () => {
  const { graph, x, a, b, y } = chain();
  const nodes = graph.nodes;
  const uses = x.uses;
  const before = graph.insertBefore(b.producer!, { opType: "Abs", inputs: [a], outputs: ["abs"] });
  b.producer!.setInput(0, x);
  graph.addInput("z");
  assert.deepEqual(
    nodes.map(({ opType }) => opType),
    ["Relu", "Tanh", "Sigmoid"],
  );
  assert.deepEqual(
    graph.nodes.map(({ opType }) => opType),
    ["Relu", "Abs", "Tanh", "Sigmoid"],
  );
  assert.equal(uses.length, 1);
  assert.equal(x.useCount, 2);
  assert.deepEqual(usesOf(x), ["Relu:0", "Tanh:0"]);
  graph.remove(before);
  assert.throws(() => graph.insertAfter(before, { opType: "Abs", inputs: [a], outputs: 1 }), {
    code: "internal",
    subject: "abs",
  });
  const last = graph.append({ opType: "Neg", inputs: [y], outputs: 1 });
  const first = graph.prepend({ opType: "Neg", inputs: [x], outputs: 1 });
  assert.deepEqual([graph.nodes[0], graph.nodes.at(-1)], [first, last]);
});

test("nodes stay in the order that a list with insertions and removals gives", () => {
  const action = fc.record({ kind: fc.constantFrom("append", "prepend", "before", "after", "remove"), at: fc.nat() });
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const { graph } = emptyModel();
      const list: Node[] = [];
      for (const { kind, at } of actions) {
        const index = list.length === 0 ? 0 : at % list.length;
        const init = { opType: "RandomNormal", inputs: [], outputs: 1 } as const;
        if (kind === "append" || (list.length === 0 && kind !== "prepend" && kind !== "remove")) {
          list.push(graph.append(init));
        } else if (kind === "prepend") list.unshift(graph.prepend(init));
        else if (list.length === 0) continue;
        else if (kind === "before") list.splice(index, 0, graph.insertBefore(list[index]!, init));
        else if (kind === "after") list.splice(index + 1, 0, graph.insertAfter(list[index]!, init));
        else graph.remove(list.splice(index, 1)[0]!);
        assert.deepEqual(graph.nodes, list);
      }
    }),
    { numRuns: 200 },
  );
});

test("taking readers of a value away one by one makes no list of those that are left", () => {
  const model = emptyModel();
  const x = model.graph.addInput("x", "float32", [4]);
  const readers = Array.from({ length: 10_000 }, () => model.graph.append({ opType: "Relu", inputs: [x], outputs: 1 }));
  model.graph.addOutput(readers[0]!.outputs[0]!);
  let lists = 0;
  const { uses } = Object.getOwnPropertyDescriptors(Object.getPrototypeOf(x)) as { uses: PropertyDescriptor };
  Object.defineProperty(x, "uses", {
    get: () => {
      lists++;
      return uses.get!.call(x);
    },
  });
  removeDeadCode.run(model, () => {});
  assert.equal(x.useCount, 1);
  assert.equal(lists, 0);
  checkInvariants(model, "test");
});
