/** An edge of a network: what it costs when its tail is on the side of the source and its head is not. */
export interface CutEdge {
  readonly from: number;
  readonly to: number;
  /** Not negative; infinity for an edge that must not be cut. */
  readonly capacity: number;
}

/** Costs are told apart to so many parts of the largest finite one. */
const RESOLUTION = 2 ** 30;

/**
 * Divides the nodes 0 … count − 1 so that `source` and `sink` are apart and the edges from the side of the source to the other cost least together:
 * a maximal flow, found by Dinic's algorithm; what is still reached from the source is its side. Answers for each node whether it is on the side of the
 * source; as few are as the least cost allows. Finite capacities are rounded to 2⁻³⁰ of the largest, so that sums are exact.
 */
export function minCut(count: number, edges: readonly CutEdge[], source: number, sink: number): boolean[] {
  const network = new Network(count, edges);
  for (;;) {
    const levels = network.levelsFrom(source);
    if (levels[sink]! < 0) return Array.from(levels, (level) => level >= 0);
    network.saturate(source, sink, levels);
  }
}

class Network {
  /** Edges and their opposites alternate. */
  readonly #heads: Int32Array;
  readonly #left: Float64Array;
  /** The edges out of each node. */
  readonly #out: readonly number[][];

  constructor(count: number, edges: readonly CutEdge[]) {
    const largest = edges.reduce((max, { capacity }) => (Number.isFinite(capacity) ? Math.max(max, capacity) : max), 0);
    const unit = largest / RESOLUTION;
    this.#heads = new Int32Array(2 * edges.length);
    this.#left = new Float64Array(2 * edges.length);
    this.#out = Array.from({ length: count }, () => []);
    for (const [i, { from, to, capacity }] of edges.entries()) {
      this.#heads[2 * i] = to;
      this.#heads[2 * i + 1] = from;
      this.#left[2 * i] = Number.isFinite(capacity) ? Math.round(capacity / (unit || 1)) : Number.POSITIVE_INFINITY;
      this.#out[from]!.push(2 * i);
      this.#out[to]!.push(2 * i + 1);
    }
  }

  /** How many edges with room away each node is; −1 for those that are not reached. */
  levelsFrom(source: number): Int32Array {
    const levels = new Int32Array(this.#out.length).fill(-1);
    levels[source] = 0;
    const reached = [source];
    for (const node of reached) {
      for (const edge of this.#out[node]!) {
        const to = this.#heads[edge]!;
        if (levels[to]! >= 0 || this.#left[edge] === 0) continue;
        levels[to] = levels[node]! + 1;
        reached.push(to);
      }
    }
    return levels;
  }

  /** Sends what fits along shortest paths. */
  saturate(source: number, sink: number, levels: Int32Array): void {
    const next = new Int32Array(this.#out.length);
    const path: number[] = [];
    for (let node = source; ; ) {
      if (node === sink) {
        const room = path.reduce((least, edge) => Math.min(least, this.#left[edge]!), Number.POSITIVE_INFINITY);
        for (const edge of path) {
          this.#left[edge]! -= room;
          this.#left[edge ^ 1]! += room;
        }
        const full = path.findIndex((edge) => this.#left[edge] === 0);
        node = this.#heads[path[full]! ^ 1]!;
        path.length = full;
        continue;
      }
      const out = this.#out[node]!;
      const at = next[node]!;
      if (at < out.length) {
        const edge = out[at]!;
        const to = this.#heads[edge]!;
        if (this.#left[edge]! > 0 && levels[to] === levels[node]! + 1) {
          path.push(edge);
          node = to;
        } else next[node]!++;
      } else {
        const back = path.pop();
        if (back === undefined) return;
        node = this.#heads[back ^ 1]!;
        next[node]!++;
      }
    }
  }
}
