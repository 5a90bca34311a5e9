import { z } from "zod";
import { type FasterKernels, NOTE_CODES } from "../../../../core/index.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";

/** What was measured of the speed of kernels, as a file for later jobs on machines of the same kind: with it they make the same bytes. */

const UNIT = z.object({ floatUs: z.number(), int8Us: z.number() });
const RATIOS = { quantize: z.number(), dequantize: z.number(), reorder: z.number() };
const SPEEDUP = z.number().nullable();

const KernelsFile = z.object({
  host: z.object({ cpu: z.string(), isa: z.array(z.string()), onnxruntime: z.string() }),
  slower: z.object({
    costs: z.object({ units: z.record(z.string(), UNIT), ratios: z.object(RATIOS) }).optional(),
    nodes: z
      .array(
        z.tuple([z.string(), z.object({ code: z.enum(NOTE_CODES), message: z.string(), storesWeights: z.boolean() })]),
      )
      .optional(),
  }),
  layers: z.array(UNIT.extend({ name: z.string() })),
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

export function kernelsToBytes({ slower: { costs, nodes }, ...found }: FasterKernels, host: Host): Uint8Array {
  return new TextEncoder().encode(
    JSON.stringify({ host: ownHost(host), slower: { costs, nodes: nodes && [...nodes] }, ...found }),
  );
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
  const { slower, layers, facts } = data;
  return { slower: { costs: slower.costs, nodes: slower.nodes && new Map(slower.nodes) }, layers, facts };
}
