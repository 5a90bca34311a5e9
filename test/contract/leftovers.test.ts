import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { keepFreeOfLeftovers, processName } from "../../src/leftovers.ts";
import { createFileBlobStore } from "../../src/service/blobs/fs.ts";

const MINUTE = 60_000;
const ROOT = new URL("../..", import.meta.url).pathname;

async function directoryOf(t: TestContext, names: Readonly<Record<string, number>>): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "leftovers-"));
  t.after(() => rm(directory, { recursive: true }));
  for (const [name, minutesAgo] of Object.entries(names)) {
    const path = join(directory, name);
    await writeFile(path, "half an upload");
    const touched = new Date(Date.now() - minutesAgo * MINUTE);
    await utimes(path, touched, touched);
  }
  return directory;
}

function deadPid(): number {
  return spawnSync(process.execPath, ["-e", ""]).pid;
}

test("what a process has left is removed when that is dead, and stays while it runs", async (t) => {
  const dead = processName(deadPid());
  const other = spawn("sleep", ["60"]);
  t.after(() => other.kill());
  await once(other, "spawn");
  const running = processName(other.pid);
  const directory = await directoryOf(t, {
    [dead]: 0,
    [`${dead}.upload`]: 0,
    [`${running}.upload`]: 0,
    [`${processName()}.upload`]: 0,
  });
  await mkdir(join(directory, `${dead}.room`, "files"), { recursive: true });
  await keepFreeOfLeftovers(directory);
  assert.deepEqual((await readdir(directory)).sort(), [`${processName()}.upload`, `${running}.upload`].sort());
});

test("of an earlier life with the same pid nothing stays", async (t) => {
  const directory = await directoryOf(t, { [`${processName()}.upload`]: 30 });
  await keepFreeOfLeftovers(directory);
  assert.deepEqual(await readdir(directory), []);
});

test("what another machine's process made, or one in a container of the same name, stays for an hour", async (t) => {
  const [host, namespace] = processName().split(/\.(\d+)\.\d+$/);
  const names = [`${host}-2.${namespace}.1.upload`, `${host}.${Number(namespace) + 1}.1.upload`, "of-an-older-version"];
  const directory = await directoryOf(t, Object.fromEntries(names.map((name) => [name, 50])));
  await keepFreeOfLeftovers(directory);
  assert.deepEqual((await readdir(directory)).sort(), names.sort());
  for (const name of names) {
    const touched = new Date(Date.now() - 70 * MINUTE);
    await utimes(join(directory, name), touched, touched);
  }
  await keepFreeOfLeftovers(directory);
  assert.deepEqual(await readdir(directory), []);
});

test("the bytes that a killed process was storing are gone when the next one has opened the store", async (t) => {
  const directory = await directoryOf(t, {});
  const incoming = join(directory, "incoming");
  const program = `
    const { createFileBlobStore } = await import("./src/service/blobs/fs.ts");
    const store = await createFileBlobStore(${JSON.stringify(directory)});
    const endless = async function* () {
      yield Buffer.alloc(1000);
      console.log("storing");
      await new Promise(() => setInterval(() => {}, 1000));
    };
    await store.put(endless(), { maxBytes: 1e6 });`;
  const storing = spawn(process.execPath, ["--input-type=module", "-e", program], { cwd: ROOT });
  await once(storing.stdout, "data");
  await createFileBlobStore(directory);
  assert.equal((await readdir(incoming)).length, 1, "of one that runs");
  storing.kill("SIGKILL");
  await once(storing, "exit");
  await createFileBlobStore(directory);
  assert.deepEqual(await readdir(incoming), []);
});
