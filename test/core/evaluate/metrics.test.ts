import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { CoreError } from "../../../src/core/errors.ts";
import {
  countedValue,
  defaultMetric,
  METRICS,
  type MetricName,
  outputFor,
  scoreOf,
} from "../../../src/core/evaluate/metrics.ts";
import { type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";

function measure(name: MetricName, ...batches: (readonly [Tensor, Tensor])[]): number {
  return measureUnless(null, name, ...batches);
}

/** The same without positions labelled `ignoreLabel`. */
function measureUnless(
  ignoreLabel: number | null,
  name: MetricName,
  ...batches: (readonly [Tensor, Tensor])[]
): number {
  const meter = METRICS[name].start(ignoreLabel);
  for (const [output, labels] of batches) meter.add(output, labels);
  return countedValue(meter);
}

const floats = (dims: number[], values: number[]) => tensorOf("float32", dims, values);
const labels = (dims: number[], values: number[]) => tensorOf("int64", dims, values);

describe("top1 and top5", () => {
  it("agree with sorting the scores", () => {
    const classes = 8;
    const sample = fc.tuple(
      // Few distinct scores, so that ties are common.
      fc.array(fc.integer({ min: 0, max: 6 }), { minLength: classes, maxLength: classes }),
      fc.nat(classes - 1),
    );
    fc.assert(
      fc.property(fc.array(sample, { minLength: 1, maxLength: 10 }), (samples) => {
        const share = (k: number) =>
          samples.filter(([scores, label]) =>
            scores
              .map((score, index) => ({ score, index }))
              .sort((a, b) => b.score - a.score || a.index - b.index)
              .slice(0, k)
              .some(({ index }) => index === label),
          ).length / samples.length;
        const output = floats(
          [samples.length, classes],
          samples.flatMap(([scores]) => scores),
        );
        const target = labels(
          [samples.length],
          samples.map(([, label]) => label),
        );
        assert.equal(measure("top1", [output, target]), share(1));
        assert.equal(measure("top5", [output, target]), share(5));
      }),
    );
  });

  it("average over samples, not over batches", () => {
    const three = [floats([3, 2], [1, 0, 1, 0, 1, 0]), labels([3], [0, 0, 0])] as const;
    const one = [floats([1, 2], [1, 0]), labels([1], [1])] as const;
    assert.equal(measure("top1", three, one), 0.75);
  });

  it("score each position of a sequence", () => {
    assert.equal(measure("top1", [floats([1, 3, 2], [1, 0, 0, 1, 1, 0]), labels([1, 3], [0, 0, 0])]), 2 / 3);
  });

  it("count NaN scores as wrong", () => {
    assert.equal(measure("top1", [floats([1, 2], [NaN, 1]), labels([1], [0])]), 0);
  });

  it("refuse labels that are not classes", () => {
    for (const label of [-1, 2]) {
      assert.throws(() => measure("top1", [floats([1, 2], [1, 0]), labels([1], [label])]), {
        code: "invalid_dataset",
        subject: "labels",
      });
    }
  });
});

describe("f1_macro", () => {
  /** Scores whose largest is that of the class. */
  const predicted = (classes: number, predictions: readonly number[]) =>
    floats(
      [predictions.length, classes],
      predictions.flatMap((prediction) => Array.from({ length: classes }, (_, i) => (i === prediction ? 1 : 0))),
    );

  it("is the mean of the classes' F1, whatever their sizes", () => {
    // Class 0: TP 2, FP 1, FN 1, F1 4/6. Class 1: TP 1, FP 1, FN 0, F1 2/3. Class 2: TP 0, FP 0, FN 1, F1 0.
    const truth = labels([5], [0, 0, 0, 1, 2]);
    const value = measure("f1_macro", [predicted(3, [0, 0, 1, 1, 0]), truth]);
    assert.ok(Math.abs(value - (4 / 6 + 2 / 3 + 0) / 3) < 1e-15);
    assert.equal(measure("f1_macro", [predicted(3, [0, 1, 2]), labels([3], [0, 1, 2])]), 1);
  });

  it("is over the classes that are a label or a prediction, not over all that the model has", () => {
    // Of ten classes only 0 (F1 2·1/(1+2)) and 7 (labelled, never predicted) occur; then 3, predicted and never a label.
    assert.ok(Math.abs(measure("f1_macro", [predicted(10, [0, 0]), labels([2], [0, 7])]) - 2 / 3 / 2) < 1e-15);
    assert.equal(measure("f1_macro", [predicted(10, [0, 3]), labels([2], [0, 0])]), 2 / 3 / 2);
  });

  it("counts over all batches and leaves out ignored positions", () => {
    const meter = METRICS.f1_macro.start(-1);
    meter.add(predicted(2, [0, 1]), labels([2], [0, 0]));
    meter.add(predicted(2, [0, 1]), labels([2], [0, -1]));
    // Class 0: TP 2, FN 1, F1 4/5. Class 1: FP 1, F1 0. The batches alone have 1/3 and 1.
    assert.deepEqual([countedValue(meter), meter.positions], [0.4, 3]);
    const none = METRICS.f1_macro.start(-1);
    none.add(predicted(2, [0]), labels([1], [-1]));
    assert.throws(() => countedValue(none), { code: "invalid_dataset" });
  });

  it("predicts nothing from scores that are NaN", () => {
    // The first position is missed and no other class is blamed: class 0 has TP 1, FN 1.
    assert.equal(measure("f1_macro", [floats([2, 2], [NaN, NaN, 1, NaN]), labels([2], [0, 0])]), 2 / 3);
  });

  it("refuses labels that are not classes", () => {
    assert.throws(() => measure("f1_macro", [predicted(2, [0]), labels([1], [2])]), { code: "invalid_dataset" });
  });

  it("is what precision and recall say, class by class", () => {
    const classes = 5;
    const position = fc.tuple(
      fc.array(fc.integer({ min: 0, max: 3 }), { minLength: classes, maxLength: classes }),
      fc.integer({ min: -1, max: classes - 1 }),
    );
    fc.assert(
      fc.property(fc.array(position, { minLength: 1, maxLength: 30 }), fc.nat(29), (positions, cut) => {
        fc.pre(positions.some(([, label]) => label >= 0));
        const counted = positions
          .filter(([, label]) => label >= 0)
          .map(([scores, label]) => ({ label, prediction: scores.indexOf(Math.max(...scores)) }));
        const seen = new Set(counted.flatMap(({ label, prediction }) => [label, prediction]));
        let sum = 0;
        for (const one of seen) {
          const right = counted.filter(({ label, prediction }) => label === one && prediction === one).length;
          const precision = right / counted.filter(({ prediction }) => prediction === one).length;
          const recall = right / counted.filter(({ label }) => label === one).length;
          sum += right === 0 ? 0 : (2 * precision * recall) / (precision + recall);
        }
        const meter = METRICS.f1_macro.start(-1);
        for (const part of [positions.slice(0, cut), positions.slice(cut)]) {
          if (part.length === 0) continue;
          meter.add(
            floats(
              [part.length, classes],
              part.flatMap(([scores]) => scores),
            ),
            labels(
              [part.length],
              part.map(([, label]) => label),
            ),
          );
        }
        assert.ok(Math.abs(countedValue(meter) - sum / seen.size) < 1e-12);
      }),
    );
  });
});

describe("mse", () => {
  it("is the mean over all elements, in float64", () => {
    assert.equal(measure("mse", [floats([2, 2], [1, 2, 3, 4]), floats([2, 2], [1, 0, 3, 8])]), 5);
    assert.equal(
      measure("mse", [floats([1], [1]), floats([1], [3])], [floats([3], [0, 0, 0]), floats([3], [0, 0, 0])]),
      1,
    );
  });
});

describe("mae and rmse", () => {
  it("are the mean of absolute errors and the root of the mean of squared ones, over all batches", () => {
    const batches = [
      [floats([2, 2], [1, 2, 3, 4]), floats([2, 2], [1, 0, 3, 8])],
      [floats([1, 2], [5, -1]), floats([1, 2], [4, -1])],
    ] as const;
    // Errors 0, 2, 0, -4, 1, 0.
    assert.equal(measure("mae", ...batches), 7 / 6);
    assert.equal(measure("rmse", ...batches), Math.sqrt(21 / 6));
  });

  it("leave out what is ignored, and are better when lower", () => {
    for (const [name, value] of [
      ["mae", 2],
      ["rmse", Math.sqrt(5)],
    ] as const) {
      const meter = METRICS[name].start(-100);
      meter.add(floats([3], [1, 2, 3]), floats([3], [-100, 1, 6]));
      assert.deepEqual([countedValue(meter), meter.positions], [value, 2]);
      assert.ok(scoreOf(name, 0.1) > scoreOf(name, 0.2));
    }
  });

  it("agree with a plain computation in float64, and lie as they must: mae at most rmse, rmse the root of mse", () => {
    const value = fc.float({ noNaN: true, min: -1e3, max: 1e3 });
    fc.assert(
      fc.property(fc.array(fc.tuple(value, value), { minLength: 1, maxLength: 40 }), (pairs) => {
        const batch = [
          floats(
            [pairs.length],
            pairs.map(([y]) => y),
          ),
          floats(
            [pairs.length],
            pairs.map(([, label]) => label),
          ),
        ] as const;
        const [mse, mae, rmse] = [measure("mse", batch), measure("mae", batch), measure("rmse", batch)];
        const errors = pairs.map(([y, label]) => y - label);
        const mean = (values: readonly number[]) => values.reduce((sum, x) => sum + x, 0) / values.length;
        assert.ok(Math.abs(mae - mean(errors.map(Math.abs))) <= 1e-12 * (1 + mae));
        assert.ok(Math.abs(mse - mean(errors.map((x) => x ** 2))) <= 1e-12 * (1 + mse));
        assert.equal(rmse, Math.sqrt(mse));
        assert.ok(mae <= rmse * (1 + 1e-12));
      }),
    );
  });
});

describe("outputFor", () => {
  const outputs = { state: floats([2, 1, 3], [1, 2, 3, 4, 5, 6]), logits: floats([2, 3], [1, 2, 3, 4, 5, 6]) };

  it("is the first output whose shape fits the labels", () => {
    assert.equal(outputFor("top1", outputs, labels([2], [0, 1])), "logits");
    assert.equal(outputFor("top1", outputs, labels([2, 1], [0, 1])), "state");
    assert.equal(outputFor("top1", { logits: outputs.logits }, labels([2, 1], [0, 1])), "logits");
    assert.equal(outputFor("mse", outputs, floats([2, 3], [1, 2, 3, 4, 5, 6])), "logits");
    assert.equal(outputFor("mse", { y: floats([2, 1], [1, 2]) }, floats([2], [1, 2])), "y");
    assert.equal(outputFor("top1", outputs, labels([3], [0, 1, 2])), undefined);
    assert.equal(outputFor("top1", outputs, floats([2], [0, 1])), undefined);
  });
});

describe("a metric", () => {
  it("as a score is higher when it is better", () => {
    assert.ok(scoreOf("top1", 0.9) > scoreOf("top1", 0.8));
    assert.ok(scoreOf("f1_macro", 0.9) > scoreOf("f1_macro", 0.8));
    assert.ok(scoreOf("mse", 0.1) > scoreOf("mse", 0.2));
  });

  it("leaves out what is ignored, and refuses to be the mean of nothing", () => {
    const scores = floats([3, 2], [1, 0, 0, 1, 1, 0]);
    const meter = METRICS.top1.start(-1);
    meter.add(scores, labels([3], [0, -1, 1]));
    assert.deepEqual([meter.value, meter.positions], [0.5, 2]);
    const errors = METRICS.mse.start(-100);
    errors.add(floats([3], [1, 2, 3]), floats([3], [-100, 4, 3]));
    assert.equal(errors.value, 2);
    const none = METRICS.top1.start(-1);
    none.add(scores, labels([3], [-1, -1, -1]));
    assert.throws(() => countedValue(none), { code: "invalid_dataset" });
    assert.throws(() => METRICS.top1.start(null).add(scores, labels([3], [0, -1, 1])), /The label -1 is not a class/);
  });

  it("of samples that were drawn again is what it is of those samples", () => {
    const drawn = [2, 0, 1];
    const repeated = (values: number[], width: number) =>
      drawn.flatMap((times, i) =>
        Array(times)
          .fill(values.slice(i * width, (i + 1) * width))
          .flat(),
      );
    const [scores, classes, numbers, targets] = [
      [3, 1, 2, 5, 6, 4],
      [0, 0, 1],
      [1, 2, 4],
      [1.5, 0, 8],
    ];
    for (const name of ["top1", "f1_macro", "mse", "mae", "rmse"] as const) {
      const [output, truth, width] =
        name === "top1" || name === "f1_macro" ? [scores, classes, 2] : [numbers, targets, 1];
      const [of, at] = width === 2 ? ([labels, 1] as const) : ([floats, 1] as const);
      const meter = METRICS[name].start(null);
      meter.add(floats([3, width], output), of([3], truth));
      assert.equal(meter.samples, 3);
      assert.equal(meter.resampled(Uint32Array.from([1, 1, 1])), meter.value, name);
      const again = measure(name, [floats([3, width], repeated(output, width)), of([3], repeated(truth, at))]);
      assert.equal(meter.resampled(Uint32Array.from(drawn)), again, name);
    }
  });

  it("counts classes along the last axis that is not of one", () => {
    const maps = floats([2, 3, 1, 1], [0, 1, 0, 0, 0, 1]);
    assert.equal(measure("top1", [maps, labels([2], [1, 2])]), 1);
    assert.equal(measure("top1", [maps, labels([2, 1], [1, 0])]), 0.5);
  });

  it("is top1 for integer labels and mse for numbers unless another is asked for", () => {
    assert.equal(defaultMetric(labels([1], [0]), [floats([1, 2], [0, 1])]), "top1");
    assert.equal(defaultMetric(labels([1], [0]), []), "top1");
    assert.equal(defaultMetric(floats([1], [0]), [floats([1, 1], [0])]), "mse");
  });

  it("holds labels of 0 or 1 against shares: accuracy, and F1 of the ones", () => {
    const shares = floats([2, 4], [0.9, 0.4, 0.6, 0.1, Number.NaN, 0.5, 0.51, 0.2]);
    const truth = labels([2, 4], [1, 1, 0, 0, 0, 0, 1, 255]);
    // Right: 0.9, 0.1, 0.5 (not above a half) and 0.51. Wrong: 0.4, 0.6 and the NaN. The last does not count.
    assert.equal(measureUnless(255, "binary_accuracy", [shares, truth]), 4 / 7);
    // Found and right: 0.9, 0.51. Found and wrong: 0.6. Not found: 0.4.
    assert.equal(measureUnless(255, "binary_f1", [shares, truth]), (2 * 2) / (2 * 2 + 1 + 1));
    const none = [floats([2, 1], [0.1, 0.2]), labels([2], [0, 0])] as const;
    assert.equal(measure("binary_f1", [...none]), 1);
  });

  it("refuses labels that are not binary, and outputs that are no shares", () => {
    const refused = (message: RegExp) => (error: unknown) =>
      error instanceof CoreError && error.code === "invalid_dataset" && message.test(error.message);
    for (const name of ["binary_accuracy", "binary_f1"] as const) {
      assert.throws(() => measure(name, [floats([2], [0.1, 0.9]), labels([2], [0, 2])]), refused(/label 2 is neither/));
      assert.throws(() => measure(name, [floats([2], [0.1, 3]), labels([2], [0, 1])]), refused(/answers 3.*Sigmoid/));
    }
  });

  it("is binary_accuracy for integers in the shape of an output, unless they are classes of another", () => {
    const [shares, scores] = [floats([2, 1], [0.2, 0.9]), floats([2, 3], [1, 2, 3, 4, 5, 6])];
    assert.equal(defaultMetric(labels([2], [0, 1]), [shares]), "binary_accuracy");
    assert.equal(defaultMetric(labels([2], [0, 1]), [shares, scores]), "top1");
  });
});
