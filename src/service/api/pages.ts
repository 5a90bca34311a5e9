import Fastify, { type FastifyInstance } from "fastify";
import type { BullJobQueue } from "../jobs/queue.ts";
import type { Access } from "./operation.ts";

/**
 * Pages for people: the reference of the API, and the queue for admins. Both load nothing from elsewhere. Their makers' packages are large, and
 * most services never show a page: they are loaded for the first request.
 */

/** The pages' own scripts are inline; nothing that users upload is ever in them. */
const PAGE_POLICY =
  "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
  "font-src 'self' data:; frame-ancestors 'none'";

export function registerReference(app: FastifyInstance): void {
  registerPages(app, { access: "open", prefix: "/docs" }, async (pages) => {
    const { default: scalar } = await import("@scalar/fastify-api-reference");
    await pages.register(scalar, {
      routePrefix: "/docs",
      configuration: {
        url: "/openapi.json",
        pageTitle: "modelpress API",
        favicon: "/favicon.svg",
        withDefaultFonts: false,
        hideClientButton: true,
        // Its maker's own tools, and a list of all schemas under a second heading "Models".
        showDeveloperTools: "never",
        hideModels: true,
        telemetry: false,
        agent: { disabled: true },
      },
    });
  });
}

/**
 * To look only: jobs are kept elsewhere, and a job that is retried or removed here would come apart from its record.
 */
export function registerQueuePage(app: FastifyInstance, queues: readonly BullJobQueue["bull"][]): void {
  registerPages(app, { access: "admin", prefix: "/admin/queues" }, async (pages) => {
    const [{ createBullBoard }, { BullMQAdapter }, { FastifyAdapter }] = await Promise.all([
      import("@bull-board/api"),
      import("@bull-board/api/bullMQAdapter"),
      import("@bull-board/fastify"),
    ]);
    const serverAdapter = new FastifyAdapter();
    serverAdapter.setBasePath("/admin/queues");
    const opened = await Promise.all(queues.map((open) => open()));
    createBullBoard({ queues: opened.map((queue) => new BullMQAdapter(queue, { readOnlyMode: true })), serverAdapter });
    await pages.register(serverAdapter.registerPlugin(), { prefix: "/admin/queues" });
  });
}

/** Answers GET below a prefix from an instance of its own that `build` fills, when it is first asked for. */
function registerPages(
  app: FastifyInstance,
  { access, prefix }: { readonly access: Access; readonly prefix: string },
  build: (pages: FastifyInstance) => Promise<void>,
): void {
  let opening: Promise<FastifyInstance> | undefined;
  async function open(): Promise<FastifyInstance> {
    const pages: FastifyInstance = Fastify();
    await build(pages);
    await pages.ready();
    return pages;
  }
  app.addHook("onClose", async () => void (await (await opening?.catch(() => undefined))?.close()));
  for (const url of [prefix, `${prefix}/*`]) {
    app.get(url, { config: { access, pattern: `${prefix}/*`, page: true } }, async (request, reply) => {
      opening ??= open();
      const pages = await opening.catch((error) => {
        opening = undefined;
        throw error;
      });
      const { accept, "accept-encoding": encoding } = request.headers;
      const answer = await pages.inject({
        method: "GET",
        url: request.url,
        headers: { accept: accept ?? "*/*", ...(encoding !== undefined && { "accept-encoding": encoding }) },
      });
      reply.code(answer.statusCode);
      for (const name of ["content-type", "location", "cache-control", "etag", "last-modified"]) {
        const value = answer.headers[name];
        if (value !== undefined) reply.header(name, value);
      }
      return reply.header("content-security-policy", PAGE_POLICY).send(answer.rawPayload);
    });
  }
}
