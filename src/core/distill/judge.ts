/** The final numbers of a distillation: one metric, of every network, over the same samples. */
import { CoreError, checkCancelled } from "../errors.ts";
import { meanMeter, type Share } from "../meter.ts";
import { classRows } from "../onnx/class-axis.ts";
import type { Model } from "../onnx/ir.ts";
import { floatsOf, type Tensor, tensorOf, withoutUnitAxes } from "../onnx/tensor.ts";
import type { OpenSession } from "../runtime/session.ts";
import type { Samples } from "../train/samples.ts";
import type { TrainableModel, TrainedValues } from "../train/trainable.ts";
import { createValidator, type ValidationMeter, type ValidationMetric } from "../train/validate.ts";
import type { ComparedOutputs, OutputReading } from "./compared-outputs.ts";
import { outputTarget } from "./objective.ts";
import type { OutputPair } from "./output-pairs.ts";
import { openTeacher, type Teacher } from "./teacher.ts";

type Named = Readonly<Record<string, Tensor>>;

export interface Judge {
  /** Undefined: nothing was held out, and nothing can be judged. */
  readonly samples: Samples | undefined;
  readonly metric: ValidationMetric;
  readonly batchSize: number;
  readonly threads: number;
  readonly openSession: OpenSession;
  readonly signal?: AbortSignal | undefined;
  /** Computes the targets that the metric reads, if it reads any. */
  readonly teacher: Teacher | null;
}

/** The metric of a network with these values; null without samples. */
export async function judgeNetwork(
  judge: Judge,
  network: TrainableModel,
  values: TrainedValues = network,
): Promise<number | null> {
  return (await measureNetwork(judge, network, values))?.value ?? null;
}

/** The same with all that the metric's meter can do. */
export async function measureNetwork(
  { samples, metric, teacher, signal, batchSize, threads, openSession }: Judge,
  network: TrainableModel,
  values: TrainedValues,
): Promise<ValidationMeter | null> {
  if (!samples) return null;
  const moreTargets = teacher ? (feeds: Named) => teacher.run(feeds) : undefined;
  const validator = await createValidator(network, { metric, batchSize, threads, openSession, moreTargets });
  try {
    return await validator.measure(values, samples, signal);
  } finally {
    await validator.close();
  }
}

/** The same metric of a model that need not be trainable, whose outputs stand in for the student's. */
export async function judgeTeacher(judge: Judge, model: Model, pairs: readonly OutputPair[]): Promise<number | null> {
  const { samples, metric, teacher, threads, openSession, signal, batchSize } = judge;
  if (!samples) return null;
  const plain = pairs.map((pair) => ({ value: pair.teacher, target: pair.student }));
  const session = await openTeacher(model, plain, { openSession, threads });
  try {
    const meter = metric.start();
    for (let start = 0; start < samples.count; start += batchSize) {
      checkCancelled(signal);
      const rows = Math.min(batchSize, samples.count - start);
      const { feeds, targets } = samples.gather(Uint32Array.from({ length: rows }, (_, i) => start + i));
      const more = metric.readsComputedTargets && teacher ? await teacher.run(feeds) : {};
      meter.add(await session.run(feeds), { ...targets, ...more });
    }
    return meter.value;
  } finally {
    await session.close();
  }
}

/**
 * The metric of the mean of several models' answers, given to it as `output`: of their probabilities where they are class scores, else of
 * the outputs themselves. Null without samples.
 */
export async function judgeEnsemble(
  { samples, metric, threads, openSession, signal, batchSize }: Judge,
  members: readonly { readonly model: Model; readonly output: string }[],
  { output, reading }: { readonly output: string; readonly reading: OutputReading },
): Promise<number | null> {
  if (!samples) return null;
  const opened: Teacher[] = [];
  // The mean of shares is that of the shares themselves.
  const isScores = reading.kind === "scores";
  try {
    for (const { model, output: value } of members) {
      opened.push(
        await openTeacher(model, [{ value, target: output, ...(isScores && { reading }) }], { openSession, threads }),
      );
    }
    const meter = metric.start();
    for (let start = 0; start < samples.count; start += batchSize) {
      checkCancelled(signal);
      const rows = Math.min(batchSize, samples.count - start);
      const { feeds, targets } = samples.gather(Uint32Array.from({ length: rows }, (_, i) => start + i));
      const answers: Tensor[] = [];
      for (const member of opened) answers.push((await member.run(feeds))[output]!);
      meter.add({ [output]: meanOf(answers, isScores) }, targets);
    }
    return meter.value;
  } finally {
    for (const member of opened) await member.close();
  }
}

/** The mean of tensors of one shape; of the softmax over their last axis that is not of one, where they are class scores. */
function meanOf(answers: readonly Tensor[], scores: boolean): Tensor {
  const { dims } = answers[0]!;
  const width = withoutUnitAxes(dims).at(-1)!;
  const mean = new Float32Array(floatsOf(answers[0]!).length);
  for (const answer of answers) {
    const values = scores ? softmaxOf(floatsOf(answer), width) : floatsOf(answer);
    for (const [i, value] of values.entries()) mean[i]! += value / answers.length;
  }
  return tensorOf("float32", dims, mean);
}

function softmaxOf(logits: Float32Array, width: number): Float32Array {
  const result = new Float32Array(logits.length);
  for (let start = 0; start < logits.length; start += width) {
    const row = logits.subarray(start, start + width);
    const top = row.reduce((a, b) => Math.max(a, b));
    let sum = 0;
    for (let i = 0; i < width; i++) sum += result[start + i] = Math.exp(row[i]! - top);
    for (let i = 0; i < width; i++) result[start + i]! /= sum;
  }
  return result;
}

/**
 * How well a student follows its teacher where nothing else is known: the part of rows with the same largest score, the part of shares on the
 * same side of a half, or the mean squared error of other outputs.
 */
export function agreementWith(pair: ComparedOutputs): ValidationMetric {
  const { reading } = pair;
  const values = (outputs: Named, targets: Named) => {
    const student = outputs[pair.student]!;
    const teacher = targets[outputTarget(pair.teacher)]!;
    const axis = reading.kind === "scores" ? reading.classAxis : null;
    const dims = axis === null ? student.dims : [...student.dims.toSpliced(axis, 1), student.dims.at(axis)!];
    const [ours, theirs] = [withoutUnitAxes(dims), withoutUnitAxes(teacher.dims)];
    if (`${ours}` !== `${theirs}`) {
      throw new CoreError(
        "invalid_params",
        `The student cannot be judged by its teacher: its output "${pair.student}" is [${student.dims}] and the teacher's "${pair.teacher}" [${teacher.dims}].`,
        pair.student,
      );
    }
    return { s: classRows(floatsOf(student), student.dims, axis), t: floatsOf(teacher), width: ours.at(-1)! };
  };
  if (reading.kind !== "values") {
    const agreements = reading.kind === "scores" ? sameLargest : sameSide;
    return {
      name: "teacher_agreement",
      better: "higher",
      readsComputedTargets: true,
      start: () =>
        meanMeter((outputs, targets) => {
          const { s, t, width } = values(outputs, targets);
          return agreements(s, t, width);
        }),
    };
  }
  return {
    name: "teacher_mse",
    better: "lower",
    readsComputedTargets: true,
    start: () =>
      meanMeter((outputs, targets) => {
        const { s, t } = values(outputs, targets);
        return { sum: s.reduce((sum, x, i) => sum + (x - t[i]!) ** 2, 0), positions: s.length };
      }),
  };
}

/** Rows of scores with the same largest. */
function sameLargest(student: Float32Array, teacher: Float32Array, width: number): Share {
  let sum = 0;
  for (let start = 0; start < student.length; start += width)
    if (largest(student, start, width) === largest(teacher, start, width)) sum++;
  return { sum, positions: student.length / width };
}

/** Shares of the student above a half where the teacher's log-odds are above 0, and the other way round. */
function sameSide(shares: Float32Array, logOdds: Float32Array): Share {
  let sum = 0;
  for (let i = 0; i < shares.length; i++) if (shares[i]! > 0.5 === logOdds[i]! > 0) sum++;
  return { sum, positions: shares.length };
}

function largest(values: Float32Array, start: number, width: number): number {
  let best = 0;
  for (let i = 1; i < width; i++) if (values[start + i]! > values[start + best]!) best = i;
  return best;
}
