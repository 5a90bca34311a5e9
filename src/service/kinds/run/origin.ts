import { type Model, toldBefore } from "../../../core/index.ts";
import type { JobInputs } from "../../../tasks/protocol.ts";
import { canonicalJson, sha256Of } from "../../identity.ts";
import { sourceModelId } from "../kinds.ts";
import { type SingleSpec, stepKindOf } from "../pipeline/steps.ts";
import { referencesIn } from "../resources.ts";
import type { JobEnvironment } from "./job-environment.ts";

/**
 * Makes a model say where it comes from: what made it, by which method with which parameters, of which file. Nothing of it differs between two
 * runs of a job, on any machine. Answers the model.
 */
export async function withOrigin(
  model: Model,
  { spec, models }: JobInputs<SingleSpec>,
  { files, host }: JobEnvironment,
): Promise<Model> {
  const version = host.versions.modelpress ?? "";
  const source = models[sourceModelId(spec)]!;
  const exporter = toldBefore(model.source, "source_producer") ?? source.facts.producer;
  model.origin = {
    producerName: "modelpress",
    producerVersion: version,
    metadata: {
      method: stepKindOf(spec).origin(spec),
      params_sha256: paramsSha256(spec),
      source_sha256: source.sha256 ?? (await files.sha256Of(source.files)),
      ...(exporter !== "" && { source_producer: exporter }),
    },
  };
  return model;
}

/**
 * Of the parameters with every default filled in, as JSON with sorted keys. The ids of models and datasets are left out: they differ from service to
 * service, and say nothing about bytes.
 */
function paramsSha256(spec: SingleSpec): string {
  const copy = structuredClone(spec);
  for (const { path } of referencesIn(copy)) {
    let at = copy as unknown as Record<string, unknown>;
    for (const key of path.slice(0, -1)) at = at[key] as Record<string, unknown>;
    at[path.at(-1)!] = "";
  }
  return sha256Of(canonicalJson(copy.params));
}
