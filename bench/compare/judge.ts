/** Judges models that should compute the same: how fast they are, one thread, in turns, and how near their answers are to the first one's. */
import type { Dataset } from "../../src/core/data/dataset.ts";
import { feedsFor } from "../../src/core/data/fit.ts";
import { floatsOf, type Tensor } from "../../src/core/onnx/tensor.ts";
import { openSession, type Session } from "../../src/core/runtime/session.ts";

export interface Judgement {
  /** Median over the turns of the wall time of one run. */
  readonly p50Ms: number;
  /** Time of the first model over this one's: median, lower and upper quartile over the turns. */
  readonly speedups: readonly [median: number, lower: number, upper: number];
  /** Signal to noise over all outputs and samples. */
  readonly sqnrDb: number;
  /** Share of the answers that are the first model's. */
  readonly same: number;
}

/** What is read off the outputs: the largest along the last axis, or where they are above a half. */
export type Answer = "argmax" | "mask";

type Outputs = Readonly<Record<string, Tensor>>;
type Feeds = Readonly<Record<string, Tensor>>;

/** A turn of a fast model is as many runs as make it this long: clocks, caches and interrupts disturb short ones too much. */
const TURN_MS = 50;
/** All turns together take about this long, within the bounds on their number. */
const TIMING_MS = 30_000;
const [MIN_TURNS, MAX_TURNS] = [9, 41];

/** Those that onnxruntime refuses are named and have no judgement; the first one must load. */
export async function judge(
  paths: readonly string[],
  dataset: Dataset,
  answer: Answer,
): Promise<(Judgement | undefined)[]> {
  const opened: (Session | undefined)[] = [];
  for (const path of paths) {
    try {
      opened.push(await openSession({ path }));
    } catch (error) {
      console.log(`${path}: ${(error as Error).message.slice(0, 200)}`);
      opened.push(undefined);
    }
  }
  if (!opened[0]) throw new Error(`${paths[0]} cannot be loaded.`);
  const sessions = opened.filter((session) => session !== undefined);
  const samples: Feeds[] = [];
  for await (const { feeds } of dataset.batches({ batchSize: 1 })) samples.push(feedsFor(opened[0].inputs, feeds));
  const scores = await score(sessions, samples, answer);
  const times = await time(sessions, samples);
  for (const session of sessions) await session.close();
  const judgements = sessions.map((_, i) => {
    const sorted = times[0]!.map((ms, turn) => ms / times[i]![turn]!).sort((a, b) => a - b);
    const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))]!;
    const { signal, noise, same, answers } = scores[i]!;
    return {
      p50Ms: times[i]!.toSorted((a, b) => a - b)[Math.floor(times[i]!.length / 2)]!,
      speedups: [at(0.5), at(0.25), at(0.75)] as const,
      sqnrDb: 10 * Math.log10(signal / noise),
      same: same / answers,
    };
  });
  return opened.map((session) => (session ? judgements.shift() : undefined));
}

/** Milliseconds of a run, of each session in each turn. The sessions take turns, so that what else the machine does hits them alike. */
async function time(sessions: readonly Session[], samples: readonly Feeds[]): Promise<number[][]> {
  const turn = async (session: Session, feeds: Feeds, runs: number) => {
    const start = performance.now();
    for (let run = 0; run < runs; run++) await session.run(feeds);
    return (performance.now() - start) / runs;
  };
  const runs: number[] = [];
  for (const session of sessions) runs.push(Math.ceil(TURN_MS / (await turn(session, samples[0]!, 3))));
  const times: number[][] = sessions.map(() => []);
  const start = performance.now();
  for (let count = 0; count < MAX_TURNS; count++) {
    if (count >= MIN_TURNS && performance.now() - start > TIMING_MS) break;
    const feeds = samples[count % samples.length]!;
    for (const [i, session] of sessions.entries()) times[i]!.push(await turn(session, feeds, runs[i]!));
  }
  return times;
}

interface Score {
  signal: number;
  noise: number;
  same: number;
  answers: number;
}

async function score(sessions: readonly Session[], samples: readonly Feeds[], answer: Answer): Promise<Score[]> {
  const scores = sessions.map((): Score => ({ signal: 0, noise: 0, same: 0, answers: 0 }));
  for (const feeds of samples) {
    let expected: Outputs | undefined;
    for (const [i, session] of sessions.entries()) {
      const outputs = await session.run(feeds);
      expected ??= outputs;
      compare(expected, outputs, answer, scores[i]!);
    }
  }
  return scores;
}

function compare(expected: Outputs, actual: Outputs, answer: Answer, score: Score): void {
  for (const [name, tensor] of Object.entries(expected)) {
    const [x, y] = [floatsOf(tensor), floatsOf(actual[name]!)];
    for (let i = 0; i < x.length; i++) {
      score.signal += x[i]! ** 2;
      score.noise += (x[i]! - y[i]!) ** 2;
    }
    const width = tensor.dims.at(-1)!;
    const [before, after] = [answersOf(x, width, answer), answersOf(y, width, answer)];
    score.answers += before.length;
    before.forEach((value, i) => {
      if (after[i] === value) score.same++;
    });
  }
}

function answersOf(values: Float32Array, width: number, answer: Answer): number[] {
  if (answer === "mask") return Array.from(values, (value) => (value > 0.5 ? 1 : 0));
  const answers: number[] = [];
  for (let start = 0; start < values.length; start += width) {
    let best = 0;
    for (let i = 1; i < width; i++) if (values[start + i]! > values[start + best]!) best = i;
    answers.push(best);
  }
  return answers;
}
