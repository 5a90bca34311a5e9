import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { listLayers } from "../../../src/core/evaluate/layer-facts.ts";
import { weightsOf } from "../../../src/core/evaluate/model-weights.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { runPasses } from "../../../src/core/passes/pass.ts";
import { simplifyPasses } from "../../../src/core/passes/simplify.ts";
import { weightOnlyPass } from "../../../src/core/quantize/weights/weight-only.ts";
import { readRealModel } from "../../support/real-models.ts";

const parametersOf = (model: Model) => weightsOf(model).reduce((sum, { parameters }) => sum + parameters, 0);

describe("facts about a compressed model", () => {
  for (const bits of [8, 4] as const) {
    for (const name of ["ppocr-rec", "ppocr-cls", "silero-half"] as const) {
      it(`${name} in ${bits} bits has the parameters and the layers it had`, () => {
        const { model } = runPasses(loadModel(readRealModel(name)), simplifyPasses());
        const options = { bits, blockSize: 32, symmetric: false, format: "matmulnbits", embeddings: true } as const;
        const pass = weightOnlyPass({ ...options, accuracyLevel: 4, exclude: { nodes: [], ops: [] } });
        const compressed = runPasses(model, [pass]).model;

        assert.equal(parametersOf(compressed), parametersOf(model));
        const rows = (of: Model) => listLayers(of).map(({ name, parameters }) => `${name}: ${parameters}`);
        // A MatMul whose bias has become part of MatMulNBits goes by the name of the Add.
        assert.equal(rows(compressed).length, rows(model).length);
        const total = (of: Model) => listLayers(of).reduce((sum, { parameters }) => sum + parameters, 0);
        assert.equal(total(compressed), total(model));
        const bytes = listLayers(compressed).reduce((sum, layer) => sum + layer.bytes, 0);
        // Scales and zero points included; small and depthwise filters keep eight bits.
        assert.ok(bytes < total(model) * (bits === 8 ? 1.25 : 0.95), `${bytes} bytes`);
      });
    }
  }
});
