/** The three methods on real models: the artifact loads, how large it is and how far its outputs are from the original's. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { speak } from "../../../../scripts/demo/speech.ts";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../../src/core/onnx/load.ts";
import { modelToBytes } from "../../../../src/core/onnx/save.ts";
import { type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { float16Pass } from "../../../../src/core/passes/float16.ts";
import { type Pass, runPasses } from "../../../../src/core/passes/pass.ts";
import { simplifyPasses } from "../../../../src/core/passes/simplify.ts";
import { dynamicPass } from "../../../../src/core/quantize/weights/dynamic.ts";
import { type WeightOnlyOptions, weightOnlyPass } from "../../../../src/core/quantize/weights/weight-only.ts";
import { Random } from "../../../../src/core/random.ts";
import { floatArray } from "../../../support/compressed.ts";
import { openModel } from "../../../support/open-model.ts";
import { REAL_MODEL_NAMES, type RealModel, readRealModel } from "../../../support/real-models.ts";

const exclude = { nodes: [], ops: [] };

function weightOnly(options: Pick<WeightOnlyOptions, "bits" | "blockSize" | "format">): Pass {
  return weightOnlyPass({ ...options, symmetric: false, embeddings: true, accuracyLevel: 4, exclude });
}

const METHODS = {
  float16: float16Pass({ keepIo: true, exclude }),
  dynamic: dynamicPass({ perChannel: true, reduceRange: true, exclude }),
  "8 bit": weightOnly({ bits: 8, blockSize: 128, format: "matmulnbits" }),
  "8 bit qdq": weightOnly({ bits: 8, blockSize: 128, format: "qdq" }),
  "4 bit": weightOnly({ bits: 4, blockSize: 32, format: "matmulnbits" }),
} as const satisfies Record<string, Pass>;

type Method = keyof typeof METHODS;

/** The largest ratio of sizes and the least cosine of the outputs, method by method. Structure is an eighth of the classifier's file. */
const BOUNDS: Readonly<Record<RealModel, Readonly<Record<Method, readonly [ratio: number, cosine: number]>>>> = {
  "ppocr-rec": bounds([0.505, 0.9999], [0.27, 0.998], [0.276, 0.999], [0.27, 0.999], [0.185, 0.97]),
  "ppocr-det": bounds([0.505, 0.9999], [0.273, 0.997], [0.276, 0.998], [0.276, 0.998], [0.195, 0.98]),
  "ppocr-cls": bounds([0.485, 0.9999], [0.32, 0.999], [0.335, 0.999], [0.335, 0.999], [0.29, 0.999]),
  "silero-vad": bounds([0.51, 0.9999], [0.29, 0.998], [0.29, 0.998], [0.29, 0.998], [0.22, 0.94]),
  "silero-16k": bounds([0.51, 0.9999], [0.28, 0.998], [0.28, 0.998], [0.28, 0.998], [0.21, 0.94]),
  "silero-half": bounds([0.51, 0.9999], [0.28, 0.996], [0.28, 0.996], [0.28, 0.996], [0.21, 0.94]),
  "silero-ifless": bounds([0.395, 0.9999], [0.212, 0.998], [0.213, 0.998], [0.213, 0.998], [0.15, 0.94]),
};

function bounds(...pairs: readonly (readonly [number, number])[]): Record<Method, readonly [number, number]> {
  return Object.fromEntries(Object.keys(METHODS).map((method, i) => [method, pairs[i]!])) as Record<
    Method,
    readonly [number, number]
  >;
}

/** Dark bars on light ground. */
function drawing(name: RealModel): Tensor {
  const [height, width] = name === "ppocr-det" ? [64, 160] : [48, 320];
  const data = new Float32Array(3 * height * width);
  data.forEach((_, i) => {
    const [x, y] = [i % width, Math.floor(i / width) % height];
    const inLine = y > 0.32 * height && y < 0.69 * height && x > 16 && x < width - 16;
    data[i] = inLine && (x % 12 < 5 || y === height / 2) ? -2 : 2;
  });
  return tensorOf("float32", [1, 3, height, width], data);
}

const WINDOW = 512;
const SOUND = speak(4, new Random(0, "sound")).samples;

/** What a model gives out: for a voice detector its states over four seconds of speech, and the probabilities besides. */
async function outputsOf(name: RealModel, model: Model): Promise<{ values: Float32Array; probabilities: number[] }> {
  const session = await openModel(model);
  try {
    if (!name.startsWith("silero")) {
      const [output] = Object.values(await session.run({ x: drawing(name) }));
      return { values: floatArray(output!), probabilities: [] };
    }
    const values: number[] = [];
    const probabilities: number[] = [];
    let state = tensorOf("float32", [2, 1, 128], new Float32Array(256));
    for (let from = 0; from + WINDOW <= SOUND.length; from += WINDOW) {
      const input = tensorOf("float32", [1, WINDOW], SOUND.slice(from, from + WINDOW));
      const outputs = await session.run({ input, state, sr: tensorOf("int64", [], [16_000]) });
      state = outputs.stateN!;
      values.push(...floatArray(state));
      probabilities.push(...floatArray(outputs.output!));
    }
    return { values: Float32Array.from(values), probabilities };
  } finally {
    await session.close();
  }
}

function cosine(x: Float32Array, y: Float32Array): number {
  let [xy, xx, yy] = [0, 0, 0];
  x.forEach((value, i) => {
    xy += value * y[i]!;
    xx += value * value;
    yy += y[i]! * y[i]!;
  });
  return xy / Math.sqrt(xx * yy);
}

for (const name of REAL_MODEL_NAMES) {
  describe(name, () => {
    const bytes = readRealModel(name);
    const simple = runPasses(loadModel(bytes), simplifyPasses()).model;
    const original = outputsOf(name, loadModel(bytes));
    for (const [method, pass] of Object.entries(METHODS) as [Method, Pass][]) {
      it(method, async (t) => {
        const before = await original;
        const { model, notes } = runPasses(simple, [pass]);
        const after = await outputsOf(name, model);
        const ratio = modelToBytes(model).length / bytes.length;
        const cos = cosine(before.values, after.values);
        const changed = notes.filter(({ outcome }) => outcome === "changed").length;
        t.diagnostic(`${name} ${method}: ratio ${ratio.toFixed(3)}, cosine ${cos.toFixed(5)}, ${changed} nodes`);
        const [largest, least] = BOUNDS[name][method];
        assert.ok(ratio <= largest, `${ratio} of the size`);
        assert.ok(cos >= least, `cosine ${cos}`);
        assert.ok(changed >= (name.startsWith("silero") ? 7 : 40), `${changed} nodes`);
        const errors = before.probabilities.map((p, i) => Math.abs(p - after.probabilities[i]!));
        const mean = errors.reduce((sum, error) => sum + error, 0) / Math.max(1, errors.length);
        assert.ok(
          mean <= ({ "4 bit": 0.1, float16: 0.001 }[method as string] ?? 0.025),
          `probabilities are off by ${mean} on average`,
        );
      });
    }
  });
}
