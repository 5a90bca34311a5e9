/** The environment of every child process. Nothing of ours is inherited: no secrets. */
export const ENVIRONMENT = {
  LANG: "C.UTF-8",
  TZ: "UTC",
  /** onnxruntime's Linux builds carry a telemetry client, which writes to the temporary directory and reports usage. Not from here. */
  ORT_DISABLE_TELEMETRY: "1",
} as const;
