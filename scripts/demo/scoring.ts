import { fork } from "node:child_process";
import { ENVIRONMENT } from "../../src/tasks/environment.ts";

/**
 * Runs a model on data with known answers. onnxruntime runs in a child process, as everywhere in this project: a broken artifact may
 * take the process with it.
 */

export interface ScoringTasks {
  /** The text of each line; `lines` is [n, 3, 48, width]. */
  read_lines: {
    request: { readonly model: string; readonly lines: Planes; readonly alphabet: readonly string[] };
    result: readonly string[];
  };
  /** Slides over 16 kHz sound, carrying the detector's state along. */
  hear_speech: {
    request: { readonly model: string; readonly samples: Float32Array };
    result: Hearing;
  };
}

export interface Planes {
  readonly dims: readonly [number, number, number, number];
  readonly data: Float32Array<ArrayBuffer>;
}

export interface Hearing {
  /** Of speech, for each window of 512 samples. */
  readonly probabilities: Float32Array<ArrayBuffer>;
  /** What was fed for each window: [windows, 576] samples, and [windows, 2, 1, 128] of state. */
  readonly windows: Float32Array<ArrayBuffer>;
  readonly states: Float32Array<ArrayBuffer>;
}

const ENTRY = new URL("./scoring-child.ts", import.meta.url).pathname;

export function runScoring<K extends keyof ScoringTasks>(
  task: K,
  request: ScoringTasks[K]["request"],
): Promise<ScoringTasks[K]["result"]> {
  return new Promise((resolve, reject) => {
    const child = fork(ENTRY, {
      env: ENVIRONMENT,
      serialization: "advanced",
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    let answer: { result: ScoringTasks[K]["result"] } | undefined;
    child.once("message", (message) => {
      answer = message as { result: ScoringTasks[K]["result"] };
    });
    child.once("error", reject);
    child.once("close", (code, signal) => {
      if (answer !== undefined) resolve(answer.result);
      else reject(new Error(`Scoring ${request.model} ended with ${signal ?? `exit code ${code}`}.`));
    });
    child.send({ task, request });
  });
}
