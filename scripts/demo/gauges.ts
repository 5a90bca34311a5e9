/** What `/metrics` says of the API process. */
export interface Gauges {
  readonly residentBytes: number;
  /** The longest the event loop was late since the last reading. */
  readonly eventLoopMaxSeconds: number;
}

const NAMES = {
  residentBytes: "process_resident_memory_bytes",
  eventLoopMaxSeconds: "nodejs_eventloop_lag_max_seconds",
} as const satisfies Record<keyof Gauges, string>;

export async function readGauges(url: string): Promise<Gauges> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const read = (name: string): number => {
    const value = new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, "m").exec(text)?.[1];
    if (value === undefined) throw new Error(`/metrics has no ${name}.`);
    return Number(value);
  };
  return { residentBytes: read(NAMES.residentBytes), eventLoopMaxSeconds: read(NAMES.eventLoopMaxSeconds) };
}
