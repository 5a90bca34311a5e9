import * as ort from "onnxruntime-node";
import { CoreError, checkCancelled } from "../errors.ts";
import type { ValueFacts } from "../facts.ts";
import { type ArrayDType, type ArrayOf, arrayOf, hasArray, type Tensor, tensorOf } from "../onnx/tensor.ts";
import { freeMemory, openOnThread } from "./threaded-session.ts";

/**
 * The only module that touches onnxruntime. A run is a synchronous native call that blocks the thread, and a hostile model can take
 * the process with it, so this belongs into a child process. The rest of the library gets `openSession` as an argument.
 */

/** A model as a file (external data is found beside it) or as the bytes of one without external data. */
export type ModelSource = { readonly path: string } | { readonly bytes: Uint8Array };

export interface SessionOptions {
  /** Intra-operator threads; 1 unless given. Operators themselves always run one after the other. */
  readonly threads?: number;
  /** How far onnxruntime may rewrite the graph; `all` unless given. */
  readonly optimization?: "disabled" | "basic" | "extended" | "all";
  /** Computes everything in float: what is quantized is rounded, but not computed with integers, and its weights are dequantized once. */
  readonly dequantized?: boolean;
  /** Where to write the graph as onnxruntime has rewritten it. A path of the caller's own, never a user's. */
  readonly optimizedModelPath?: string;
  /**
   * The name of a file beside it for the weights: a graph with more than 2 GiB of them cannot be written without. (onnxruntime 1.30 writes
   * the weights of subgraphs twice then, into both files, so that the graph is not valid ONNX.)
   */
  readonly optimizedModelData?: string;
  /**
   * Runs on a JavaScript thread of its own, beside what the caller does meanwhile: `run` blocks nobody. Feeds are copied, unless they are over
   * shared memory.
   */
  readonly ownThread?: boolean;
  /**
   * Outputs are gone with the next run, which finds their memory at once: else it is fresh memory every time, which is slow to come by, until
   * garbage is collected.
   */
  readonly transientOutputs?: boolean;
  /** Writes onnxruntime's own profile of every run to a file whose name starts with this path, when it is stopped or the session closed. */
  readonly profilePrefix?: string;
}

export interface Session {
  /** Inputs that must be fed: those with a default value in the model are not among them. */
  readonly inputs: readonly ValueFacts[];
  readonly outputs: readonly ValueFacts[];
  /**
   * Runs the model once and answers the outputs asked for, or all that are tensors of numbers: onnxruntime's binding fetches no sequences
   * and maps, and strings are not kept. Throws `unsupported` for a model that has no output it can fetch. Feeds are not copied.
   * Throws `invalid_dataset` when feeds do not fit the inputs, `invalid_model` when a node fails, `cancelled` when `signal` had fired
   * before the run began: a run that has begun cannot be stopped.
   */
  run(
    feeds: Readonly<Record<string, Tensor>>,
    outputs?: readonly string[],
    signal?: AbortSignal,
  ): Promise<Record<string, Tensor>>;
  /** Writes the profile, if there is one. Later runs are not in it, and take no longer than without. */
  stopProfiling?(): void;
  /** Frees the native memory. Outputs stay valid. */
  close(): Promise<void>;
}

export type OpenSession = (model: ModelSource, options?: SessionOptions) => Promise<Session>;

/** Version of the onnxruntime that runs the models. */
export const runtimeVersion: string = ort.env.versions.node ?? ort.env.versions.common;

/** Log level 4: only fatal errors are printed. Every other error reaches us as an exception. */
const QUIET = { logSeverityLevel: 4, logVerbosityLevel: 0 } as const;
ort.env.logLevel = "fatal";

const SPIN_MICROSECONDS = "50";

/** Starts the runtime, as the first session would do otherwise: for processes that wait for their work. */
export async function startRuntime(): Promise<void> {
  // There is no call for it. The runtime starts, and then refuses a model of no bytes.
  await ort.InferenceSession.create(new Uint8Array(0), QUIET).catch(() => {});
}

/** Loads a model. Throws `invalid_model` with the node at fault, `limit_exceeded` when memory runs out. */
export const openSession: OpenSession = async (model, options = {}) => {
  if (options.ownThread) return openOnThread(model, options);
  let session: ort.InferenceSession;
  const { threads = 1, optimization = "all", optimizedModelPath, optimizedModelData, profilePrefix } = options;
  const { dequantized = false } = options;
  const sessionOptions: ort.InferenceSession.SessionOptions = {
    ...QUIET,
    executionProviders: ["cpu"],
    executionMode: "sequential",
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    graphOptimizationLevel: optimization,
    ...(optimizedModelPath !== undefined && { optimizedModelFilePath: optimizedModelPath }),
    ...(profilePrefix !== undefined && { enableProfiling: true, profileFilePrefix: profilePrefix }),
    extra: {
      session: {
        // Idle threads would otherwise go on spinning after a run, and take their cores from whatever runs next: another session, or us.
        force_spinning_stop: "1",
        // Within a run they wait so long for the next operator, and then sleep: spinning longer costs processor time, and wins nothing.
        intra_op: { spin_duration_us: SPIN_MICROSECONDS },
        ...(dequantized && { disable_quant_qdq: "1" }),
        ...(optimizedModelData !== undefined && {
          optimized_model_external_initializers_file_name: optimizedModelData,
          optimized_model_external_initializers_min_size_in_bytes: "1024",
        }),
      },
    },
  };
  try {
    session =
      "path" in model
        ? await ort.InferenceSession.create(model.path, sessionOptions)
        : await ort.InferenceSession.create(model.bytes, sessionOptions);
  } catch (error) {
    throw runtimeError(error, "onnxruntime cannot load the model");
  }
  return new OrtSession(session, {
    profiled: profilePrefix !== undefined,
    transient: options.transientOutputs ?? false,
  });
};

class OrtSession implements Session {
  readonly inputs: readonly ValueFacts[];
  readonly outputs: readonly ValueFacts[];
  readonly #session: ort.InferenceSession;
  #profiled: boolean;
  /** What the last run has answered, where that is gone with the next one. */
  #last: readonly ort.OnnxValue[] | undefined;
  /** Outputs that are fetched unless others are asked for. */
  readonly #fetched: readonly string[];

  constructor(session: ort.InferenceSession, options: { readonly profiled: boolean; readonly transient: boolean }) {
    this.#session = session;
    this.#profiled = options.profiled;
    if (options.transient) this.#last = [];
    this.inputs = session.inputMetadata.map(factsOf);
    this.outputs = session.outputMetadata.map(factsOf);
    const numeric = this.outputs.filter(({ dtype }) => dtype !== null && hasArray(dtype));
    // Something must be fetched for the model to run.
    const fetched = numeric.length > 0 ? numeric : this.outputs.filter(({ dtype }) => dtype === "string");
    this.#fetched = fetched.map(({ name }) => name);
  }

  async run(
    feeds: Readonly<Record<string, Tensor>>,
    outputs?: readonly string[],
    signal?: AbortSignal,
  ): Promise<Record<string, Tensor>> {
    checkCancelled(signal);
    const ortFeeds: Record<string, ort.Tensor> = {};
    for (const input of this.inputs) ortFeeds[input.name] = toOrt(input, feeds[input.name]);
    const fetched = outputs ?? this.#fetched;
    if (fetched.length === 0) {
      const names = this.outputs.map(({ name }) => `"${name}"`).join(", ");
      throw new CoreError("unsupported", `No output of the model is a tensor: ${names} cannot be fetched.`);
    }
    for (const { data } of this.#last ?? []) if (ArrayBuffer.isView(data)) freeMemory(data.buffer);
    const results = Object.entries(await this.#run(ortFeeds, fetched));
    if (this.#last) this.#last = results.map(([, value]) => value);
    const kept = outputs ? results : results.filter(([, value]) => value.type !== "string");
    return Object.fromEntries(kept.map(([name, value]) => [name, fromOrt(name, value)]));
  }

  async #run(feeds: Record<string, ort.Tensor>, outputs: readonly string[]) {
    try {
      return await this.#session.run(feeds, [...outputs], QUIET);
    } catch (error) {
      throw runtimeError(error, "The model failed while it ran");
    }
  }

  stopProfiling(): void {
    if (this.#profiled) this.#session.endProfiling();
    this.#profiled = false;
  }

  async close(): Promise<void> {
    this.stopProfiling();
    await this.#session.release();
  }
}

function factsOf(value: ort.InferenceSession.ValueMetadata): ValueFacts {
  if (!value.isTensor) return { name: value.name, dtype: null, shape: null };
  // An unnamed unknown dimension has the empty string for its name.
  return { name: value.name, dtype: value.type, shape: value.shape.map((dim) => (dim === "" ? null : dim)) };
}

function toOrt(input: ValueFacts, feed: Tensor | undefined): ort.Tensor {
  if (!feed) throw new CoreError("invalid_dataset", `The model's input "${input.name}" was not given.`, input.name);
  if (feed.dtype !== input.dtype) {
    throw new CoreError(
      "invalid_dataset",
      `The model's input "${input.name}" takes ${input.dtype ?? "something other than a tensor"} and was given ${feed.dtype}.`,
      input.name,
    );
  }
  const { dtype } = feed;
  if (!hasArray(dtype)) {
    throw new CoreError("unsupported", `Inputs of type ${dtype} cannot be fed ("${input.name}").`, input.name);
  }
  // The binding reads these four fields and no more. A real ort.Tensor would turn float16 data into a Float16Array, in which
  // version 1.30 of the binding finds no bytes at all.
  const data = dtype === "float16" ? bitsOf(feed) : arrayOf(feed, dtype);
  return { type: dtype, dims: feed.dims, data, location: "cpu" } as unknown as ort.Tensor;
}

function bitsOf(half: Tensor): Uint16Array {
  const floats = arrayOf(half, "float16");
  return new Uint16Array(floats.buffer, floats.byteOffset, floats.length);
}

function fromOrt(name: string, value: ort.OnnxValue): Tensor {
  if (!hasArray(value.type)) {
    throw new CoreError("unsupported", `The model's output "${name}" has the type ${value.type}.`, name);
  }
  return tensorOf(value.type, value.dims, value.data as ArrayOf<ArrayDType>);
}

/** What onnxruntime's messages carry that says nothing to a user: where in its sources, and where on our disk. */
const NOISE = [
  /Non-zero status code returned while running [^\n]*? Status Message: /g,
  /(?:Exception during initialization: )?\/\S*onnxruntime\/\S+\.(?:cc|h):\d+ .*?\)(?: const)?(?: \[with .*?\])? /gs,
  /Load model (?:from )?\S+ failed[.:]\s*/g,
  /This is an invalid model\. /g,
  /Please fix either the inputs\/outputs or the model\./g,
];

/** How onnxruntime names the node that fails: while running, while loading, while looking for a kernel. */
const NODE_NAMES = [
  / Name:'([^']*)' Status Message/g,
  /In Node, \("([^"]*)"/g,
  /[Nn]ode with name ['"]?([^'"\s]+)/g,
  /[Nn]ode \(([^)]*)\)/g,
];

/** Errors that are not the model's fault. */
const OTHER_CAUSES = [
  { pattern: /Got invalid dimensions for input: (\S+)|Invalid rank for input: (\S+)/, code: "invalid_dataset" },
  { pattern: /bad_alloc|Failed to allocate memory/, code: "limit_exceeded" },
] as const;

/** Of a message of the runtime, which repeats names and sizes of the model: its beginning, and its end, where the innermost node is. */
const MESSAGE_HEAD = 6_000;
const MESSAGE_TAIL = 2_000;

function shortened(text: string): string {
  if (text.length <= MESSAGE_HEAD + MESSAGE_TAIL) return text;
  return `${text.slice(0, MESSAGE_HEAD)} … ${text.slice(-MESSAGE_TAIL)}`;
}

function runtimeError(error: unknown, what: string): CoreError {
  const text = shortened(error instanceof Error ? error.message : String(error));
  // The innermost node is the last one named: an If that fails names itself around the node in its branch.
  const node = NODE_NAMES.map((pattern) => [...text.matchAll(pattern)].at(-1)?.[1]).find((name) => name);
  const stripped = NOISE.reduce((message, pattern) => message.replace(pattern, ""), text);
  const reason = stripped.replace(/\s+/g, " ").trim() || "no reason given";
  const at = node && !reason.includes(node) ? ` at node "${node}"` : "";
  const message = `${what}${at}: ${reason.slice(0, 1000)}${/[.!?]$/.test(reason) ? "" : "."}`;
  for (const { pattern, code } of OTHER_CAUSES) {
    const match = pattern.exec(text);
    if (match) return new CoreError(code, message, match[1] ?? match[2] ?? node, { cause: error });
  }
  return new CoreError("invalid_model", message, node, { cause: error });
}
