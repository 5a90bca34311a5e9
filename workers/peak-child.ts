import { readFileSync } from "node:fs";
import { feedsFor } from "../src/core/data/fit.ts";
import { CoreError } from "../src/core/errors.ts";
import type { PeakMemory, PeakRequest } from "../src/core/evaluate/evaluate.ts";
import { openSession } from "../src/core/runtime/session.ts";
import type { PeakAnswer } from "./measure-peak.ts";

/**
 * The most memory this process has had resident, in bytes. Linux keeps `VmHWM` for what runs now; `maxRSS` there starts with whatever the
 * process that forked this one had.
 */
function peakResidentBytes(): number {
  if (process.platform === "linux") {
    const kib = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "latin1"))?.[1];
    if (kib !== undefined) return Number(kib) * 1024;
  }
  return process.resourceUsage().maxRSS * 1024;
}

async function measure({ modelPath, feeds, runs, threads }: PeakRequest): Promise<PeakMemory> {
  const baselineBytes = peakResidentBytes();
  const session = await openSession({ path: modelPath }, { threads });
  const given = feedsFor(session.inputs, feeds);
  for (let run = 0; run < runs; run++) await session.run(given);
  return { peakBytes: peakResidentBytes(), baselineBytes };
}

process.on("disconnect", () => process.exit());
process.once("message", (request: PeakRequest) => {
  const answer = (message: PeakAnswer) => process.send?.(message);
  measure(request).then(
    (peak) => answer({ peak }),
    (error: unknown) => {
      const code = error instanceof CoreError ? error.code : "internal";
      const subject = error instanceof CoreError ? error.subject : undefined;
      answer({ failure: { code, message: error instanceof Error ? error.message : String(error), subject } });
    },
  );
});
