import assert from "node:assert/strict";
import { test } from "node:test";
import { CoreError } from "../../../src/core/errors.ts";
import { type Attr, Model } from "../../../src/core/onnx/ir.ts";
import { upgradeOpset } from "../../../src/core/onnx/opset.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { elementCount, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";

interface OldNode {
  readonly op: string;
  readonly version: number;
  readonly dims: readonly number[];
  readonly attrs?: Readonly<Record<string, Attr>>;
  readonly inputs?: readonly Tensor[];
  readonly outputs?: number;
}

const ints = (...value: number[]): Attr => ({ type: "ints", value });
const int = (value: number): Attr => ({ type: "int", value });
const float = (value: number): Attr => ({ type: "float", value });
const REDUCE_ALL = ["Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare", "Sum"];

const CASES: readonly OldNode[] = [
  ...REDUCE_ALL.map((name) => ({ op: `Reduce${name}`, version: 12, dims: [2, 3, 4], attrs: { axes: ints(0, 2) } })),
  ...REDUCE_ALL.map((name) => ({ op: `Reduce${name}`, version: 12, dims: [2, 3], attrs: { keepdims: int(0) } })),
  { op: "Squeeze", version: 11, dims: [1, 3, 1], attrs: { axes: ints(0) } },
  { op: "Squeeze", version: 11, dims: [1, 3, 1] },
  { op: "Unsqueeze", version: 11, dims: [3], attrs: { axes: ints(0, 2) } },
  { op: "Split", version: 11, dims: [6, 2], attrs: { split: ints(1, 5) }, outputs: 2 },
  { op: "Split", version: 11, dims: [2, 6], attrs: { axis: int(1) }, outputs: 3 },
  { op: "Softmax", version: 11, dims: [2, 3, 4] },
  { op: "Softmax", version: 11, dims: [2, 3, 4], attrs: { axis: int(2) } },
  // Since version 13 an axis is one axis: nothing is to be rewritten any more.
  { op: "Softmax", version: 13, dims: [2, 3, 4], attrs: { axis: int(1) } },
  { op: "LogSoftmax", version: 11, dims: [2, 3, 4], attrs: { axis: int(0) } },
  { op: "Hardmax", version: 11, dims: [2, 3, 4] },
  {
    op: "Scatter",
    version: 9,
    dims: [3, 2],
    attrs: { axis: int(1) },
    inputs: [tensorOf("int64", [3, 1], [1, 0, 1]), tensorOf("float32", [3, 1], [5, 6, 7])],
  },
  { op: "Pad", version: 10, dims: [2, 3], attrs: { pads: ints(0, 1, 2, 0), value: float(0.5) } },
  { op: "Clip", version: 10, dims: [2, 3], attrs: { min: float(-0.3), max: float(0.4) } },
  { op: "Clip", version: 10, dims: [2, 3], attrs: { max: float(0.1) } },
  { op: "Slice", version: 9, dims: [4, 5], attrs: { starts: ints(1, -3), ends: ints(3, 1000), axes: ints(0, 1) } },
  { op: "Dropout", version: 11, dims: [2, 3], attrs: { ratio: float(0.4) } },
  {
    op: "Upsample",
    version: 9,
    dims: [1, 1, 2, 3],
    attrs: { mode: { type: "string", value: "nearest" } },
    inputs: [tensorOf("float32", [4], [1, 1, 2, 2])],
  },
  {
    op: "Resize",
    version: 10,
    dims: [1, 1, 2, 3],
    attrs: { mode: { type: "string", value: "linear" } },
    inputs: [tensorOf("float32", [4], [1, 1, 1.5, 2])],
  },
  { op: "TopK", version: 9, dims: [2, 5], attrs: { k: int(2) }, outputs: 2 },
  {
    op: "BatchNormalization",
    version: 7,
    dims: [2, 2, 2],
    attrs: { spatial: int(1) },
    inputs: [
      [1, 2],
      [0.5, -1],
      [0.1, 0.2],
      [1, 3],
    ].map((values) => tensorOf("float32", [2], values)),
  },
  {
    op: "GroupNormalization",
    version: 18,
    dims: [2, 4, 3],
    attrs: { num_groups: int(2) },
    inputs: [
      [1, 2],
      [0.5, -1],
    ].map((values) => tensorOf("float32", [2], values)),
  },
];

for (const [entry, version] of CASES.flatMap((entry) => [13, 21].map((version) => [entry, version] as const))) {
  if (entry.version >= version) continue;
  test(`${entry.op} of version ${entry.version} computes the same in version ${version} (${JSON.stringify(entry.attrs ?? {})})`, async () => {
    const model = new Model({ irVersion: 8, opsets: [["", entry.version]], graphName: "old" });
    const x = model.graph.addInput("x", "float32", entry.dims);
    const inputs = [x, ...(entry.inputs ?? []).map((value, i) => model.graph.addInitializer(`c${i}`, value))];
    const names = Array.from({ length: entry.outputs ?? 1 }, (_, i) => `y${i}`);
    const node = model.graph.append({
      opType: entry.op,
      name: "node",
      inputs,
      outputs: names,
      attrs: entry.attrs ?? {},
    });
    for (const value of node.outputs) model.graph.addOutput(value);
    const data = Array.from({ length: elementCount(entry.dims) }, (_, i) => Math.sin(7 * i + 1));
    const feeds = { x: tensorOf("float32", entry.dims, data) };
    const run = async () => {
      const session = await openSession({ bytes: modelToBytes(model) });
      const results = await session.run(feeds);
      await session.close();
      return names.map((name) => [results[name]!.dtype, results[name]!.dims, [...results[name]!.bytes]]);
    };
    const before = await run();
    upgradeOpset(model, version);
    assert.equal(model.opset, version);
    assert.deepEqual(await run(), before);
  });
}

test("models that are newer stay as they are", () => {
  const newer = new Model({ irVersion: 11, opsets: [["", 23]], graphName: "newer" });
  upgradeOpset(newer, 21);
  assert.equal(newer.opset, 23);
});

/** A model of one node with three inputs of [2, 3, 4]. */
function oneNode(op: string, version: number, attrs: Readonly<Record<string, Attr>> = {}, outputs = 1): Model {
  const model = new Model({ irVersion: 8, opsets: [["", version]], graphName: "old" });
  const inputs = ["a", "b", "c"].map((name) => model.graph.addInput(name, "float32", [2, 3, 4]));
  const node = model.graph.append({ opType: op, name: "old_node", inputs, outputs, attrs });
  for (const value of node.outputs) model.graph.addOutput(value);
  return model;
}

test("operators that meant something else, or are no more, are refused by name", () => {
  const refused = [
    oneNode("Add", 6, { broadcast: int(1), axis: int(1) }),
    oneNode("Dropout", 6),
    oneNode("Scan", 8),
    oneNode("ImageScaler", 9),
    oneNode("BatchNormalization", 8, { spatial: int(0) }),
    oneNode("BatchNormalization", 13, {}, 5),
    oneNode("Dropout", 9, {}, 2),
  ];
  for (const model of refused) {
    const { opType } = model.graph.nodes[0]!;
    assert.throws(
      () => upgradeOpset(model, 21),
      (error) =>
        error instanceof CoreError &&
        error.code === "unsupported" &&
        error.subject === "old_node" &&
        error.message.startsWith(`The ${opType} "old_node" cannot be rewritten from operator set`),
    );
  }
});

test("operators that mean the same are kept, from version 1 on", () => {
  const old = oneNode("Conv", 6);
  upgradeOpset(old, 13);
  assert.equal(old.opset, 13);
  assert.equal(old.graph.nodes.length, 1);
});

test("statistics of a BatchNormalization that nobody reads are given up", () => {
  const model = oneNode("BatchNormalization", 9, { epsilon: float(0.25) }, 5);
  for (const value of model.graph.outputs.slice(1)) model.graph.removeOutput(value);
  upgradeOpset(model, 15);
  const [node] = model.graph.nodes;
  assert.equal(node!.outputs.length, 1);
  assert.equal(node!.float("epsilon"), 0.25);
  assert.equal(model.graph.outputs[0], node!.outputs[0]);
});

test("a GroupNormalization whose number of channels is not known is refused, whatever else is known", () => {
  for (const shape of [undefined, ["n", "c", 4], [2]] as const) {
    const model = new Model({ irVersion: 8, opsets: [["", 18]], graphName: "old" });
    const x = model.graph.addInput("x", "float32", shape);
    const [scale, bias] = ["s", "b"].map((name) => model.graph.addInput(name, "float32", [2]));
    const attrs = { num_groups: int(2) };
    const node = model.graph.append({
      opType: "GroupNormalization",
      name: "gn",
      inputs: [x, scale, bias],
      outputs: 1,
      attrs,
    });
    model.graph.addOutput(node.outputs[0]!);
    assert.throws(
      () => upgradeOpset(model, 21),
      (error) => error instanceof CoreError && error.code === "unsupported" && error.subject === "gn",
    );
  }
});
