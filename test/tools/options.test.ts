import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { completionScript, completionsOf } from "../../tools/completion.ts";
import { generalHelp, helpOf } from "../../tools/help.ts";
import {
  COMMAND_KINDS,
  fillIn,
  type Kind,
  optionsOf,
  positionalsOf,
  readWords,
  selectorOf,
  specOf,
  UsageError,
} from "../../tools/options.ts";

/** What a request must have besides its defaults. */
const NEEDED: Readonly<Record<string, readonly string[]>> = {
  auto: ["--dataset", "d.npz"],
  static: ["--dataset", "d.npz"],
  qat: ["--dataset", "d.npz"],
  offline: ["--dataset", "d.npz", "--student.model", "s.onnx"],
  online: ["--dataset", "d.npz", "--student.model", "s.onnx"],
  self: ["--dataset", "d.npz", "--student.model", "s.onnx", "--self-kind", "born_again"],
};

const METHODS = COMMAND_KINDS.flatMap((kind) => kind.methods.map(({ method }) => ({ kind, method })));

function parse(kind: Kind, method: string, words: readonly string[]) {
  const options = optionsOf(kind, method);
  const selector = selectorOf(kind);
  const { values, positionals } = readWords([...words, ...(NEEDED[method] ?? [])], options, {}, "--help");
  const request: Record<string, unknown> = { type: kind.type, params: selector ? { [selector.flag]: method } : {} };
  if (positionalsOf(kind) === "one") request.model_id = positionals[0] ?? "m.onnx";
  if (positionalsOf(kind) === "some") (request.params as Record<string, unknown>).model_ids = ["m.onnx", "n.onnx"];
  fillIn(request, options, values);
  return specOf(kind, request);
}

const kindOf = (type: string) => COMMAND_KINDS.find((kind) => kind.type === type)!;

describe("options of the command line", () => {
  for (const { kind, method } of METHODS) {
    test(`${kind.type} ${method}: every option is one of its own, and its default given is its default`, () => {
      const options = optionsOf(kind, method).filter(({ flag }) => flag !== selectorOf(kind)?.flag);
      assert.equal(new Set(options.map(({ flag }) => flag)).size, options.length);
      const plain = parse(kind, method, []);
      for (const { flag, default: value, types, many, path } of options) {
        if (value === undefined || value === null || typeof value === "object" || many) continue;
        // Of a union that another form is chosen from; and of objects that are not there unless something is said of them.
        if (NEEDED[method]?.includes(`--${flag}`) || path.includes("derive") || path.includes("augmentation")) continue;
        if (method === "qat" && path.includes("loss")) continue;
        const words =
          types.size === 1 && types.has("boolean") ? [value ? `--${flag}` : `--no-${flag}`] : [`--${flag}`, `${value}`];
        let same: unknown;
        try {
          same = parse(kind, method, words);
        } catch (error) {
          // Of another kind of self distillation: refused by its name.
          assert.ok(error instanceof UsageError && method === "self", `--${flag}: ${error}`);
          continue;
        }
        assert.deepEqual(same, plain, `--${flag} ${value}`);
      }
    });
  }

  test("values reach their fields as the types that they have", () => {
    const spec = parse(kindOf("quantize"), "static", [
      ...["--percentile", "99.5", "--no-per-channel", "--equalize", "false", "--exclude-nodes", "a,b"],
      ...["--exclude-nodes", "c", "--evaluation.dims", "w=320", "--evaluation.latency.runs", "7"],
      ...["--acceptance.min-sqnr-db", "-3.5", "--smooth-quant-alpha", "null", "--evaluation.dataset", "e.npz"],
    ]);
    assert.equal(spec.type, "quantize");
    const { params, evaluation, acceptance } = spec as unknown as Record<string, Record<string, unknown>>;
    const { percentile, per_channel, equalize, exclude_nodes, smooth_quant_alpha } = params!;
    assert.deepEqual(
      { percentile, per_channel, equalize, exclude_nodes, smooth_quant_alpha },
      { percentile: 99.5, per_channel: false, equalize: false, exclude_nodes: ["a,b", "c"], smooth_quant_alpha: null },
    );
    assert.deepEqual([evaluation!.dims, evaluation!.dataset_id], [{ w: 320 }, "e.npz"]);
    assert.equal((evaluation!.latency as { runs: number }).runs, 7);
    assert.deepEqual(acceptance, { min_sqnr_db: -3.5 });
  });

  test("lists of numbers, numbers or lists, and objects as JSON", () => {
    const sizes = parse(kindOf("evaluate"), "evaluate", ["--batch-sizes", "1", "--batch-sizes", "8", "--threads", "2"]);
    assert.deepEqual((sizes.params as { batch_sizes: number[]; threads: number[] }).batch_sizes, [1, 8]);
    const hint = { teacher: "t", student: "s", kind: "mse", weight: 1 };
    const distill = parse(kindOf("distill"), "offline", ["--loss.hints", JSON.stringify([hint])]);
    assert.deepEqual((distill.params as { loss: { hints: unknown } }).loss.hints, [hint]);
    const derived = () => parse(kindOf("distill"), "offline", ["--student.derive.width", "0.5"]);
    assert.throws(derived, UsageError, "a student that is both uploaded and derived");
  });

  test("what is wrong is said of the flag", () => {
    const fails = (words: readonly string[], message: RegExp, method = "weight_only") =>
      assert.throws(() => parse(kindOf("quantize"), method, words), { name: "UsageError", message });
    fails(["--bits", "3"], /^--bits: must be 2, 4 or 8$/);
    fails(["--bitz", "4"], /--bitz is no option here/);
    fails(["--percentile", "99"], /--percentile is no option here/);
    fails(["--percentile", "high"], /^--percentile: .*number/, "static");
    const bare = { type: "quantize", model_id: "m.onnx", params: { method: "static" } };
    assert.throws(() => specOf(kindOf("quantize"), bare), { name: "UsageError", message: "--dataset: is required" });
    fails(["--evaluation.dims", "320"], /name=value/);
    const trained = () => parse(kindOf("auto"), "auto", ["--training", "--methods", "static"]);
    assert.throws(trained, { name: "UsageError", message: /^--training: has no effect where methods leave out qat/ });
    assert.throws(() => optionsOf(kindOf("quantize"), "squeeze"), /squeeze.*none of simplify/);
  });

  test("help says every option and how a command ends", () => {
    assert.match(generalHelp(), /2 done but a limit .* was missed, 130 interrupted/);
    for (const { kind, method } of METHODS) {
      const text = helpOf(kind, method);
      for (const { flag } of optionsOf(kind, method)) {
        if (flag !== selectorOf(kind)?.flag) assert.ok(text.includes(`--${flag}`), `${kind.type} ${method}: ${flag}`);
      }
      assert.ok(text.split("\n").every((line) => line.length <= 200));
    }
  });

  test("words are completed: commands, methods, flags, choices", () => {
    assert.deepEqual(completionsOf(["qu"]), ["quantize"]);
    assert.deepEqual(completionsOf(["plan", "dis"]), ["distill"]);
    assert.deepEqual(completionsOf(["quantize", "m.onnx", "--method", "s"]), ["simplify", "static"]);
    assert.deepEqual(completionsOf(["quantize", "m.onnx", "--method", "weight_only", "--bits", ""]), ["2", "4", "8"]);
    assert.ok(completionsOf(["quantize", "--method", "static", "--acc"]).includes("--acceptance.min-sqnr-db"));
    assert.deepEqual(completionsOf(["quantize", "m"]), [], "a file: the shell's own");
    assert.match(completionScript("bash")!, /complete -o default -F _modelpress modelpress/);
    assert.equal(completionScript("tcsh"), undefined);
  });
});
