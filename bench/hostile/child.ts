import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatasetSpec } from "../../src/service/dataset-spec.ts";
import { failureOfError } from "../../src/tasks/failures.ts";
import { TASK_HANDLERS } from "../../workers/tasks.ts";
import { hostileInput } from "./inputs.ts";

/** Inspects hostile inputs, by their numbers, as the service's child processes do, and tells how each has ended. */

const directory = mkdtempSync(join(tmpdir(), "hostile-"));
process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
const context = { signal: new AbortController().signal, news: () => {} };

async function inspect(seed: number): Promise<string> {
  const { kind, name, bytes, spec } = hostileInput(seed);
  const file = { name, path: join(directory, name) };
  writeFileSync(file.path, bytes);
  try {
    if (kind === "model") await TASK_HANDLERS.inspect_model({ files: [file], dims: {} }, context);
    else {
      const parsed = spec === null ? null : DatasetSpec.safeParse(spec);
      if (parsed?.success === false) return "validation_failed";
      await TASK_HANDLERS.inspect_dataset({ file, spec: parsed?.data ?? null }, context);
    }
    return "accepted";
  } catch (error) {
    const { code, message } = failureOfError(error);
    return code === "internal" ? `internal: ${message.slice(0, 200)}` : code;
  }
}

process.on("message", async (seed: number) => {
  process.send!({ seed, ended: await inspect(seed), residentBytes: process.memoryUsage.rss() });
});
process.on("disconnect", () => process.exit());
process.send!("ready");
