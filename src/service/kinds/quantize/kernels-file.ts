import { z } from "zod";
import type { KernelBook } from "../../../core/contract.ts";
import { VERSIONS } from "../../versions.ts";

/**
 * What was measured of the speed of kernels, as a file for later jobs on machines of the same kind. Jobs of different users share it: keys are hashes,
 * values are numbers within bounds, and what is in it is not replaced, so that the worst that a job can add is that models of its own shapes are slow.
 */

/** The kind of machine that something was measured on. */
export interface MeasuredHost {
  readonly cpu: string;
  readonly isa: readonly string[];
}

const FORMAT = 1;
/** Larger files are not read, and none is written. */
export const MAX_BOOK_BYTES = 4 * 2 ** 20;
/** The oldest give way to new ones. */
const MAX_UNITS = 16_000;
const MAX_CONVERSIONS = 4000;
const MAX_MODELS = 256;

const KEY = z.string().regex(/^[\w-]{22}$/);
const US = z.number().min(0).max(1e9);
const COST = z.tuple([US, US, US]);
const SPEEDUP = z.number().min(0).max(1e9).nullable();
const FACTS = z.strictObject({
  basis: z.enum(["measured", "timed"]),
  float_ms: SPEEDUP,
  int8_speedup: SPEEDUP,
  mixed_speedup: SPEEDUP,
  predicted_speedup: SPEEDUP,
  chosen: z.enum(["int8", "mixed", "float"]),
});
const COSTS = z.strictObject({
  quantize: COST,
  dequantize: COST,
  reorder: COST,
  units: z.array(z.tuple([US, US])).max(100_000),
});

const BookFile = z.strictObject({
  format: z.literal(FORMAT),
  host: z.strictObject({ cpu: z.string(), isa: z.array(z.string()), onnxruntime: z.string() }),
  units: z.array(z.tuple([KEY, US, US])).max(MAX_UNITS),
  conversions: z.array(z.tuple([KEY, US])).max(MAX_CONVERSIONS),
  models: z.array(z.tuple([KEY, FACTS, COSTS.nullable()])).max(MAX_MODELS),
});
type BookFile = z.infer<typeof BookFile>;

function hostOf({ cpu, isa }: MeasuredHost): BookFile["host"] {
  return { cpu, isa: [...isa], onnxruntime: VERSIONS.onnxruntime };
}

export function bookToBytes({ units, conversions, models }: KernelBook, host: MeasuredHost): Uint8Array {
  const file: BookFile = {
    ...{ format: FORMAT, host: hostOf(host) },
    units: [...units].slice(-MAX_UNITS).map(([key, { floatUs, int8Us }]) => [key, floatUs, int8Us]),
    conversions: [...conversions].slice(-MAX_CONVERSIONS),
    models: [...models].slice(-MAX_MODELS).map(([key, { facts, costs }]) => {
      if (!costs) return [key, facts, null];
      const { quantize, dequantize, reorder } = costs;
      const own = costs.units.map(({ floatUs, int8Us }): [number, number] => [floatUs, int8Us]);
      return [key, facts, { quantize: [...quantize], dequantize: [...dequantize], reorder: [...reorder], units: own }];
    }),
  };
  for (;;) {
    const bytes = new TextEncoder().encode(JSON.stringify(file));
    if (bytes.byteLength <= MAX_BOOK_BYTES) return bytes;
    // Whole models take most of it: what their kernels take is in the rest.
    file.models.splice(0, Math.max(1, file.models.length >> 1));
    if (file.models.length === 0) file.units.splice(0, file.units.length >> 1);
  }
}

/** Undefined for what was measured on a machine of another kind, or cannot be read. */
export function bookFromBytes(bytes: Uint8Array, host: MeasuredHost): KernelBook | undefined {
  if (bytes.byteLength > MAX_BOOK_BYTES) return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
  const { success, data } = BookFile.safeParse(parsed);
  if (!success || JSON.stringify(data.host) !== JSON.stringify(hostOf(host))) return undefined;
  const unit = ([floatUs, int8Us]: readonly [number, number]) => ({ floatUs, int8Us });
  return {
    units: new Map(data.units.map(([key, ...us]) => [key, unit(us)])),
    conversions: new Map(data.conversions),
    models: new Map(
      data.models.map(([key, facts, costs]) => [
        key,
        { facts, costs: costs ? { ...costs, units: costs.units.map(unit) } : undefined },
      ]),
    ),
  };
}

/** What was kept before stays as it is, and what was found is added; undefined where that cannot be read. */
export function mergedBooks(kept: Uint8Array, found: Uint8Array, host: MeasuredHost): Uint8Array | undefined {
  const [old, added] = [bookFromBytes(kept, host), bookFromBytes(found, host)];
  if (!added || !old) return added && bookToBytes(added, host);
  const merged = <T>(before: ReadonlyMap<string, T>, after: ReadonlyMap<string, T>) =>
    new Map([...before, ...[...after].filter(([key]) => !before.has(key))]);
  const book: KernelBook = {
    units: merged(old.units, added.units),
    conversions: merged(old.conversions, added.conversions),
    models: merged(old.models, added.models),
  };
  return bookToBytes(book, host);
}
