import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { openSandbox, SANDBOX_LEVELS, type Sandbox } from "../../src/tasks/sandbox.ts";

/** The sandboxes that this machine allows, the strongest first. */
export async function sandboxesHere(entry: URL): Promise<readonly Sandbox[]> {
  const directory = await mkdtemp(join(tmpdir(), "sandboxes-"));
  const log = pino({ level: "silent" });
  try {
    const tried = SANDBOX_LEVELS.map((wanted) => openSandbox({ wanted, entry, directory, log }).catch(() => undefined));
    return (await Promise.all(tried)).filter((sandbox) => sandbox !== undefined);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
