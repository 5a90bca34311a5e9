/**
 * This project's side of the comparison of quantizers, as one whole process, with the defaults that jobs have.
 *
 *   node bench/compare/quantize-model.ts METHOD DIRECTORY OUTPUT
 *
 * METHOD is a key of METHODS. DIRECTORY has model.onnx and calibration.npz; OUTPUT is the file to write.
 */
import { readFileSync } from "node:fs";
import { cpus } from "node:os";
import { basename, dirname, join } from "node:path";
import type { Model } from "../../src/core/onnx/ir.ts";
import { removeDeadCode } from "../../src/core/passes/dead-code.ts";
import { type Pass, runPasses } from "../../src/core/passes/pass.ts";
import { simplifyPasses } from "../../src/core/passes/simplify.ts";
import type { CodeBits } from "../../src/core/quantize/packing.ts";
import type { CalibrationData, PipelineOptions } from "../../src/core/quantize/static/pipeline.ts";
import { QuantizedWeights } from "../../src/core/quantize/weights/codes.ts";
import { dynamicPass } from "../../src/core/quantize/weights/dynamic.ts";
import { type WeightOnlyOptions, weightOnlyPass } from "../../src/core/quantize/weights/weight-only.ts";
import { describeHost } from "../../workers/host.ts";
import { openTemporary, profileTemporary, openModel as readModel, writeModel } from "../../workers/model-files.ts";

const reduceRange = describeHost().target === "x64-avx2";
const exclude = { nodes: [], ops: [] };

const STATIC: Omit<PipelineOptions, "samples"> = {
  method: "mse",
  percentile: 99.999,
  activationDType: "uint8",
  perChannel: true,
  reduceRange,
  equalize: "auto",
  smoothQuantAlpha: "auto",
  biasCorrection: true,
  floatWhereSlower: "measured",
};

type Compress = (model: Model, directory: string) => Promise<Model> | Model;

const METHODS: Readonly<Record<string, Compress>> = {
  static: async (model, directory) => {
    // The other methods need neither runtime nor data, and are spared the time to load them.
    const { compressStatic } = await import("../../src/core/quantize/static/pipeline.ts");
    const { startSessionThreads } = await import("../../src/core/runtime/threaded-session.ts");
    if (cpus().length > 1) startSessionThreads(2);
    const { data, samples } = await calibrationData(join(directory, "calibration.npz"));
    return (
      await compressStatic(
        model,
        data,
        { ...STATIC, samples },
        { openModel: openTemporary, profile: profileTemporary, threads: cpus().length },
      )
    ).model;
  },
  dynamic: byPass(dynamicPass({ perChannel: true, reduceRange: reduceRange, exclude })),
  "weights-4": weightsIn(4, 32),
  "weights-4-gptq": async (model, directory) => {
    const { gptq } = await import("../../src/core/quantize/rounding/gptq.ts");
    const { roundWeights } = await import("../../src/core/quantize/weights/round-weights.ts");
    const { data, samples } = await calibrationData(join(directory, "calibration.npz"));
    const options = weightOptions(4, 32);
    const simple = runPasses(model, simplifyPasses()).model;
    const threads = cpus().length;
    const { weights } = await roundWeights(simple, options, gptq({ threads }), () => data.batches(samples), {
      openModel: openTemporary,
      threads,
    });
    return runPasses(simple, [weightOnlyPass(options, new QuantizedWeights(weights)), removeDeadCode]).model;
  },
  "weights-8": weightsIn(8, 128),
};

function byPass(pass: Pass): Compress {
  return (model) => runPasses(model, [...simplifyPasses(), pass, removeDeadCode]).model;
}

function weightsIn(bits: CodeBits, blockSize: number): Compress {
  return byPass(weightOnlyPass(weightOptions(bits, blockSize)));
}

function weightOptions(bits: CodeBits, blockSize: number): WeightOnlyOptions {
  return { bits, blockSize, symmetric: false, format: "matmulnbits", embeddings: true, accuracyLevel: 4, exclude };
}

async function calibrationData(path: string): Promise<{ readonly data: CalibrationData; readonly samples: number }> {
  const { memorySource } = await import("../../src/core/data/byte-source.ts");
  const { openDataset } = await import("../../src/core/data/dataset.ts");
  const dataset = await openDataset(memorySource(readFileSync(path)));
  const data: CalibrationData = {
    async *batches(count) {
      for await (const { feeds } of dataset.batches({ batchSize: 1, limit: count })) yield feeds;
    },
  };
  return { data, samples: dataset.facts.samples };
}

const [method, directory, output] = process.argv.slice(2) as [string, string, string];
const model = readModel([{ name: "model.onnx", path: join(directory, "model.onnx") }]);
const compressed = await METHODS[method]!(model, directory);
await writeModel(compressed, dirname(output), basename(output), { signal: new AbortController().signal });
