import assert from "node:assert/strict";
import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { describe, test } from "node:test";
import { codesGuide, readGuide } from "../../scripts/codes.ts";
import { licenceList } from "../../scripts/licences.ts";
import { NOTE_CODES } from "../../src/core/note-codes.ts";
import { JobRequest } from "../../src/service/api/job-schemas.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const read = (path: string) => readFileSync(join(ROOT, path), "utf8");

test("the guide to codes is what npm run codes writes", () => {
  const guide = readGuide();
  assert.equal(guide, codesGuide(guide));
});

test("every code of a note is one that something says", () => {
  const code = globSync("{src,workers}/**/*.ts", { cwd: ROOT })
    .filter((path) => path !== "src/core/note-codes.ts")
    .map(read)
    .join("");
  const isSaid = (name: string) => code.includes(`"${name}"`) || /^(gptq|adaround|stochastic)(_|$)/.test(name);
  assert.deepEqual(
    NOTE_CODES.filter((name) => !isSaid(name)),
    [],
  );
});

test("the list of licences is what npm run licences writes", () => {
  assert.equal(read("docs/licences.md"), licenceList());
});

describe("guides", () => {
  const guides = ["README.md", "ARCHITECTURE.md", ...globSync("docs/**/*.md", { cwd: ROOT })];

  for (const guide of guides) {
    test(`${guide}: links lead to files, and to headings that are there`, () => {
      for (const [, target] of read(guide).matchAll(/\]\((?!https?:)([^)\s]+)\)/g)) {
        const [path, heading] = target!.split("#");
        const file = path === "" ? guide : normalize(join(dirname(guide), path!));
        assert.ok(existsSync(join(ROOT, file)), `${target} leads nowhere`);
        if (heading === undefined || !file.endsWith(".md")) continue;
        const headings = [...read(file).matchAll(/^#+ (.*)$/gm)].map(([, text]) =>
          text!
            .toLowerCase()
            .replaceAll(/[^\w\s-]/g, "")
            .trim()
            .replaceAll(" ", "-"),
        );
        assert.ok(headings.includes(heading), `${file} has no heading ${heading}`);
      }
    });
  }

  for (const guide of ["docs/guides/recipes.md", "docs/guides/jobs.md", "docs/guides/training.md"]) {
    test(`${guide}: every whole job in it can be posted`, () => {
      const bodies = [...read(guide).matchAll(/^```json\n(\{ "type".*?)^```$/gms)].map(([, text]) => text!);
      assert.ok(bodies.length > 0);
      for (const body of bodies) {
        let ids = 0;
        const filled = body.replaceAll(/"(mdl_)?…"/g, () => `"mdl_${++ids}"`).replaceAll("dst_…", "dst_1");
        const parsed = JobRequest.safeParse(JSON.parse(filled));
        assert.ok(parsed.success, `${body}\n${parsed.error?.message}`);
      }
    });
  }
});
