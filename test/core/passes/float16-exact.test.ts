import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { Model, Value } from "../../../src/core/onnx/ir.ts";
import { type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { float16Pass } from "../../../src/core/passes/float16.ts";
import { findExactParts } from "../../../src/core/passes/float16-exact.ts";
import { roundedForm } from "../../../src/core/passes/rounded.ts";
import { inferDTypes } from "../../../src/core/passes/value-dtypes.ts";
import { compress, floatArray, operatorsOf } from "../../support/compressed.ts";
import { GraphMaker } from "../../support/graphs.ts";
import { runModel, sqnrDb } from "../../support/open-model.ts";
import { assertRecorded } from "../../support/recorded.ts";

const pass = (keepIo = true) => float16Pass({ keepIo, exclude: { nodes: [], ops: [] } });

/** The outputs of a model, and those of its float16 form with every rounding in place. */
async function both(
  model: Model,
  feeds: Readonly<Record<string, Tensor>>,
  keepIo = true,
): Promise<{ before: Record<string, Tensor>; after: Record<string, Tensor>; half: Model }> {
  const half = compress(model, pass(keepIo)).model;
  const given = Object.fromEntries(
    Object.entries(feeds).map(([name, feed]) => {
      const input = half.graph.inputs.find((it) => it.name === name)!;
      return [
        name,
        input.dtype === "float16" ? tensorOf("float16", feed.dims, Float16Array.from(floatArray(feed))) : feed,
      ];
    }),
  );
  const rounded = roundedForm(half) ?? half;
  // It must load with everything onnxruntime does to it, too.
  await runModel(half, given);
  return {
    before: await runModel(model, feeds),
    after: await runModel(rounded, given, { optimization: "basic" }),
    half,
  };
}

const halfNodes = (model: Model) => {
  const types = inferDTypes(model);
  return [...model.nodes()]
    .filter(({ opType, outputs }) => opType !== "Cast" && types.get(outputs[0]!) === "float16")
    .map(({ opType }) => opType);
};

const integers = (values: readonly number[], dims: readonly number[] = [values.length]) =>
  tensorOf("int64", dims, values);

function withIds(dims: readonly number[], build: (make: GraphMaker, ids: Value) => void, opset = 17): Model {
  const make = new GraphMaker({ opset });
  build(make, make.input("ids", dims, "int64"));
  return make.model;
}

const number = (value: number, make: GraphMaker) => make.floats("number", [], [value]);

describe("whole numbers", () => {
  it("that became floats are compared as they are", async () => {
    const ids = [50_257, 50_256, 50_258, 2049, 2048, 4097];
    for (const op of ["Equal", "Less", "Greater"]) {
      const model = withIds([6], (make, ids) => {
        const float = make.op("Cast", [ids], { to: 1 });
        make.output(make.op(op, [float, number(50_257, make)]), "y", [6], "bool");
        const moved = make.op("Reshape", [make.op("Sub", [float, number(1, make)]), make.ints("shape", [2, 3])]);
        make.output(make.op(op, [moved, number(2048, make)]), "z", [2, 3], "bool");
      });
      const { before, after } = await both(model, { ids: integers(ids) });
      assert.deepEqual([...after.y!.bytes, ...after.z!.bytes], [...before.y!.bytes, ...before.z!.bytes]);
    }
  });

  it("that a convolution sums over weights are numbers like others", async () => {
    const make = new GraphMaker();
    const pixels = make.op("Cast", [make.input("pixels", [1, 1, 4, 4], "uint8")], { to: 1 });
    make.output(make.op("Conv", [pixels, make.weight("w", [4, 1, 1, 1], 0.1)]), "y", [1, 4, 4, 4]);
    const { half } = await both(make.model, { pixels: tensorOf("uint8", [1, 1, 4, 4], new Uint8Array(16).fill(200)) });
    assert.deepEqual(halfNodes(half), ["Conv"]);
  });

  it("survive arithmetic between two casts", async () => {
    const step = fc.tuple(
      fc.constantFrom("Add", "Sub", "Mul", "Div", "Max", "Min"),
      fc.constantFrom(1, 3, 7, 0.5, 1000),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 60_000 }), { minLength: 3, maxLength: 3 }),
        fc.array(step, { maxLength: 4 }),
        fc.constantFrom(undefined, "Floor", "Ceil", "Round"),
        fc.boolean(),
        async (ids, chain, whole, keepIo) => {
          const model = withIds([3], (make, ids) => {
            let x = make.op("Cast", [ids], { to: 1 });
            for (const [op, operand] of chain) x = make.op(op, [x, number(operand, make)]);
            if (whole) x = make.op(whole, [x]);
            make.output(make.op("Cast", [x], { to: 7 }), "y", [3], "int64");
          });
          const { before, after } = await both(model, { ids: integers(ids) }, keepIo);
          assert.deepEqual(after.y!.bytes, before.y!.bytes);
        },
      ),
      { numRuns: 40 },
    );
  });

  it("choose the buckets of relative positions", async () => {
    const model = withIds([4096], (make, ids) => {
      const distance = make.op("Max", [make.op("Cast", [ids], { to: 1 }), number(1, make)]);
      const log = make.op("Div", [
        make.op("Log", [make.op("Div", [distance, number(8, make)])]),
        number(Math.log(16), make),
      ]);
      const bucket = make.op("Cast", [make.op("Mul", [log, number(8, make)])], { to: 7 });
      make.output(bucket, "bucket", [4096], "int64");
      const bias = make.op("Gather", [make.weight("table", [64, 4], 1), make.op("Abs", [bucket])]);
      make.output(make.op("MatMul", [bias, make.weight("w", [4, 4], 0.5)]), "y", [4096, 4]);
    });
    const ids = integers(Array.from({ length: 4096 }, (_, i) => i));
    for (const keepIo of [true, false]) {
      const { before, after, half } = await both(model, { ids }, keepIo);
      assert.deepEqual(after.bucket!.bytes, before.bucket!.bytes);
      assert.deepEqual(halfNodes(half), ["Gather", "MatMul"]);
    }
  });

  it("are normalized in float32, and meet weights in float16: pixels", async () => {
    const make = new GraphMaker();
    const pixels = make.input("pixels", [1, 3, 8, 8], "uint8");
    const scaled = make.op("Div", [make.op("Cast", [pixels], { to: 1 }), number(255, make)]);
    const normal = make.op("Sub", [scaled, make.floats("mean", [1, 3, 1, 1], [0.485, 0.456, 0.406])]);
    make.output(make.op("Relu", [make.conv(normal, [3, 4], 3)]), "y", [1, 4, 8, 8]);
    const { notes } = compress(make.model, pass());
    assert.deepEqual(
      notes.filter(({ outcome }) => outcome === "skipped").map(({ code, op }) => [code, op]),
      [
        ["exact", "Cast"],
        ["exact", "Div"],
        ["exact", "Sub"],
      ],
    );
    const feeds = {
      pixels: tensorOf(
        "uint8",
        [1, 3, 8, 8],
        Array.from({ length: 192 }, (_, i) => (i * 37) % 256),
      ),
    };
    const { before, after, half } = await both(make.model, feeds);
    assertRecorded(sqnrDb(before, after), 70.15, 1);
    assert.deepEqual(halfNodes(half), ["Conv", "Relu"]);
    assert.ok(!operatorsOf(half).includes("Clip"), "numbers of 8 bits need no limit");
  });
});

it("keeps the logarithm of a size in float32, as all that constant folding would compute of sizes", () => {
  const make = new GraphMaker();
  const x = make.input("x", ["n", 8]);
  const size = make.op("Cast", [make.op("Size", [x])], { to: 1 });
  make.output(make.op("Mul", [make.op("Tanh", [x]), make.op("Log", [size])]), "y", ["n", 8]);
  const half = compress(make.model, pass()).model;
  assert.ok(!halfNodes(half).includes("Log"));
});

describe("angles", () => {
  const frequencies = (make: GraphMaker, dims: readonly number[]) =>
    make.floats(
      "frequencies",
      dims,
      Array.from({ length: 16 }, (_, i) => 10_000 ** (-i / 16)),
    );
  const arguments_: Readonly<Record<string, (make: GraphMaker, t: Value) => Value>> = {
    "a product": (make, t) =>
      make.op("Mul", [make.op("Unsqueeze", [t, make.ints("axes", [1])]), frequencies(make, [1, 16])]),
    "a column times a row": (make, t) =>
      make.op("MatMul", [make.op("Unsqueeze", [t, make.ints("axes", [1])]), frequencies(make, [1, 16])]),
    "an outer product of Einsum": (make, t) => make.op("Einsum", [t, frequencies(make, [16])], { equation: "i,j->ij" }),
  };
  for (const [name, argument] of Object.entries(arguments_)) {
    it(`of times stay float32: ${name}`, async () => {
      for (const dtype of ["float32", "int64"] as const) {
        const make = new GraphMaker();
        const t = make.input("t", [5], dtype);
        const angle = argument(make, dtype === "int64" ? make.op("Cast", [t], { to: 1 }) : t);
        const embedding = make.op("Concat", [make.op("Sin", [angle]), make.op("Cos", [angle])], { axis: 1 });
        make.output(embedding, "embedding", [5, 32]);
        make.output(make.linear(embedding, 32, 8), "y", [5, 8]);
        for (const keepIo of [true, false]) {
          const t = tensorOf(dtype as "float32", [5], [1, 10, 333, 777, 999]);
          const { before, after, half } = await both(make.model, { t }, keepIo);
          const [y, embedded] = ["y", "embedding"].map((name) => sqnrDb({ x: before[name]! }, { x: after[name]! })) as [
            number,
            number,
          ];
          assertRecorded(y, 67.6, 1, dtype);
          assert.ok(embedded > 75, `${dtype}: ${embedded} dB`);
          assert.ok(halfNodes(half).includes("MatMul") && !halfNodes(half).includes("Sin"));
        }
      }
    });
  }
});

describe("decisions", () => {
  it("are made in float32 back to where weights join", async () => {
    const make = new GraphMaker();
    const logits = make.linear(make.op("Tanh", [make.input("x", [4, 8])]), 8, 8);
    const score = make.op("Sigmoid", [make.op("Mul", [logits, number(3, make)])]);
    make.output(make.op("Greater", [score, number(0.5, make)]), "y", [4, 8], "bool");
    const { model, notes } = compress(make.model, pass());
    assert.deepEqual(halfNodes(model), ["Tanh", "MatMul"]);
    const skipped = notes.filter(({ outcome }) => outcome === "skipped");
    assert.deepEqual(
      skipped.map(({ op, code }) => [op, code]),
      ["Add", "Mul", "Sigmoid", "Greater"].map((op) => [op, "exact"]),
    );
    assert.match(skipped[0]!.message, /"greater_node" \(Greater\) reads/);
  });

  it("about sizes are: the scales of a Resize", async () => {
    const make = new GraphMaker();
    const x = make.input("x", [1, 1, 4, 4]);
    const part = make.op("Div", [make.input("target", [1]), number(3, make)]);
    const scales = make.op("Concat", [make.floats("ones", [3], [1, 1, 1]), part], { axis: 0 });
    make.output(make.op("Resize", [make.conv(x, [1, 1], 3), undefined, scales]), "y", [1, 1, 4, null]);
    // 4 · (5 / 3) is 6; with 5 / 3 rounded to float16 it would be too, but 4 · (6000 / 3) = 8000 needs 2000 and no less.
    const target = tensorOf("float32", [1], [6000.75]);
    const { before, after } = await both(make.model, {
      x: tensorOf(
        "float32",
        [1, 1, 4, 4],
        Array.from({ length: 16 }, (_, i) => i / 16),
      ),
      target,
    });
    assert.deepEqual(after.y!.dims, before.y!.dims);
  });
});

describe("masks", () => {
  /** Attention of 5 tokens, with a mask that is 0 where a token is hidden: the last row of the batch hides all. */
  function attention(mask: (make: GraphMaker, scores: Value, seen: Value) => Value, dtype: "int64" | "bool"): Model {
    const make = new GraphMaker();
    const x = make.input("x", [2, 5, 8]);
    const seen = make.op("Unsqueeze", [make.input("seen", [2, 5], dtype), make.ints("axes", [1])]);
    const [q, k] = [make.linear(x, 8, 8), make.linear(x, 8, 8)];
    const scores = make.op("MatMul", [q, make.op("Transpose", [k], { perm: [0, 2, 1] })]);
    const weights = make.op("Softmax", [mask(make, scores, seen)], { axis: -1 });
    make.output(make.op("MatMul", [weights, x]), "y", [2, 5, 8]);
    return make.model;
  }
  const added = (far: number) => (make: GraphMaker, scores: Value, seen: Value) => {
    const hidden = make.op("Sub", [number(1, make), make.op("Cast", [seen], { to: 1 })]);
    return make.op("Add", [scores, make.op("Mul", [hidden, number(far, make)])]);
  };
  const chosen = (far: number) => (make: GraphMaker, scores: Value, seen: Value) => {
    const isSeen = make.op("Cast", [seen], { to: 9 });
    return make.op("Where", [isSeen, scores, number(far, make)]);
  };
  const twice = (far: number) => (make: GraphMaker, scores: Value, seen: Value) =>
    added(far)(make, added(far)(make, scores, seen), seen);
  const fill = (far: number) => (make: GraphMaker, scores: Value, seen: Value) => {
    const value = { type: "tensor", value: tensorOf("float32", [1], [far]) } as const;
    const filled = make.op("ConstantOfShape", [make.op("Shape", [scores])], { value });
    return make.op("Where", [make.op("Cast", [seen], { to: 9 }), scores, filled]);
  };
  const padded = (far: number) => (make: GraphMaker, scores: Value, seen: Value) =>
    make.op("Pad", [added(far)(make, scores, seen), make.ints("pads", [0, 0, 0, 0, 0, 0])]);
  for (const [name, mask] of Object.entries({ added, chosen, twice, fill, padded })) {
    it(`that are ${name} never become infinite, and a row that is all masked is as it was`, async () => {
      for (const far of [-1e4, -65_504, -1e5, -7e5, -1e9, -3.4e38]) {
        for (const dtype of ["int64", "bool"] as const) {
          const seen = tensorOf(dtype as "int64", [2, 5], [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]);
          const x = new GraphMaker({ seed: 5 }).random([2, 5, 8], 1);
          for (const keepIo of [true, false]) {
            // The sum of two lowest numbers is infinite in float32, and the original gives NaN there.
            if (far < -1e38 && name === "twice") continue;
            const { before, after } = await both(attention(mask(far), dtype), { x, seen }, keepIo);
            assert.ok(floatArray(after.y!).every(Number.isFinite), `${far} ${dtype}`);
            const sqnr = sqnrDb(before, after);
            assert.ok(sqnr > 52, `${far} ${dtype}: ${sqnr} dB`);
          }
        }
      }
    });
  }

  it("that weights meet are limited on the way", async () => {
    for (const opset of [9, 17]) {
      const model = withIds(
        [2, 8],
        (make, ids) => {
          const x = make.input("x", [2, 8]);
          const far = make.op("Mul", [make.op("Cast", [ids], { to: 1 }), number(1e6, make)]);
          const sum = make.op("Add", [make.op("Tanh", [x]), far]);
          make.output(make.op("Tanh", [make.op("MatMul", [sum, make.weight("w", [8, 4], 0.01)])]), "y", [2, 4]);
        },
        opset,
      );
      const x = new GraphMaker().random([2, 8], 1);
      const { after, half } = await both(model, {
        x,
        ids: integers(
          Array.from({ length: 16 }, (_, i) => i),
          [2, 8],
        ),
      });
      assert.ok(operatorsOf(half).includes("Clip"));
      assert.ok(floatArray(after.y!).every(Number.isFinite));
    }
  });

  it("that fill a tensor are kept from where they fit no more; infinity fits", async () => {
    const halved = async (value: number) => {
      const make = new GraphMaker();
      const attr = { type: "tensor", value: tensorOf("float32", [1], [value]) } as const;
      const filled = make.op("ConstantOfShape", [make.ints("shape", [8])], { value: attr });
      make.output(make.op("Min", [make.input("x", [8]), filled]), "y", [8]);
      const { half } = await both(make.model, { x: new GraphMaker().random([8], 3) });
      return halfNodes(half).includes("ConstantOfShape");
    };
    const fits: (readonly [number, boolean])[] = [];
    for (const value of [-1, 2 ** 15, 2 ** 15 + 1, -70_000, -3e38, Number.NEGATIVE_INFINITY]) {
      fits.push([value, await halved(value)]);
    }
    assert.deepEqual(fits, [
      [-1, true],
      [2 ** 15, true],
      [2 ** 15 + 1, false],
      [-70_000, false],
      [-3e38, false],
      [Number.NEGATIVE_INFINITY, true],
    ]);
  });

  it("are no limits: a Clip to huge numbers stays a Clip in float16", async () => {
    const make = new GraphMaker();
    const clipped = make.op("Clip", [make.input("x", [8]), number(-1e9, make), number(3.4e38, make)]);
    make.output(make.op("Max", [clipped, number(-1e9, make)]), "y", [8]);
    const { after, before, half } = await both(make.model, { x: new GraphMaker().random([8], 3) });
    assert.deepEqual(halfNodes(half), ["Clip", "Max"]);
    assertRecorded(sqnrDb(before, after), 76.5, 1);
  });
});

describe("the borders of what float16 takes", () => {
  /** Operators that are kept with their codes, and whether the result may be too large for float16. */
  const found = (build: (make: GraphMaker) => Value) => {
    const make = new GraphMaker();
    const y = build(make);
    make.output(y, "y");
    const { kept, wide } = findExactParts(make.model, inferDTypes(make.model));
    return { kept: [...kept].map(([node, { code }]) => `${node.opType} ${code}`), isWide: wide.has(y) };
  };
  /** Bytes as floats, at most 256 as their type tells. */
  const bytes = (make: GraphMaker) => make.op("Cast", [make.input("b", [4], "uint8")], { to: 1 });
  const times = (make: GraphMaker, factor: number) =>
    make.op("Mul", [bytes(make), make.floats("factor", [], [factor])]);
  const activations = (make: GraphMaker) => make.input("x", [4]);

  it("whole numbers up to 2^15 are cast as they are, larger ones limited first", () => {
    assert.equal(found((make) => times(make, 128)).isWide, false);
    assert.equal(found((make) => times(make, 129)).isWide, true);
    // int32 that was int8 is no larger than int8.
    const widened = (factor: number) =>
      found((make) => {
        const whole = make.op("Cast", [make.input("b", [4], "int8")], { to: 6 });
        const value = make.op("Cast", [whole], { to: 1 });
        return make.op("Mul", [value, make.floats("factor", [], [factor])]);
      });
    assert.deepEqual([widened(256).isWide, widened(257).isWide], [false, true]);
  });

  it("activations are added to whole numbers up to 2048, and multiplied with those up to 2^15", () => {
    const meets = (op: string, factor: number) =>
      found((make) => make.op(op, [activations(make), times(make, factor)])).kept.filter((it) => it.startsWith(op));
    assert.deepEqual([meets("Add", 8), meets("Add", 9)], [[], ["Add exact"]]);
    assert.deepEqual([meets("Sub", 8), meets("Sub", 9)], [[], ["Sub exact"]]);
    assert.deepEqual([meets("Max", 128), meets("Max", 129)], [[], ["Max exact"]]);
  });

  it("constants are added up to 2048, moved up to 2^15, and otherwise read up to the largest of float16", () => {
    const reads = (op: string, value: number, attrs = {}) =>
      found((make) => make.op(op, [activations(make), make.floats("c", [4], [0, 1, value, -1])], attrs)).kept;
    assert.deepEqual([reads("Add", -2048), reads("Add", -2049)], [[], ["Add mask"]]);
    const axis = { axis: 0 };
    assert.deepEqual([reads("Concat", 2 ** 15, axis), reads("Concat", 2 ** 15 + 1, axis)], [[], ["Concat mask"]]);
    assert.deepEqual([reads("Pow", 65_504), reads("Pow", 65_505)], [[], ["Pow mask"]]);
    for (const op of ["Add", "Concat", "Pow"]) {
      assert.deepEqual(reads(op, Number.NEGATIVE_INFINITY, op === "Concat" ? axis : {}), [], op);
    }
  });

  it("operators of other domains are left to those who know them", () => {
    const node = found((make) => {
      const huge = make.floats("c", [4], [1e9, 0, 0, 0]);
      return make.node("Add", [activations(make), huge], {}, 1, "my.domain").outputs[0]!;
    });
    assert.deepEqual(node, { kept: [], isWide: false });
  });

  it("rows of a table of 4096 elements are weights, those of a smaller one numbers to compare", () => {
    const compared = (rows: number) =>
      found((make) => {
        const row = make.op("Gather", [make.weight("table", [rows, 64], 1), make.input("ids", [2], "int64")]);
        return make.op("Greater", [row, make.floats("c", [], [0.5])]);
      }).kept;
    assert.deepEqual(compared(64), ["Greater exact"]);
    assert.deepEqual(compared(63).toSorted(), ["Gather exact", "Greater exact"]);
  });
});
