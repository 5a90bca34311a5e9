import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { inflateSync } from "node:zlib";

/**
 * Text rendering (pango, inside sharp) loads plain TrueType files only, while npm font packages ship WOFF: the same tables,
 * each deflated, behind another header. Layouts: WOFF 1.0 (W3C), sections 3 and 4; OpenType 1.9, "Font file".
 */

const WOFF_HEADER_BYTES = 44;
const WOFF_ENTRY_BYTES = 20;
const SFNT_HEADER_BYTES = 12;
const SFNT_ENTRY_BYTES = 16;

/** The TrueType file inside a WOFF 1.0 file. Throws when the bytes are not WOFF 1.0. */
export function trueTypeOfWoff(woff: Buffer): Buffer {
  if (woff.toString("latin1", 0, 4) !== "wOFF") throw new Error("Not a WOFF 1.0 font.");
  const tables = woff.readUInt16BE(12);
  const directory = Buffer.alloc(SFNT_HEADER_BYTES + SFNT_ENTRY_BYTES * tables);
  const log2 = 31 - Math.clz32(tables);
  woff.copy(directory, 0, 4, 8); // "flavor", which is the sfnt version
  directory.writeUInt16BE(tables, 4);
  directory.writeUInt16BE(SFNT_ENTRY_BYTES << log2, 6);
  directory.writeUInt16BE(log2, 8);
  directory.writeUInt16BE(SFNT_ENTRY_BYTES * tables - (SFNT_ENTRY_BYTES << log2), 10);

  const parts: Buffer[] = [directory];
  let position = directory.length;
  for (let i = 0; i < tables; i++) {
    const from = WOFF_HEADER_BYTES + WOFF_ENTRY_BYTES * i;
    const offset = woff.readUInt32BE(from + 4);
    const storedBytes = woff.readUInt32BE(from + 8);
    const tableBytes = woff.readUInt32BE(from + 12);
    const stored = woff.subarray(offset, offset + storedBytes);
    const table = storedBytes === tableBytes ? stored : inflateSync(stored);

    const to = SFNT_HEADER_BYTES + SFNT_ENTRY_BYTES * i;
    woff.copy(directory, to, from, from + 4); // tag
    woff.copy(directory, to + 4, from + 16, from + 20); // checksum
    directory.writeUInt32BE(position, to + 8);
    directory.writeUInt32BE(tableBytes, to + 12);
    const padding = -tableBytes & 3;
    parts.push(table, Buffer.alloc(padding));
    position += tableBytes + padding;
  }
  return Buffer.concat(parts);
}

/** The family name of the demo font. */
export const FONT_FAMILY = "Noto Sans SC";

const SUBSETS = ["latin", "chinese-simplified"] as const;

/**
 * Writes the demo font (Latin letters and digits, simplified Chinese) into `folder` and makes it the only font that this
 * process knows: the same text is drawn to the same pixels on a machine with no fonts and on one with hundreds.
 * Call it before the first text is drawn: fontconfig reads its configuration once.
 */
export async function useDemoFont(folder: string): Promise<void> {
  const require = createRequire(import.meta.url);
  await mkdir(folder, { recursive: true });
  for (const subset of SUBSETS) {
    const name = `noto-sans-sc-${subset}-400-normal`;
    const woff = await readFile(require.resolve(`@fontsource/noto-sans-sc/files/${name}.woff`));
    await writeFile(join(folder, `${name}.ttf`), trueTypeOfWoff(woff));
  }
  const configuration = join(folder, "fonts.conf");
  await writeFile(
    configuration,
    `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir>${folder}</dir>
  <cachedir>${join(folder, "cache")}</cachedir>
</fontconfig>
`,
  );
  process.env.FONTCONFIG_FILE = configuration;
}
