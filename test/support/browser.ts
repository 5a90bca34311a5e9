import { existsSync } from "node:fs";
import { type Browser, launch, type Page } from "puppeteer-core";

/** A real browser, and what a page looks like in it. */

const PLACES = [
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/** Where the machine has a Chromium, or a path that `CHROMIUM` names. */
export function browserPath(): string | undefined {
  return [process.env.CHROMIUM ?? "", ...PLACES].find((path) => path !== "" && existsSync(path));
}

export async function openBrowser(): Promise<Browser> {
  const executablePath = browserPath();
  if (executablePath === undefined)
    throw new Error("There is no Chromium: scripts/setup installs it, or CHROMIUM says where it is.");
  // Containers seldom let a browser have its sandbox, and have little shared memory; all it opens here are pages of this project.
  const args = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"];
  return launch({ executablePath, args });
}

export interface Look {
  readonly width: number;
  readonly scheme: "light" | "dark";
  readonly scripts?: boolean;
}

/** A page, and everything it has asked the network for or complained about. */
export interface OpenedPage {
  readonly page: Page;
  readonly requests: readonly string[];
  readonly complaints: readonly string[];
}

export async function openPage(
  browser: Browser,
  url: string,
  { width, scheme, scripts = true }: Look,
): Promise<OpenedPage> {
  const page = await browser.newPage();
  const requests: string[] = [];
  const complaints: string[] = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.setJavaScriptEnabled(scripts);
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(url);
  return { page, requests, complaints };
}

export interface TextLook {
  readonly text: string;
  /** Ratio of luminances as WCAG 2 defines it, from 1 to 21. */
  readonly contrast: number;
}

/** How well every text of a page can be told from what is behind it; text that is not there to see is left out. */
export function contrasts(page: Page): Promise<TextLook[]> {
  return page.evaluate(`(() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const layersOver = (colours) => {
      canvas.clearRect(0, 0, 1, 1);
      for (const colour of colours) {
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
      }
      return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)];
    };
    const luminance = (rgb) => {
      const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const looks = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const element = node.parentElement;
      if (node.data.trim() === "" || element.closest("script, style, title") || element.getClientRects().length === 0) continue;
      const behind = [];
      for (let at = element; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
      const style = getComputedStyle(element);
      const ground = ["white", ...behind];
      const [paper, ink] = [layersOver(ground), layersOver([...ground, element.closest("svg") ? style.fill : style.color])].map(luminance);
      looks.push({ text: node.data.trim(), contrast: (Math.max(paper, ink) + 0.05) / (Math.min(paper, ink) + 0.05) });
    }
    return looks;
  })()`) as Promise<TextLook[]>;
}
