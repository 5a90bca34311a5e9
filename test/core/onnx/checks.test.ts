import assert from "node:assert/strict";
import { test } from "node:test";
import { AttributeProto_AttributeType as AttributeType, TensorProto_DataType as DataType } from "onnx-buf";
import { CoreError } from "../../../src/core/errors.ts";
import type { ExternalData } from "../../../src/core/onnx/external-data.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import {
  ADD,
  type AttributeInit,
  call,
  external,
  float,
  IDENTITY,
  ifNode,
  localFunction,
  made,
  model,
  nested,
  W,
  withFunctions,
  withNodes,
  withTensor,
  zeros,
} from "../../support/protos.ts";

const FILES: ExternalData = {
  size: (location) => (location === "w.bin" ? 100 : undefined),
  read: (_location, _offset, length) => zeros(length),
};

interface Refusal {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly message: RegExp;
  readonly subject?: string | undefined;
  readonly files?: ExternalData;
}

const REFUSALS: Refusal[] = [
  // ---- what is not a model at all
  { name: "an empty file", bytes: zeros(0), message: /no version or no graph/ },
  { name: "no graph", bytes: model({}, { graph: undefined as never }), message: /no version or no graph/ },
  { name: "an unknown format version", bytes: model({}, { irVersion: 99n }), message: /version 99/ },
  { name: "an ancient format version", bytes: model({}, { irVersion: 2n }), message: /version 2 / },
  { name: "no operator set", bytes: model({}, { opsetImport: [] }), message: /which operator set/ },
  {
    name: "two versions of one operator set",
    bytes: model({}, { opsetImport: [{ version: 17n }, { domain: "ai.onnx", version: 18n }] }),
    message: /versions 17 and 18/,
  },
  { name: "operator set version 0", bytes: model({}, { opsetImport: [{ version: 0n }] }), message: /version 0/ },
  { name: "training graphs", bytes: model({}, { trainingInfo: [{}] }), message: /training graphs/ },

  // ---- tensors
  { name: "too few bytes", bytes: withTensor({ rawData: zeros(23) }), message: /23 bytes .* needs 24/, subject: "w" },
  {
    name: "too many bytes",
    bytes: withTensor({ rawData: zeros(25) }),
    message: /25 bytes .* needs 24/,
    subject: "w",
  },
  { name: "no data", bytes: withTensor({ rawData: undefined as never }), message: /0 bytes .* needs 24/, subject: "w" },
  {
    name: "a negative dimension",
    bytes: withTensor({ dims: [-2n, -3n] }),
    message: /negative dimension -2/,
    subject: "w",
  },
  {
    name: "a shape whose product overflows int64 to the length of the data",
    bytes: withTensor({ dims: [2n ** 33n, 2n ** 33n] }),
    message: /more than/,
    subject: "w",
  },
  {
    name: "a zero that hides an overflowing product",
    bytes: withTensor({ dims: [0n, 2n ** 40n, 2n ** 40n], rawData: zeros(0) }),
    message: /more than/,
    subject: "w",
  },
  { name: "too many axes", bytes: withTensor({ dims: Array(33).fill(1n) }), message: /33 axes/, subject: "w" },
  { name: "an undefined data type", bytes: withTensor({ dataType: 0 }), message: /unknown data type 0/, subject: "w" },
  { name: "an unknown data type", bytes: withTensor({ dataType: 77 }), message: /unknown data type 77/, subject: "w" },
  { name: "data twice", bytes: withTensor({ floatData: [1] }), message: /twice/, subject: "w" },
  {
    name: "too few numbers",
    bytes: withTensor({ rawData: undefined as never, floatData: [1, 2] }),
    message: /2 stored values .* needs 6/,
    subject: "w",
  },
  {
    name: "numbers in the field of another type",
    bytes: withTensor({ rawData: undefined as never, int64Data: [1n] }),
    message: /field for other types/,
    subject: "w",
  },
  {
    name: "packed elements of which one is missing",
    bytes: withTensor({ rawData: undefined as never, dataType: DataType.INT4, dims: [3n], int32Data: [1] }),
    message: /1 stored values .* needs 2/,
    subject: "w",
  },
  {
    name: "strings as bytes",
    bytes: withTensor({ dataType: DataType.STRING }),
    message: /no strings/,
    subject: "w",
  },
  { name: "segments", bytes: withTensor({ segment: {} }), message: /segments/, subject: "w" },
  { name: "an initializer without a name", bytes: withTensor({ name: "" }), message: /no name/ },
  {
    name: "a broken tensor in a Constant node",
    bytes: withNodes({
      name: "k",
      opType: "Constant",
      output: ["z"],
      attribute: [{ name: "value", type: AttributeType.TENSOR, t: { ...W, name: "inner", rawData: zeros(1) } }],
    }),
    message: /1 bytes/,
    subject: "inner",
  },
  {
    name: "a broken tensor in a body",
    bytes: withNodes(ifNode({ initializer: [{ ...W, name: "inner", rawData: zeros(1) }] })),
    message: /1 bytes/,
    subject: "inner",
  },
  {
    name: "a broken tensor in a function",
    bytes: withFunctions(
      localFunction("f", {
        opType: "Constant",
        output: ["b"],
        attribute: [{ name: "value", type: AttributeType.TENSOR, t: { ...W, name: "inner", rawData: zeros(1) } }],
      }),
    ),
    message: /1 bytes/,
    subject: "inner",
  },

  // ---- external data
  ...(
    [
      ["a path upwards (CVE-2022-25882)", "../../etc/passwd"],
      ["a path upwards after a folder (CVE-2024-27318)", "a/../../etc/passwd"],
      ["an absolute path", "/etc/passwd"],
      ["a drive", "C:secrets"],
      ["a share", "\\\\host\\share"],
      ["the parent", ".."],
      ["the folder", "."],
      ["a NUL", "w.bin\0.txt"],
      ["a folder", "weights/w.bin"],
      ["a name of 300 characters", "w".repeat(300)],
    ] as const
  ).map(([name, location]) => ({
    name: `external data: ${name}`,
    bytes: model({ initializer: [external(location)] }),
    message: /only a plain file name/,
    subject: "w",
    files: FILES,
  })),
  {
    name: "external data: an address in the runtime's memory",
    bytes: model({ initializer: [external("*/_ORT_MEM_ADDR_/*", { offset: "140737488355328", length: "24" })] }),
    message: /memory of a process/,
    subject: "w",
    files: FILES,
  },
  {
    name: "external data: no file given",
    bytes: model({ initializer: [external("w.bin")] }),
    message: /file "w.bin", which was not given: upload that file/,
    subject: "w.bin",
  },
  {
    name: "external data: another file given",
    bytes: model({ initializer: [external("v.bin")] }),
    message: /file "v.bin", which was not given/,
    subject: "v.bin",
    files: FILES,
  },
  {
    name: "external data: past the end",
    bytes: model({ initializer: [external("w.bin", { offset: "80" })] }),
    message: /bytes 80 to 104 of "w.bin", which has 100/,
    subject: "w",
    files: FILES,
  },
  {
    name: "external data: an offset that overflows",
    bytes: model({ initializer: [external("w.bin", { offset: "18446744073709551600" })] }),
    message: /as its offset/,
    subject: "w",
    files: FILES,
  },
  {
    name: "external data: a negative offset",
    bytes: model({ initializer: [external("w.bin", { offset: "-24" })] }),
    message: /"-24" as its offset/,
    subject: "w",
    files: FILES,
  },
  {
    name: "external data: another length than the shape's",
    bytes: model({ initializer: [external("w.bin", { length: "20" })] }),
    message: /takes 20 bytes/,
    subject: "w",
    files: FILES,
  },
  {
    name: "external data: no location",
    bytes: model({ initializer: [{ ...external("w.bin"), externalData: [] }] }),
    message: /does not say in which file/,
    subject: "w",
    files: FILES,
  },
  {
    name: "external data: two locations",
    bytes: model({
      initializer: [
        {
          ...external("w.bin"),
          externalData: [
            { key: "location", value: "w.bin" },
            { key: "location", value: "/etc/passwd" },
          ],
        },
      ],
    }),
    message: /"location" twice/,
    subject: "w",
    files: FILES,
  },
  {
    name: "external data: inside as well",
    bytes: model({ initializer: [{ ...external("w.bin"), rawData: zeros(24) }] }),
    message: /both inside and outside/,
    subject: "w",
    files: FILES,
  },
  {
    name: "external data: a path upwards in a Constant node",
    bytes: withNodes({
      opType: "Constant",
      output: ["z"],
      attribute: [{ name: "value", type: AttributeType.TENSOR, t: external("../x") }],
    }),
    message: /only a plain file name/,
    files: FILES,
  },
  {
    name: "external data: in another attribute",
    bytes: withNodes({
      opType: "ConstantOfShape",
      input: ["w"],
      output: ["z"],
      attribute: [{ name: "value", type: AttributeType.TENSOR, t: external("w.bin") }],
    }),
    message: /allowed for initializers and Constant nodes only/,
    files: FILES,
  },
  {
    name: "external data: in a body",
    bytes: withNodes(ifNode({ initializer: [external("../x")] })),
    message: /only a plain file name/,
    files: FILES,
  },
  {
    name: "external data: in a function",
    bytes: withFunctions(
      localFunction("f", {
        opType: "Constant",
        output: ["b"],
        attribute: [{ name: "value", type: AttributeType.TENSOR, t: external("w.bin") }],
      }),
    ),
    message: /allowed for initializers and Constant nodes only/,
    files: FILES,
  },
  {
    name: "external data: in a sparse tensor (the runtime's own hole until 2026)",
    bytes: model({
      sparseInitializer: [{ dims: [9n], values: external("w.bin"), indices: { dataType: DataType.INT64, dims: [0n] } }],
    }),
    message: /allowed for initializers and Constant nodes only/,
    files: FILES,
  },

  // ---- sparse tensors
  ...(
    [
      ["a flat index past the end", [1n], [9n], [3n, 3n], /index 9 on an axis of 9/],
      ["a negative index", [1n], [-1n], [3n, 3n], /index -1/],
      ["a column past the end", [1n, 2n], [0n, 3n], [3n, 3n], /index 3 on an axis of 3/],
      ["indices of another count", [2n], [0n, 1n], [3n, 3n], /1 values and indices of shape \[2\]/],
      ["a dense shape that fits nowhere", [1n], [0n], [2n ** 19n, 2n ** 19n], /dense shape/],
      ["no axes", [1n], [0n], [], /axes/],
    ] as const
  ).map(([name, dims, positions, dense, message]) => ({
    name: `sparse: ${name}`,
    bytes: model({
      sparseInitializer: [
        {
          dims: [...dense],
          values: { name: "s", dataType: DataType.FLOAT, dims: [1n], rawData: zeros(4) },
          indices: { name: "i", dataType: DataType.INT64, dims: [...dims], int64Data: [...positions] },
        },
      ],
    }),
    message,
    subject: "s",
  })),
  {
    name: "sparse: a broken one in a Constant node",
    bytes: withNodes({
      opType: "Constant",
      output: ["z"],
      attribute: [{ name: "sparse_value", type: AttributeType.SPARSE_TENSOR, sparseTensor: { dims: [1n] } }],
    }),
    message: /lacks its values/,
  },

  // ---- nodes and attributes
  {
    name: "an operator of an unknown domain",
    bytes: withNodes({ name: "odd", opType: "Secret", domain: "com.example", input: ["x"], output: ["z"] }),
    message: /node "odd" \(Secret\) uses an operator of the domain "com.example"/,
    subject: "odd",
  },
  {
    name: "an operator of a domain that is not imported",
    bytes: withNodes({ opType: "Gelu", domain: "com.microsoft", input: ["x"], output: ["z"] }),
    message: /"com.microsoft", which the model does not import/,
    subject: "z",
  },
  { name: "no operator", bytes: withNodes({ output: ["z"] }), message: /which operator it is/, subject: "z" },
  ...(
    [
      ["an attribute twice", [{ name: "a" }, { name: "a" }], /"a" twice/],
      ["an attribute without a name", [{ name: "" }], /without a name/],
      ["an attribute without a type", [{ name: "a", type: AttributeType.UNDEFINED }], /does not say its type/],
      ["an attribute of two types", [{ name: "a", f: 1 }], /another type than it says/],
      [
        "a graph in an attribute that says it is a number",
        [{ name: "a", g: { name: "g" } }],
        /another type than it says/,
      ],
      ["an attribute without its graph", [{ name: "a", type: AttributeType.GRAPH }], /has no value/],
      ["an attribute without its tensor", [{ name: "a", type: AttributeType.TENSOR }], /has no value/],
      ["a reference outside of a function", [{ name: "a", refAttrName: "b" }], /outside of any/],
    ] as [string, AttributeInit[], RegExp][]
  ).map(([name, attributes, message]) => ({
    name,
    bytes: withNodes({
      name: "odd",
      opType: "Relu",
      input: ["x"],
      output: ["z"],
      attribute: attributes.map((attribute) => ({ type: AttributeType.INT, ...attribute })),
    }),
    message,
    subject: "odd",
  })),
  {
    name: "a name that is not text",
    bytes: withNodes({ name: "a\0b", opType: "Relu", input: ["x"], output: ["z"] }),
    message: /not valid text/,
  },
  {
    name: "a value that nothing makes",
    bytes: withNodes({ opType: "Relu", input: ["nowhere"], output: ["z"] }),
    message: /"nowhere"/,
  },
  {
    name: "a value made twice",
    bytes: withNodes({ opType: "Relu", input: ["x"], output: ["y"] }),
    message: /"y" is defined twice/,
  },
  { name: "an output nothing makes", bytes: model({ output: [{ name: "q" }] }), message: /output "q"/, subject: "q" },
  {
    name: "nodes in a circle",
    bytes: withNodes({ opType: "Relu", input: ["b"], output: ["a"] }, { opType: "Relu", input: ["a"], output: ["b"] }),
    message: /reads "a", which is made from its own output/,
  },

  // ---- functions
  {
    name: "a function that calls itself",
    bytes: withFunctions(localFunction("f", call("f"))),
    message: /"f" calls itself/,
    subject: "f",
  },
  {
    name: "functions that call each other in a circle",
    bytes: withFunctions(localFunction("f", call("h")), localFunction("h", call("f"))),
    message: /calls itself/,
  },
  {
    name: "a function twice",
    bytes: withFunctions(localFunction("f", IDENTITY), localFunction("f", IDENTITY)),
    message: /defined twice/,
  },
  {
    name: "a function in the place of an operator",
    bytes: withFunctions({ ...localFunction("Add", IDENTITY), domain: "ai.onnx" }),
    message: /domain of the standard operators/,
    subject: "Add",
  },
  {
    name: "an unknown operator in a function",
    bytes: withFunctions(localFunction("f", { opType: "Secret", domain: "com.example", output: ["b"] })),
    message: /domain "com.example"/,
  },

  // ---- windows whose ranks do not fit (microsoft/onnxruntime#28731)
  {
    name: "a convolution whose weight has more axes than its input",
    bytes: model({
      input: [float("x", 1, 3, 8)],
      initializer: [W, { name: "k", dataType: DataType.FLOAT, dims: [1n, 3n, 1n, 1n, 1n], rawData: zeros(12) }],
      node: [{ name: "conv", opType: "Conv", input: ["x", "k"], output: ["z"] }, ADD],
    }),
    message: /the input has 1 spatial axes and the weight has 3/,
    subject: "conv",
  },
  {
    name: "a pool with too few pads",
    bytes: model({
      input: [float("x", 1, 3, 8, 8)],
      node: [
        {
          name: "pool",
          opType: "MaxPool",
          input: ["x"],
          output: ["z"],
          attribute: [
            { name: "kernel_shape", type: AttributeType.INTS, ints: [2n, 2n] },
            { name: "pads", type: AttributeType.INTS, ints: [1n, 1n] },
          ],
        },
        ADD,
      ],
    }),
    message: /pads has 1/,
    subject: "pool",
  },
];

for (const { name, bytes, message, files, ...rest } of REFUSALS) {
  test(`refused: ${name}`, () => {
    assert.throws(
      () => loadModel(bytes, files),
      (error) => {
        assert.ok(error instanceof CoreError, String(error));
        assert.equal(error.code, "invalid_model", error.message);
        assert.match(error.message, message);
        assert.match(error.message, /^[A-Z].*\.$/);
        if ("subject" in rest) assert.equal(error.subject, rest.subject);
        return true;
      },
    );
  });
}

// ---- what must not be refused ----------------------------------------------------------------------------------------

const ACCEPTED: Record<string, Uint8Array> = {
  "the plain model": model(),
  "ai.onnx by its full name": model(
    { node: [{ ...ADD, domain: "ai.onnx" }] },
    { opsetImport: [{ domain: "ai.onnx", version: 17n }] },
  ),
  "imports that nothing uses": model(
    {},
    {
      opsetImport: [
        { version: 17n },
        { domain: "com.example", version: 3n },
        { domain: "ai.onnx.training", version: 1n },
      ],
    },
  ),
  "an empty tensor": model({
    initializer: [W, { name: "empty", dataType: DataType.FLOAT, dims: [0n, 7n] }],
  }),
  "a scalar": withTensor({ dims: [], rawData: zeros(4) }),
  float_data: withTensor({ rawData: undefined as never, floatData: [1, 2, 3, 4, 5, 6] }),
  strings: model({
    initializer: [W, { name: "s", dataType: DataType.STRING, dims: [1n], stringData: [zeros(3)] }],
  }),
  "int4 in int32_data": model({
    initializer: [W, { name: "q", dataType: DataType.INT4, dims: [3n], int32Data: [1, 2] }],
  }),
  "a sparse initializer": model({
    sparseInitializer: [
      {
        dims: [3n, 3n],
        values: { name: "s", dataType: DataType.FLOAT, dims: [2n], rawData: zeros(8) },
        indices: { dataType: DataType.INT64, dims: [2n, 2n], int64Data: [0n, 0n, 2n, 2n] },
      },
    ],
  }),
  "functions that call each other": withFunctions(localFunction("f", call("h")), localFunction("h", IDENTITY)),
  "a function's attribute by reference": withFunctions(
    localFunction("f", {
      opType: "LeakyRelu",
      input: ["a"],
      output: ["b"],
      attribute: [{ name: "alpha", type: AttributeType.FLOAT, refAttrName: "alpha" }],
    }),
  ),
  "graphs nested 24 deep": nested(24),
  "a mask of 8192 x 8192": made("ConstantOfShape", [8192, 8192]),
  "an empty list of strides": model({
    input: [float("x", 1, 3, 8, 8)],
    node: [
      {
        opType: "MaxPool",
        input: ["x"],
        output: ["z"],
        attribute: [
          { name: "kernel_shape", type: AttributeType.INTS, ints: [2n, 2n] },
          { name: "strides", type: AttributeType.INTS, ints: [] },
        ],
      },
      ADD,
    ],
  }),
  "a size that is declared unknown by -1": model({ input: [float("x", -1, 3)] }),
};

for (const [name, bytes] of Object.entries(ACCEPTED)) {
  test(`accepted: ${name}`, () => {
    assert.ok(loadModel(bytes).graph.nodes.length > 0);
  });
}

test("external data inside the given file is accepted, wherever it may stand", () => {
  const tensor = external("w.bin", { offset: "76", length: "24" });
  const inConstant = withNodes({
    opType: "Constant",
    output: ["z"],
    attribute: [{ name: "value", type: AttributeType.TENSOR, t: tensor }],
  });
  assert.equal(loadModel(model({ initializer: [tensor] }), FILES).graph.nodes.length, 1);
  assert.equal(loadModel(inConstant, FILES).graph.nodes[0]!.outputs[0]!.constant!.bytes.byteLength, 24);
});
