import { METRICS } from "../../src/core/evaluate/metrics.ts";
import { fedBy } from "../../src/core/meter.ts";
import type { Tensor } from "../../src/core/onnx/tensor.ts";
import type { ValidationMetric } from "../../src/core/train/validate.ts";

/** Share of the samples whose label, in the target `labels`, has the largest score of this output. */
export function top1Of(output: string): ValidationMetric {
  return {
    name: "top1",
    better: "higher",
    start: () => fedBy(METRICS.top1.start(null), (outputs, targets) => [outputs[output]!, targets.labels!]),
  };
}

/** The same of one batch. */
export function top1(output: Tensor, labels: Tensor): number {
  const meter = METRICS.top1.start(null);
  meter.add(output, labels);
  return meter.value;
}
