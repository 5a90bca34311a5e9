/**
 * The frozen side of a distillation: any model that onnxruntime runs. It need not be differentiable and may be quantized; only its outputs,
 * and the inner values that hints name, are read.
 */
import { CoreError, checkCancelled } from "../errors.ts";
import { classCount, classRows } from "../onnx/class-axis.ts";
import type { Model, Value } from "../onnx/ir.ts";
import { modelToBytes } from "../onnx/save.ts";
import { elementCount, floatsOf, type Tensor, tensor, tensorOf } from "../onnx/tensor.ts";
import type { OpenSession } from "../runtime/session.ts";
import { type Checkpoint, decodeCheckpoint, encodeCheckpoint } from "../train/checkpoint.ts";
import { logitsOf, SHARE_MARGIN, sigmoidInput } from "../train/losses.ts";
import { gatherRows, type Samples } from "../train/samples.ts";
import type { OutputReading } from "./compared-outputs.ts";

type Named = Readonly<Record<string, Tensor>>;

/** What is read from the teacher, and the name it gets among the targets. */
export interface TeacherValue {
  /** An output or an inner value of the teacher. */
  readonly value: string;
  readonly target: string;
  /**
   * What is read of it; the value as it is unless said. Class scores are read before a final Softmax, or as log-probabilities where they come as
   * probabilities all the same, with their classes along the last axis; log-odds before a final Sigmoid, or computed from the shares.
   */
  readonly reading?: OutputReading;
}

type Readings = Readonly<Record<string, OutputReading>>;

export interface Teacher {
  /** The values for one batch, as float32, by target. */
  run(feeds: Named): Promise<Named>;
  /** What is read of each value, by target. */
  readonly readings: Readings;
  close(): Promise<void>;
}

/** Throws `invalid_params` for a value that the teacher does not have. */
export async function openTeacher(
  source: Model,
  values: readonly TeacherValue[],
  options: { readonly openSession: OpenSession; readonly threads: number },
): Promise<Teacher> {
  const model = source.clone();
  const byName = new Map<string, Value>();
  for (const value of model.graph.outputs) byName.set(value.name, value);
  for (const node of model.graph.nodes) for (const value of node.outputs) byName.set(value.name, value);
  const read = values.map(({ value: name, reading }) => {
    const value = byName.get(name);
    if (!value) throw new CoreError("invalid_params", `The teacher has no value "${name}".`, name);
    if (reading?.kind === "scores") return logitsOf(value, reading.classAxis);
    return (reading?.kind === "log_odds" && sigmoidInput(value)) || value;
  });
  for (const value of [...model.graph.outputs]) if (!read.includes(value)) model.graph.removeOutput(value);
  for (const value of read) {
    if (value.isGraphOutput) continue;
    value.retype(undefined, undefined);
    model.graph.addOutput(value);
  }
  const session = await options.openSession({ bytes: modelToBytes(model) }, { threads: options.threads });
  const fixed = session.inputs.map(({ shape }) => shape?.[0]).find((dim) => typeof dim === "number");
  return {
    readings: Object.fromEntries(values.map(({ target, reading = { kind: "values" } }) => [target, reading])),
    async run(feeds) {
      const results = await runInParts(feeds, fixed, (part) => session.run(part));
      return Object.fromEntries(
        values.map(({ value, target, reading }, i) => {
          const { name } = read[i]!;
          const result = results[name]!;
          if (reading?.kind === "scores") return [target, logScores(result, reading.classAxis)];
          const numbers = float32Of(result);
          const areShares = reading?.kind === "log_odds" && name === value;
          return [target, tensorOf("float32", result.dims, areShares ? numbers.map(logOdds) : numbers)];
        }),
      );
    },
    close: () => session.close(),
  };
}

/** A teacher that takes a fixed number of samples gets them in parts; the last one is filled up with copies of its first sample. */
async function runInParts(
  feeds: Named,
  size: number | undefined,
  run: (part: Named) => Promise<Named>,
): Promise<Named> {
  const count = Object.values(feeds)[0]!.dims[0]!;
  if (size === undefined || size === count) return run(feeds);
  const parts: Named[] = [];
  for (let start = 0; start < count; start += size) {
    const indices = Array.from({ length: size }, (_, i) => (start + i < count ? start + i : start));
    const part = await run(mapTensors(feeds, (value) => gatherRows(value, indices)));
    const kept = Math.min(size, count - start);
    parts.push(
      mapTensors(part, (value) =>
        gatherRows(
          value,
          Array.from({ length: kept }, (_, i) => i),
        ),
      ),
    );
  }
  return mapTensors(parts[0]!, (_, name) => stack(parts.map((part) => part[name]!)));
}

function mapTensors(tensors: Named, map: (value: Tensor, name: string) => Tensor): Named {
  return Object.fromEntries(Object.entries(tensors).map(([name, value]) => [name, map(value, name)]));
}

function stack(parts: readonly Tensor[]): Tensor {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part.bytes, at);
    at += part.byteLength;
  }
  const rows = parts.reduce((sum, { dims }) => sum + dims[0]!, 0);
  return tensor(parts[0]!.dtype, [rows, ...parts[0]!.dims.slice(1)], bytes);
}

function float32Of(value: Tensor): Float32Array<ArrayBuffer> {
  return new Float32Array(floatsOf(value));
}

/**
 * Scores with their classes along the last axis. Those that are probabilities (a quantized model's Softmax, for instance) become their logarithms; a
 * softmax gives them back.
 */
function logScores(value: Tensor, axis: number | null): Tensor {
  const given = value.dims;
  const scores = classRows(float32Of(value), given, axis);
  const dims = axis === null ? given : [...given.toSpliced(axis, 1), given.at(axis)!];
  const width = classCount(given, axis);
  for (let start = 0; start < scores.length; start += width) {
    let sum = 0;
    for (let i = start; i < start + width; i++) sum += scores[i]! < 0 ? Number.NaN : scores[i]!;
    if (!(Math.abs(sum - 1) < 0.02)) return tensorOf("float32", dims, scores);
  }
  return tensorOf(
    "float32",
    dims,
    scores.map((p) => Math.log(Math.max(p, 1e-7))),
  );
}

/** Of a share, held off 0 and 1. */
function logOdds(share: number): number {
  const held = Math.min(Math.max(share, SHARE_MARGIN), 1 - SHARE_MARGIN);
  return Math.log(held / (1 - held));
}

export interface CacheOptions {
  readonly batchSize: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((fraction: number) => void) | undefined;
}

/** Runs the teacher once over all samples; answers its values stacked, [count, ...] each. Deterministic, so it can be kept as a blob. */
export async function teacherOutputs(teacher: Teacher, samples: Samples, options: CacheOptions): Promise<Named> {
  const kept: Record<string, { dims: readonly number[]; data: Float32Array<ArrayBuffer> }> = {};
  for (let start = 0; start < samples.count; start += options.batchSize) {
    checkCancelled(options.signal);
    const rows = Math.min(options.batchSize, samples.count - start);
    const { feeds } = samples.gather(Uint32Array.from({ length: rows }, (_, i) => start + i));
    for (const [target, value] of Object.entries(await teacher.run(feeds))) {
      const shape = value.dims.slice(1);
      kept[target] ??= { dims: [samples.count, ...shape], data: new Float32Array(samples.count * elementCount(shape)) };
      kept[target].data.set(floatsOf(value), start * elementCount(shape));
    }
    options.onProgress?.((start + rows) / samples.count);
  }
  return Object.fromEntries(
    Object.entries(kept).map(([name, { dims, data }]) => [name, tensorOf("float32", dims, data)]),
  );
}

/** What an earlier run has kept of the same teacher over the same samples, and where this one's goes when there is nothing that serves. */
export interface KeptOutputs {
  readonly known: Uint8Array | undefined;
  readonly keep: (bytes: Uint8Array) => Promise<void>;
}

/** What a file says of each of its arrays. */
type KeptState = Readonly<Record<string, { readonly dims: readonly number[]; readonly reading: OutputReading }>>;

/** Outputs as `decodeCheckpoint` reads them, with a `KeptState`. */
function outputsToBytes(outputs: Named, readings: Readings): Uint8Array {
  return encodeCheckpoint({
    state: Object.fromEntries(
      Object.entries(outputs).map(([name, { dims }]) => [name, { dims, reading: readings[name]! }]),
    ),
    arrays: Object.fromEntries(Object.entries(outputs).map(([name, value]) => [name, float32Of(value)])),
  });
}

/**
 * What was kept, where it has the values and samples that are wanted, read as they are wanted: `one` is what the teacher says of one sample.
 * Undefined where it does not serve.
 */
function readKept(bytes: Uint8Array, one: Named, readings: Readings, count: number): Named | undefined {
  let kept: Checkpoint;
  try {
    kept = decodeCheckpoint(bytes);
  } catch (error) {
    // Damaged: the teacher is only asked again.
    if (error instanceof CoreError) return undefined;
    throw error;
  }
  const state = kept.state as KeptState;
  const fits = Object.entries(one).every(([name, value]) => {
    const dims = [count, ...value.dims.slice(1)];
    // Of one teacher a student's outputs may want the logits and another's the shares.
    const isWanted = JSON.stringify(state[name]) === JSON.stringify({ dims, reading: readings[name] });
    return isWanted && kept.arrays[name]?.length === elementCount(dims);
  });
  return fits ? mapTensors(one, (_, name) => tensorOf("float32", state[name]!.dims, kept.arrays[name]!)) : undefined;
}

/** Samples with the teacher's values among their targets, or with a way to compute these for each batch. */
export interface TaughtSamples {
  readonly samples: Samples;
  readonly moreTargets?: ((feeds: Named) => Promise<Named>) | undefined;
}

const MAX_CACHE_BYTES = 2 ** 30;
/** What is handed to other runs is copied twice on its way; the states that hints read would be worth less than they take. */
const MAX_KEPT_BYTES = 2 ** 26;

/**
 * Lets a teacher run over all samples, once, when it is first asked to, and keeps what it says; it runs on each batch instead where
 * augmentation changes what it sees or its outputs take more than `maxCacheBytes`. Without a teacher the samples are what they were.
 */
export function teachSamples(
  teacher: Teacher | null,
  samples: Samples,
  options: {
    readonly settings: { readonly batchSize: number; readonly augmentation: unknown };
    readonly maxCacheBytes?: number | undefined;
    readonly kept?: KeptOutputs | undefined;
    readonly signal?: AbortSignal | undefined;
  },
): (progress?: (fraction: number, message: string) => void) => Promise<TaughtSamples> {
  const { settings, signal, kept, maxCacheBytes = MAX_CACHE_BYTES } = options;
  const teach = async (progress?: (fraction: number, message: string) => void): Promise<TaughtSamples> => {
    if (!teacher) return { samples };
    const one = await teacher.run(samples.gather([0]).feeds);
    const bytes = samples.count * Object.values(one).reduce((sum, { dims }) => sum + 4 * elementCount(dims), 0);
    if (bytes === 0) return { samples };
    if (settings.augmentation || bytes > maxCacheBytes) {
      return { samples, moreTargets: (feeds) => teacher.run(feeds) };
    }
    const onProgress = (fraction: number) =>
      progress?.(
        fraction,
        `the teacher's outputs, ${Math.round(fraction * samples.count)} of ${samples.count} samples`,
      );
    const known = kept?.known && readKept(kept.known, one, teacher.readings, samples.count);
    const outputs =
      known ?? (await teacherOutputs(teacher, samples, { batchSize: settings.batchSize, signal, onProgress }));
    if (!known && bytes <= MAX_KEPT_BYTES) await kept?.keep(outputsToBytes(outputs, teacher.readings));
    return { samples: withTargets(samples, outputs) };
  };
  let taught: Promise<TaughtSamples> | undefined;
  return (progress) => {
    taught ??= teach(progress);
    return taught;
  };
}

/** The samples with further targets, one row for each sample. */
function withTargets(samples: Samples, targets: Named): Samples {
  return {
    count: samples.count,
    gather: (indices) => {
      const batch = samples.gather(indices);
      return { ...batch, targets: { ...batch.targets, ...mapTensors(targets, (value) => gatherRows(value, indices)) } };
    },
  };
}
