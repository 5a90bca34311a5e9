/**
 * How far predicted speeds are from measured ones. Of each network one profile is taken, in float and all in 8 bits, and from what its kernels take the
 * speed of other models is predicted: the cheapest division, and divisions drawn at random. Each is then timed against the float model, in turns,
 * on one thread, by the time that it computes.
 *
 *   node bench/kernel-costs.ts [nets]
 *
 * `nets` is a list with commas of networks in `quantize-nets.ts`. It also says what is chosen, which must not be slower than float.
 */
import { tensor } from "../src/core/onnx/tensor.ts";
import { calibrate } from "../src/core/quantize/static/calibration.ts";
import { findFasterKernels, profileOf } from "../src/core/quantize/static/faster-kernels.ts";
import { placementCost, slowParts } from "../src/core/quantize/static/kernel-cost.ts";
import { measureCosts, measuredCosts } from "../src/core/quantize/static/measured-costs.ts";
import {
  elementsIn,
  placeEverywhere,
  prepareStatic,
  quantizeStatic,
  type StaticOptions,
} from "../src/core/quantize/static/quantize-static.ts";
import { Random } from "../src/core/random.ts";
import { timeInTurns, timingOf } from "../src/core/runtime/latency.ts";
import { describeHost } from "../workers/host.ts";
import { openTemporary, profileTemporary } from "../workers/model-files.ts";
import { NETS } from "./quantize-nets.ts";

const OPTIONS: StaticOptions = {
  method: "minmax",
  percentile: 99.999,
  activationDType: "uint8",
  perChannel: true,
  reduceRange: describeHost().target === "x64-avx2",
};
/** Of the layers, left in float at random. */
const SHARES = [0.25, 0.5, 0.75];
const ROUNDS = { runs: 40, maxMs: 6000, byThread: true };
const RUNTIME = { openModel: openTemporary, profile: profileTemporary, latencyThreads: 1 };

const errors: number[] = [];
console.log(`${describeHost().cpu}, ${describeHost().isa.join(" ")}`);
for (const name of process.argv[2]?.split(",") ?? Object.keys(NETS)) await compare(name);
const sorted = errors.toSorted((a, b) => a - b);
const at = (share: number) => `${(100 * sorted[Math.floor((sorted.length - 1) * share)]!).toFixed(1)} %`;
console.log(`\n${sorted.length} models: median error ${at(0.5)}, of nine in ten at most ${at(0.9)}`);

async function compare(name: string): Promise<void> {
  const net = NETS[name]!;
  const data = await net.data(2, 1);
  const batches = [0, 1].map((at) =>
    Object.fromEntries(
      Object.entries(data).map(([input, { dtype, dims, bytes }]) => {
        const size = bytes.byteLength / dims[0]!;
        return [input, tensor(dtype, [1, ...dims.slice(1)], bytes.slice(at * size, (at + 1) * size))];
      }),
    ),
  );
  const [feeds] = batches as [(typeof batches)[0]];
  const { model: float } = await prepareStatic(await net.model(), feeds, { openModel: openTemporary });
  const calibration = await calibrate(float, each(batches), { openModel: openTemporary });
  const placement = placeEverywhere(float, calibration, OPTIONS);
  const units = placement.units.filter(({ quantized }) => quantized);
  const everywhere = quantizeStatic(float, calibration, OPTIONS).model;

  await using loaded = new AsyncDisposableStack();
  const load = async (model: typeof float) => {
    const session = await openTemporary(model);
    loaded.defer(() => session.close());
    return { session, feeds };
  };
  const [original, int8] = [await load(float), await load(everywhere)];
  const p50 = async (others: readonly (typeof original)[]) => {
    const times = await timeInTurns([original, ...others], ROUNDS);
    return times.map((ms) => timingOf(ms).p50_ms) as [number, ...number[]];
  };
  const [floatMs, int8Ms] = (await p50([int8])) as [number, number];
  const measured = measureCosts(
    placement,
    {
      float: await profileOf(float, floatMs, feeds, RUNTIME),
      int8: await profileOf(everywhere, int8Ms, feeds, RUNTIME),
    },
    elementsIn(calibration),
  );
  if (!measured) return console.log(`${name}: kernels are not found in the profiles`);
  const costs = measuredCosts(measured, elementsIn(calibration));
  const all = placementCost(placement, costs, new Set(units));
  const random = new Random(1, name);
  const divisions = [
    ["cheapest", new Set(slowParts(placement, costs).flatMap((part) => part.units))] as const,
    ...SHARES.map(
      (share) => [`${100 * share} % in float`, new Set(units.filter(() => random.uniform() < share))] as const,
    ),
  ];
  const models = divisions.map(([, inFloat]) => {
    const why = { code: "slower", message: "", storesWeights: true } as const;
    const floatWhereSlower = { nodes: new Map([...inFloat].map(({ node }) => [node.name, why])) };
    return quantizeStatic(float, calibration, { ...OPTIONS, floatWhereSlower }).model;
  });
  const sessions = [];
  for (const model of models) sessions.push(await load(model));
  const [ownMs, ...ms] = await p50([int8, ...sessions]);
  console.log(`\n${name}: float ${ownMs.toFixed(2)} ms`);
  for (const [i, [label, inFloat]] of [["all in 8 bits", new Set()] as const, ...divisions].entries()) {
    const saved = all - placementCost(placement, costs, inFloat as (typeof divisions)[0][1]);
    const predicted = floatMs / (floatMs - saved / 1000);
    const measured = ownMs / ms[i]!;
    errors.push(Math.abs(predicted / measured - 1));
    console.log(
      `${label.padEnd(16)} predicted ${predicted.toFixed(2)}x measured ${measured.toFixed(2)}x (${inFloat.size} of ${units.length} units in float)`,
    );
  }
  const { facts } = await findFasterKernels(float, calibration, OPTIONS, feeds, RUNTIME);
  console.log(`chosen: ${JSON.stringify(facts)}`);
}

async function* each<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}
