import { createBullBoard } from "@bull-board/api";
import { BullMQAdapter } from "@bull-board/api/bullMQAdapter";
import { FastifyAdapter } from "@bull-board/fastify";
import scalar from "@scalar/fastify-api-reference";
import type { Queue } from "bullmq";
import type { FastifyInstance } from "fastify";
import type { Access } from "./operation.ts";

/** Pages for people: the reference of the API, and the queue for admins. Both load nothing from elsewhere. */

/** The pages' own scripts are inline; nothing that users upload is ever in them. */
const PAGE_POLICY =
  "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
  "font-src 'self' data:; frame-ancestors 'none'";

export async function registerReference(app: FastifyInstance): Promise<void> {
  setAccess(app, "open", "/docs/*");
  await app.register(scalar, {
    routePrefix: "/docs",
    configuration: {
      url: "/openapi.json",
      pageTitle: "modelpress API",
      withDefaultFonts: false,
      hideClientButton: true,
      telemetry: false,
      agent: { disabled: true },
    },
  });
}

/**
 * To look only: jobs are kept elsewhere, and a job that is retried or removed here would come apart from its record.
 */
export async function registerQueuePage(app: FastifyInstance, queues: readonly Queue[]): Promise<void> {
  setAccess(app, "admin", "/admin/queues/*");
  const serverAdapter = new FastifyAdapter();
  serverAdapter.setBasePath("/admin/queues");
  createBullBoard({ queues: queues.map((queue) => new BullMQAdapter(queue, { readOnlyMode: true })), serverAdapter });
  await app.register(serverAdapter.registerPlugin(), { prefix: "/admin/queues" });
}

function setAccess(app: FastifyInstance, access: Access, pattern: string): void {
  app.addHook("onRoute", (route) => {
    route.config = { ...route.config, access, pattern };
  });
  app.addHook("onSend", async (_request, reply) => void reply.header("content-security-policy", PAGE_POLICY));
}
