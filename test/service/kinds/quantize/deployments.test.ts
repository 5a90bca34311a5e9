import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Model, Node } from "../../../../src/core/onnx/ir.ts";
import { JobRequest } from "../../../../src/service/api/job-schemas.ts";
import { DEPLOYMENTS, type DeploymentName } from "../../../../src/service/kinds/quantize/deployments.ts";
import type { QuantizeParams } from "../../../../src/service/kinds/quantize/params.ts";
import { targetRefusals } from "../../../../src/service/kinds/quantize/targets.ts";
import { writeNpz } from "../../../support/dataset-writers.ts";
import { cnn, GraphMaker, mobilenet, randomFeeds, transformer } from "../../../support/graphs.ts";
import { quantizeJob } from "../../../support/quantize-job.ts";

const NAMES = Object.keys(DEPLOYMENTS) as DeploymentName[];

/** x [1, 3, 8, 8] of fixed sizes → two convolutions with Relu and their sum → a matrix product. */
function residual(): Model {
  const make = new GraphMaker({ seed: 3 });
  const x = make.input("x", [1, 3, 8, 8]);
  const weight = (name: string, dims: readonly number[]) => make.weight(name, dims, 0.2);
  const conv = (from: typeof x, name: string, channels: number) =>
    make.op("Relu", [
      make.op("Conv", [from, weight(name, [8, channels, 3, 3]), make.weight(`${name}_b`, [8], 0.1)], {
        pads: [1, 1, 1, 1],
      }),
    ]);
  const first = conv(x, "w1", 3);
  const sum = make.op("Add", [conv(first, "w2", 8), first]);
  const flat = make.op("Flatten", [make.op("GlobalAveragePool", [conv(sum, "w3", 8)])]);
  make.output(make.linear(flat, 8, 4), "y", [1, 4]);
  return make.model;
}

const data = () => writeNpz({ x: new GraphMaker({ seed: 5 }).random([40, 3, 8, 8], 1) });

function statically(model: Model, target: string) {
  return quantizeJob(model, {
    params: { method: "static", dataset_id: "dst_1", target },
    dataset: data(),
    environment: { measurePeak: async () => ({ peakBytes: 0, baselineBytes: 0 }) },
  });
}

describe("static int8 for other runtimes", () => {
  for (const target of NAMES) {
    it(`${target}: the result is what the record wants, and near the original`, async () => {
      const { metrics, report } = await statically(residual(), target);
      const { deployment } = metrics;
      assert.equal(deployment?.target, target);
      assert.deepEqual(
        deployment.rules.filter(({ holds }) => !holds),
        [],
      );
      assert.deepEqual(
        deployment.rules.map(({ rule }) => rule),
        Object.keys(DEPLOYMENTS[target].rules),
      );
      assert.ok(report.accepted);
      assert.ok(metrics.coverage.quantized_nodes >= 4, `${metrics.coverage.quantized_nodes} nodes`);
      for (const { sqnr_db } of metrics.fidelity.outputs) assert.ok(sqnr_db! > 20, `${sqnr_db} dB`);
    });
  }

  it("measures what is for the web there, beside the original, and says what a download takes", async () => {
    const { metrics } = await statically(residual(), "web");
    const { measured, download, failure } = metrics.deployment!;
    assert.equal(failure, null);
    assert.match(measured!.runtime, /^onnxruntime-web 1\.\d+\.\d+, WebAssembly/);
    assert.ok(measured!.before.p50_ms > 0 && measured!.after.p50_ms > 0);
    assert.equal(measured!.runs, 1);
    assert.ok(measured!.sqnr_db === null || measured!.sqnr_db > 30, `${measured!.sqnr_db} dB`);
    assert.equal(download!.encoding, "gzip");
    assert.ok(download!.after_bytes < metrics.size.after_bytes);
  });

  it("depthwise convolutions stay in float for OpenVINO, which is no faster in 8 bits, unless all are wanted", async () => {
    const made = async (params: object) => {
      const { model, metrics } = await quantizeJob(mobilenet(), {
        params: { method: "static", dataset_id: "dst_1", target: "openvino", ...params },
        dataset: writeNpz(randomFeeds(mobilenet(), { dims: { n: 40 } })),
        environment: { measurePeak: async () => ({ peakBytes: 0, baselineBytes: 0 }) },
      });
      const depthwise = [...model.nodes()].filter((node) => node.int("group", 1) > 1);
      const reasons = metrics.coverage.skipped_nodes.filter(({ code }) => code === "slower");
      return { depthwise, reasons, rules: metrics.deployment!.rules };
    };
    const isRounded = ({ inputs }: Node) => inputs[1]!.producer?.opType === "DequantizeLinear";
    const { depthwise, reasons, rules } = await made({});
    assert.ok(depthwise.length > 0 && depthwise.every((node) => node.inputs[1]!.constant?.dtype === "float32"));
    assert.equal(reasons.length, depthwise.length);
    assert.ok(reasons.every(({ message }) => message.startsWith("OpenVINO ")));
    assert.ok(rules.every(({ holds }) => holds));
    const all = await made({ float_where_slower: false });
    assert.deepEqual([all.depthwise.every(isRounded), all.reasons], [true, []]);
    assert.equal(all.depthwise.length, depthwise.length);
  });

  it("what only was checked says so: nothing was measured there", async () => {
    const { measured, download, failure } = (await statically(residual(), "tensorrt")).metrics.deployment!;
    assert.deepEqual([measured, download, failure], [null, null, null]);
  });

  it("a model that has what a runtime has not is not accepted, and says where", async () => {
    const { metrics, report } = await quantizeJob(transformer(), {
      params: { method: "weight_only", bits: 8, format: "qdq", symmetric: true, target: "openvino" },
    });
    assert.ok(report.accepted, JSON.stringify(metrics.deployment));
    const dynamic = await quantizeJob(cnn(), { params: { method: "float16", target: "qnn" } });
    assert.ok(!dynamic.report.accepted);
    const broken = dynamic.metrics.deployment!.rules.filter(({ holds }) => !holds).map(({ rule }) => rule);
    assert.deepEqual(broken, ["fixedShapes"]);
    assert.deepEqual(
      dynamic.metrics.warnings.filter(({ code }) => code === "target_rules_broken").map(({ value }) => value),
      [1],
    );
  });

  it("a runtime that does not run the result is told of; one that is not there is told of otherwise", async () => {
    const web = async (answer: { failure: string } | { missing: string }) =>
      quantizeJob(residual(), {
        params: { method: "float16", target: "web" },
        environment: { elsewhere: { "onnxruntime-web": async () => answer } },
      });
    const failed = await web({ failure: "no such kernel" });
    assert.equal(failed.metrics.deployment!.failure, "no such kernel");
    assert.ok(!failed.report.accepted);
    const missing = await web({ missing: "it is not installed" });
    assert.equal(missing.metrics.deployment!.failure, null);
    assert.ok(missing.report.accepted);
    assert.ok(missing.metrics.warnings.some(({ code }) => code === "target_not_measured"));
  });
});

describe("what a runtime cannot take is refused", () => {
  const refused = (params: object) => {
    const { params: parsed } = JobRequest.parse({ type: "quantize", model_id: "mdl_1", params }) as {
      params: QuantizeParams;
    };
    return targetRefusals(parsed);
  };
  const cases: readonly (readonly [object, readonly string[]])[] = [
    [{ method: "dynamic", target: "tensorrt" }, ["method"]],
    [{ method: "dynamic", target: "qnn" }, ["method"]],
    [{ method: "dynamic", target: "openvino" }, []],
    [{ method: "dynamic", target: "web" }, []],
    [{ method: "weight_only", target: "tensorrt" }, ["format"]],
    [{ method: "weight_only", target: "tensorrt", format: "qdq" }, ["symmetric"]],
    [{ method: "weight_only", target: "tensorrt", format: "qdq", bits: 8 }, ["bits"]],
    [{ method: "weight_only", target: "tensorrt", format: "qdq", symmetric: true }, []],
    [{ method: "weight_only", target: "qnn", format: "qdq" }, ["method"]],
    [{ method: "weight_only", target: "web" }, []],
    [{ method: "weight_only", target: "openvino" }, []],
    [{ method: "static", dataset_id: "d", target: "tensorrt", activation_dtype: "uint8" }, ["activation_dtype"]],
    [{ method: "static", dataset_id: "d", target: "tensorrt", activation_dtype: "int8" }, []],
    [{ method: "qat", dataset_id: "d", target: "qnn" }, ["method"]],
    [{ method: "static", dataset_id: "d", target: "x64-avx2" }, []],
  ];
  for (const [params, fields] of cases) {
    it(`${JSON.stringify(params)}: ${fields.join(", ") || "nothing"}`, () => {
      const found = refused(params);
      assert.deepEqual(
        found.map(({ field }) => field),
        fields,
      );
      for (const { message } of found) assert.match(message, /^(OpenVINO|TensorRT|QNN): .+\. (Use|Set|Leave) .+\.$/);
    });
  }

  it("every claim has a public page", () => {
    for (const { rules, refuses } of Object.values(DEPLOYMENTS)) {
      for (const { says, source } of [...Object.values(rules), ...refuses]) {
        assert.match(source, /^https:\/\/[\w./#-]+$/);
        assert.match(says, /\.$/);
      }
    }
  });
});
