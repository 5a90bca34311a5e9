import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Browser, Page } from "puppeteer-core";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { browserPath, contrasts, openBrowser, openPage } from "../support/browser.ts";
import { mnistFile, NETWORKS } from "../support/mnist.ts";
import { until } from "../support/until.ts";

/** The console, used in a real browser as a newcomer would: a model, data, a job, its report, and a comparison. */

/** What WCAG 2 asks of text that is not large, at level AA. */
const MIN_CONTRAST = 4.5;
const MAX_WIRE_BYTES = 150_000;

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

// Linux is where CI runs, and where scripts/setup installs a browser: there it must be.
/** A web server of these bytes. */
async function serve(bytes: Readonly<Record<string, Uint8Array>>): Promise<{ url: string; close(): void }> {
  const server = createServer((request, response) => response.end(bytes[request.url!])).listen(0, "127.0.0.1");
  await once(server, "listening");
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close: () => server.close() };
}

const skip = process.platform !== "linux" && browserPath() === undefined ? "no Chromium on this machine" : false;

describe("the console in a browser", { skip }, () => {
  let stack: Stack;
  let browser: Browser;
  let folder: string;
  let files: Awaited<ReturnType<typeof serve>>;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "console-"));
    await writeFile(join(folder, "digits.onnx"), NETWORKS.cnn([4, 8], 32));
    await writeFile(join(folder, "digits.npz"), mnistFile("test", 200));
    browser = await openBrowser();
    files = await serve({ "/other.onnx": NETWORKS.cnn([4, 4], 16) });
    const WEBHOOK_SECRET = `whsec_${Buffer.alloc(32, 7).toString("base64")}`;
    stack = await startStack({ LOG_LEVEL: "warn", SOURCE_ALLOW_HOSTS: new URL(files.url).host, WEBHOOK_SECRET });
  });
  after(async () => {
    await browser?.close();
    await stack?.close();
    files?.close();
    if (folder) await rm(folder, { recursive: true });
  });

  const heading = (page: Page, text: RegExp) =>
    until(`the heading ${text}`, async () => {
      const found = (await page.evaluate(`document.querySelector("h1")?.textContent ?? ""`)) as string;
      return text.test(found) && found;
    });
  const shows = (page: Page, text: RegExp, withinMs = 30_000) =>
    until(
      `the text ${text}`,
      async () => text.test((await page.evaluate(`document.body.innerText`)) as string),
      withinMs,
    );
  const click = (page: Page, text: string) =>
    page.locator(`::-p-xpath(//*[self::a or self::button or self::summary][contains(., "${text}")])`).click();
  const choose = (page: Page, label: string, value: string) =>
    until(`the field ${label}`, async () => {
      const id = await page.evaluate(
        `[...document.querySelectorAll("label")].find((it) => it.textContent.trim().startsWith(${JSON.stringify(label)}))?.htmlFor`,
      );
      if (typeof id !== "string") return false;
      return (await page.select(`[id="${id}"]`, value)).includes(value);
    });
  const drop = async (page: Page, name: string, nth = 0) => {
    const inputs = await until("a place to drop files", async () => {
      const found = await page.$$("input[type=file]");
      return found.length > nth && found;
    });
    await (inputs[nth] as unknown as { uploadFile(path: string): Promise<void> }).uploadFile(join(folder, name));
  };
  /** Findings that keep people from using a page, as axe-core sees them. */
  async function unusable(page: Page): Promise<unknown[]> {
    await page.evaluate(AXE);
    const found = (await page.evaluate(`axe.run(document).then(({ violations }) => violations
      .filter(({ impact }) => impact === "serious" || impact === "critical")
      .map(({ id, nodes }) => [id, ...nodes.slice(0, 3).map(({ html }) => html.slice(0, 160))]))`)) as unknown[];
    return found;
  }

  test("the whole tour: model, data, job, report, comparison; nothing is asked of anybody else", async () => {
    const { page, requests, complaints } = await openPage(browser, `${stack.url}/`, { width: 1280, scheme: "light" });
    await heading(page, /Make a model smaller/);
    const session = await page.createCDPSession();
    await session.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: folder });

    await drop(page, "digits.onnx");
    await heading(page, /^digits$/);
    await shows(page, /Where the bytes are[\s\S]*float32: [\d.]+ kB/);
    await shows(page, /Layers, the largest first[\s\S]*Gemm|Conv/);
    assert.deepEqual(await unusable(page), []);
    const modelUrl = page.url();
    const modelId = modelUrl.split("/").at(-1)!;

    await page.goto(`${stack.url}/#/datasets`);
    await heading(page, /^Datasets$/);
    await drop(page, "digits.npz");
    await heading(page, /^digits$/);
    await shows(page, /Samples\s+200/);
    assert.deepEqual(await unusable(page), []);
    const datasetId = page.url().split("/").at(-1)!;

    // By a form that is made from the schemas.
    await page.goto(`${stack.url}/#/new?model=${modelId}`);
    await heading(page, /^New job$/);
    assert.deepEqual(await unusable(page), []);
    await choose(page, "method", "static");
    await choose(page, "dataset id", datasetId);
    const typed = JSON.parse((await page.evaluate(`document.getElementById("json").value`)) as string) as {
      params: object;
    };
    assert.deepEqual(typed.params, { method: "static", dataset_id: datasetId });
    await click(page, "Only say what it would do");
    await shows(page, /It would work[\s\S]*nodes changed/);
    await click(page, "Start");
    await shows(page, /Open the report/, 120_000);
    await shows(page, /What next/);
    await shows(page, /smaller|larger|as large/);
    assert.deepEqual(await unusable(page), []);
    const jobId = page.url().split("/").at(-1)!;

    // The report, in a window of its own; and the model, whole.
    const opened = new Promise<Page>((resolve) =>
      browser.once("targetcreated", async (target) => resolve((await target.page())!)),
    );
    await click(page, "Open the report");
    const report = await opened;
    await until("the report", async () =>
      /modelpress report/.test((await report.evaluate(`document.body?.innerText ?? ""`).catch(() => "")) as string),
    );
    assert.equal(report.url(), `${stack.url}/v1/jobs/${jobId}/report`);
    await report.close();
    await click(page, "Download the model");
    const job = (await (await fetch(`${stack.url}/v1/jobs/${jobId}`)).json()) as {
      result: { artifacts: { name: string; sha256: string }[] };
    };
    const made = job.result.artifacts.find(({ name }) => name === "model.onnx")!;
    await until("the model is saved", async () => {
      const saved = "digits static.onnx";
      if (!(await readdir(folder)).includes(saved)) return false;
      const bytes = await readFile(join(folder, saved));
      return createHash("sha256").update(bytes).digest("hex") === made.sha256;
    });

    // By what can be accepted: several methods at once, side by side.
    await page.goto(`${stack.url}/#/accept?model=${modelId}`);
    await heading(page, /What can you accept/);
    assert.deepEqual(await unusable(page), []);
    await page.locator("#size").fill("90");
    await click(page, "Try the usual methods");
    await heading(page, /^Compare$/);
    await until(
      "all of them have ended",
      async () => /All jobs have ended/.test((await page.evaluate(`document.body.textContent`)) as string),
      300_000,
    );
    const dots = (await page.evaluate(`document.querySelectorAll("figure circle").length`)) as number;
    assert.ok(dots >= 3, `${dots} dots`);
    assert.deepEqual(await unusable(page), []);

    assert.deepEqual(complaints, []);
    const elsewhere = requests.filter((url) => !url.startsWith(stack.url) && !url.startsWith("blob:"));
    assert.deepEqual(elsewhere, []);
    await page.close();
  });

  test("the page is light: few bytes over the wire, and none for what has not changed", async () => {
    const page = await browser.newPage();
    try {
      const session = await page.createCDPSession();
      await session.send("Network.enable");
      let bytes = 0;
      session.on("Network.loadingFinished", ({ encodedDataLength }) => (bytes += encodedDataLength));
      await page.goto(`${stack.url}/#/new`, { waitUntil: "networkidle0" });
      await heading(page, /^New job$/);
      assert.ok(bytes > 10_000 && bytes <= MAX_WIRE_BYTES, `${bytes} bytes`);
      const file = await fetch(`${stack.url}/console/app.js`);
      const again = await fetch(file.url, { headers: { "if-none-match": file.headers.get("etag")! } });
      assert.equal(again.status, 304);
    } finally {
      await page.close();
    }
  });

  for (const [name, look] of Object.entries({
    "desktop, dark": { width: 1280, scheme: "dark" },
    "phone, light": { width: 390, scheme: "light" },
    "phone, dark": { width: 390, scheme: "dark" },
  } as const)) {
    test(`${name}: every page is legible, and none is wider than the window`, async () => {
      for (const path of ["", "models", "datasets", "jobs", "new", "accept", "compare", "webhooks", "key"]) {
        const { page, complaints } = await openPage(browser, `${stack.url}/#/${path}`, look);
        try {
          await until(
            "the page",
            async () => page.evaluate(`document.querySelector("h1") !== null`) as Promise<boolean>,
          );
          const faint = (await contrasts(page)).filter(({ contrast }) => contrast < MIN_CONTRAST);
          assert.deepEqual(faint, [], `${path}: text is hard to read`);
          const overflow = (await page.evaluate(`document.documentElement.scrollWidth - innerWidth`)) as number;
          assert.ok(overflow <= 0, `${path} is ${overflow} pixels wider than the window`);
          assert.deepEqual(await unusable(page), [], path);
          assert.deepEqual(complaints, []);
        } finally {
          await page.close();
        }
      }
    });
  }

  test("the keyboard is enough: a page is reached and its heading has the focus", async () => {
    const { page } = await openPage(browser, `${stack.url}/`, { width: 1280, scheme: "light" });
    try {
      await heading(page, /Make a model smaller/);
      const focused = async () => (await page.evaluate(`document.activeElement.textContent`)) as string;
      await page.keyboard.press("Tab");
      assert.equal(await focused(), "Skip to content");
      await page.keyboard.press("Enter");
      assert.equal(await page.evaluate(`document.activeElement.id`), "main");
      await page.focus(`nav a[href="#/models"]`);
      await page.keyboard.press("Enter");
      await heading(page, /^Models$/);
      await until("its heading has the focus", async () => (await focused()) === "Models");
      await until("the title", async () => (await page.title()) === "Models – modelpress");
    } finally {
      await page.close();
    }
  });

  test("a refusal is shown with its fields, and nothing is lost of what was typed", async () => {
    const { page } = await openPage(browser, `${stack.url}/#/new`, { width: 1280, scheme: "light" });
    try {
      await heading(page, /^New job$/);
      await click(page, "Start");
      await shows(page, /model_id/);
      const typed = JSON.parse((await page.evaluate(`document.getElementById("json").value`)) as string) as {
        params: { method: string };
      };
      assert.equal(typed.params.method, "weight_only");
    } finally {
      await page.close();
    }
  });

  test("a secret for a receiver of webhooks is made and shown once", async () => {
    const { page } = await openPage(browser, `${stack.url}/#/webhooks`, { width: 1280, scheme: "light" });
    try {
      await heading(page, /^Webhooks$/);
      await page.locator("#receiver").fill("http://10.0.0.1/hooks");
      await click(page, "Make a secret");
      await shows(page, /must start with https/);
      await page.locator("#receiver").fill("https://ci.example.com/hooks");
      await click(page, "Make a secret");
      await shows(page, /whsec_[A-Za-z0-9+/=]{40}/);
      await click(page, "Make a secret");
      await shows(page, /The one before is signed with as well until/);
      assert.deepEqual(await unusable(page), []);
    } finally {
      await page.close();
    }
  });

  test("a model is fetched from an address, or the refusal says why not", async () => {
    const { page } = await openPage(browser, `${stack.url}/#/models`, { width: 1280, scheme: "light" });
    try {
      await heading(page, /^Models$/);
      await click(page, "Or fetch it from an address");
      await page.locator("#address-models").fill("hf://org/net/model.onnx");
      await click(page, "Fetch");
      await shows(page, /has allowed no repository/);
      await page.locator("#address-models").fill(`${files.url}/other.onnx`);
      await click(page, "Fetch");
      await heading(page, /^other$/);
    } finally {
      await page.close();
    }
  });

  test("a service with keys: the console says so, takes one, and works", async () => {
    const key = "key-of-the-test";
    const file = join(folder, "keys.json");
    await writeFile(file, JSON.stringify([{ name: "test", sha256: createHash("sha256").update(key).digest("hex") }]));
    const closed = await startStack({ LOG_LEVEL: "warn", API_KEYS_FILE: file });
    try {
      const { page } = await openPage(browser, `${closed.url}/#/models`, { width: 1280, scheme: "light" });
      await shows(page, /API keys/);
      await click(page, "Key");
      await heading(page, /^Key$/);
      await page.locator("#key").fill("another-key");
      await click(page, "Use it");
      await shows(page, /API keys/);
      await page.locator("#key").fill(key);
      await click(page, "Use it");
      await shows(page, /The service knows this key/);
      await page.close();
    } finally {
      await closed.close();
    }
  });
});
