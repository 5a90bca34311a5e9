import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { parse } from "yaml";

/** What the guides, the image and the compose file say of the program is what the program says of itself. */

const ROOT = new URL("../..", import.meta.url).pathname;
const read = (path: string) => readFileSync(join(ROOT, path), "utf8");

const VARIABLES = [...read("src/config.ts").matchAll(/^ {2}([A-Z][A-Z0-9_]+): /gm)].map(([, name]) => name!);

interface Service {
  readonly command: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly healthcheck?: object;
  readonly mem_limit?: string;
}

const compose = parse(read("docker-compose.yml"), { merge: true }) as { services: Record<string, Service> };

describe("configuration guide", () => {
  test("names every variable and no other", () => {
    const table = read("docs/guides/configuration.md")
      .split("\n")
      .filter((line) => line.startsWith("| `"))
      .flatMap((line) => [...line.split("|")[1]!.matchAll(/`([A-Z0-9_]+)`/g)].map(([, name]) => name!));
    assert.ok(VARIABLES.length > 10);
    assert.deepEqual(table.toSorted(), VARIABLES.toSorted());
  });
});

describe("compose file", () => {
  test("sets only variables that the configuration knows", () => {
    const set = Object.values(compose.services).flatMap(({ environment }) => Object.keys(environment ?? {}));
    assert.deepEqual(
      set.filter((name) => !VARIABLES.includes(name)),
      [],
    );
  });

  test("runs programs that the image holds", () => {
    const copied = [...read("Dockerfile").matchAll(/^COPY (?:--from=\S+ )?(\S+).* \S+$/gm)].map(
      ([, source]) => source!,
    );
    for (const name of ["api", "worker"]) {
      const [node, file] = compose.services[name]!.command;
      assert.equal(node, "node");
      assert.ok(existsSync(join(ROOT, file!)), `${file} is not there`);
      assert.ok(copied.includes(file!.split("/")[0]!), `the image does not hold ${file}`);
    }
  });

  test("limits the memory of every container, and jobs and inspections to less than that", () => {
    const sizeOf = (text: string | undefined) => {
      const [, number, unit = ""] = /^(?:\$\{\w+:-)?(\d+)(mb|g)?\}?$/.exec(text ?? "") ?? [];
      return Number(number) * { "": 1, mb: 2 ** 20, g: 2 ** 30 }[unit]!;
    };
    const { redis, api, worker } = compose.services as Record<string, Service>;
    assert.ok(sizeOf(redis!.command.at(-1)) <= sizeOf(redis!.mem_limit) / 2);
    assert.equal(sizeOf(api!.environment!.INSPECT_MEMORY_BYTES), 0.75 * sizeOf(api!.mem_limit));
    assert.equal(sizeOf(worker!.environment!.JOB_MEMORY_BYTES), 0.75 * sizeOf(worker!.mem_limit));
  });

  test("keeps records: an append-only file, and no eviction", () => {
    const redis = compose.services.redis!.command.join(" ");
    assert.match(redis, /--appendonly yes/);
    assert.match(redis, /--maxmemory-policy noeviction/);
  });
});

describe("image", () => {
  test("is sent what it copies", () => {
    const sent = read(".dockerignore")
      .split("\n")
      .filter((line) => line.startsWith("!"))
      .map((line) => line.slice(1));
    const copied = [...read("Dockerfile").matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, sources]) =>
      sources!.split(" "),
    );
    assert.deepEqual(new Set(copied), new Set(sent));
    for (const path of copied) assert.ok(existsSync(join(ROOT, path)), `${path} is not there`);
  });

  test("does not run as root", () => {
    assert.match(read("Dockerfile"), /^USER node$/m);
  });
});
