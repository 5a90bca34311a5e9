import { connect, type Socket } from "node:net";
import type { Answer } from "./openapi-validator.ts";

/** HTTP by hand, for what no client library would send. */
export interface RawConnection {
  readonly socket: Socket;
  write(text: string | Uint8Array): void;
  /** The answer, when it has arrived in whole. Rejects when the connection ends without one. */
  answer(): Promise<Answer>;
  /** Resolves when the server has closed the connection. */
  closed(): Promise<void>;
}

export function connectRaw(url: string): RawConnection {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  let received = Buffer.alloc(0);
  const arrived: (() => void)[] = [];
  let ended = false;
  socket.on("data", (chunk) => {
    received = Buffer.concat([received, chunk]);
    for (const wake of arrived) wake();
  });
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  socket.on("error", () => {}); // "close" follows.
  closed.then(() => {
    ended = true;
    for (const wake of arrived) wake();
  });
  return {
    socket,
    write: (text) => void socket.write(text),
    closed: () => closed,
    answer: () =>
      new Promise((resolve, reject) => {
        const look = () => {
          const answer = parseAnswer(received);
          if (answer !== undefined) resolve(answer);
          else if (ended)
            reject(new Error(`the connection ended after ${JSON.stringify(received.toString().slice(0, 200))}`));
        };
        arrived.push(look);
        look();
      }),
  };
}

function parseAnswer(received: Buffer): Answer | undefined {
  const end = received.indexOf("\r\n\r\n");
  if (end < 0) return undefined;
  const [statusLine = "", ...lines] = received.subarray(0, end).toString().split("\r\n");
  const status = Number(statusLine.split(" ")[1]);
  const headers = new Headers(
    lines.map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]),
  );
  const body = received.subarray(end + 4);
  return body.length < Number(headers.get("content-length") ?? 0) ? undefined : { status, headers, body };
}
