import { Readable } from "node:stream";
import type { FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import type { BlobRef, BlobStore } from "../blobs/blob-store.ts";
import { ServiceError } from "../errors.ts";

/** Bytes to download: what they are called, and how to read a part of them. */
export interface Download {
  readonly size_bytes: number;
  /** Equal bytes have equal tags. */
  readonly tag: string;
  /** Of the whole, when it is known. */
  readonly sha256: string | undefined;
  readonly mediaType: string;
  readonly filename: string;
  /** Whether a browser may show it instead of saving it. */
  readonly inline?: boolean;
  /** Streams `[start, end)`. */
  read(range: { start: number; end: number }): Promise<AsyncIterable<Uint8Array>>;
}

export function blobDownload(
  blobs: BlobStore,
  blob: BlobRef,
  look: Pick<Download, "mediaType" | "filename" | "inline">,
): Download {
  const { sha256, size_bytes } = blob;
  return { ...look, size_bytes, sha256, tag: sha256, read: (range) => blobs.get(blob, range) };
}

/** What a client may say about the bytes it has or wants. */
export const DownloadHeaders = z.object({
  range: z.string().optional().meta({ description: "One range of bytes, as in `bytes=0-1023`." }),
  "if-range": z.string().optional().meta({ description: "An ETag: the range is answered only if it is still that." }),
  "if-none-match": z.string().optional().meta({ description: "ETags; 304 if the bytes are one of them." }),
});

/** Headers that every download has; for the API document. */
export const DOWNLOAD_HEADERS = {
  ETag: "Changes when the bytes do; use it with If-None-Match and If-Range.",
  "Accept-Ranges": "`bytes`.",
  "Content-Disposition": "The file's name.",
} as const;
export const DIGEST_HEADER = { "Repr-Digest": "RFC 9530: `sha-256=:…:` of the whole file." } as const;

/**
 * Answers GET and HEAD as RFC 9110 asks: one byte range (206, 416), If-Range, If-None-Match (304). Several ranges in
 * one request are answered with the whole, which the RFC allows.
 */
export async function sendDownload(
  request: FastifyRequest,
  reply: FastifyReply,
  download: Download,
): Promise<FastifyReply> {
  const etag = `"${download.tag}"`;
  reply.header("etag", etag).header("cache-control", "private, no-cache").header("accept-ranges", "bytes");
  if (download.sha256 !== undefined) {
    reply.header("repr-digest", `sha-256=:${Buffer.from(download.sha256, "hex").toString("base64")}:`);
  }
  if (matches(request.headers["if-none-match"], etag)) return reply.code(304).send();

  const whole = { start: 0, end: download.size_bytes };
  const ifRange = request.headers["if-range"];
  const range =
    ifRange === undefined || ifRange === etag ? parseRange(request.headers.range, download.size_bytes) : whole;
  if (range === undefined) {
    reply.header("content-range", `bytes */${download.size_bytes}`);
    throw new ServiceError("range_not_satisfiable", `There are ${download.size_bytes} bytes, numbered from 0.`);
  }
  if (range.start !== whole.start || range.end !== whole.end) {
    reply.code(206).header("content-range", `bytes ${range.start}-${range.end - 1}/${download.size_bytes}`);
  }
  reply
    .header("content-type", download.mediaType)
    .header("content-length", range.end - range.start)
    .header("content-disposition", disposition(download))
    .header("x-content-type-options", "nosniff");
  // An empty stream keeps Fastify from counting the length of a HEAD answer itself.
  if (request.method === "HEAD") return reply.send(Readable.from([]));
  return reply.send(Readable.from(await download.read(range), { objectMode: false }));
}

/** The bytes a Range header asks for: the whole when it is absent or not understood, undefined when there are none. */
export function parseRange(header: string | undefined, size: number): { start: number; end: number } | undefined {
  const whole = { start: 0, end: size };
  const match = /^bytes=(?:(\d+)-(\d*)|-(\d+))$/.exec(header ?? "");
  if (match === null) return whole;
  const [, first, last, suffix] = match;
  if (suffix !== undefined) {
    return Number(suffix) === 0 || size === 0 ? undefined : { start: Math.max(0, size - Number(suffix)), end: size };
  }
  const start = Number(first);
  const end = last === "" ? size : Math.min(size, Number(last) + 1);
  if (last !== "" && Number(last) < start) return whole; // Not a valid range; RFC 9110 says to ignore it.
  return start < size ? { start, end } : undefined;
}

function matches(ifNoneMatch: string | undefined, etag: string): boolean {
  if (ifNoneMatch === undefined) return false;
  return ifNoneMatch
    .split(",")
    .map((tag) => tag.trim())
    .some((tag) => tag === "*" || tag.replace(/^W\//, "") === etag);
}

/** RFC 6266: a name for old clients in ASCII, and the real one. */
function disposition({ filename, inline }: Download): string {
  const ascii = filename.replace(/[^\x20-\x7e]|["\\%]/g, "_");
  const encoded = encodeURIComponent(filename).replace(/['()*]/g, (char) => `%${char.charCodeAt(0).toString(16)}`);
  return `${inline === true ? "inline" : "attachment"}; filename="${ascii}"; filename*=UTF-8''${encoded}`;
}
