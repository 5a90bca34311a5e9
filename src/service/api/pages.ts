import { createBullBoard } from "@bull-board/api";
import { BullMQAdapter } from "@bull-board/api/bullMQAdapter";
import { FastifyAdapter } from "@bull-board/fastify";
import scalar from "@scalar/fastify-api-reference";
import type { Queue } from "bullmq";
import type { FastifyInstance } from "fastify";
import type { Access } from "./operation.ts";

/** Pages for people: the reference of the API, and the queue for admins. Both load nothing from elsewhere. */

/** The pages' own scripts are inline; nothing that users upload is ever in them. */
const PAGE_POLICY = {
  directives: {
    defaultSrc: ["'self'"],
    scriptSrc: ["'self'", "'unsafe-inline'"],
    styleSrc: ["'self'", "'unsafe-inline'"],
    imgSrc: ["'self'", "data:"],
    fontSrc: ["'self'", "data:"],
    connectSrc: ["'self'"],
    upgradeInsecureRequests: null,
  },
} as const;

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

/** To look only: jobs are kept elsewhere, and a job that is retried or removed here would come apart from its record. */
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
    route.helmet = { contentSecurityPolicy: PAGE_POLICY };
  });
}
