import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ArtifactRules, RuleName } from "../../../src/core/facts.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { tensorOf } from "../../../src/core/onnx/tensor.ts";
import { quantizeStatic } from "../../../src/core/quantize/static/quantize-static.ts";
import { checkArtifact, patternFor } from "../../../src/core/targets/check-artifact.ts";
import { DEPLOYMENTS, type DeploymentName } from "../../../src/service/kinds/quantize/deployments.ts";
import { GraphMaker } from "../../support/graphs.ts";

const NAMES = Object.keys(DEPLOYMENTS) as DeploymentName[];

/** x [1, 3, 8, 8] → two convolutions with Relu → a Softmax that computes in float. */
function network(): Model {
  const make = new GraphMaker({ opset: 17 });
  let x = make.input("x", [1, 3, 8, 8]);
  for (const inputs of [3, 4]) x = make.op("Relu", [make.conv(x, [inputs, 4], 3)]);
  make.output(make.op("Softmax", [x], { axis: 1 }), "y", [1, 4, 8, 8]);
  for (const node of make.graph.nodes) node.name ||= make.model.freshName("node");
  return make.model;
}

/** What is made for a record, with ranges that mean nothing. */
function artifactFor(rules: ArtifactRules): Model {
  return quantizeStatic(network(), undefined, {
    ...{ method: "minmax", percentile: 100, perChannel: true, reduceRange: false },
    activationDType: rules.activations.is.dtype,
    pattern: patternFor(rules),
  }).model;
}

const brokenIn = (model: Model, rules: ArtifactRules) =>
  checkArtifact(model, rules).flatMap(({ rule, holds }) => (holds ? [] : [rule]));

function nodeOf(model: Model, opType: string, of: (index: number) => boolean = () => true) {
  return [...model.nodes()].filter((node) => node.opType === opType).find((_, i) => of(i))!;
}

/** The first node that turns codes of a weight into floats. */
function weightNode(model: Model) {
  return [...model.nodes()].find(
    (node) => node.opType === "DequantizeLinear" && node.inputs[0]?.constant?.dims.length === 4,
  )!;
}

/** A change to an artifact for each rule, which breaks that one. */
const BREAKS: { readonly [R in RuleName]: (model: Model, rules: ArtifactRules) => void } = {
  domains(model) {
    const { graph } = model;
    const [output] = graph.outputs;
    graph.insertAfter(output!.producer!, { domain: "org.example", opType: "Odd", inputs: [output], outputs: 1 });
  },
  opset(model, { opset }) {
    model.opsets.set("", opset!.is.max + 1);
  },
  refused(model, { refused }) {
    const [output] = model.graph.outputs;
    model.graph.insertAfter(output!.producer!, { opType: refused!.is[0]!, inputs: [output], outputs: 1 });
  },
  activations(model, { activations: { is } }) {
    const quantize = nodeOf(model, "QuantizeLinear");
    const code = is.symmetric
      ? tensorOf(is.dtype, [], [1])
      : tensorOf(is.dtype === "uint8" ? "int8" : "uint8", [], [0]);
    quantize.setInput(2, model.graph.addInitializer("z_broken", code));
  },
  weights(model) {
    const node = weightNode(model);
    const { dims } = node.inputs[0]!.constant!;
    const codes = tensorOf("int16", dims, new Array(dims.reduce((a, b) => a * b, 1)).fill(0));
    node.setInput(0, model.graph.addInitializer("w_broken", codes));
  },
  biases(model, { biases }) {
    const conv = nodeOf(model, "Conv");
    const [bias, { graph }] = [conv.inputs[2]!, model];
    if (biases!.is === "int32") {
      conv.setInput(2, graph.addInitializer("b_broken", tensorOf("float32", [4], [0, 0, 0, 0])));
      return;
    }
    const scale = graph.addInitializer("b_scale", tensorOf("float32", [], [1]));
    const codes = graph.addInitializer("b_codes", tensorOf("int32", [4], [0, 0, 0, 0]));
    assert.ok(bias.constant);
    conv.setInput(
      2,
      graph.insertBefore(conv, { opType: "DequantizeLinear", inputs: [codes, scale], outputs: 1 }).outputs[0]!,
    );
  },
  pairs(model) {
    const conv = nodeOf(model, "Conv", (index) => index === 1);
    // Past the pair on its input.
    conv.setInput(0, conv.inputs[0]!.producer!.inputs[0]!.producer!.inputs[0]!);
  },
  quantized(model) {
    const dequantize = nodeOf(model, "Conv").inputs[0]!.producer!;
    model.graph.insertAfter(dequantize, { opType: "Sigmoid", inputs: [dequantize.outputs[0]], outputs: 1 });
  },
  fixedShapes(model) {
    model.graph.inputs[0]!.shape = ["n", 3, 8, 8];
  },
};

describe("checkArtifact", () => {
  for (const name of NAMES) {
    const { rules } = DEPLOYMENTS[name];
    it(`${name}: what is made by the record holds it`, () => {
      const model = artifactFor(rules);
      assert.ok([...model.nodes()].filter(({ opType }) => opType === "QuantizeLinear").length >= 2);
      assert.deepEqual(brokenIn(model, rules), []);
    });
    for (const rule of Object.keys(rules) as RuleName[]) {
      it(`${name}: an artifact that breaks ${rule} is caught, and the node is named`, () => {
        const model = artifactFor(rules);
        BREAKS[rule](model, rules);
        const check = checkArtifact(model, rules).find((it) => it.rule === rule)!;
        assert.equal(check.holds, false);
        assert.ok(check.broken.length > 0 && check.broken.every(({ message }) => message.endsWith(".")));
        if (rule !== "opset") assert.ok(check.broken[0]!.name !== "", JSON.stringify(check.broken));
      });
    }
  }

  it("pairs as onnxruntime wants them are not what TensorRT, QNN and OpenVINO want", () => {
    const model = artifactFor(DEPLOYMENTS.web.rules);
    assert.deepEqual(brokenIn(model, DEPLOYMENTS.tensorrt.rules), ["activations", "quantized"]);
    assert.deepEqual(brokenIn(model, DEPLOYMENTS.qnn.rules), ["biases"]);
  });
});

describe("symmetric pairs", () => {
  it("limits behind layers stay, because quantizers cut nothing off", () => {
    const count = (model: Model, opType: string) => [...model.nodes()].filter((node) => node.opType === opType).length;
    assert.equal(count(artifactFor(DEPLOYMENTS.tensorrt.rules), "Relu"), 2);
    assert.equal(count(artifactFor(DEPLOYMENTS.qnn.rules), "Relu"), 0);
  });
});
