/**
 * Depthwise convolutions in OpenVINO, in 8 bits and in float, between layers that are in 8 bits: three blocks of a 1 × 1 convolution and a depthwise one on maps of
 * several sizes, run in turns in one process of OpenVINO on one thread. Prints rows of a table in Markdown; what a depthwise layer gains is the difference of the two
 * models.
 *
 *   node bench/compare/openvino-depthwise.ts PYTHON FOLDER
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Model } from "../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import { compressStatic, type PipelineOptions } from "../../src/core/quantize/static/pipeline.ts";
import { patternFor } from "../../src/core/targets/check-artifact.ts";
import { DEPLOYMENTS } from "../../src/service/kinds/quantize/deployments.ts";
import { writeNpz } from "../../test/support/dataset-writers.ts";
import { randomFeeds } from "../../test/support/graphs.ts";
import { NetworkBuilder } from "../../test/support/networks.ts";
import { openModel } from "../../test/support/open-model.ts";

const [python, folder] = process.argv.slice(2);
if (!python || !folder) throw new Error("node bench/compare/openvino-depthwise.ts PYTHON FOLDER");
mkdirSync(folder, { recursive: true });

/** Channels, height and width; those of PP-OCR's three networks, and of MobileNetV2, among them. */
const MAPS = [
  [16, 240, 240],
  [32, 120, 120],
  [64, 60, 60],
  [128, 30, 30],
  [256, 15, 15],
  [16, 24, 160],
  [64, 12, 160],
  [256, 3, 80],
  [8, 24, 96],
  [32, 12, 96],
  [96, 6, 48],
  [144, 56, 56],
  [384, 14, 14],
] as const;
const BLOCKS = 3;
const OPTIONS: PipelineOptions = {
  ...{ samples: 4, method: "minmax", percentile: 99.999, activationDType: "uint8", perChannel: true },
  ...{ reduceRange: false, equalize: false, smoothQuantAlpha: null, biasCorrection: false },
};
const PATTERN = patternFor(DEPLOYMENTS.openvino.rules)!;
const FILES = {
  int8: PATTERN,
  "depthwise in float": { ...PATTERN, floatDepthwise: { below: Number.POSITIVE_INFINITY, reason: "It is to be." } },
};

function network(channels: number, height: number, width: number, kernel: number): Model {
  const net = new NetworkBuilder(1);
  let x = net.input([1, channels, height, width]);
  for (let i = 0; i < BLOCKS; i++) {
    x = net.g.op("Relu", [net.conv(x, channels, channels, { kernel: 1, bias: true })]);
    x = net.g.op("Relu", [net.conv(x, channels, channels, { kernel, group: channels, bias: true })]);
  }
  net.model.graph.addOutput(net.conv(x, channels, channels, { kernel: 1, bias: true }));
  return net.model;
}

for (const kernel of [3, 5]) {
  for (const [channels, height, width] of MAPS) {
    const model = network(channels, height, width, kernel);
    const prefix = join(folder, `${channels}x${height}x${width} by ${kernel}`);
    const feeds = Array.from({ length: OPTIONS.samples }, (_, seed) => randomFeeds(model, { seed }));
    writeFileSync(`${prefix}.float.onnx`, modelToBytes(model));
    writeFileSync(`${prefix}.npz`, writeNpz(feeds[0]!));
    for (const [tag, pattern] of Object.entries(FILES)) {
      const data = {
        async *batches(count: number) {
          yield* feeds.slice(0, count);
        },
      };
      const { model: made } = await compressStatic(model, data, { ...OPTIONS, pattern }, { openModel, threads: 1 });
      writeFileSync(`${prefix}.${tag}.onnx`, modelToBytes(made));
    }
    const script = fileURLToPath(new URL("time_openvino.py", import.meta.url));
    execFileSync(python, [script, prefix, "float", ...Object.keys(FILES)], { stdio: "inherit" });
  }
}
