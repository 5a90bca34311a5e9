/**
 * How far predicted speeds are from measured ones. Of each network one profile is taken, in float and all in 8 bits, and from what its kernels take the
 * speed of other models is predicted: the cheapest division, and divisions drawn at random; and once more from the table of the target alone, which has
 * seen nothing of the network. Each model is then timed against the float model, in turns, on one thread, by the time that it computes.
 *
 *   node bench/kernel-costs.ts [--fit=FILE] [nets]
 *   node bench/kernel-costs.ts --table=FILE
 *
 * `nets` is a list with commas of networks in `quantize-nets.ts`. It also says what is chosen, which must not be slower than float. With `--fit` what
 * kernels take is written to the end of FILE, one of them in a line, and nothing else is done; with `--table` a table of costs is fitted to such a file.
 */
import { appendFileSync, readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { tensor } from "../src/core/onnx/tensor.ts";
import { calibrate } from "../src/core/quantize/static/calibration.ts";
import { findFasterKernels, profileOf } from "../src/core/quantize/static/faster-kernels.ts";
import { costsOfUnits, emptyBook } from "../src/core/quantize/static/kernel-book.ts";
import {
  type KernelCosts,
  placementCost,
  predictedCosts,
  slowParts,
  workOf,
} from "../src/core/quantize/static/kernel-cost.ts";
import { measuredCosts, readProfiles } from "../src/core/quantize/static/measured-costs.ts";
import {
  elementsIn,
  placeEverywhere,
  prepareStatic,
  quantizeStatic,
  type StaticOptions,
} from "../src/core/quantize/static/quantize-static.ts";
import type { Unit } from "../src/core/quantize/static/units.ts";
import { Random } from "../src/core/random.ts";
import { speedupInterval, timeInTurns, timingOf } from "../src/core/runtime/latency.ts";
import { costTableOf, takesInActivation, timeOf, USUAL_COSTS } from "../src/core/targets/cost-tables.ts";
import type { Cost } from "../src/core/targets/target.ts";
import { describeHost } from "../workers/host.ts";
import { openTemporary, profileTemporary } from "../workers/model-files.ts";
import { openThreadClock } from "../workers/thread-clock.ts";
import { NETS, SMALL_NETS } from "./quantize-nets.ts";

const HOST = describeHost();
const OPTIONS: StaticOptions = {
  method: "minmax",
  percentile: 99.999,
  activationDType: "uint8",
  perChannel: true,
  reduceRange: HOST.target === "x64-avx2",
};
const TABLE = costTableOf(HOST.target) ?? USUAL_COSTS;
/** Of the layers, left in float at random. */
const SHARES = [0.25, 0.5, 0.75];
/** Errors count relative to this power of what was measured: between all kernels alike and all microseconds alike. */
const WEIGHT = 0.5;
const CLOCK = openThreadClock();
const ROUNDS = { runs: 40, maxMs: 6000, clock: CLOCK };
const SETTING = { ...OPTIONS, threads: 1 };
const RUNTIME = {
  openModel: openTemporary,
  profile: profileTemporary,
  latencyThreads: 1,
  threadClock: CLOCK,
  table: TABLE,
};
const ALL_NETS = { ...NETS, ...SMALL_NETS };

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { fit: { type: "string" }, table: { type: "string" } },
});
const errors: Record<string, number[]> = { profile: [], table: [] };
if (values.table) fitTable(readFileSync(values.table, "utf8"));
else {
  console.log(`${HOST.cpu}, ${HOST.isa.join(" ")}`);
  for (const name of positionals[0]?.split(",") ?? Object.keys(ALL_NETS)) await compare(name);
  for (const [by, all] of Object.entries(errors)) {
    const sorted = all.toSorted((a, b) => a - b);
    const at = (share: number) => `${(100 * sorted[Math.floor((sorted.length - 1) * share)]!).toFixed(1)} %`;
    if (sorted.length > 0) {
      console.log(`by ${by}: ${sorted.length} models, median error ${at(0.5)}, of nine in ten at most ${at(0.9)}`);
    }
  }
}

async function compare(name: string): Promise<void> {
  const net = ALL_NETS[name]!;
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
  const elementsOf = elementsIn(calibration);
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
  const profiledModel = async (model: typeof float, ms: number) => {
    const { session, kernels } = await profileOf(model, feeds, RUNTIME);
    await session.close();
    return { kernels, wallUs: 1000 * ms };
  };
  const times = {
    float: await profiledModel(float, floatMs),
    int8: await profiledModel(everywhere, int8Ms),
  };
  const profiled = readProfiles(placement, times, elementsOf, TABLE);
  if (!profiled) return console.log(`${name}: kernels are not found in the profiles`);
  if (values.fit) {
    const kernels = units.filter((unit) => !profiled.guessed.has(unit)).map((unit) => kernelOf(unit, elementsOf));
    const costs = units.filter((unit) => !profiled.guessed.has(unit)).map((unit) => profiled.units.get(unit)!);
    const lines = [
      ...kernels.map((kernel, i) => ({ ...kernel, ...costs[i] })),
      ...profiled.conversions.map(({ kind, elements, us }) => ({ kind, elements, products: 0, us })),
      ...times.float.kernels
        .filter(({ op, elements }) => ["Relu", "Clip"].includes(op) && elements > 0)
        .map(({ elements, us }) => ({ kind: "clip", elements, products: 0, us })),
    ];
    appendFileSync(values.fit, lines.map((line) => `${JSON.stringify({ net: name, ...line })}\n`).join(""));
    return console.log(`${name}: ${lines.length} kernels`);
  }
  const costs = costsOfUnits(units, elementsOf, SETTING, TABLE, emptyBook()).with(profiled)!;
  const byName = Object.fromEntries(units.map(({ node }, i) => [node.name, costs.units[i]!]));
  const profile = measuredCosts({ ...costs, units: byName }, elementsOf);
  const table = predictedCosts(TABLE, elementsOf);
  const random = new Random(1, name);
  const divisions = [
    ["all in 8 bits", new Set<Unit>()] as const,
    ["cheapest", new Set(slowParts(placement, profile).flatMap((part) => part.units))] as const,
    ["cheapest by table", new Set(slowParts(placement, table).flatMap((part) => part.units))] as const,
    ...SHARES.map(
      (share) => [`${100 * share} % in float`, new Set(units.filter(() => random.uniform() < share))] as const,
    ),
  ];
  const models = divisions.slice(1).map(([, inFloat]) => {
    const why = { code: "slower", message: "", storesWeights: true } as const;
    const floatWhereSlower = { nodes: new Map([...inFloat].map(({ node }) => [node.name, why])) };
    return quantizeStatic(float, calibration, { ...OPTIONS, floatWhereSlower }).model;
  });
  const sessions = [];
  for (const model of models) sessions.push(await load(model));
  const [ownMs, ...ms] = await p50([int8, ...sessions]);
  console.log(`\n${name}: float ${ownMs.toFixed(2)} ms`);
  // What no table knows of takes as long either way: the rest of the graph, by its share of the profile.
  const inUnits = (costs: KernelCosts) => placementCost(placement, costs, new Set(units));
  const rest = Math.max(0, 1000 * floatMs - inUnits(profile));
  const scale = inUnits(profile) / inUnits(table);
  const predictions = { profile: { costs: profile, scale: 1 }, table: { costs: table, scale } };
  for (const [i, [label, inFloat]] of divisions.entries()) {
    const measured = ownMs / ms[i]!;
    const predicted = Object.entries(predictions).map(([by, { costs, scale }]) => {
      const all = inUnits(costs) * scale;
      const speed = (rest + all) / (rest + scale * placementCost(placement, costs, inFloat));
      errors[by]!.push(Math.abs(speed / measured - 1));
      return `${speed.toFixed(2)}x by ${by}`;
    });
    console.log(
      `${label.padEnd(18)} measured ${measured.toFixed(2)}x, predicted ${predicted.join(", ")} (${inFloat.size} of ${units.length} units in float)`,
    );
  }
  const { facts, slower } = await findFasterKernels(float, calibration, OPTIONS, feeds, RUNTIME);
  const chosen = await load(quantizeStatic(float, calibration, { ...OPTIONS, floatWhereSlower: slower }).model);
  const [own, quantized] = (await timeInTurns([original, chosen], ROUNDS)) as [number[], number[]];
  const interval = speedupInterval(own, quantized)!.map((it) => it.toFixed(3));
  const speed = timingOf(own).p50_ms / timingOf(quantized).p50_ms;
  console.log(`chosen: ${facts.chosen}, ${speed.toFixed(3)}x (${interval.join(" to ")}) of float, timed again`);
}

/** What a unit computes, as a table tells it. */
function kernelOf(unit: Unit, elementsOf: Parameters<typeof workOf>[1]) {
  const { elements, products, floatProducts, weightDims } = workOf(unit, elementsOf, TABLE.floatTile);
  const kind = !weightDims
    ? unit.node.opType
    : !takesInActivation(unit.node)
      ? "product"
      : weightDims[1] === 1
        ? "depthwise"
        : "convolution";
  return { kind, elements, products, floatProducts };
}

interface Line {
  readonly kind: string;
  readonly elements: number;
  readonly products: number;
  readonly floatProducts?: number;
  readonly floatUs?: number;
  readonly int8Us?: number;
  readonly us?: number;
}

/** Prints the rows of a table: least squares relative to what was measured, no coefficient below zero. */
function fitTable(text: string): void {
  const lines = text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Line);
  for (const [kind, all] of Map.groupBy(lines, ({ kind }) => kind)) {
    const own = all.filter(({ elements }) => elements > 0);
    const row = (of: (line: Line) => number, products: (line: Line) => number) => {
      const points = own.map((line) => ({
        x: [1, products(line) / 1000, line.elements / 1000] as const,
        us: of(line),
      }));
      const seen = points.filter(({ us }) => us > 0);
      const cost = leastSquares(seen);
      const ratios = seen.map(({ x, us }) => timeOf(cost, 1000 * x[1], 1000 * x[2]) / us).toSorted((a, b) => a - b);
      const at = (share: number) => ratios[Math.floor((ratios.length - 1) * share)]?.toFixed(2);
      return `[${cost.map((it) => Number(it.toPrecision(3))).join(", ")}] (${seen.length}, 80 %: ${at(0.1)} to ${at(0.9)})`;
    };
    if (own[0]?.us !== undefined)
      console.log(
        `${kind}: ${row(
          ({ us }) => us!,
          () => 0,
        )}`,
      );
    else {
      const float = row(
        ({ floatUs }) => floatUs!,
        ({ floatProducts }) => floatProducts!,
      );
      const int8 = row(
        ({ int8Us }) => int8Us!,
        ({ products }) => products,
      );
      console.log(`${kind}: float ${float} int8 ${int8}`);
    }
  }
}

/** Every set of coefficients is tried: there are three. */
function leastSquares(points: readonly { readonly x: readonly [number, number, number]; readonly us: number }[]): Cost {
  let best: { readonly cost: Cost; readonly error: number } | undefined;
  for (let set = 1; set < 8; set++) {
    const used = [0, 1, 2].filter((i) => (set >> i) % 2 === 1);
    const weighted = points.map(({ x, us }) => ({ x: used.map((i) => x[i]! / us ** WEIGHT), y: us ** (1 - WEIGHT) }));
    const solved = solve(
      used.map((_, i) => used.map((_, j) => weighted.reduce((sum, { x }) => sum + x[i]! * x[j]!, 0))),
      used.map((_, i) => weighted.reduce((sum, { x, y }) => sum + x[i]! * y, 0)),
    );
    if (!solved || solved.some((value) => !(value >= 0))) continue;
    const cost = [0, 0, 0] as [number, number, number];
    for (const [i, at] of used.entries()) cost[at as 0 | 1 | 2] = solved[i]!;
    const error = weighted.reduce(
      (sum, { x, y }) => sum + (x.reduce((total, value, i) => total + value * solved[i]!, 0) - y) ** 2,
      0,
    );
    if (!best || error < best.error) best = { cost, error };
  }
  return best?.cost ?? [0, 0, 0];
}

/** Solves a small system of linear equations; undefined where it is singular. */
function solve(matrix: readonly (readonly number[])[], right: readonly number[]): number[] | undefined {
  const rows = matrix.map((row, i) => [...row, right[i]!]);
  for (let i = 0; i < rows.length; i++) {
    const pivot = rows.slice(i).reduce((a, b) => (Math.abs(b[i]!) > Math.abs(a[i]!) ? b : a));
    if (Math.abs(pivot[i]!) < 1e-12) return undefined;
    rows.splice(rows.indexOf(pivot), 1);
    rows.splice(i, 0, pivot);
    for (const [k, row] of rows.entries()) {
      if (k === i) continue;
      const factor = row[i]! / pivot[i]!;
      for (let j = i; j < row.length; j++) row[j] = row[j]! - factor * pivot[j]!;
    }
  }
  return rows.map((row, i) => row.at(-1)! / row[i]!);
}

async function* each<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}
