import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Browser } from "puppeteer-core";
import sharp from "sharp";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { browserPath, contrasts, type Look, openBrowser, openPage } from "../support/browser.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { NETWORKS } from "../support/mnist.ts";

/** Reports of real jobs, looked at in a real browser, as they come from the service. */

const LOOKS: Readonly<Record<string, Look>> = {
  desktop: { width: 1280, scheme: "light" },
  "desktop, dark": { width: 1280, scheme: "dark" },
  phone: { width: 390, scheme: "light" },
  "phone, dark": { width: 390, scheme: "dark" },
};

/** What WCAG 2 asks of text that is not large, at level AA. */
const MIN_CONTRAST = 4.5;

// Linux is where CI runs, and where scripts/setup installs a browser: there it must be.
const skip = process.platform !== "linux" && browserPath() === undefined ? "no Chromium on this machine" : false;

describe("the report in a browser", { skip }, () => {
  let stack: Stack;
  let jobs: LiveJobs;
  let browser: Browser;
  let pictures: string;
  const reports: Record<string, string> = {};

  before(async () => {
    browser = await openBrowser();
    pictures = await mkdtemp(join(tmpdir(), "report-page-"));
    stack = await startStack({ LOG_LEVEL: "warn" });
    jobs = await openLiveJobs(stack);
    const { client } = jobs;
    const [training, held] = [await jobs.uploadDigits("training", 1000), await jobs.uploadDigits("test", 300)];
    const cnn = (await client.uploadModel(NETWORKS.cnn([4, 8], 32), "cnn")).id;
    const mlp = (await client.uploadModel(NETWORKS.mlp(16), "mlp")).id;
    const evaluation = { dataset_id: held, samples: 300, latency: { runs: 20 } };
    const distill = async (params: object) =>
      jobs.succeeded(
        await client.createJob({
          type: "distill",
          params: { mode: "offline", dataset_id: training, ...params },
          evaluation,
        }),
      );
    const quantize = async (model_id: string, params: object) =>
      jobs.succeeded(await client.createJob({ type: "quantize", model_id, params, evaluation }));

    const teacher = await distill({
      student: { model_id: cnn, init: "reinitialize" },
      loss: { kl_weight: 0, label_weight: 1 },
      training: { epochs: 3, batch_size: 64 },
    });
    const teacher_model_id = teacher.result!.model_id;
    const student = await distill({
      ...{ teacher_model_id, student: { model_id: mlp }, baseline: true },
      training: { epochs: 3, batch_size: 64 },
    });
    const statics = await quantize(teacher_model_id, {
      method: "static",
      dataset_id: training,
      samples: 64,
      min_sqnr_db: 60,
      float_where_slower: false,
      max_trials: 4,
    });
    const halves = await quantize(teacher_model_id, { method: "float16" });
    const fourBits = await quantize(teacher_model_id, { method: "weight_only" });
    Object.assign(reports, { distill: student.id, static: statics.id, float16: halves.id, weight_only: fourBits.id });
  });
  after(async () => {
    await browser?.close();
    await stack?.close();
    if (pictures) await rm(pictures, { recursive: true });
  });

  const urlOf = (kind: string) => `${stack.url}/v1/jobs/${reports[kind]}/report`;

  /** Charts that each kind of job must show. */
  const CHARTS: Readonly<Record<string, readonly RegExp[]>> = {
    distill: [/^Training loss/, /^Validation top1/, /^Size/, /^Time of each run/],
    static: [/^Size/, /^Time of each run/, /^Signal to noise ratio/, /float$/, /^Score and size/],
    float16: [/^Size/, /^Time of each run/, /^Signal to noise ratio/],
    weight_only: [/^Size/, /^Time of each run/, /^Signal to noise ratio/],
  };

  for (const [kind, titles] of Object.entries(CHARTS)) {
    for (const [name, look] of Object.entries(LOOKS)) {
      test(`${kind}, ${name}: complete, legible, alone`, async () => {
        const { page, requests, complaints } = await openPage(browser, urlOf(kind), look);
        try {
          const looks = await contrasts(page);
          const seen = (await page.evaluate(`({
            overflow: document.documentElement.scrollWidth - innerWidth,
            paper: getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number),
            titles: [...document.querySelectorAll("figcaption")].map((caption) => caption.textContent),
            charts: [...document.querySelectorAll("figure")].map((figure) =>
              [...figure.querySelectorAll("svg[role=img]")].map((svg) => svg.getBoundingClientRect()).filter(({ width }) => width > 0)
                .map(({ width, height }) => [width, height])),
            cut: [...document.querySelectorAll("svg text")].filter((text) => {
              const [inner, outer] = [text.getBoundingClientRect(), text.closest("svg").getBoundingClientRect()];
              return inner.width > 0 && (inner.left < outer.left - 1 || inner.right > outer.right + 1
                || inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1);
            }).map((text) => text.textContent),
          })`)) as {
            overflow: number;
            paper: [number, number, number];
            titles: string[];
            charts: [number, number][][];
            cut: string[];
          };
          const picture = join(pictures, `${kind}-${name.replace(", ", "-")}.png`);
          await writeFile(picture, await page.screenshot({ fullPage: true }));

          assert.deepEqual(complaints, []);
          assert.deepEqual(requests, [urlOf(kind)]);
          assert.ok(seen.overflow <= 0, `${seen.overflow} pixels wider than the window`);
          assert.equal(seen.titles.length, titles.length, seen.titles.join("; "));
          titles.forEach((title, i) => {
            assert.match(seen.titles[i]!, title);
          });
          // One of the two drawings of each chart, as large as there is room for.
          for (const [i, drawings] of seen.charts.entries()) {
            assert.equal(drawings.length, 1, seen.titles[i]);
            assert.ok(drawings[0]![0] > 300 && drawings[0]![1] > 80, `${seen.titles[i]}: ${drawings[0]}`);
          }
          assert.deepEqual(seen.cut, [], "Text is cut off.");
          assert.ok(looks.length > 100);
          const faint = looks.filter(({ contrast }) => contrast < MIN_CONTRAST);
          assert.deepEqual(faint, [], "Text is hard to read.");
          const brightness = seen.paper.reduce((sum, part) => sum + part, 0) / 3;
          assert.ok(look.scheme === "dark" ? brightness < 40 : brightness > 240, `${seen.paper}`);
          const { channels } = await sharp(picture).stats();
          for (const { mean, stdev } of channels.slice(0, 3)) {
            assert.ok(look.scheme === "dark" ? mean < 70 : mean > 200, `The picture is ${mean} bright.`);
            assert.ok(stdev > 5, "The picture is blank.");
          }
        } finally {
          await page.close();
        }
      });
    }
  }

  test("the table of nodes is sorted by a click and filtered by words", async () => {
    const { page, complaints } = await openPage(browser, urlOf("static"), LOOKS.desktop!);
    try {
      const column = async (index: number) =>
        (await page.evaluate(
          `[...document.querySelectorAll("table.sortable tbody tr")].filter((row) => !row.hidden).map((row) => row.cells[${index}].textContent)`,
        )) as string[];
      const click = (title: string) => page.locator(`table.sortable th ::-p-text(${title})`).click();
      const [NODE, OPERATOR, SQNR] = [0, 1, 3] as const;
      const nodes = await column(NODE);
      assert.ok(nodes.length >= 4);
      await click("Node");
      assert.deepEqual(await column(NODE), nodes.toSorted());
      await click("Node");
      assert.deepEqual(await column(NODE), nodes.toSorted().reverse());
      await click("SQNR");
      const ratios = (await column(SQNR)).map(Number.parseFloat).filter(Number.isFinite);
      assert.ok(ratios.length >= 2);
      assert.deepEqual(
        ratios,
        ratios.toSorted((a, b) => a - b),
        "Numbers are sorted as numbers.",
      );
      assert.equal(await page.evaluate(`document.querySelectorAll("[aria-sort=ascending]").length`), 1);

      await page.locator("input[type=search]").fill("conv");
      const found = await column(OPERATOR);
      assert.ok(found.length > 0 && found.length < nodes.length);
      assert.match((await page.evaluate(`document.querySelector("output").textContent`)) as string, /^\d+ of \d+$/);
      assert.deepEqual(complaints, []);
    } finally {
      await page.close();
    }
  });

  test("without scripts the page has everything but the controls", async () => {
    const { page } = await openPage(browser, urlOf("static"), { ...LOOKS.desktop!, scripts: false });
    try {
      const html = await page.content();
      assert.match(html, /<table class="sortable">/);
      assert.doesNotMatch(html, /<th scope="col"><button/);
      assert.match(html, /<div class="controls" hidden/);
    } finally {
      await page.close();
    }
  });
});
