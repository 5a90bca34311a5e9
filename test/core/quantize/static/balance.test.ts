import assert from "node:assert/strict";
import { test } from "node:test";
import { arrayOf, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { ChannelObserver } from "../../../../src/core/quantize/calibration/observers.ts";
import { type BalanceOptions, balanceChannels } from "../../../../src/core/quantize/static/equalize.ts";
import { GraphMaker, uniformSource } from "../../../support/graphs.ts";

/** Scales by the error that rounding is expected to leave, against the formula at the top of `equalize.ts`, term by term. */

const CHANNELS = 4;
const FED = 3;
const OUTPUTS = 6;
const GROUPS = 2;
const WINDOW = 9;
const PER_GROUP = CHANNELS / GROUPS;

/** x [1, 3, 8, 8] → a convolution of 1 × 1, Relu, a convolution of two groups with 3 × 3. */
function network(seed: number) {
  const uniform = uniformSource(seed);
  const make = new GraphMaker();
  const weight = (name: string, dims: readonly number[], largest: (i: number) => number) => {
    const length = dims.reduce((product, dim) => product * dim, 1);
    return make.constant(
      name,
      tensorOf(
        "float32",
        dims,
        Float32Array.from({ length }, (_, i) => largest(i) * (2 * uniform() - 1)),
      ),
    );
  };
  // Channels of very different size, which the layer behind them makes up for in part.
  const size = (c: number) => [1, 30, 0.2, 6][c]!;
  const made = weight("made", [CHANNELS, FED, 1, 1], (i) => size(Math.floor(i / FED)));
  const read = weight("read", [OUTPUTS, PER_GROUP, 3, 3], (i) => {
    const output = Math.floor(i / (PER_GROUP * WINDOW));
    const channel = Math.floor(output / (OUTPUTS / GROUPS)) * PER_GROUP + (Math.floor(i / WINDOW) % PER_GROUP);
    return 2 ** output / size(channel) ** 0.7;
  });
  const hidden = make.op("Relu", [make.op("Conv", [make.input("x", [1, FED, 8, 8]), made])]);
  make.output(make.op("Conv", [hidden, read], { group: GROUPS }), "y");
  return { make, made, read, hidden, size };
}

interface Seen {
  readonly min: Float64Array<ArrayBuffer>;
  readonly max: Float64Array<ArrayBuffer>;
  readonly squares: Float64Array<ArrayBuffer>;
}

/** E of the formula, times 12: every weight by itself. */
function errorOf(read: Float32Array, made: Float32Array, seen: Seen, inputPower: number, s: readonly number[]): number {
  const range = (values: Float64Array, worst: (...all: number[]) => number) =>
    worst(0, ...values.map((value, c) => value / s[c]!));
  const madeStep = Math.max(...made.map((w, i) => Math.abs(w) / s[Math.floor(i / FED)]!)) / 127;
  const step =
    ((range(seen.max, Math.max) - range(seen.min, Math.min)) / 255) ** 2 +
    (inputPower > 0 ? madeStep ** 2 * inputPower : 0);
  const rows = Array.from({ length: OUTPUTS }, (_, output) => {
    const first = Math.floor(output / (OUTPUTS / GROUPS)) * PER_GROUP;
    return Array.from({ length: PER_GROUP * WINDOW }, (_, k) => {
      const channel = first + Math.floor(k / WINDOW);
      return { channel, w: Math.abs(read[output * PER_GROUP * WINDOW + k]!) * s[channel]! };
    });
  });
  const largest = rows.map((row) => Math.max(...row.map(({ w }) => w)));
  return rows.reduce((sum, row, output) => {
    const own = inputPower > 0 ? Math.max(...largest) : largest[output]!;
    const power = row.reduce((total, { channel }) => total + seen.squares[channel]! / s[channel]! ** 2, 0);
    return sum + step * row.reduce((total, { w }) => total + w * w, 0) + (own / 127) ** 2 * power;
  }, 0);
}

const BALANCE: BalanceOptions = { perChannel: true, layers: true, normalizations: undefined };

for (const perChannel of [true, false]) {
  test(`the scales are those of the least expected error, by groups${perChannel ? "" : ", with one scale for each weight"}`, () => {
    for (let seed = 1; seed <= 5; seed++) {
      const { make, made, read, hidden, size } = network(seed);
      const seen: Seen = {
        min: new Float64Array(CHANNELS),
        max: Float64Array.from({ length: CHANNELS }, (_, c) => 3 * size(c)),
        squares: Float64Array.from({ length: CHANNELS }, (_, c) => 0.5 * size(c) ** 2),
      };
      const fed = new ChannelObserver(1, {
        min: new Float64Array(FED).fill(-1),
        max: new Float64Array(FED).fill(1),
        squares: Float64Array.from([10, 20, 30]),
        count: 40,
      });
      const own = new ChannelObserver(1, { ...seen, squares: seen.squares.map((square) => 40 * square), count: 40 });
      const [w1, w2] = [made, read].map((value) => Float32Array.from(arrayOf(value.constant!, "float32")));
      const inputPower = perChannel ? 0 : (10 + 20 + 30) / 40;
      const column = Array.from({ length: CHANNELS }, (_, c) => {
        const group = Math.floor(c / PER_GROUP);
        return Math.max(
          ...w2!
            .filter((_, i) => {
              const output = Math.floor(i / (PER_GROUP * WINDOW));
              const channel = Math.floor(i / WINDOW) % PER_GROUP;
              return Math.floor(output / (OUTPUTS / GROUPS)) === group && group * PER_GROUP + channel === c;
            })
            .map(Math.abs),
        );
      });
      const row = Array.from({ length: CHANNELS }, (_, c) =>
        Math.max(...w1!.slice(c * FED, (c + 1) * FED).map(Math.abs)),
      );
      const candidates = [
        ...Array.from({ length: 11 }, (_, i) => column.map((w, c) => seen.max[c]! ** (i / 10) / w ** (1 - i / 10))),
        column.map((w, c) => Math.sqrt(row[c]! / w)),
      ];
      const errors = candidates.map((s) => errorOf(w2!, w1!, seen, inputPower, s));
      const best = candidates[errors.indexOf(Math.min(...errors))]!;
      const gain = 10 * Math.log10(errorOf(w2!, w1!, seen, inputPower, [1, 1, 1, 1]) / Math.min(...errors));
      assert.ok(gain > 3, `there is something to gain: ${gain}`);
      const notes: string[] = [];
      const changed = balanceChannels(
        make.model,
        (name) => (name === hidden.name ? own : name === "x" ? fed : undefined),
        { ...BALANCE, perChannel },
        ({ message }) => notes.push(message),
      );
      assert.ok(changed.has(hidden.name));
      assert.match(notes[0]!, new RegExp(`cost ${gain.toFixed(1).replace(".", "\\.")} dB less`));
      const scaled = make.graph.nodes.find(({ opType }) => opType === "Conv")!.inputs[1]!.constant!;
      const after = arrayOf(scaled, "float32");
      for (let c = 0; c < CHANNELS; c++) {
        const scale = w1![c * FED]! / after[c * FED]!;
        assert.ok(Math.abs(scale / best[c]! - 1) < 1e-5, `channel ${c} of seed ${seed}: ${scale} and ${best[c]}`);
      }
    }
  });
}

test("a site whose values were not seen stays as it is", () => {
  const { make, made } = network(1);
  const before = Float32Array.from(arrayOf(made.constant!, "float32"));
  const changed = balanceChannels(
    make.model,
    () => undefined,
    BALANCE,
    () => assert.fail("something was scaled"),
  );
  assert.equal(changed.size, 0);
  assert.deepEqual(Float32Array.from(arrayOf(made.constant!, "float32")), before);
});
