import assert from "node:assert/strict";
import { test } from "node:test";
import { speak } from "../../../../scripts/demo/speech.ts";
import { loadModel } from "../../../../src/core/onnx/load.ts";
import { floatsOf, type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { Random } from "../../../../src/core/random.ts";
import { openSession } from "../../../../src/core/runtime/session.ts";
import { writeNpz } from "../../../support/dataset-writers.ts";
import { quantizeJob } from "../../../support/quantize-job.ts";
import { type RealModel, readRealModel } from "../../../support/real-models.ts";

/** Silero's voice detectors, whose layers are in branches of an If, or whose weights are in Constant nodes, as static int8 gets them. */
const DETECTORS: readonly RealModel[] = ["silero-vad", "silero-16k", "silero-half", "silero-ifless"];

const WINDOW = 512;
const CONTEXT = 64;
const STATE = [2, 1, 128];

/** Windows of speech, each with what is before it and with the state that the model had then. */
async function windowsOf(bytes: Uint8Array): Promise<Uint8Array> {
  const { samples } = speak(4, new Random(0, "sound"));
  const session = await openSession({ bytes });
  const rate = session.inputs.some(({ name }) => name === "sr") && {
    sr: tensorOf("int64", [], BigInt64Array.of(16_000n)),
  };
  const seen: { input: Float32Array; state: Float32Array }[] = [];
  let state = new Float32Array(256);
  try {
    for (let end = CONTEXT + WINDOW; end <= samples.length; end += WINDOW) {
      const input = samples.slice(end - WINDOW - CONTEXT, end);
      seen.push({ input, state });
      const feeds = {
        input: tensorOf("float32", [1, input.length], input),
        state: tensorOf("float32", STATE, state),
        ...rate,
      };
      state = Float32Array.from(floatsOf((await session.run(feeds)).stateN!));
    }
  } finally {
    await session.close();
  }
  const joined = (name: "input" | "state", dims: readonly number[]): Tensor =>
    tensorOf("float32", [seen.length, ...dims], Float32Array.from(seen.flatMap((it) => [...it[name]])));
  return writeNpz({
    input: joined("input", [CONTEXT + WINDOW]),
    state: joined("state", STATE),
    ...(rate && { sr: tensorOf("int64", [seen.length], new BigInt64Array(seen.length).fill(16_000n)) }),
  });
}

for (const name of DETECTORS) {
  test(`static makes ${name} less than a third of its size`, async () => {
    const bytes = readRealModel(name);
    const dataset = await windowsOf(bytes);
    const { metrics } = await quantizeJob(loadModel(bytes), {
      params: { method: "static", dataset_id: "dst_1", samples: 64, float_where_slower: false },
      evaluation: { samples: 64 },
      dataset,
    });
    const { coverage, size, fidelity } = metrics;
    assert.ok(coverage.quantized_nodes >= 8, `${coverage.quantized_nodes} nodes`);
    assert.ok(size.ratio < 0.3, `${size.ratio} of its size`);
    for (const { name, sqnr_db } of fidelity.outputs) assert.ok(sqnr_db! > 18, `${name}: ${sqnr_db} dB`);
  });
}
