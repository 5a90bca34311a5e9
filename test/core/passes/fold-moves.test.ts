import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Model, Value } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { elementCount, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { removeDeadCode } from "../../../src/core/passes/dead-code.ts";
import { foldMoves } from "../../../src/core/passes/fold-moves.ts";
import { runPasses } from "../../../src/core/passes/pass.ts";
import { dropTraces } from "../../../src/core/passes/simplify.ts";
import { GraphMaker, type MakerOptions, randomFeeds } from "../../support/graphs.ts";
import { readRealModel } from "../../support/real-models.ts";
import { assertSameFunction } from "../../support/same-function.ts";

function fold(model: Model): Model {
  return runPasses(model, [foldMoves, removeDeadCode]).model;
}

function operators(model: Model): string {
  return [...model.nodes()]
    .map(({ opType }) => opType)
    .filter((opType) => opType !== "Constant")
    .join(" ");
}

/** A weight and the dims it has by now. */
interface Moved {
  readonly value: Value;
  readonly dims: readonly number[];
}

type Step = (make: GraphMaker, weight: Moved, pick: () => number) => Moved;

const transpose: Step = (make, { value, dims }, pick) => {
  const perm = dims.map((_, axis) => axis);
  for (let i = perm.length - 1; i > 0; i--) {
    const j = pick() % (i + 1);
    [perm[i], perm[j]] = [perm[j]!, perm[i]!];
  }
  return { value: make.op("Transpose", [value], { perm }), dims: perm.map((axis) => dims[axis]!) };
};

/** A slice from a random place to the end, or counted from the end, or past it. */
const slice: Step = (make, { value, dims }, pick) => {
  const axis = pick() % dims.length;
  const size = dims[axis];
  if (!size) return { value, dims };
  const start = pick() % size;
  const end = start + 1 + (pick() % (size - start));
  const starts = make.ints("starts", [pick() % 2 ? start : start - size]);
  const ends = make.ints("ends", [end === size ? 2 ** 31 : pick() % 2 ? end : end - size]);
  const axes = make.ints("axes", [pick() % 2 ? axis : axis - dims.length]);
  return {
    value: make.op("Slice", [value, starts, ends, axes]),
    dims: dims.map((dim, i) => (i === axis ? end - start : dim)),
  };
};

const join: Step = (make, { value, dims }, pick) => {
  if (dims.length === 0) return { value, dims };
  const axis = pick() % dims.length;
  const other = pick() % 2 ? value : make.weight("other", dims, 1);
  return {
    value: make.op("Concat", [value, other, value], { axis: pick() % 2 ? axis : axis - dims.length }),
    dims: dims.map((dim, i) => (i === axis ? 3 * dim : dim)),
  };
};

const unsqueeze: Step = (make, { value, dims }, pick) => {
  const axis = pick() % (dims.length + 1);
  return {
    value: make.op("Unsqueeze", [value, make.ints("axes", [pick() % 2 ? axis : axis - dims.length - 1])]),
    dims: [...dims.slice(0, axis), 1, ...dims.slice(axis)],
  };
};

const squeeze: Step = (make, { value, dims }) => {
  const kept = dims.filter((dim) => dim !== 1);
  return { value: make.op("Squeeze", [value]), dims: kept };
};

const flatten: Step = (make, { value, dims }, pick) => {
  const axis = pick() % (dims.length + 1);
  return {
    value: make.op("Flatten", [value], { axis: axis < dims.length && pick() % 2 ? axis - dims.length : axis }),
    dims: [elementCount(dims.slice(0, axis)), elementCount(dims.slice(axis))],
  };
};

const reshape: Step = (make, { value, dims }, pick) => {
  const all = elementCount(dims);
  if (all === 0) return { value, dims };
  const rows = Array.from({ length: all }, (_, i) => i + 1).filter((n) => all % n === 0);
  const first = rows[pick() % rows.length]!;
  return {
    value: make.op("Reshape", [value, make.ints("shape", [first, -1])]),
    dims: [first, all / first],
  };
};

const STEPS: readonly Step[] = [transpose, slice, join, unsqueeze, squeeze, flatten, reshape];

test("any chain of moves gives the same elements", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom("initializer" as const, "constant" as const),
      fc.array(fc.nat(), { minLength: 1, maxLength: 5 }),
      fc.infiniteStream(fc.nat()),
      fc.constantFrom([4, 6, 2], [], [5], [2, 1, 3], [1, 2, 1, 3, 2], [0, 3], [2, 0, 3]),
      async (storage, steps, picks, dims) => {
        const make = new GraphMaker({ storage });
        let weight: Moved = { value: make.weight("w", dims, 1), dims };
        for (const step of steps) {
          if (weight.dims.length > 6) break;
          weight = STEPS[step % STEPS.length]!(make, weight, () => picks.next().value!);
        }
        make.output(make.op("Add", [make.input("x", [1]), weight.value]), "y");
        const feeds = { x: tensorOf("float32", [1], [0.5]) };
        await assertSameFunction(make.model, fold(make.model), feeds, 0);
      },
    ),
    { numRuns: 250 },
  );
});

/** The weights of two LSTMs in the branches of an If, cut from the same constants and joined in another order. */
function gatesInBranches(options: MakerOptions = {}): Model {
  const make = new GraphMaker(options);
  const source = make.weight("w", [64, 16], 1);
  const branch = () => {
    const body = make.body();
    const part = (from: number, to: number) =>
      body.op("Slice", [source, body.ints("from", [from]), body.ints("to", [to]), body.ints("axis", [0])]);
    const gates = body.op("Concat", [part(0, 16), part(48, 64), part(16, 48)], { axis: 0 });
    body.output(body.op("MatMul", [x, body.op("Transpose", [gates], { perm: [1, 0] })]), "product");
    return body.graph;
  };
  const x = make.input("x", [2, 16]);
  const condition = make.input("c", [], "bool");
  make.output(make.op("If", [condition], { then_branch: branch(), else_branch: branch() }), "y");
  return make.model;
}

test("what branches move in the same way is stored once", async () => {
  for (const storage of ["initializer", "constant"] as const) {
    const model = gatesInBranches({ storage });
    const folded = fold(model);
    assert.equal(operators(folded), "If MatMul MatMul");
    assert.deepEqual(
      [...folded.graph.initializers].map(({ name }) => name),
      ["w_moved"],
    );
    await assertSameFunction(model, folded, { x: randomFeeds(model).x!, c: tensorOf("bool", [], [1]) }, 0);
  }
});

test("the file does not grow", async () => {
  const twoUses = (build: (make: GraphMaker, w: Value) => readonly [Value, Value]): Model => {
    const make = new GraphMaker();
    const [a, b] = build(make, make.weight("w", [32, 32], 1));
    const x = make.input("x", [32, 32]);
    make.output(make.op("Add", [make.op("MatMul", [x, a]), make.op("Mul", [x, b])]), "y", [32, 32]);
    return make.model;
  };
  const swapped = (make: GraphMaker, w: Value) => make.op("Transpose", [w], { perm: [1, 0] });
  const one = twoUses((make, w) => [swapped(make, w), swapped(make, w)]);
  assert.equal(operators(fold(one)), "MatMul Mul Add");
  const both = twoUses((make, w) => [w, swapped(make, w)]);
  assert.equal(operators(fold(both)), "Transpose MatMul Mul Add");
  const parts = twoUses((make, w) => [swapped(make, w), make.op("Reshape", [w, make.ints("s", [32, 32])])]);
  assert.equal(operators(fold(parts)), "Transpose Reshape MatMul Mul Add");
  for (const model of [one, both, parts]) await assertSameFunction(model, fold(model), randomFeeds(model), 0);
});

test("untouched: what an output gives out, what is cut with steps, what depends on an input", () => {
  const given = new GraphMaker();
  given.output(given.op("Transpose", [given.weight("w", [8, 8], 1)], { perm: [1, 0] }), "y", [8, 8]);
  assert.equal(operators(fold(given.model)), "Transpose");

  const stepped = new GraphMaker();
  const [s, e, a, t] = [[0], [32], [0], [2]].map((data) => stepped.ints("i", data));
  const even = stepped.op("Slice", [stepped.weight("w", [32, 16], 1), s, e, a, t]);
  stepped.output(stepped.op("Add", [stepped.input("x", [16, 16]), even]), "y", [16, 16]);
  assert.equal(operators(fold(stepped.model)), "Slice Add");

  const dynamic = new GraphMaker();
  const shaped = dynamic.op("Reshape", [dynamic.weight("w", [32, 16], 1), dynamic.input("s", [2], "int64")]);
  dynamic.output(dynamic.op("Relu", [shaped]), "y");
  assert.equal(operators(fold(dynamic.model)), "Reshape Relu");
});

test("traces of the exporter are left out of the file", () => {
  const bytes = readRealModel("silero-ifless");
  const { model } = runPasses(loadModel(bytes), [dropTraces]);
  const smaller = modelToBytes(model);
  assert.equal(bytes.length - smaller.length, 634_171);
  assert.ok(!Buffer.from(smaller).includes("pkg.torch.onnx.stack_trace"));
  assert.ok(Buffer.from(smaller).includes("namespace"), "other metadata stays");
});
