import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { candidatesOf } from "../../../src/service/kinds/auto/candidates.ts";
import { AutoParams } from "../../../src/service/kinds/auto/params.ts";
import {
  axesFor,
  beats,
  checkConstraints,
  choose,
  frontOf,
  type Measured,
} from "../../../src/service/kinds/auto/run/front.ts";
import { searchesOf } from "../../../src/service/kinds/auto/spec.ts";
import { unreadOf } from "../../../src/service/kinds/checks.ts";
import { Evaluation } from "../../../src/service/kinds/evaluation.ts";
import { TargetName } from "../../../src/service/kinds/quantize/params.ts";
import type { QuantizeSpec } from "../../../src/service/kinds/quantize/spec.ts";
import { targetRefusals } from "../../../src/service/kinds/quantize/targets.ts";
import { requestOf } from "../../../src/service/kinds/requests.ts";
import { accuracyFixture, metricsFixture, outputFixture } from "../../support/metrics.ts";

/** A model in a few numbers: share of the original's 1 MB, speed against it, share of right answers, noise. */
function model(name: string, ratio: number, speedup: number, top1: number, sqnr = 30) {
  const { latency, memory, ...rest } = metricsFixture();
  const measured: Measured = {
    ...rest,
    memory,
    size: { before_bytes: 1e6, after_bytes: 1e6 * ratio, ratio },
    accuracy: accuracyFixture({ before: 0.95, after: top1, drop: 0.95 - top1 }),
    latency: { ...latency, speedup, after: { p50_ms: 10 / speedup, p90_ms: 11, mean_ms: 10 } },
    fidelity: { samples: 100, data: "evaluation", outputs: [outputFixture({ sqnr_db: sqnr })] },
  };
  return { name, measured };
}

const constraints = (change: object = {}) => AutoParams.parse({ dataset_id: "d", constraints: change }).constraints;

const axes = (objective: "latency" | "memory", change: object = {}) =>
  axesFor({ objective, constraints: constraints(change) });
const AXES = axes("latency");

const ORIGINAL = model("original", 1, 1, 0.95, 200);
const INT8 = model("static", 0.26, 2.4, 0.94);
const INT4 = model("weights-4-bit", 0.15, 1.05, 0.93);
const SLOW = model("weights-8-bit", 0.27, 1.1, 0.94);

describe("the front", () => {
  it("has what nothing else beats in size, speed and quality, and says by what the others are beaten", () => {
    const { front, beaten } = frontOf([ORIGINAL, INT8, INT4, SLOW], AXES);
    assert.deepEqual(
      front.map(({ name }) => name),
      ["original", "static", "weights-4-bit"],
    );
    assert.deepEqual(
      [...beaten].map(([loser, winner]) => [loser.name, winner.name]),
      [["weights-8-bit", "static"]],
    );
  });

  it("does not tell apart what differs by less than measurements do", () => {
    assert.ok(!beats(model("a", 0.26, 2.45, 0.94).measured, INT8.measured, AXES));
    assert.ok(beats(model("a", 0.26, 2.6, 0.94).measured, INT8.measured, AXES));
    assert.ok(!beats(model("a", 0.26, 2.6, 0.93).measured, INT8.measured, AXES));
    // In a trial a difference must be clearer.
    assert.ok(!beats(model("a", 0.26, 2.6, 0.94).measured, INT8.measured, AXES, 4));
  });

  it("has what alone is good in something that the search is asked about: memory, and noise beside a metric", () => {
    const lean = {
      name: "lean",
      measured: { ...SLOW.measured, memory: { ...SLOW.measured.memory, after_peak_bytes: 1 } },
    };
    const clean = model("clean", 0.27, 2.4, 0.94, 60);
    const names = (of: ReturnType<typeof axes>) => frontOf([INT8, lean, clean], of).front.map(({ name }) => name);
    assert.deepEqual(names(AXES), ["static"]);
    assert.deepEqual(names(axes("memory")), ["static", "lean"]);
    assert.deepEqual(names(axes("latency", { max_memory_bytes: 10 })), ["static", "lean"]);
    assert.deepEqual(names(axes("latency", { min_sqnr_db: 50 })), ["static", "clean"]);
  });

  it("is never empty, and nothing on it is beaten by something on it", () => {
    const number = fc.double({ min: 0.1, max: 4, noNaN: true });
    const models = fc.array(fc.tuple(number, number, fc.double({ min: 0.5, max: 1, noNaN: true })), {
      minLength: 1,
      maxLength: 12,
    });
    fc.assert(
      fc.property(models, (rows) => {
        const all = rows.map(([ratio, speedup, top1], i) => model(`m${i}`, ratio, speedup, top1));
        const { front, beaten } = frontOf(all, AXES);
        assert.ok(front.length >= 1 && front.length + beaten.size === all.length);
        for (const a of front) for (const b of front) assert.ok(a === b || !beats(a.measured, b.measured, AXES));
      }),
    );
  });
});

describe("the recommendation", () => {
  const front = [ORIGINAL, INT8, INT4];
  const chosen = (objective: "latency" | "size" | "metric", change: object = {}) =>
    choose(front, objective, constraints(change));

  it("is the best in the objective: others for other objectives", () => {
    assert.equal(chosen("latency").recommended.name, "static");
    assert.equal(chosen("size").recommended.name, "weights-4-bit");
    assert.equal(chosen("metric").recommended.name, "original");
  });

  it("holds the constraints, and says what the next better costs", () => {
    const { recommended, accepted, why, nextBetter } = chosen("size", { max_metric_drop: 0.015, min_speedup: 1.2 });
    assert.equal(recommended.name, "static");
    assert.ok(accepted);
    assert.match(why, /^static is the smallest of 1 models worth having that hold the constraints: 26 % of the size/);
    assert.equal(nextBetter!.candidate, "weights-4-bit");
    assert.match(nextBetter!.message, /11 % less of the original's size, 1\.05 instead of 2\.40 times as fast/);
  });

  it("costs nothing less, where it is the best: then the next better is the next in quality", () => {
    const { why, nextBetter } = chosen("latency");
    assert.match(why, /^static is the fastest of 3 models worth having: 26 % of the size/);
    assert.match(nextBetter!.message, /^The next better in quality is original: 74 % more of the original's size/);
    assert.match(chosen("size", { min_speedup: 1.2 }).nextBetter!.message, /^The next better in size is weights-4-bit/);
    assert.equal(chosen("metric").nextBetter, null);
  });

  it("says of what is as large that it is", () => {
    const [fast, clean] = [model("fast", 0.26, 2, 0.93), model("clean", 0.2601, 1.5, 0.94)];
    const { nextBetter } = choose([fast, clean], "latency", constraints());
    assert.match(nextBetter!.message, /^The next better in quality is clean: the same size, 1\.50 instead of 2\.00/);
  });

  it("is of two of the same cost the one of better quality, whichever comes first", () => {
    const [good, better] = [model("good", 0.26, 2, 0.93), model("better", 0.2605, 2, 0.94)];
    for (const pair of [
      [good, better],
      [better, good],
    ]) {
      assert.equal(choose(pair, "size", constraints()).recommended.name, "better");
    }
  });

  it("is of those that are as fast the smallest, where it was said what quality will do", () => {
    const [small, large] = [model("small", 0.2, 2, 0.94, 25), model("large", 0.4, 2, 0.95, 40)];
    const same = model("same", 0.201, 2, 0.945, 30);
    const of = (change: object) => choose([large, small, same], "latency", constraints(change)).recommended.name;
    assert.equal(of({}), "large");
    assert.equal(of({ max_metric_drop: 0.02 }), "same", "within 1 % of the smallest the better one");
    assert.equal(of({ min_sqnr_db: 20 }), "same");
    assert.equal(of({ min_sqnr_db: 35 }), "large");
    // Nothing holds that: of the nearest the better one.
    assert.equal(of({ min_speedup: 3, min_sqnr_db: 20 }), "large");
    assert.equal(choose([large, small], "metric", constraints({ max_metric_drop: 0.02 })).recommended.name, "large");
  });

  it("takes the better quality of two that may be as fast, and never gives up more than 3 % for it", () => {
    const timed = (name: string, speedup: number, top1: number, interval: readonly [number, number]) => {
      const { measured } = model(name, 0.3, speedup, top1);
      return { name, measured: { ...measured, latency: { ...measured.latency, speedup_interval: interval } } };
    };
    const fast = timed("fast", 1.5, 0.9, [1.44, 1.56]);
    const recommended = (other: ReturnType<typeof timed>) =>
      choose([fast, other], "latency", constraints()).recommended.name;
    assert.equal(recommended(timed("good", 1.47, 0.94, [1.41, 1.53])), "good");
    assert.equal(recommended(timed("good", 1.47, 0.94, [1.4, 1.43])), "fast");
    assert.equal(recommended(timed("good", 1.43, 0.94, [1.2, 1.6])), "fast");
  });

  it("is the nearest where nothing holds them, and says what it misses", () => {
    const { recommended, accepted, why } = chosen("latency", { max_size_ratio: 0.1 });
    assert.equal(recommended.name, "weights-4-bit");
    assert.ok(!accepted);
    assert.match(why, /No model holds all constraints.*max_size_ratio is 0\.15 instead of 0\.1/);
  });

  it("checks every constraint that is set by what was measured, and nothing else", () => {
    const all = constraints({
      ...{ max_metric_drop: 0.02, min_sqnr_db: 31, max_size_bytes: 250_000, max_size_ratio: 0.3 },
      ...{ min_speedup: 2.4, max_latency_ms: 4, max_memory_bytes: 1 },
    });
    assert.deepEqual(
      checkConstraints(all, INT8.measured).map(({ name, ok }) => [name, ok]),
      [
        ["max_metric_drop", true],
        ["min_sqnr_db", false],
        ["max_size_bytes", false],
        ["max_size_ratio", true],
        ["min_speedup", true],
        ["max_latency_ms", false],
        ["max_memory_bytes", false],
      ],
    );
    assert.deepEqual(checkConstraints(constraints(), INT8.measured), []);
  });
});

describe("the candidates", () => {
  const of = (params: object) =>
    searchesOf({
      ...{ type: "auto", model_id: "mdl_a", params: AutoParams.parse({ dataset_id: "dst_a", ...params }) },
      ...{ evaluation: Evaluation.parse({}), acceptance: {} },
    }).flatMap(candidatesOf);

  it("are made for the target that is asked for, where a method tells targets apart", () => {
    for (const target of TargetName.options) {
      const made = of({ targets: [target] });
      // What a runtime cannot take is not tried.
      const taken = of({}).filter(({ spec: { params } }) => {
        return targetRefusals({ ...params, target } as QuantizeSpec["params"]).length === 0;
      });
      assert.deepEqual(
        made.map(({ name }) => name),
        taken.map(({ name }) => name),
      );
      for (const { spec } of made) {
        if (spec.type !== "quantize") continue;
        const { params } = spec;
        if (params.method === "static" || params.method === "dynamic") assert.equal(params.target, target);
      }
    }
  });

  it("are called by their target, too, where there are several, and are those of each alone", () => {
    const both = of({ targets: ["auto", "web"], methods: ["static"] });
    const alone = (target: string) =>
      of({ targets: [target], methods: ["static"] }).map(({ name, spec }) => ({ name: `${target}-${name}`, spec }));
    assert.deepEqual(
      both.map(({ name, spec }) => ({ name, spec })),
      [...alone("auto"), ...alone("web")],
    );
    assert.equal(new Set(both.map(({ name }) => name)).size, both.length);
  });

  it("are with training also models with the rounding in them, and students as they are and in 8 bits", () => {
    const names = (params: object) => of({ training: true, ...params }).map(({ name }) => name);
    assert.deepEqual(names({ methods: ["distill"] }), [
      ...["student-half", "student-half-int8", "student-quarter", "student-quarter-int8"],
    ]);
    assert.deepEqual(names({ methods: ["qat"] }), ["trained-8-bit", "trained-4-bit", "trained-2-bit"]);
    const all = names({});
    assert.ok(all.indexOf("float16") < all.indexOf("trained-8-bit"));
    assert.ok(all.indexOf("student-quarter-int8") < all.indexOf("static-minmax"));
    for (const { spec } of of({ training: true, targets: ["portable"], seed: 7 })) {
      if (spec.type !== "pipeline") continue;
      const [first, last] = spec.params.steps.map(({ params }) => params) as Record<string, unknown>[];
      assert.deepEqual([first!.seed, last!.seed, last!.target], [7, 7, "portable"]);
    }
  });

  it("are jobs that would be accepted: none has a parameter without effect", () => {
    for (const change of [{}, { max_metric_drop: 0.01, min_sqnr_db: 20 }, { targets: ["x64-vnni"] }]) {
      const { targets, ...limits } = change as { targets?: string[] };
      for (const { name, spec } of of({ constraints: limits, ...(targets && { targets }) })) {
        assert.deepEqual(unreadOf(spec, requestOf(spec).params), [], name);
      }
    }
  });
});
