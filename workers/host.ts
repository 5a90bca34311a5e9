import { readFileSync } from "node:fs";
import { arch, cpus } from "node:os";

/** The vector instruction sets that decide which of onnxruntime's kernels run, as /proc/cpuinfo spells them. */
const KNOWN_ISA = ["avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm"];

export interface Host {
  readonly cpu: string;
  readonly isa: readonly string[];
  /** What `target: "auto"` means on this machine. */
  readonly target: "x64-vnni" | "x64-avx2" | "arm64" | "portable";
}

/** The processor this process runs on. Where the system does not list instruction sets (not Linux), `isa` is empty. */
export function describeHost(): Host {
  const flags = new Set(cpuFlags().split(/\s+/));
  const isa = KNOWN_ISA.filter((name) => flags.has(name));
  return { cpu: cpus()[0]?.model.trim() || arch(), isa, target: targetOf(isa) };
}

function cpuFlags(): string {
  try {
    return /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "";
  } catch {
    return "";
  }
}

function targetOf(isa: readonly string[]): Host["target"] {
  if (arch() === "arm64") return "arm64";
  if (arch() !== "x64") return "portable";
  return isa.some((name) => name === "avx512_vnni" || name === "avx_vnni") ? "x64-vnni" : "x64-avx2";
}
