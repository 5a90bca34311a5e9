/** Throughput of the weight kernels, in elements per second of CPU time: `node bench/quantize-weights.ts`. */
import { packRows } from "../src/core/quantize/packing.ts";
import { type BlockLayout, type Layout, quantizeBlocks } from "../src/core/quantize/rounding/blocks.ts";
import type { WeightScheme } from "../src/core/quantize/scheme.ts";

const ROWS = 4096;

const DEPTH = 4096;
const values = new Float32Array(ROWS * DEPTH);
for (let i = 0; i < values.length; i++) values[i] = Math.sin(i * 12.9898) * Math.sin(i * 0.001);

interface Case {
  readonly name: string;
  readonly from: Layout;
  readonly scheme: WeightScheme;
  readonly to: BlockLayout;
}

const byBlock = (bits: 4 | 8, block: number): WeightScheme => ({
  ...{ bits, signed: false, symmetric: false, granularity: { block } },
});
const byChannel: WeightScheme = { bits: 8, signed: true, symmetric: true, granularity: "channel" };
const blocks: BlockLayout = { layout: "row-major", padded: true };
const CASES: readonly Case[] = [
  { name: "8 bit, blocks of 32, [N, K]", from: "row-major", scheme: byBlock(8, 32), to: blocks },
  { name: "8 bit, blocks of 128, [K, N]", from: "column-major", scheme: byBlock(8, 128), to: blocks },
  { name: "4 bit, blocks of 32, [N, K]", from: "row-major", scheme: byBlock(4, 32), to: blocks },
  { name: "4 bit, blocks of 32, [K, N]", from: "column-major", scheme: byBlock(4, 32), to: blocks },
  { name: "8 bit by channel, [N, K]", from: "row-major", scheme: byChannel, to: { layout: "row-major" } },
  { name: "8 bit by channel, [K, N] kept", from: "column-major", scheme: byChannel, to: { layout: "column-major" } },
  {
    name: "8 bit by channel, reduced range, [K, N] kept",
    from: "column-major",
    scheme: { ...byChannel, reduceRange: true },
    to: { layout: "column-major" },
  },
];

for (const { name, from, scheme, to } of CASES) {
  const times = Array.from({ length: 7 }, () => {
    const start = process.cpuUsage();
    const { q } = quantizeBlocks({ values, batches: 1, rows: ROWS, depth: DEPTH, layout: from }, scheme, to);
    packRows(q, DEPTH, scheme.bits);
    const { user, system } = process.cpuUsage(start);
    return (user + system) / 1000;
  }).sort((a, b) => a - b);
  const median = times[Math.floor(times.length / 2)]!;
  console.log(`${name.padEnd(44)} ${(values.length / median / 1e6).toFixed(2)} G/s`);
}
