/**
 * Calibrates a network over as many samples as the first argument says, and prints how many bytes of activations were looked at and the most
 * memory that this process has held, both in bytes, as JSON.
 */
import { readFileSync } from "node:fs";
import { calibrate } from "../../src/core/quantize/static/calibration.ts";
import { prepareStatic } from "../../src/core/quantize/static/quantize-static.ts";
import { mobilenet, randomFeeds } from "./graphs.ts";
import { openModel } from "./open-model.ts";

const count = Number(process.argv[2]);
const network = mobilenet({ width: 24 });

async function* samples() {
  for (let i = 0; i < count; i++) yield randomFeeds(network, { seed: i, dims: { n: 1 } });
}

const { model } = await prepareStatic(network, randomFeeds(network), { openModel });
const { activations } = await calibrate(model, samples(), { openModel, threads: 1 });
let values = 0;
for (const { histogram } of activations.values()) values += histogram.count;
// Not `maxRSS` of getrusage, which on Linux begins with that of the parent.
const peakKb = Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))![1]);
console.log(JSON.stringify({ observedBytes: 4 * values, peakBytes: 1024 * peakKb }));
