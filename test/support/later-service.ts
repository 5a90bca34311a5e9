import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { jobSummary as LISTED } from "../../src/service/api/job-examples.ts";

/** A service of a later version, as far as its list of jobs goes: clients that were generated before must read it. */

export { LISTED };

/** What is new in the one job of the list, by the first part of the path. */
export const NEWS: Readonly<Record<string, object>> = {
  field: { energy_joules: 1.5, lineage: { parents: ["job_a"], depth: 2 } },
  method: { method: "sparse" },
  status: { status: "paused" },
  type: { type: "prune", method: "magnitude" },
};

/** Answers `GET <url>/<news>/v1/jobs`. */
export async function startLaterService(): Promise<{ readonly url: string; close(): void }> {
  const server = createServer((request, response) => {
    const [, news = ""] = request.url!.split("/");
    const page = { data: [{ ...LISTED, ...NEWS[news] }], next_cursor: null, total: 1 };
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(page));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}
