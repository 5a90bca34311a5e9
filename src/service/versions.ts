import { createRequire } from "node:module";

/** What runs here. Read from the packages' own descriptions: loading the native runtime is not for every process. */
export const VERSIONS = {
  modelpress: versionOf("../../package.json"),
  onnxruntime: versionOf("onnxruntime-node/package.json"),
  node: process.versions.node,
} as const;

function versionOf(packageJson: string): string {
  return createRequire(import.meta.url)(packageJson).version;
}
