import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";

/**
 * The console: a page for people at `/`. Its scripts are modules that browsers read as they are, so that there is nothing to build; the two
 * libraries come from `node_modules`. The page asks this service and nobody else: its policy says so.
 */

const HERE = new URL("page/", import.meta.url);

/** Modules of the page, and its looks. */
const FILES = {
  "app.js": "text/javascript",
  "api.js": "text/javascript",
  "compare.js": "text/javascript",
  "datasets.js": "text/javascript",
  "form.js": "text/javascript",
  "format.js": "text/javascript",
  "from-address.js": "text/javascript",
  "jobs.js": "text/javascript",
  "models.js": "text/javascript",
  "new-job.js": "text/javascript",
  "parts.js": "text/javascript",
  "style.css": "text/css",
  "view.js": "text/javascript",
  "webhooks.js": "text/javascript",
} as const;

/** Libraries, by the name that modules import them by. */
const LIBRARIES = { preact: "preact", "preact/hooks": "preact/hooks", htm: "htm" } as const;
const addressOf = (library: string) => `/console/lib/${library.replaceAll("/", "-")}.js`;

const IMPORT_MAP = JSON.stringify({
  imports: Object.fromEntries(Object.keys(LIBRARIES).map((library) => [library, addressOf(library)])),
});

const POLICY = [
  "default-src 'none'",
  `script-src 'self' 'sha256-${createHash("sha256").update(IMPORT_MAP).digest("base64")}'`,
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** A file as it is sent. */
interface Sent {
  readonly type: string;
  readonly bytes: Buffer;
  readonly zipped: Buffer;
  readonly tag: string;
}

/** `document` gives the OpenAPI document, from whose schemas the page makes its forms. */
export function registerConsole(app: FastifyInstance, document: () => object): void {
  let files: Promise<ReadonlyMap<string, Sent>> | undefined;

  async function send(request: FastifyRequest, reply: FastifyReply, address: string): Promise<FastifyReply> {
    // Most services never show it: it is read for the first who asks.
    files ??= readAll(document());
    const all = await files.catch((error) => {
      files = undefined;
      throw error;
    });
    const file = all.get(address)!;
    const etag = `"${file.tag}"`;
    reply
      .header("content-security-policy", POLICY)
      .header("cache-control", "no-cache")
      .header("vary", "accept-encoding")
      .header("etag", etag);
    if (request.headers["if-none-match"] === etag) return reply.code(304).send();
    reply.header("content-type", `${file.type}; charset=utf-8`);
    const takesGzip = /(^|[\s,])gzip\b(?!\s*;\s*q=0(\.0+)?\s*(,|$))/.test(request.headers["accept-encoding"] ?? "");
    return takesGzip ? reply.header("content-encoding", "gzip").send(file.zipped) : reply.send(file.bytes);
  }

  for (const address of ADDRESSES) {
    app.get(address, { config: { access: "open", pattern: "/console/*" } }, (request, reply) =>
      send(request, reply, address),
    );
  }
}

const ADDRESSES = [
  "/",
  "/favicon.svg",
  "/favicon.ico",
  "/console/schemas.json",
  ...Object.keys(FILES).map((file) => `/console/${file}`),
  ...Object.keys(LIBRARIES).map(addressOf),
];

async function readAll(document: object): Promise<ReadonlyMap<string, Sent>> {
  const icon = await readFile(new URL("favicon.svg", HERE));
  const page = (await readFile(new URL("index.html", HERE), "utf8")).replace(
    "<!--IMPORTS-->",
    `<script type="importmap">${IMPORT_MAP}</script>`,
  );
  const read = async ([file, type]: [string, string]): Promise<[string, Sent]> => [
    `/console/${file}`,
    sent(type, await readFile(new URL(file, HERE))),
  ];
  const library = async ([name, target]: [string, string]): Promise<[string, Sent]> => [
    addressOf(name),
    // Comments that point to maps are left out: browsers would ask for them.
    sent(
      "text/javascript",
      (await readFile(fileURLToPath(import.meta.resolve(target)), "utf8")).replace(/^\/\/# sourceMappingURL=.*$/gm, ""),
    ),
  ];
  return new Map<string, Sent>([
    ["/", sent("text/html", page)],
    ["/favicon.svg", sent("image/svg+xml", icon)],
    ["/favicon.ico", sent("image/svg+xml", icon)],
    ["/console/schemas.json", sent("application/json", JSON.stringify(schemasOf(document)))],
    ...(await Promise.all(Object.entries(FILES).map(read))),
    ...(await Promise.all(Object.entries(LIBRARIES).map(library))),
  ]);
}

function sent(type: string, content: string | Buffer): Sent {
  const bytes = Buffer.from(content);
  return {
    type,
    bytes,
    zipped: gzipSync(bytes, { level: 9 }),
    tag: createHash("sha256").update(bytes).digest("base64url").slice(0, 22),
  };
}

/** What forms are made from. */
const FORMS = ["JobRequest", "DatasetSpec"] as const;

type Schemas = Readonly<Record<string, unknown>>;

/** The schemas of requests, and all that they refer to. */
function schemasOf(document: object): Schemas {
  const all = (document as { readonly components: { readonly schemas: Schemas } }).components.schemas;
  const found = new Set<string>(FORMS);
  for (const name of found) {
    if (all[name] === undefined) throw new Error(`The API document has no schema ${name}.`);
    for (const [, other] of JSON.stringify(all[name]).matchAll(/"#\/components\/schemas\/([^"]+)"/g)) found.add(other!);
  }
  return Object.fromEntries([...found].map((name) => [name, all[name]]));
}
