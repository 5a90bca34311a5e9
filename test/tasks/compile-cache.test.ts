import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, utimesSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { promisify } from "node:util";

const MODULE = new URL("../../src/tasks/compile-cache.ts", import.meta.url).href;
const directory = mkdtempSync(join(tmpdir(), "compile-cache-"));
after(() => rmSync(directory, { recursive: true }));

/** Compiles in a process of its own, which keeps compiled code in `directory`, as a program of ours does. */
async function compile(): Promise<void> {
  const script = `await (await import(${JSON.stringify(MODULE)})).compileForChildren()`;
  const env = { NODE_COMPILE_CACHE: directory };
  await promisify(execFile)(process.execPath, ["--input-type=module", "-e", script], { env });
}

test("what children load is compiled once, and again when the code has changed since", async () => {
  await compile();
  const [version] = readdirSync(directory);
  const kept = join(directory, version!);
  const marker = readdirSync(kept).find((name) => name.startsWith("children-of-"))!;
  assert.ok(existsSync(join(kept, marker)) && readdirSync(kept).length > 300, `${readdirSync(kept).length} modules`);

  const first = statSync(join(kept, marker)).mtimeMs;
  await compile();
  assert.equal(statSync(join(kept, marker)).mtimeMs, first);

  utimesSync(join(kept, marker), 0, 0);
  await compile();
  assert.ok(statSync(join(kept, marker)).mtimeMs >= first);
});
