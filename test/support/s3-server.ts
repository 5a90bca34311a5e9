import { createHash, randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/**
 * The part of S3 that the service uses, in memory, for one bucket: PUT, GET with Range, HEAD, DELETE, multipart
 * uploads.
 */
export interface S3Server {
  readonly endpoint: string;
  readonly bucket: string;
  readonly objects: ReadonlyMap<string, Buffer>;
  /** Multipart uploads that were neither completed nor aborted. */
  readonly openUploads: ReadonlyMap<string, Map<number, Buffer>>;
  /** Keys of which every request is refused, with what; without a code as a proxy does. */
  readonly refusals: Map<string, { readonly status: number; readonly code?: string }>;
  /** Keys of objects whose connection breaks off in the middle of the answer. */
  readonly cut: Set<string>;
  /** How many requests of each kind came: `PUT`, `POST ?uploads`. */
  readonly seen: Map<string, number>;
  close(): Promise<void>;
}

/** What it takes for a key. */
export const S3_CREDENTIALS = { accessKeyId: "test", secretAccessKey: "test" };

export async function startS3Server(): Promise<S3Server> {
  const bucket = "models";
  const objects = new Map<string, Buffer>();
  const openUploads = new Map<string, Map<number, Buffer>>();
  const refusals: S3Server["refusals"] = new Map();
  const cut = new Set<string>();
  const seen = new Map<string, number>();

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url!, "http://s3");
    const [, bucketName, ...rest] = decodeURIComponent(url.pathname).split("/");
    const key = rest.join("/");
    const uploadId = url.searchParams.get("uploadId");
    const suffix = url.searchParams.has("uploads") ? " ?uploads" : uploadId === null ? "" : " ?uploadId";
    const kind = `${request.method}${suffix}`;
    seen.set(kind, (seen.get(kind) ?? 0) + 1);
    const body = await bodyOf(request);
    const fail = (status: number, code: string) =>
      response
        .writeHead(status, { "content-type": "application/xml" })
        .end(`<Error><Code>${code}</Code><Message>User: arn:aws:iam::123:user/press may not</Message></Error>`);
    if (bucketName !== bucket) return void fail(404, "NoSuchBucket");
    if (!request.headers.authorization?.startsWith("AWS4-HMAC-SHA256 ")) return void fail(403, "AccessDenied");

    const refusal = refusals.get(key);
    if (refusal?.code !== undefined) return void fail(refusal.status, refusal.code);
    if (refusal !== undefined) return void response.writeHead(refusal.status).end("<html>Bad gateway<br></html>");

    const object = objects.get(key);
    const etag = `"${createHash("md5").update(body).digest("hex")}"`;
    const upload = uploadId === null ? undefined : openUploads.get(uploadId);
    switch (kind) {
      case "PUT":
        objects.set(key, body);
        return void response.writeHead(200, { etag }).end();
      case "POST ?uploads": {
        const id = randomUUID();
        openUploads.set(id, new Map());
        return void response.end(
          `<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`,
        );
      }
      case "PUT ?uploadId":
        if (upload === undefined) return void fail(404, "NoSuchUpload");
        upload.set(Number(url.searchParams.get("partNumber")), body);
        return void response.writeHead(200, { etag }).end();
      case "POST ?uploadId": {
        if (upload === undefined) return void fail(404, "NoSuchUpload");
        const parts = [...upload].sort(([a], [b]) => a - b).map(([, part]) => part);
        objects.set(key, Buffer.concat(parts));
        openUploads.delete(uploadId!);
        return void response.end(`<CompleteMultipartUploadResult><ETag>${etag}</ETag></CompleteMultipartUploadResult>`);
      }
      case "DELETE ?uploadId":
        openUploads.delete(uploadId!);
        return void response.writeHead(204).end();
      case "DELETE":
        objects.delete(key);
        return void response.writeHead(204).end();
      case "HEAD":
        return void response
          .writeHead(object === undefined ? 404 : 200, { "content-length": object?.length ?? 0 })
          .end();
      case "GET": {
        if (object === undefined) return void fail(404, "NoSuchKey");
        if (cut.has(key)) {
          response.writeHead(200, { "content-length": object.length });
          response.write(object.subarray(0, object.length / 2), () => response.destroy());
          return;
        }
        const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
        const part = range === null ? object : object.subarray(Number(range[1]), Number(range[2]) + 1);
        return void response.writeHead(range === null ? 200 : 206, { "content-length": part.length }).end(part);
      }
      default:
        return void fail(501, "NotImplemented");
    }
  }

  const server = createServer((request, response) => {
    handle(request, response).catch((error) => response.destroy(error));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    bucket,
    objects,
    openUploads,
    refusals,
    cut,
    seen,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}
