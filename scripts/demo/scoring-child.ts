import { floatsOf, tensorOf } from "../../src/core/onnx/tensor.ts";
import { openSession, type Session } from "../../src/core/runtime/session.ts";
import { decodeLine } from "./ocr.ts";
import type { ScoringTasks } from "./scoring.ts";

/** Samples of one window of silero VAD at 16 kHz, and of the window before that it wants to see again. */
const WINDOW = 512;
const CONTEXT = 64;
const STATE = [2, 1, 128] as const;
const STATE_SIZE = STATE[0] * STATE[1] * STATE[2];

const TASKS: {
  [K in keyof ScoringTasks]: (
    session: Session,
    request: ScoringTasks[K]["request"],
  ) => Promise<ScoringTasks[K]["result"]>;
} = {
  async read_lines(session, { lines, alphabet }) {
    const [count, ...dims] = lines.dims;
    const size = lines.data.length / count;
    const texts: string[] = [];
    for (let i = 0; i < count; i++) {
      const line = tensorOf("float32", [1, ...dims], lines.data.subarray(i * size, (i + 1) * size));
      const [scores] = Object.values(await session.run({ [session.inputs[0]!.name]: line }));
      texts.push(decodeLine(floatsOf(scores!), alphabet));
    }
    return texts;
  },

  async hear_speech(session, { samples }) {
    const count = Math.floor(samples.length / WINDOW);
    const probabilities = new Float32Array(count);
    const windows = new Float32Array(count * (CONTEXT + WINDOW));
    const states = new Float32Array(count * STATE_SIZE);
    const padded = new Float32Array(CONTEXT + samples.length);
    padded.set(samples, CONTEXT);
    const state = new Float32Array(STATE_SIZE);
    for (let i = 0; i < count; i++) {
      const window = padded.slice(i * WINDOW, i * WINDOW + CONTEXT + WINDOW);
      windows.set(window, i * window.length);
      states.set(state, i * STATE_SIZE);
      const { output, stateN } = await session.run({
        input: tensorOf("float32", [1, window.length], window),
        state: tensorOf("float32", STATE, state),
        sr: tensorOf("int64", [], [16_000]),
      });
      probabilities[i] = floatsOf(output!)[0]!;
      state.set(floatsOf(stateN!));
    }
    return { probabilities, windows, states };
  },
};

async function runTask<K extends keyof ScoringTasks>(task: K, request: ScoringTasks[K]["request"]): Promise<void> {
  const session = await openSession({ path: request.model }, { threads: 2 });
  process.send!({ result: await TASKS[task](session, request) }, () => process.disconnect());
}

process.once("message", (message) => {
  const { task, request } = message as { task: "read_lines"; request: ScoringTasks["read_lines"]["request"] };
  void runTask(task, request);
});
