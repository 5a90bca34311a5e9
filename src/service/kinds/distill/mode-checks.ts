import { areShares, CoreError, outputMisfit, PEERS, pairOutputs, sharesText } from "../../../core/contract.ts";
import type { ModelRecord } from "../../catalog.ts";
import { type FieldError, pointerOf } from "../../errors.ts";
import { problem } from "../model-checks.ts";
import type { StoredResources } from "../stored-resources.ts";
import { type OnlineParams, offlineView, peersOf } from "./params.ts";
import type { DistillSpec, OfflineSpec } from "./spec.ts";

type CheckOffline = (spec: OfflineSpec, stored: StoredResources) => readonly FieldError[];

const at = (pointer: string, code: FieldError["code"], message: string): FieldError => ({
  pointer: `/params${pointer}`,
  code,
  message,
});

/** `message` at `pointer`, if `wrong`. */
const when = (wrong: boolean, ...[pointer, code, message]: Parameters<typeof at>) =>
  wrong ? [at(pointer, code, message)] : [];

/**
 * What is wrong with a distillation of any mode, as far as recorded facts tell. Models, data and labels are checked as for an offline
 * distillation that reads the same, once for each network that learns; what networks are to learn from each other is checked here.
 */
export function checkMode(spec: DistillSpec, stored: StoredResources, checkOffline: CheckOffline): FieldError[] {
  const { params, evaluation } = spec;
  if (params.mode === "offline") return [...checkOffline({ ...spec, params }, stored)];
  const { datasets } = stored;
  const training = datasets.get(params.dataset_id)!;
  if (!training.facts.has_labels) {
    const message = `Dataset ${training.id} has no labels, and networks that are not taught by a finished teacher learn from labels.`;
    return [at("/dataset_id", "no_labels", message)];
  }
  const own = evaluation.dataset_id === null ? undefined : datasets.get(evaluation.dataset_id);
  const judged = "Networks that are trained on labels are judged and chosen by labels";
  const judgement: FieldError[] = [
    ...(evaluation.metric === "none"
      ? [problem("/evaluation/metric", "no_metric", `${judged}: there must be a metric.`)]
      : []),
    ...(own && !own.facts.has_labels
      ? [problem("/evaluation/dataset_id", "no_labels", `${judged}, and dataset ${own.id} has none.`)]
      : []),
  ];
  if (judgement.length > 0) return judgement;
  const view: OfflineSpec = { ...spec, params: offlineView(params) };
  const problems = [
    ...checkOffline(view, stored).map(ofMode),
    ...(params.mode === "online" ? checkOnline(params, stored) : []),
    ...checkScores(params, stored),
    ...when(
      params.mode === "self" && params.self_kind === "born_again" && params.training.validation_split === 0,
      "/training/validation_split",
      "nothing_held_out",
      "Whether a generation is better than the one before is told by samples that are held out: the split must be above 0.",
    ),
    ...(params.mode === "online" ? checkPeerStudents(view, params, stored, checkOffline) : []),
  ];
  const seen = new Set<string>();
  return problems.filter(({ pointer, code }) => {
    const isNew = !seen.has(`${pointer} ${code}`);
    seen.add(`${pointer} ${code}`);
    return isNew;
  });
}

/** A problem of the offline view, at a field that the mode has: outputs are not paired by hand here. */
function ofMode({ pointer, ...problem }: FieldError): FieldError {
  return { ...problem, pointer: pointer === "/params/loss/outputs" ? "/params/teacher_model_id" : pointer };
}

/** Exits, which have no loss of their own to choose. */
function checkScores(params: Exclude<DistillSpec["params"], { mode: "offline" }>, { models }: StoredResources) {
  const outputs = "model_id" in params.student ? models.get(params.student.model_id)!.facts.outputs : [];
  const shares = outputs.find(areShares);
  if ("output_loss" in params.loss || !shares) return [];
  const message = `Exits learn scores of classes, and ${sharesText(shares.name)}.`;
  return [at("/student/model_id", "shape_mismatch", message)];
}

function checkOnline(params: OnlineParams, { models }: StoredResources): FieldError[] {
  const { teacher_model_id, peers, peer_students, loss, training } = params;
  if (teacher_model_id !== null) {
    const teacher = models.get(teacher_model_id)!;
    const { ok, message } = teacher.facts.trainable;
    const unused = "With a teacher there is one student: leave it out, or leave teacher_model_id out for peers.";
    return [
      ...when(
        !ok,
        "/teacher_model_id",
        "not_trainable",
        `${message ?? "The model cannot be trained."} A teacher that stays as it is teaches in mode offline.`,
      ),
      ...when(peers !== null, "/peers", "unused_field", unused),
      ...when(peer_students.length > 0, "/peer_students", "unused_field", unused),
    ];
  }
  return [
    ...when(
      loss.teacher_kl_weight > 0,
      "/loss/teacher_kl_weight",
      "unused_field",
      "There is no teacher: what peers learn from each other is weighed by kl_weight.",
    ),
    ...when(
      peers !== null && peers < 1 + peer_students.length,
      "/peers",
      "too_few_peers",
      `The student and ${peer_students.length} peer_students are more than ${peers} peers.`,
    ),
    ...when(
      training.validation_split === 0,
      "/training/validation_split",
      "nothing_held_out",
      "Which peer is the best is told by samples that are held out: the split must be above 0.",
    ),
    ...checkStarts(params),
    ...checkOutputs(params, models),
  ];
}

/** Peers that start from the same weights learn the same. */
function checkStarts(params: OnlineParams): FieldError[] {
  const kept = new Set<string>();
  return peersOf(params).flatMap(({ student, reinitialize }, i) => {
    if (reinitialize || !("model_id" in student)) return [];
    const isSecond = kept.has(student.model_id);
    kept.add(student.model_id);
    return when(
      isSecond,
      `/peer_students/${i - 1}`,
      "same_start",
      `Two peers start from the weights of ${student.model_id} and would learn the same: set init to reinitialize for one of them.`,
    );
  });
}

function checkOutputs({ student, peer_students, loss }: OnlineParams, models: StoredResources["models"]): FieldError[] {
  const first = "model_id" in student ? models.get(student.model_id) : undefined;
  if (!first) return [];
  return peer_students.flatMap(({ model_id }, i) => {
    const pointer = `/peer_students/${i}/model_id`;
    const other = models.get(model_id)!;
    try {
      return misfitsOf(first, other, loss.output_loss).map((message) => at(pointer, "shape_mismatch", message));
    } catch (error) {
      if (!(error instanceof CoreError)) throw error;
      return [at(pointer, "output_mismatch", error.message)];
    }
  });
}

/** Why outputs of two peers do not mean the same. Throws `CoreError` where they cannot be paired. */
function misfitsOf(first: ModelRecord, other: ModelRecord, loss: OnlineParams["loss"]["output_loss"]): string[] {
  const [theirs, ours] = [first.facts.outputs, other.facts.outputs];
  return pairOutputs(theirs, ours, undefined, PEERS).flatMap((pair) => {
    const a = theirs.find(({ name }) => name === pair.teacher)!;
    const b = ours.find(({ name }) => name === pair.student)!;
    const misfit = outputMisfit(loss, a, b, PEERS);
    return misfit === undefined || misfit === "unknown" ? [] : [misfit.message];
  });
}

/** Each peer of another file as a student of its own. */
function checkPeerStudents(
  view: OfflineSpec,
  { peer_students, teacher_model_id }: OnlineParams,
  stored: StoredResources,
  checkOffline: CheckOffline,
): FieldError[] {
  if (teacher_model_id !== null) return [];
  return peer_students.flatMap((student, i) =>
    checkOffline({ ...view, params: { ...view.params, student } }, stored).map((field) => ({
      ...field,
      pointer: field.pointer.replace(/^\/params\/student/, pointerOf("/params/peer_students", [i])),
    })),
  );
}
