/**
 * Recurrent layers unrolled over time, with the formulas and gate orders of the ONNX operator specifications. For direction d and time t
 *
 *   LSTM (i o f c)  i, o, f = σ(X W + H R + P ⊙ C + b),  c̃ = tanh(X W + H R + b),  C' = f ⊙ C + i ⊙ c̃,  H' = o ⊙ tanh(C')
 *   GRU  (z r h)    z, r = σ(X W + H R + b),  h̃ = tanh(X W + (r ⊙ H) R + b)  or  tanh(X W + b_w + r ⊙ (H R + b_r)),
 *                   H' = (1 − z) ⊙ h̃ + z ⊙ H
 *   RNN             H' = tanh(X W + H R + b)
 *
 * The products X W of all time steps are one matrix product.
 */
import { CoreError } from "../errors.ts";
import { dimsOf, type GraphBuilder, integerInput, range } from "../onnx/graph-builder.ts";
import type { Node, Value } from "../onnx/ir.ts";

interface Weights {
  /** [gates·H, H] */
  readonly r: Value;
  /** Biases of the recurrent side that the cell adds itself, [gates·H]; the rest is in `xw` already. */
  readonly rBias: Value | undefined;
  /** Peepholes i, o, f, each [H]. */
  readonly peepholes: readonly Value[] | undefined;
  readonly hidden: number;
}

interface State {
  readonly h: Value;
  readonly c?: Value | undefined;
}

interface Cell {
  readonly gates: number;
  /** Whether the recurrent bias may be added before the recurrent product. */
  readonly sumsBiases: (node: Node) => boolean;
  /** One step: `xw` is X W (and biases) at this time, [B, gates·H]. */
  readonly step: (g: GraphBuilder, node: Node, xw: Value, state: State, weights: Weights) => State;
}

const sigmoid = (g: GraphBuilder, x: Value) => g.op("Sigmoid", [x]);
const tanh = (g: GraphBuilder, x: Value) => g.op("Tanh", [x]);

export const lstm: Cell = {
  gates: 4,
  sumsBiases: () => true,
  step: (g, _node, xw, { h, c }, { r, peepholes, hidden }) => {
    const sums = g.add(xw, g.gemm(h, r, { transB: true }));
    const [i, o, f, candidate] = g.split(sums, 1, Array(4).fill(hidden)) as [Value, Value, Value, Value];
    const peep = (gate: Value, index: number, cell: Value) =>
      peepholes ? g.add(gate, g.mul(cell, peepholes[index]!)) : gate;
    const kept = g.mul(sigmoid(g, peep(f, 2, c!)), c!);
    const next = g.add(kept, g.mul(sigmoid(g, peep(i, 0, c!)), tanh(g, candidate)));
    return { h: g.mul(sigmoid(g, peep(o, 1, next)), tanh(g, next)), c: next };
  },
};

export const gru: Cell = {
  gates: 3,
  sumsBiases: (node) => node.int("linear_before_reset", 0) === 0,
  step: (g, node, xw, { h }, { r, rBias, hidden }) => {
    const sizes = [2 * hidden, hidden];
    const [xGates, xCandidate] = g.split(xw, 1, sizes) as [Value, Value];
    const [rGates, rCandidate] = g.split(r, 0, sizes) as [Value, Value];
    const [bGates, bCandidate] = rBias ? g.split(rBias, 0, sizes) : [];
    const plus = (value: Value, bias: Value | undefined) => (bias ? g.add(value, bias) : value);
    const gates = sigmoid(g, plus(g.add(xGates, g.gemm(h, rGates, { transB: true })), bGates));
    const [z, reset] = g.split(gates, 1, [hidden, hidden]) as [Value, Value];
    const recurrentPart =
      node.int("linear_before_reset", 0) === 1
        ? g.mul(reset, plus(g.gemm(h, rCandidate, { transB: true }), bCandidate))
        : g.gemm(g.mul(reset, h), rCandidate, { transB: true });
    const candidate = tanh(g, g.add(xCandidate, recurrentPart));
    return { h: g.add(candidate, g.mul(z, g.sub(h, candidate))) };
  },
};

export const rnn: Cell = {
  gates: 1,
  sumsBiases: () => true,
  step: (g, _node, xw, { h }, { r }) => ({ h: tanh(g, g.add(xw, g.gemm(h, r, { transB: true }))) }),
};

/** All outputs of a recurrent node: Y [T, D, B, H], then the last H (and C) [D, B, H]; batch first for layout 1. */
export function recurrent(g: GraphBuilder, node: Node, cell: Cell): readonly Value[] {
  const [x, w, r, bias, , initialH, initialC, peepholes] = node.inputs;
  const batchFirst = node.int("layout", 0) === 1;
  const timeFirst = batchFirst ? g.transpose(x!, [1, 0, 2]) : x!;
  const xDims = dimsOf(x!);
  const [steps, batch] = (batchFirst ? [xDims[1]!, xDims[0]!] : [xDims[0]!, xDims[1]!]) as [number, number];
  const lengths = integerInput(node, 4);
  if (lengths?.some((length) => length !== steps)) {
    throw new CoreError(
      "unsupported",
      `"${node.label}" (${node.opType}) does not run over whole sequences.`,
      node.label,
    );
  }
  const [directions, hidden] = [dimsOf(r!)[0]!, dimsOf(r!)[2]!];
  const width = cell.gates * hidden;
  const rows = g.reshape(timeFirst, [steps * batch, xDims[2]!]);
  const of = (value: Value | undefined, d: number, axis = 0) =>
    value && g.squeeze(g.slice(value, [axis], [d], [d + 1]), [axis]);

  const runs = range(directions).map((d) => {
    const [wBias, rBias] = bias ? g.split(of(bias, d)!, 0, [width, width]) : [];
    const together = cell.sumsBiases(node);
    const product = g.gemm(rows, of(w, d)!, { transB: true });
    const added = wBias && rBias ? g.add(product, together ? g.add(wBias, rBias) : wBias) : product;
    const inputs = steps === 1 ? [added] : g.split(added, 0, Array(steps).fill(batch)); // [B, gates·H] for each time
    const weights: Weights = {
      r: of(r, d)!,
      rBias: together ? undefined : rBias,
      peepholes: peepholes && g.split(of(peepholes, d)!, 0, [hidden, hidden, hidden]),
      hidden,
    };
    const start = (initial: Value | undefined) => of(initial, d, batchFirst ? 1 : 0) ?? g.full([batch, hidden], 0, x!);
    let state: State = { h: start(initialH), ...(cell === lstm && { c: start(initialC) }) };
    const backwards = node.string("direction", "forward") === "reverse" || d === 1;
    const outputs: Value[] = [];
    for (const t of backwards ? range(steps).reverse() : range(steps)) {
      state = cell.step(g, node, inputs[t]!, state, weights);
      outputs[t] = state.h;
    }
    return { outputs, state };
  });

  const stack = (values: readonly Value[], axis: number) =>
    g.concat(
      values.map((value) => g.unsqueeze(value, [axis])),
      axis,
    );
  const y = stack(
    range(steps).map((t) =>
      stack(
        runs.map((run) => run.outputs[t]!),
        0,
      ),
    ),
    0,
  );
  const last = (part: "h" | "c") =>
    stack(
      runs.map((run) => run.state[part]!),
      batchFirst ? 1 : 0,
    );
  return [batchFirst ? g.transpose(y, [2, 0, 1, 3]) : y, last("h"), ...(cell === lstm ? [last("c")] : [])];
}
