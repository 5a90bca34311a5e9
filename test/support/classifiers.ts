import { create } from "@bufbuild/protobuf";
import { type TypeProto, TypeProtoSchema, ValueInfoProtoSchema } from "onnx-buf";
import type { Model, Value } from "../../src/core/onnx/ir.ts";
import { GraphMaker } from "./graphs.ts";

/** Models as converters of scikit-learn, LightGBM and XGBoost write classifiers: a label, and the probabilities as a map for each sample. */

const FEATURES = 64;
const CLASSES = 4;
const FLOAT = 1;
const INT64 = 7;

const tensorType = (elemType: number): TypeProto =>
  create(TypeProtoSchema, { value: { case: "tensorType", value: { elemType } } });

const MAPS = create(TypeProtoSchema, {
  value: {
    case: "sequenceType",
    value: {
      elemType: create(TypeProtoSchema, {
        value: { case: "mapType", value: { keyType: INT64, valueType: tensorType(FLOAT) } },
      }),
    },
  },
});
const TENSORS = create(TypeProtoSchema, {
  value: { case: "sequenceType", value: { elemType: tensorType(FLOAT) } },
});

function outputOf(m: GraphMaker, value: Value, name: string, type: TypeProto): void {
  m.output(value, name, undefined);
  value.dtype = undefined;
  value.source = create(ValueInfoProtoSchema, { name, type });
}

/** x [n, 64] → "label" and "probabilities", with which of them given out. */
export function zipMapClassifier(labels: "integers" | "strings" | "none"): Model {
  const m = new GraphMaker();
  const x = m.input("x", ["n", FEATURES]);
  const hidden = m.op("Relu", [m.op("MatMul", [x, m.weight("w1", [FEATURES, FEATURES], 0.2)])]);
  const scores = m.op("Softmax", [m.op("MatMul", [hidden, m.weight("w2", [FEATURES, CLASSES], 0.2)])], { axis: 1 });
  const label = m.op("ArgMax", [scores], { axis: 1, keepdims: 0 });
  if (labels === "integers") m.output(label, "label", ["n"], "int64");
  if (labels === "strings") {
    const names = m.node(
      "LabelEncoder",
      [label],
      {
        keys_int64s: [0, 1, 2, 3],
        values_strings: { type: "strings", value: ["ant", "bee", "cat", "dog"] },
      },
      1,
      "ai.onnx.ml",
    );
    m.model.opsets.set("ai.onnx.ml", 2);
    m.output(names.outputs[0]!, "label", ["n"], "string");
  }
  const maps = m.node("ZipMap", [scores], { classlabels_int64s: [0, 1, 2, 3] }, 1, "ai.onnx.ml");
  outputOf(m, maps.outputs[0]!, "probabilities", MAPS);
  return m.model;
}

/** x [n, 64] → y [n, 64], and a sequence of it. */
export function sequenceAndTensor(): Model {
  const m = new GraphMaker();
  const x = m.input("x", ["n", FEATURES]);
  const y = m.op("MatMul", [x, m.weight("w", [FEATURES, FEATURES], 0.2)]);
  outputOf(m, m.op("SequenceConstruct", [y, y]), "parts", TENSORS);
  m.output(y, "y", ["n", FEATURES]);
  return m.model;
}

/** A sequence of tensors → their sum with a weight. */
export function sequenceInput(): Model {
  const m = new GraphMaker();
  const parts = m.graph.addInput("parts");
  parts.source = create(ValueInfoProtoSchema, { name: "parts", type: TENSORS });
  const first = m.op("SequenceAt", [parts, m.ints("first", [0], [])]);
  m.output(m.op("MatMul", [first, m.weight("w", [FEATURES, FEATURES], 0.2)]), "y", undefined);
  return m.model;
}
