/**
 * Every pair of neighbouring operators of a list, through the methods that need no data, loaded and run in a process of its own: how many
 * results do not load, crash the runtime, or give NaN where the model does not. Nothing is uploaded; 0 is right for all three.
 *
 *     node bench/sweep-operators.ts [method ...]      SHARD=0/4 for a part of it
 */
import { fork } from "node:child_process";
import type { Model, Value } from "../src/core/onnx/ir.ts";
import { floatsOf, tensorOf } from "../src/core/onnx/tensor.ts";
import { float16Pass } from "../src/core/passes/float16.ts";
import type { ValueRanges } from "../src/core/passes/float16-range.ts";
import { type Pass, runPasses } from "../src/core/passes/pass.ts";
import { roundedForm } from "../src/core/passes/rounded.ts";
import { simplifyPasses } from "../src/core/passes/simplify.ts";
import { observeRanges } from "../src/core/quantize/calibration/value-ranges.ts";
import { type AttrShorthand, GraphMaker } from "../test/support/graphs.ts";
import { openModel, runModel } from "../test/support/open-model.ts";

const DIMS = [2, 4, 6] as const;

const exclude = { nodes: [], ops: [] };
const METHODS: Readonly<Record<string, (ranges: ValueRanges) => readonly Pass[]>> = {
  float16: (ranges) => [float16Pass({ keepIo: true, exclude, ranges })],
  float16_io: (ranges) => [float16Pass({ keepIo: false, exclude, ranges })],
};

type Build = (make: GraphMaker, x: Value) => Value;

const float = (value: number) => ({ type: "float", value }) as const;
const same =
  (op: string, attrs: Readonly<Record<string, AttrShorthand>> = {}): Build =>
  (make, x) =>
    make.op(op, [x], attrs);
const withConstant =
  (op: string, value: number): Build =>
  (make, x) =>
    make.op(op, [x, make.floats("number", [], [value])]);
const decided =
  (op: string): Build =>
  (make, x) =>
    make.op("Where", [make.op(op, [x, make.floats("zero", [], [0.1])]), x, make.floats("other", [], [-1e9])]);
/** As a picture: [2, 4, 6, 1]. */
const asImage =
  (build: Build): Build =>
  (make, x) => {
    const image = make.op("Unsqueeze", [x, make.ints("axes", [3])]);
    return make.op("Squeeze", [build(make, image), make.ints("axes", [3])]);
  };

/** Each takes [2, 4, 6] and gives [2, 4, 6]. */
const OPERATORS: Readonly<Record<string, Build>> = {
  ...Object.fromEntries(
    ["Abs", "Ceil", "Cos", "Elu", "Erf", "Floor", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg"]
      .concat(["Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Tanh", "Gelu", "Celu"])
      .map((op) => [op, same(op)]),
  ),
  Exp: (make, x) => make.op("Exp", [make.op("Neg", [make.op("Abs", [x])])]),
  Log: (make, x) => make.op("Log", [make.op("Add", [make.op("Abs", [x]), make.floats("one", [], [1])])]),
  Sqrt: (make, x) => make.op("Sqrt", [make.op("Abs", [x])]),
  Add: withConstant("Add", 0.5),
  Sub: withConstant("Sub", 0.5),
  Mul: withConstant("Mul", 1.5),
  Div: withConstant("Div", 1.5),
  Pow: (make, x) => make.op("Pow", [make.op("Abs", [x]), make.floats("two", [], [1.5])]),
  PRelu: withConstant("PRelu", 0.1),
  Max: withConstant("Max", -0.5),
  Min: withConstant("Min", 0.5),
  Mod: (make, x) => make.op("Mod", [x, make.floats("one", [], [1])], { fmod: 1 }),
  Clip: (make, x) => make.op("Clip", [x, make.floats("lo", [], [-1]), make.floats("hi", [], [1])]),
  MatMul: (make, x) => make.op("MatMul", [x, make.weight("w", [6, 6], 0.4)]),
  MatMulLeft: (make, x) => make.op("MatMul", [make.weight("w", [4, 4], 0.5), x]),
  Linear: (make, x) => make.linear(x, 6, 6),
  Gemm: (make, x) => {
    const flat = make.op("Reshape", [x, make.ints("flat", [8, 6])]);
    const y = make.op("Gemm", [flat, make.weight("w", [6, 6], 0.4), make.weight("b", [6], 0.1)]);
    return make.op("Reshape", [y, make.ints("shape", DIMS)]);
  },
  Attention: (make, x) =>
    make.op("MatMul", [
      make.op("Softmax", [make.op("MatMul", [x, make.op("Transpose", [x], { perm: [0, 2, 1] })])], { axis: -1 }),
      x,
    ]),
  Conv1d: (make, x) =>
    make.op("Conv", [x, make.weight("w", [4, 4, 3], 0.3), make.weight("b", [4], 0.1)], { pads: [1, 1] }),
  Conv2d: asImage((make, x) => make.conv(x, [4, 4], 3)),
  ConvTranspose: asImage((make, x) => make.op("ConvTranspose", [x, make.weight("w", [4, 4, 1, 1], 0.5)])),
  LSTM: (make, x) => {
    const weights = [make.weight("w", [1, 24, 6], 0.3), make.weight("r", [1, 24, 6], 0.3)];
    return make.op("Squeeze", [make.op("LSTM", [x, ...weights], { hidden_size: 6 }), make.ints("axes", [1])]);
  },
  GRU: (make, x) => {
    const weights = [make.weight("w", [1, 18, 6], 0.3), make.weight("r", [1, 18, 6], 0.3)];
    return make.op("Squeeze", [make.op("GRU", [x, ...weights], { hidden_size: 6 }), make.ints("axes", [1])]);
  },
  BatchNormalization: (make, x) => make.batchNorm(x, 4),
  LayerNormalization: (make, x) => make.layerNorm(x, 6),
  InstanceNormalization: (make, x) =>
    make.op("InstanceNormalization", [x, make.weight("s", [4], 1), make.weight("b", [4], 0.1)]),
  LpNormalization: same("LpNormalization"),
  MeanVarianceNormalization: asImage(same("MeanVarianceNormalization")),
  LRN: asImage((make, x) => make.op("LRN", [x], { size: 3 })),
  Softmax: same("Softmax", { axis: -1 }),
  LogSoftmax: same("LogSoftmax", { axis: 1 }),
  Hardmax: same("Hardmax", { axis: -1 }),
  AveragePool: same("AveragePool", { kernel_shape: [3], pads: [1, 1] }),
  MaxPool: same("MaxPool", { kernel_shape: [3], pads: [1, 1] }),
  LpPool: same("LpPool", { kernel_shape: [3], pads: [1, 1] }),
  GlobalAveragePool: (make, x) => make.op("Mul", [x, make.op("GlobalAveragePool", [x])]),
  ...Object.fromEntries(
    ["ReduceMax", "ReduceMean", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceSumSquare"].map((op) => [
      op,
      ((make, x) => make.op("Add", [x, make.op(op, [x], { axes: [2] })])) satisfies Build,
    ]),
  ),
  ReduceSum: (make, x) => make.op("Add", [x, make.op("ReduceSum", [x, make.ints("axes", [2])])]),
  CumSum: (make, x) => make.op("CumSum", [x, make.ints("axis", [2], [])]),
  "Transpose 102": same("Transpose", { perm: [1, 0, 2] }),
  "Transpose 120": same("Transpose", { perm: [1, 2, 0] }),
  "Transpose 021": same("Transpose", { perm: [0, 2, 1] }),
  "Transpose 210": same("Transpose", { perm: [2, 1, 0] }),
  Reshape: (make, x) => make.op("Reshape", [x, make.ints("shape", DIMS)]),
  Concat: (make, x) => make.op("Slice", [make.op("Concat", [x, x], { axis: 2 }), ...range(make, 3, 9)]),
  Split: (make, x) => {
    const [a, b] = make.node("Split", [x, make.ints("parts", [3, 3])], { axis: 2 }, 2).outputs;
    return make.op("Concat", [b!, a!], { axis: 2 });
  },
  Pad: (make, x) =>
    make.op("Slice", [
      make.op("Pad", [x, make.ints("pads", [0, 0, 3, 0, 0, 0]), make.floats("fill", [], [0.5])]),
      ...range(make, 0, 6),
    ]),
  Gather: (make, x) => make.op("Gather", [x, make.ints("ids", [5, 4, 3, 2, 1, 0])], { axis: 2 }),
  GatherElements: (make, x) => make.op("GatherElements", [x, make.ints("ids", Array(48).fill(1), DIMS)], { axis: 1 }),
  Tile: (make, x) => make.op("Slice", [make.op("Tile", [x, make.ints("n", [1, 1, 2])]), ...range(make, 2, 8)]),
  Expand: (make, x) => make.op("Expand", [x, make.ints("shape", DIMS)]),
  Trilu: same("Trilu"),
  Resize: (make, x) => {
    const scales = make.floats("scales", [3], [1, 1, 2]);
    const resized = make.op("Resize", [x, undefined, scales], { mode: "linear" });
    return make.op("Slice", [resized, ...range(make, 0, 6)]);
  },
  ScatterND: (make, x) =>
    make.op("ScatterND", [x, make.ints("at", [1, 1, 0], [3, 1]), make.weight("u", [3, 4, 6], 1)], { reduction: "add" }),
  ScatterElements: (make, x) =>
    make.op("ScatterElements", [x, make.ints("at", Array(48).fill(0), DIMS), make.weight("u", DIMS, 1)], { axis: 1 }),
  TopK: (make, x) => make.node("TopK", [x, make.ints("k", [6])], { axis: 2 }, 2).outputs[0]!,
  OneHot: (make, x) => {
    const best = make.op("ArgMax", [x], { axis: 2, keepdims: 0 });
    return make.op("OneHot", [best, make.ints("depth", [6], []), make.floats("values", [2], [0, 1])]);
  },
  Cast: (make, x) => make.op("Cast", [make.op("Cast", [x], { to: 7 })], { to: 1 }),
  CastLike: (make, x) => make.op("CastLike", [make.op("Cast", [x], { to: 6 }), x]),
  Double: (make, x) => make.op("Cast", [make.op("Cast", [x], { to: 11 })], { to: 1 }),
  Equal: decided("Equal"),
  Greater: decided("Greater"),
  Less: decided("Less"),
  IsNaN: (make, x) => make.op("Where", [make.op("IsNaN", [x]), make.floats("zero", [], [0]), x]),
  EyeLike: (make, x) =>
    make.op("Add", [x, make.op("EyeLike", [make.op("ReduceMax", [x], { axes: [0], keepdims: 0 })])]),
  Einsum: (make, x) => make.op("Einsum", [x, make.weight("w", [6, 6], 0.4)], { equation: "abc,cd->abd" }),
  Dropout: (make, x) => make.node("Dropout", [x], {}, 2).outputs[0]!,
  ThresholdedRelu: same("ThresholdedRelu", { alpha: float(0.3) }),
  Shrink: same("Shrink", { lambd: float(0.2) }),
  Sum: (make, x) => make.op("Sum", [x, x, make.weight("w", DIMS, 1)]),
  Mean: (make, x) => make.op("Mean", [x, make.weight("w", DIMS, 1)]),
  ShapeArithmetic: (make, x) => {
    const size = make.op("ReduceProd", [make.op("Cast", [make.op("Shape", [x])], { to: 1 })], { keepdims: 0 });
    return make.op("Div", [x, make.op("Sqrt", [size])]);
  },
  Sequence: (make, x) =>
    make.op("ConcatFromSequence", [make.op("SplitToSequence", [x, make.ints("n", [3], [])], { axis: 2 })], { axis: 2 }),
  If: (make, x) => {
    const branch = (op: string) => {
      const body = make.body();
      body.graph.addOutput(body.op(op, [x]));
      return body.graph;
    };
    const condition = make.op("Greater", [make.op("ReduceMax", [x], { keepdims: 0 }), make.floats("zero", [], [0])]);
    return make.op("If", [condition], { then_branch: branch("Relu"), else_branch: branch("Tanh") });
  },
};

function range(make: GraphMaker, from: number, to: number): Value[] {
  return [make.ints("from", [from]), make.ints("to", [to]), make.ints("axis", [2])];
}

/** x → first → second → y. */
function pair(first: Build, second: Build): Model {
  const make = new GraphMaker({ opset: 17 });
  make.output(second(make, first(make, make.input("x", DIMS))), "y");
  return make.model;
}

interface Trial {
  readonly method: string;
  readonly pair: readonly [string, string];
}

/** "ok", "invalid" when the pair itself does not run, or what is wrong with the result. */
async function outcomeOf({ method, pair: [first, second] }: Trial): Promise<string> {
  const model = pair(OPERATORS[first]!, OPERATORS[second]!);
  const x = new GraphMaker({ seed: 7 }).random(DIMS, 1);
  const expected = await runModel(model, { x }).catch(() => undefined);
  if (!expected) return "invalid";
  const simple = runPasses(model, simplifyPasses()).model;
  const ranges = await observeRanges(
    simple,
    (async function* () {
      yield { x };
    })(),
    { openModel },
  );
  const made = runPasses(simple, METHODS[method]!(ranges)).model;
  const isHalf = made.graph.inputs[0]!.dtype === "float16";
  const feeds = { x: isHalf ? tensorOf("float16", DIMS, Float16Array.from(floatsOf(x))) : x };
  try {
    for (const [form, optimization] of [
      [made, "all"],
      [roundedForm(made), "basic"],
    ] as const) {
      const { y } = form ? await runModel(form, feeds, { optimization }) : expected;
      const wasFinite = floatsOf(expected.y!).every(Number.isFinite);
      if (wasFinite && !floatsOf(y!).every(Number.isFinite)) return "not finite";
    }
    return "ok";
  } catch (error) {
    return `does not run: ${(error as Error).message}`;
  }
}

/** Trials one after the other in a process that is replaced when one of them ends it. */
async function sweep(trials: readonly Trial[]): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>();
  const note = ({ method, pair }: Trial, outcome: string) => {
    const [kind] = outcome.split(":");
    found.set(kind!, [...(found.get(kind!) ?? []), `${method} ${pair.join(" -> ")} ${outcome}`]);
  };
  for (let next = 0; next < trials.length; ) {
    const { promise, resolve } = Promise.withResolvers<void>();
    const child = fork(import.meta.filename, [], { env: { ...process.env, SWEEP_CHILD: "1" } });
    child.on("message", (outcome: string) => {
      note(trials[next++]!, outcome);
      if (next < trials.length) child.send(trials[next]!);
      else child.kill("SIGKILL");
    });
    child.once("exit", (code, signal) => {
      if (next < trials.length) note(trials[next++]!, `crash: ${signal ?? code}`);
      resolve();
    });
    child.send(trials[next]!);
    await promise;
  }
  return found;
}

if (process.env.SWEEP_CHILD) {
  process.on("disconnect", () => process.exit());
  process.on("message", (trial: Trial) => {
    outcomeOf(trial).then(
      (outcome) => process.send!(outcome),
      (error: unknown) => process.send!(`does not run: ${String(error)}`),
    );
  });
} else {
  const asked = process.argv.slice(2);
  const [shard = 0, shards = 1] = (process.env.SHARD ?? "0/1").split("/").map(Number);
  const names = Object.keys(OPERATORS);
  const pairs = names.flatMap((first) => names.map((second) => [first, second] as const));
  const methods = asked.length > 0 ? asked : Object.keys(METHODS);
  const trials = methods.flatMap((method) => pairs.map((pair) => ({ method, pair })));
  const found = await sweep(trials.filter((_, i) => i % shards === shard));
  for (const [kind, all] of found) {
    console.log(`${kind}: ${all.length}`);
    if (kind !== "ok" && kind !== "invalid") for (const line of all) console.log(`  ${line}`);
  }
  process.exitCode = [...found.keys()].every((kind) => kind === "ok" || kind === "invalid") ? 0 : 1;
}
