import { loadModel } from "../../src/core/onnx/load.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import { runPasses } from "../../src/core/passes/pass.ts";
import { simplifyPasses } from "../../src/core/passes/simplify.ts";
import { scalingSites } from "../../src/core/quantize/static/channel-scaling.ts";
import { uniformSource } from "./graphs.ts";

export type { Report } from "../../src/report/report.ts";

/** The same network with the channels between its layers scaled by up to 2^±5, which changes nothing but what 8 bits can do for it. */
export function uneven(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { model } = runPasses(loadModel(bytes), simplifyPasses());
  const uniform = uniformSource(7);
  const sites = scalingSites(model);
  if (sites.length < 3) throw new Error(`The network has ${sites.length} places where channels can be scaled.`);
  for (const site of sites) {
    site.apply(Float64Array.from({ length: site.channels }, () => 2 ** (10 * (uniform() - 0.5))));
  }
  return new Uint8Array(modelToBytes(model));
}
