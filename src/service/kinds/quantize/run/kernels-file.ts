import { z } from "zod";
import { type FasterKernels, NOTE_CODES } from "../../../../core/index.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";

/** What was measured of the speed of kernels, as a file for later jobs on machines of the same kind: with it they make the same bytes. */

const SPEEDUP = z.number().nullable();

const KernelsFile = z.object({
  host: z.object({ cpu: z.string(), isa: z.array(z.string()), onnxruntime: z.string() }),
  inFloat: z.array(
    z.tuple([z.string(), z.object({ code: z.enum(NOTE_CODES), message: z.string(), storesWeights: z.boolean() })]),
  ),
  facts: z.object({
    basis: z.enum(["measured", "timed"]),
    float_ms: SPEEDUP,
    int8_speedup: SPEEDUP,
    mixed_speedup: SPEEDUP,
    predicted_speedup: SPEEDUP,
    chosen: z.enum(["int8", "mixed", "float"]),
  }),
});

type Host = JobEnvironment["host"];

function ownHost({ cpu, isa, onnxruntime }: Host): z.infer<typeof KernelsFile>["host"] {
  return { cpu, isa: [...isa], onnxruntime };
}

export function kernelsToBytes({ inFloat, facts }: FasterKernels, host: Host): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ host: ownHost(host), inFloat: [...inFloat], facts }));
}

/** Undefined for what was measured on a machine of another kind, or cannot be read. */
export function kernelsFromBytes(bytes: Uint8Array, host: Host): FasterKernels | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
  const { success, data } = KernelsFile.safeParse(parsed);
  if (!success || JSON.stringify(data.host) !== JSON.stringify(ownHost(host))) return undefined;
  return { inFloat: new Map(data.inFloat), facts: data.facts };
}
