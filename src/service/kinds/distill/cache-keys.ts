import { canonicalJson, sha256Of } from "../../identity.ts";
import { VERSIONS } from "../../versions.ts";
import type { MeasuredHost } from "../quantize/kernels-file.ts";
import type { DistillParams } from "./params.ts";

/** The name of what a frozen teacher says of all samples. */
export const TEACHER_OUTPUTS = "teacher_outputs";

/**
 * What a teacher says serves every student and every training on the same samples, as far as they read the same values in the same form: a run looks at
 * that itself. Augmented samples are others in every epoch. The batch and the kind of machine count because results differ by them in their last bits.
 */
export function teacherKeys(params: DistillParams, { cpu, isa }: MeasuredHost): Readonly<Record<string, string>> {
  if (params.mode !== "offline" || params.teacher_model_id === null || params.training.augmentation !== null) return {};
  const { teacher_model_id, dataset_id, loss, training } = params;
  const { batch_size } = training;
  const scores = loss.output_loss === null ? "by meaning" : loss.output_loss === "kl" || loss.output_loss === "dkd";
  const decisive = { teacher_model_id, dataset_id, scores, batch_size, cpu, isa, versions: VERSIONS };
  return { [TEACHER_OUTPUTS]: sha256Of(canonicalJson(decisive)) };
}
