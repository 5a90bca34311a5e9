import assert from "node:assert/strict";
import { test } from "node:test";
import { AttributeProto_AttributeType as AttributeType } from "onnx-buf";
import { CoreError } from "../../../src/core/errors.ts";
import { LIMITS } from "../../../src/core/onnx/limits.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import {
  ADD,
  call,
  constant,
  float,
  IDENTITY,
  ifNode,
  localFunction,
  made,
  model,
  nested,
  withFunctions,
  withNodes,
} from "../../support/protos.ts";

/** Functions f, f1, f2 … where each calls the next `calls` times. */
function doubling(levels: number, calls: number): Uint8Array {
  const functions = Array.from({ length: levels }, (_, i) => {
    const body = i === levels - 1 ? [IDENTITY] : Array.from({ length: calls }, () => call(`f${i + 1}`));
    return localFunction(i === 0 ? "f" : `f${i}`, ...body);
  });
  return withFunctions(...functions);
}

const HUGE = 2 ** 20;

const EXCESSES: { name: string; bytes: () => Uint8Array; message: RegExp; subject?: string }[] = [
  { name: "graphs nested 25 deep", bytes: () => nested(25), message: /nested more than 24 deep/ },
  { name: "graphs nested 40 deep", bytes: () => nested(40), message: /nests deeper than 100 levels/ },
  { name: "functions that double 20 times", bytes: () => doubling(21, 2), message: /functions expanded/ },
  { name: "functions that call each other 101 deep", bytes: () => doubling(102, 1), message: /100 deep/ },
  {
    name: "a name of 5000 characters",
    bytes: () => withNodes({ name: "n".repeat(5000), opType: "Relu", input: ["x"], output: ["z"] }),
    message: /name of 5000 characters/,
  },
  {
    name: "300 attributes",
    bytes: () =>
      withNodes({
        opType: "Relu",
        input: ["x"],
        output: ["z"],
        attribute: Array.from({ length: 300 }, (_, i) => ({ name: `a${i}`, type: AttributeType.INT })),
      }),
    message: /300 attributes/,
  },
  {
    name: "70 000 inputs",
    bytes: () => withNodes({ opType: "Concat", input: Array(70_000).fill("x"), output: ["z"] }),
    message: /70000 operands/,
  },
  {
    name: "600 000 nodes",
    bytes: () => model({ node: [...Array(600_000).fill({ opType: "Nop" }), ADD] }),
    message: /nodes/,
  },
  {
    name: "a declaration with 40 axes",
    bytes: () => model({ valueInfo: [float("y", ...Array(40).fill(1))] }),
    message: /40 axes/,
    subject: "y",
  },
  {
    name: "a declared dimension of 2^50",
    bytes: () => model({ valueInfo: [float("y", 2 ** 50)] }),
    message: /dimension of/,
    subject: "y",
  },
  ...(
    [
      ["ConstantOfShape", [HUGE, HUGE]],
      ["Expand", [HUGE, HUGE]],
      ["Tile", [HUGE, HUGE]],
      ["Range", [HUGE * HUGE]],
      ["Resize", [1, 3, HUGE, HUGE]],
      ["OneHot", [HUGE * HUGE]],
      ["Pad", [0, HUGE, HUGE, HUGE]],
      ["CenterCropPad", [HUGE, HUGE]],
      ["ConstantOfShape", Array(33).fill(1)],
      ["Reshape", Array(33).fill(1)],
    ] as [string, number[]][]
  ).map(([op, shape]) => ({
    name: `${op} of ${shape.length > 4 ? `${shape.length} axes` : shape}`,
    bytes: () => made(op, shape),
    message: /elements out of a constant shape|tensor of 33 axes/,
    subject: "bomb",
  })),
  {
    name: "ConstantOfShape of a shape that is put together from constants",
    bytes: () =>
      withNodes(
        constant("a", [HUGE]),
        { opType: "Cast", input: ["a"], output: ["b"] },
        { opType: "Concat", input: ["b", "b"], output: ["shape"] },
        { opType: "Mul", input: ["shape", "b"], output: ["larger"] },
        { name: "bomb", opType: "ConstantOfShape", input: ["larger"], output: ["z"] },
      ),
    message: /elements out of a constant shape/,
    subject: "bomb",
  },
  {
    name: "ConstantOfShape in a body, of a shape outside it",
    bytes: () =>
      withNodes(
        constant("shape", [HUGE, HUGE]),
        ifNode({ node: [{ name: "bomb", opType: "ConstantOfShape", input: ["shape"], output: ["q"] }] }),
      ),
    message: /elements out of a constant shape/,
    subject: "bomb",
  },
  {
    name: "many shapes that are each bearable",
    bytes: () =>
      withNodes(
        constant("shape", [8192, 8192]),
        ...Array.from({ length: 5 }, (_, i) => ({ opType: "ConstantOfShape", input: ["shape"], output: [`z${i}`] })),
      ),
    message: /out of constant shapes/,
  },
  {
    name: "numbers listed one by one without end",
    bytes: () => listedNumbers(LIMITS.listedNumbers + 1),
    message: /belong into raw_data/,
  },
];

/** A model whose only content is a packed list of `count` zeros in `float_data`, written by hand: 4 bytes each. */
function listedNumbers(count: number): Uint8Array {
  const wrap = (tag: number, inner: number) => [tag, ...varint(inner)];
  const data = 4 * count;
  const floats = wrap(0x22, data);
  const tensor = wrap(0x2a, floats.length + data);
  const graph = wrap(0x3a, tensor.length + floats.length + data);
  const bytes = new Uint8Array(graph.length + tensor.length + floats.length + data);
  bytes.set([...graph, ...tensor, ...floats]);
  return bytes;
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))];
}

for (const { name, bytes, message, subject } of EXCESSES) {
  test(`too much: ${name}`, () => {
    assert.throws(
      () => loadModel(bytes()),
      (error) => {
        assert.ok(error instanceof CoreError, String(error));
        assert.equal(error.code, "limit_exceeded", error.message);
        assert.match(error.message, message);
        assert.ok(error.message.length < 600, "messages stay short whatever the file holds");
        if (subject !== undefined) assert.equal(error.subject, subject);
        return true;
      },
    );
  });
}
