/**
 * AdaRound (Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", arXiv 2004.10568). Whether each weight is rounded up
 * or down is learned, so that the layer's output is near that of the float model for what the quantized layers before it really give:
 *
 *     W̃ = s · (clip(⌊W/s⌋ + h(V), qmin − z, qmax − z))        h(V) = clip(σ(V)·(ζ − γ) + γ, 0, 1)        ζ = 1.1, γ = −0.1
 *     minimize  Σ |W̃·x̂ − W·x|²  +  λ · Σ (1 − |2h − 1|^β)
 *
 * with β falling from 20 to 2 along a cosine, no regularizer for the first fifth of the iterations, and Adam. At the end h ≥ ½ is up.
 *
 * The paper draws samples; for a linear layer the loss is quadratic in W̃, and three sums over all samples (`rounding.ts`) give it and its
 * gradient, 2·(e·H + w·Dᵀ), exactly. So an iteration costs a product with H, however many samples there are. All of it is one
 * ONNX graph, a Loop over iterations, on a few rows at a time, since the rows of a weight do not depend on each other.
 */
import { CoreError, checkCancelled } from "../../errors.ts";
import { type Attr, Graph, Model, type Value } from "../../onnx/ir.ts";
import { arrayOf, tensorOf } from "../../onnx/tensor.ts";
import type { OpenModel } from "../calibration/calibrate.ts";
import { blockSizeOf, rangeOf, type WeightScheme } from "../scheme.ts";
import type { RoundedWeight } from "./blocks.ts";
import { nearestRound } from "./nearest.ts";
import { type Moments, paramsAt, type Rounding, type RowMatrix } from "./rounding.ts";
import { blockCount } from "./weight-tiles.ts";

export interface AdaRoundOptions {
  readonly openModel: OpenModel;
  readonly threads?: number | undefined;
  readonly iterations?: number;
  readonly signal?: AbortSignal | undefined;
}

const ITERATIONS = 500;
/** Elements that are learned at a time: their state stays in the cache. */
const CHUNK_ELEMENTS = 1 << 16;
/** Iterations of one run, which cannot be interrupted. */
const RUN_ITERATIONS = 100;

const ZETA = 1.1;
const GAMMA = -0.1;
const LEARNING_RATE = 0.03;
const WARM_UP = 0.2;
const BETA = { first: 20, last: 2 };
/** In units of the error that rounding a weight by a whole step makes, on average over the layer. */
const LAMBDA = 1;
const ADAM = { first: 0.9, second: 0.999, epsilon: 1e-8 };

export function adaround(options: AdaRoundOptions): Rounding {
  return {
    name: "adaround",
    title: "AdaRound",
    sees: "quantized",
    round: async (weight, scheme, statistics) =>
      statistics && (await adaRound(weight, scheme, statistics.fit, options)),
  };
}

/** Undefined when the statistics are not finite, or zero. Throws `non_finite` when the weight is not finite, and `cancelled`. */
export async function adaRound(
  weight: RowMatrix,
  scheme: WeightScheme,
  moments: Moments,
  { openModel, threads, iterations = ITERATIONS, signal }: AdaRoundOptions,
): Promise<RoundedWeight | undefined> {
  const { values, rows, depth, limit } = weight;
  const { scales, zeroPoints } = nearestRound({ ...weight, limit: undefined }, scheme);
  const places = placesOf(weight, scheme, { scales, zeroPoints });
  const unit = stepError(places.scale, moments.gram, depth);
  if (!(unit > 0 && unit < Number.POSITIVE_INFINITY)) return undefined;
  const table = tensorOf("float32", [iterations, 3], scheduleOf(iterations));
  const gram = tensorOf(
    "float32",
    [depth, depth],
    Float32Array.from(moments.gram, (x) => x / unit),
  );
  const q = new Uint8Array(rows * depth);
  const chunk = Math.max(1, Math.floor(CHUNK_ELEMENTS / depth));
  const session = await openModel(stepModel(), threads === undefined ? {} : { threads });
  try {
    for (let row = 0; row < rows; row += chunk) {
      const count = Math.min(chunk, rows - row);
      const [start, end] = [row * depth, (row + count) * depth];
      const part = (all: Float32Array) =>
        tensorOf("float32", [count, depth], Float32Array.from(all.subarray(start, end)));
      const drift = new Float32Array(count * depth);
      if (moments.drift) addDrift(values.subarray(start, end), moments.drift.cross, depth, 1 / unit, drift);
      const fixed = {
        gram,
        table,
        scale: part(places.scale),
        lower: part(places.lower),
        low: part(places.low),
        high: part(places.high),
        weight: part(values),
        drift: tensorOf("float32", [count, depth], drift),
      };
      let state = {
        v: part(places.v),
        m: tensorOf("float32", [count, depth], new Float32Array(count * depth)),
        s: tensorOf("float32", [count, depth], new Float32Array(count * depth)),
      };
      for (let done = 0; done < iterations; done += RUN_ITERATIONS) {
        checkCancelled(signal);
        const trips = Math.min(RUN_ITERATIONS, iterations - done);
        const results = await session.run(
          { ...fixed, ...state, trips: int64(trips), done: int64(done) },
          undefined,
          signal,
        );
        state = { v: results.v_out!, m: results.m_out!, s: results.s_out! };
      }
      const learned = arrayOf(state.v, "float32");
      for (let i = start; i < end; i++) {
        // h(V) ≥ ½ where σ(V) ≥ ½.
        const up = learned[i - start]! >= 0 ? 1 : 0;
        const relative = Math.min(Math.max(places.lower[i]! + up, places.low[i]!), places.high[i]!);
        q[i] = relative + places.zeroPoint[i]!;
      }
    }
  } finally {
    await session.close();
  }
  limit?.(new Int8Array(q.buffer));
  return { q, scales, zeroPoints };
}

/** What is known of each element: its scale, ⌊W/s⌋, the values it may take less the zero point, and the V at which W̃ = W. */
function placesOf(
  { values, rows, depth }: RowMatrix,
  scheme: WeightScheme,
  grid: Pick<RoundedWeight, "scales" | "zeroPoints">,
) {
  const { min, max } = rangeOf(scheme);
  const block = Math.min(blockSizeOf(scheme, depth), depth);
  const blocks = blockCount(depth, block);
  const [scale, lower, low, high, v] = Array.from({ length: 5 }, () => new Float32Array(rows * depth)) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const zeroPoint = new Int16Array(rows * depth);
  for (let i = 0; i < values.length; i++) {
    const at = Math.floor(i / depth) * blocks + Math.floor((i % depth) / block);
    const params = paramsAt(grid, at, scheme);
    const exact = values[i]! / params.scale;
    if (exact - exact !== 0) throw new CoreError("non_finite", "A weight holds NaN or an infinity.");
    const floor = Math.floor(exact);
    scale[i] = params.scale;
    zeroPoint[i] = params.zeroPoint;
    lower[i] = floor;
    low[i] = min - params.zeroPoint;
    high[i] = max - params.zeroPoint;
    v[i] = -Math.log((ZETA - GAMMA) / (exact - floor - GAMMA) - 1);
  }
  return { scale, zeroPoint, lower, low, high, v };
}

/** Mean of s²·H_ii over the elements: the error of a weight that is off by a step, all others being right. */
function stepError(scale: Float32Array, gram: Float32Array, depth: number): number {
  let sum = 0;
  for (let i = 0; i < scale.length; i++) sum += scale[i]! ** 2 * gram[(i % depth) * (depth + 1)]!;
  return sum / scale.length;
}

/** factor · w·Dᵀ for each row. */
function addDrift(w: Float32Array, cross: Float32Array, depth: number, factor: number, out: Float32Array): void {
  for (let row = 0; row < w.length; row += depth) {
    for (let i = 0; i < depth; i++) {
      let dot = 0;
      for (let j = 0, at = i * depth; j < depth; j++, at++) dot += cross[at]! * w[row + j]!;
      out[row + i] = factor * dot;
    }
  }
}

/** For each iteration: λ·β, β − 1, and the step of Adam with its corrections for the start. */
function scheduleOf(iterations: number): Float32Array<ArrayBuffer> {
  const table = new Float32Array(3 * iterations);
  const warm = Math.round(WARM_UP * iterations);
  for (let t = 0; t < iterations; t++) {
    const share = Math.max(0, t - warm) / Math.max(1, iterations - 1 - warm);
    const beta = BETA.last + ((BETA.first - BETA.last) * (1 + Math.cos(Math.PI * share))) / 2;
    const correction = Math.sqrt(1 - ADAM.second ** (t + 1)) / (1 - ADAM.first ** (t + 1));
    table.set([t < warm ? 0 : LAMBDA * beta, beta - 1, LEARNING_RATE * correction], 3 * t);
  }
  return table;
}

function int64(value: number) {
  return tensorOf("int64", [], BigInt64Array.of(BigInt(value)));
}

/** Inputs as in `adaRound`; `trips` iterations from number `done` on. */
function stepModel(): Model {
  const model = new Model({ irVersion: 8, opsets: [["", 17]], graphName: "adaround" });
  const { graph } = model;
  const inputs = Object.fromEntries(
    ["gram", "table", "scale", "lower", "low", "high", "weight", "drift", "v", "m", "s"].map((name) => [
      name,
      graph.addInput(name, "float32", [null, null]),
    ]),
  ) as Record<string, Value>;
  const trips = graph.addInput("trips", "int64", []);
  const done = graph.addInput("done", "int64", []);
  const body = stepBody(model, inputs, done);
  const loop = graph.append({
    opType: "Loop",
    inputs: [trips, undefined, inputs.v, inputs.m, inputs.s],
    outputs: ["v_out", "m_out", "s_out"],
    attrs: { body: { type: "graph", value: body } },
  });
  for (const output of loop.outputs) {
    output.retype("float32", [null, null]);
    graph.addOutput(output);
  }
  return model;
}

function stepBody(model: Model, outer: Readonly<Record<string, Value>>, done: Value): Graph {
  const body = new Graph(model, "iteration");
  const op = (opType: string, inputs: readonly (Value | undefined)[], attrs: Record<string, Attr> = {}): Value =>
    body.append({ opType, inputs, outputs: 1, attrs }).outputs[0]!;
  const number = (value: number) => body.addInitializer("c", tensorOf("float32", [], [value]));
  const index = (value: number) => body.addInitializer("i", int64(value));
  const [one, zero] = [number(1), number(0)];
  const iteration = body.addInput("iteration", "int64", []);
  const going = body.addInput("going", "bool", []);
  const [v, m, s] = ["v_in", "m_in", "s_in"].map((name) => body.addInput(name, "float32", [null, null])) as [
    Value,
    Value,
    Value,
  ];
  const row = op("Gather", [outer.table, op("Add", [iteration, done])]);
  const [strength, power, step] = [0, 1, 2].map((i) => op("Gather", [row, index(i)])) as [Value, Value, Value];

  const sigmoid = op("Sigmoid", [v]);
  const stretched = op("Add", [op("Mul", [sigmoid, number(ZETA - GAMMA)]), number(GAMMA)]);
  const h = op("Clip", [stretched, zero, one]);
  const wanted = op("Add", [outer.lower, h]);
  const q = op("Min", [op("Max", [wanted, outer.low]), outer.high]);
  const e = op("Sub", [op("Mul", [q, outer.scale]), outer.weight]);
  const slope = op("Add", [op("MatMul", [e, outer.gram]), outer.drift]);
  const inside = (value: Value, low: Value, high: Value) =>
    op("Cast", [op("And", [op("Greater", [value, low]), op("Less", [value, high])])], {
      to: { type: "int", value: 1 },
    });
  const within = op("Cast", [op("Equal", [q, wanted])], { to: { type: "int", value: 1 } });
  const ofLoss = op("Mul", [op("Mul", [op("Mul", [slope, number(2)]), outer.scale]), within]);
  // d/dh (1 − |2h − 1|^β) = −2β·|2h − 1|^(β − 1)·sign(2h − 1)
  const side = op("Sub", [op("Mul", [h, number(2)]), one]);
  const size = op("Max", [op("Abs", [side]), number(1e-12)]);
  const raised = op("Exp", [op("Mul", [op("Log", [size]), power])]);
  const ofPenalty = op("Mul", [op("Mul", [raised, op("Sign", [side])]), op("Mul", [strength, number(-2)])]);
  const ofV = op("Mul", [
    op("Mul", [op("Mul", [sigmoid, op("Sub", [one, sigmoid])]), number(ZETA - GAMMA)]),
    inside(stretched, zero, one),
  ]);
  const gradient = op("Mul", [op("Add", [ofLoss, ofPenalty]), ofV]);
  const blend = (old: Value, now: Value, keep: number) =>
    op("Add", [op("Mul", [old, number(keep)]), op("Mul", [now, number(1 - keep)])]);
  const nextM = blend(m, gradient, ADAM.first);
  const nextS = blend(s, op("Mul", [gradient, gradient]), ADAM.second);
  const ratio = op("Div", [nextM, op("Add", [op("Sqrt", [nextS]), number(ADAM.epsilon)])]);
  const nextV = op("Sub", [v, op("Mul", [ratio, step])]);
  for (const [value, name, dtype] of [
    [op("Identity", [going]), "going_out", "bool"],
    [nextV, "v_next", "float32"],
    [nextM, "m_next", "float32"],
    [nextS, "s_next", "float32"],
  ] as const) {
    value.name = model.freshName(name);
    value.retype(dtype, dtype === "bool" ? [] : [null, null]);
    body.addOutput(value);
  }
  return body;
}
