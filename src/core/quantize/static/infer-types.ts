import { CoreError } from "../../errors.ts";
import type { Model, Value } from "../../onnx/ir.ts";
import { inferDTypes } from "../../passes/value-dtypes.ts";
import type { Session } from "../../runtime/session.ts";
import { exposeValues, type Feeds, type OpenModel } from "../calibration/calibrate.ts";
import { withoutWeights } from "../calibration/inferred-dims.ts";

/** Gives the values of the main graph the dtype and shape that onnxruntime infers, or else the dtype and rank that they have on `sample`. */
export async function inferTypes(
  model: Model,
  sample: Feeds,
  openModel: OpenModel,
  signal?: AbortSignal,
): Promise<void> {
  const unknown = model.graph.nodes.flatMap(({ outputs }) =>
    outputs.filter(({ name, shape, constant }) => name !== "" && !shape && !constant),
  );
  if (unknown.length === 0) return;
  const exposed = exposeValues(
    model,
    unknown.map(({ name }) => name),
  );
  const types = inferDTypes(model);
  const facts = new Map((await factsOf(exposed.model, openModel)).map((fact) => [fact.name, fact]));
  const left = new Map<string, Value>();
  for (const value of unknown) {
    const output = exposed.outputs.get(value.name);
    if (output === undefined) {
      value.dtype ??= types.get(value);
      continue;
    }
    const fact = facts.get(output);
    // onnxruntime's binding tells an unknown rank and a scalar in the same way.
    if (fact?.dtype && fact.shape && fact.shape.length > 0) value.retype(fact.dtype, fact.shape);
    else if (fact?.dtype && fact.dtype !== "string") left.set(output, value);
  }
  if (left.size === 0) return;
  const session = await openModel(exposed.model, { optimization: "disabled" });
  try {
    const results = await session.run(sample, [...left.keys()], signal);
    for (const [output, value] of left) {
      const { dtype, dims } = results[output]!;
      value.retype(
        dtype,
        dims.map(() => null),
      );
    }
  } finally {
    await session.close();
  }
}

/** What onnxruntime knows of the outputs of a model before it runs. */
async function factsOf(model: Model, openModel: OpenModel): Promise<Session["outputs"]> {
  const open = async (candidate: Model) => {
    const session = await openModel(candidate, { optimization: "disabled" });
    await session.close();
    return session.outputs;
  };
  try {
    return await open(withoutWeights(model.clone()));
  } catch (error) {
    // A kernel may insist on weights that are constant.
    if (error instanceof CoreError && error.code === "invalid_model") return await open(model);
    throw error;
  }
}
