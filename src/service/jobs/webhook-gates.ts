/**
 * How much of our attention a receiver gets: a few requests at a time, and none for a while after it has failed again and again. So one that is
 * slow or down does not hold up the others.
 */
export interface WebhookGates {
  /** How long to wait before a request to the host may start; 0: it has started, and `leave` must be called. */
  enter(host: string): number;
  leave(host: string, ok: boolean): void;
}

const REQUESTS_PER_HOST = 2;
/** When both are taken. */
const BUSY_MS = 500;
/** Failures in a row after which a host is left alone, for longer each time. */
const FAILURES = 5;
const FIRST_PAUSE_MS = 60_000;
const LONGEST_PAUSE_MS = 30 * 60_000;
/** Hosts that have failed are remembered, the last ones of them. */
const MAX_HOSTS = 10_000;

interface Host {
  running: number;
  failures: number;
  pausedUntil: number;
}

/** `now` in ms, from any start. */
export function createWebhookGates(now: () => number = () => performance.now()): WebhookGates {
  const hosts = new Map<string, Host>();
  return {
    enter(name) {
      const host = hosts.get(name) ?? { running: 0, failures: 0, pausedUntil: 0 };
      const pause = host.pausedUntil - now();
      if (pause > 0) return pause;
      // After a pause one request tries, and the others wait for what becomes of it.
      const most = host.failures >= FAILURES ? 1 : REQUESTS_PER_HOST;
      if (host.running >= most) return BUSY_MS;
      host.running++;
      hosts.set(name, host);
      return 0;
    },
    leave(name, ok) {
      const host = hosts.get(name)!;
      host.running--;
      host.failures = ok ? 0 : host.failures + 1;
      if (host.failures >= FAILURES) {
        host.pausedUntil = now() + Math.min(FIRST_PAUSE_MS * 2 ** (host.failures - FAILURES), LONGEST_PAUSE_MS);
      }
      if (host.running === 0 && host.failures === 0) hosts.delete(name);
      for (const [oldest, { running }] of hosts) {
        if (hosts.size <= MAX_HOSTS) break;
        if (running === 0) hosts.delete(oldest);
      }
    },
  };
}
