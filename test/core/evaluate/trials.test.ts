import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { memorySource } from "../../../src/core/data/byte-source.ts";
import { openDataset } from "../../../src/core/data/dataset.ts";
import { BrokenModel } from "../../../src/core/evaluate/comparison.ts";
import { type Contender, evaluateContest } from "../../../src/core/evaluate/contest.ts";
import type { EvaluationSpec } from "../../../src/core/evaluate/evaluate.ts";
import { openTrials, type TrialOptions } from "../../../src/core/evaluate/trials.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { tensorOf } from "../../../src/core/onnx/tensor.ts";
import { Random } from "../../../src/core/random.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { writeNpz } from "../../support/dataset-writers.ts";
import { mlp } from "../../support/graphs.ts";

const SIZES = [16, 32, 8];
const SPEC: EvaluationSpec = { samples: 12, metric: null, dims: {}, latency: { runs: 2, batch_size: 4, threads: 1 } };

let directory: string;
before(() => {
  directory = mkdtempSync(join(tmpdir(), "trials-"));
});
after(() => rmSync(directory, { recursive: true }));

function write(name: string, seed: number): Contender {
  const bytes = modelToBytes(mlp({ sizes: SIZES, seed }));
  const path = join(directory, `${name}.onnx`);
  writeFileSync(path, bytes);
  return { path, bytes: bytes.byteLength };
}

async function options(change: Partial<TrialOptions> = {}): Promise<TrialOptions> {
  const x = new Float32Array(40 * SIZES[0]!);
  new Random(3).fillNormal(x);
  const dataset = await openDataset(memorySource(writeNpz({ x: tensorOf("float32", [40, SIZES[0]!], x) })));
  return {
    ...{
      reference: write("reference", 1),
      data: { dataset, kind: "evaluation" },
      spec: SPEC,
      samples: 12,
      rounds: 3,
      seed: 0,
    },
    openSession,
    measurePeak: async () => ({ peakBytes: 3, baselineBytes: 1 }),
    signal: new AbortController().signal,
    ...change,
  };
}

describe("trials", () => {
  it("find of each model what a contest finds, and run the original on each batch once", async () => {
    const ran = new Map<string, number>();
    const counting: TrialOptions["openSession"] = async (source, how) => {
      const session = await openSession(source, how);
      return {
        ...{ inputs: session.inputs, outputs: session.outputs, close: () => session.close() },
        run: (...args) => {
          const [feeds] = args;
          const key = `${"path" in source ? source.path : ""} ${feeds.x!.dims}`;
          ran.set(key, (ran.get(key) ?? 0) + 1);
          return session.run(...args);
        },
      };
    };
    const given = await options({ openSession: counting });
    const [same, other] = [write("same", 1), write("other", 2)];
    const judged = await evaluateContest({
      ...{ ...given, openSession, challengers: [same, other], loads: [{ batch_size: 4, threads: 1 }] },
      ...{ threads: 1, cpu: "A processor", onFailure: (_: number, error: unknown) => error },
    });
    const trials = await openTrials(given);
    for (const [i, contender] of [same, other].entries()) {
      const { fidelity, accuracy } = judged.challengers[i]!;
      assert.deepEqual(await trials.judge(contender), { fidelity, accuracy });
      const result = await trials.cost(contender);
      assert.deepEqual(result.peak, { peakBytes: 3, baselineBytes: 1 });
      assert.ok(Math.abs(result.speedup - trials.referenceMs / result.p50Ms) < 1e-12);
      assert.ok(result.loadMs > 0);
    }
    assert.equal((await trials.judge(other)).fidelity.outputs[0]!.top1_agreement! < 1, true);
    // Three batches of four to compare with, each once, and in each of two trials a warm-up and three rounds of the first.
    const [timed] = [...ran].filter(([key]) => key.startsWith(`${given.reference.path} 4,`));
    const perTrial = (timed![1] - 3) / 2;
    assert.ok(Number.isInteger(perTrial) && perTrial >= 3, `${timed}`);
    await trials.close();
  });

  it("take four times as many samples, or all there are, where few leave it open", async () => {
    const trials = await openTrials(await options({ samples: 4 }));
    const other = write("other", 2);
    const seen: number[] = [];
    const judge = async (isOpen: boolean) => {
      const { fidelity } = await trials.judge(other, (it) => {
        seen.push(it.fidelity.samples);
        return isOpen;
      });
      return fidelity.samples;
    };
    assert.deepEqual([await judge(false), await judge(true), await judge(true)], [4, 16, 16]);
    assert.deepEqual(seen, [4, 4, 4]);
    await trials.close();
    const all = await openTrials(await options());
    assert.equal((await all.judge(other, () => true)).fidelity.samples, 40);
    await all.close();
    // Other draws of the same noise say no more.
    const noise = await openTrials(await options({ data: undefined, samples: 4 }));
    assert.equal((await noise.judge(other, () => true)).fidelity.samples, 4);
    await noise.close();
  });

  it("say of a model that does not run that it is broken", async () => {
    const trials = await openTrials(await options());
    const nowhere = { path: join(directory, "nowhere.onnx"), bytes: 1 };
    await assert.rejects(trials.cost(nowhere), (error) => error instanceof BrokenModel);
    await assert.rejects(trials.judge(nowhere), (error) => error instanceof BrokenModel);
    await trials.close();
    const crashing = await openTrials(await options({ measurePeak: () => Promise.reject(new Error("crashed")) }));
    await assert.rejects(crashing.cost(write("same", 1)));
    await crashing.close();
  });

  it("close the original when their data do not fit it", async () => {
    const dataset = await openDataset(memorySource(writeNpz({ y: tensorOf("float32", [2, 3], [1, 2, 3, 4, 5, 6]) })));
    let open = 0;
    const opening = openTrials(
      await options({
        data: { dataset, kind: "evaluation" },
        openSession: async (source, how) => {
          const session = await openSession(source, how);
          open++;
          return {
            ...{ inputs: session.inputs, outputs: session.outputs, run: session.run.bind(session) },
            close: async () => {
              open--;
              await session.close();
            },
          };
        },
      }),
    );
    await assert.rejects(opening, { code: "invalid_dataset" });
    assert.equal(open, 0);
  });
});
