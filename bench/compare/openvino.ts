/**
 * Static int8 in OpenVINO: the float model, the file that is made for onnxruntime (all in 8 bits, and with what is slower there in float), and
 * the file of `target: "openvino"`, run in turns in one process of OpenVINO on one thread. Prints a table in Markdown.
 *
 *   node bench/compare/openvino.ts PYTHON FOLDER [subjects] [make|time]
 *
 * PYTHON is an interpreter that has openvino and numpy, which are needed here and nowhere else. FOLDER keeps the models: `make` writes them, `time`
 * measures what is there; both unless one is named.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import { compressStatic, type PipelineOptions } from "../../src/core/quantize/static/pipeline.ts";
import { patternFor } from "../../src/core/targets/check-artifact.ts";
import { DEPLOYMENTS } from "../../src/service/kinds/quantize/deployments.ts";
import { writeNpz } from "../../test/support/dataset-writers.ts";
import { openModel } from "../../test/support/open-model.ts";
import { profileTemporary } from "../../workers/model-files.ts";
import { openThreadClock } from "../../workers/thread-clock.ts";
import { SUBJECTS } from "../static-subjects.ts";

const [python, folder, subjectList = "ppocr-rec,ppocr-det,ppocr-cls", phase] = process.argv.slice(2);
if (!python || !folder) throw new Error("node bench/compare/openvino.ts PYTHON FOLDER [subjects] [make|time]");
const SAMPLES = 64;

const OPTIONS: PipelineOptions = {
  samples: SAMPLES,
  method: "mse",
  percentile: 99.999,
  activationDType: "uint8",
  perChannel: true,
  reduceRange: false,
  equalize: "auto",
  smoothQuantAlpha: "auto",
  biasCorrection: true,
};

const PATTERN = patternFor(DEPLOYMENTS.openvino.rules)!;
const FILES: Readonly<Record<string, Partial<PipelineOptions>>> = {
  onnxruntime: { floatWhereSlower: "measured" },
  everywhere: {},
  "openvino, depthwise too": { pattern: PATTERN },
  "openvino, depthwise in float": {
    pattern: { ...PATTERN, floatDepthwise: { below: Number.POSITIVE_INFINITY, reason: "It is to be." } },
  },
  openvino: {
    pattern: { ...PATTERN, floatDepthwise: DEPLOYMENTS.openvino.slower!.depthwise },
  },
};

mkdirSync(folder, { recursive: true });
for (const name of subjectList.split(",")) {
  const path = (tag: string) => join(folder, `${name}.${tag}.onnx`);
  if (phase !== "time") {
    const { model, calibration, heldOut } = await SUBJECTS[name]!(folder);
    writeFileSync(path("float"), modelToBytes(model));
    writeFileSync(join(folder, `${name}.npz`), writeNpz(heldOut[0]!));
    for (const [tag, options] of Object.entries(FILES)) {
      if (existsSync(path(tag))) continue;
      const data = {
        async *batches(count: number) {
          yield* calibration.slice(0, count);
        },
      };
      const runtime = { openModel, profile: profileTemporary, threads: 1, threadClock: openThreadClock() };
      writeFileSync(
        path(tag),
        modelToBytes((await compressStatic(model, data, { ...OPTIONS, ...options }, runtime)).model),
      );
    }
  }
  if (phase === "make") continue;
  const script = fileURLToPath(new URL("time_openvino.py", import.meta.url));
  const tags = ["float", ...Object.keys(FILES)];
  execFileSync(python, [script, join(folder, name), ...tags], { stdio: "inherit" });
}
