import type { TensorProto } from "onnx-buf";
import { CoreError } from "../errors.ts";
import { quoted } from "./limits.ts";

/** Where a model's external tensor data is read from. Locations are the names the model uses; nothing else is ever opened. */
export interface ExternalData {
  /** Size in bytes of the file a model calls `location`; undefined when there is no such file. */
  size(location: string): number | undefined;
  /** `length` bytes from `offset`. Called at every access to a tensor; the result is the caller's. */
  read(location: string, offset: number, length: number): Uint8Array;
}

export const NO_EXTERNAL_DATA: ExternalData = {
  size: () => undefined,
  read: (location) => {
    throw new CoreError("internal", "No external data was given.", location);
  },
};

/** A stretch of an external data file. `length` is undefined where the model leaves it to be computed. */
export interface ExternalRange {
  readonly location: string;
  readonly offset: number;
  readonly length: number | undefined;
}

/**
 * Where a tensor's external data is. Throws `invalid_model` unless the location is the plain name of a file beside the model: the runtime
 * opens paths relative to the model, so a location with a path in it (absolute, `..`, a drive, a link to memory) reads what the uploader
 * may not see (CVE-2022-25882, CVE-2024-27318 and their successors).
 */
export function externalRangeOf(proto: TensorProto): ExternalRange {
  const entries = new Map<string, string>();
  for (const { key, value } of proto.externalData) {
    if (entries.has(key)) throw refused(proto, `gives its ${quoted(key)} twice`);
    entries.set(key, value);
  }
  const location = entries.get("location");
  if (location === undefined || location === "") throw refused(proto, "does not say in which file");
  if (location.includes("_ORT_MEM_ADDR_"))
    throw refused(proto, "points into the memory of a process instead of a file");
  if (!isPlainFileName(location)) {
    throw refused(proto, `names ${quoted(location)}: only a plain file name beside the model is allowed`);
  }
  const number = (key: string): number | undefined => {
    const text = entries.get(key);
    if (text === undefined) return undefined;
    if (!/^\d{1,15}$/.test(text)) throw refused(proto, `has ${quoted(text)} as its ${key}`);
    return Number(text);
  };
  return { location, offset: number("offset") ?? 0, length: number("length") };
}

function isPlainFileName(name: string): boolean {
  return name.length <= 255 && name !== "." && name !== ".." && !/[/\\:\p{Cc}\uFFFD]/u.test(name);
}

function refused(proto: TensorProto, what: string): CoreError {
  return new CoreError(
    "invalid_model",
    `The tensor ${quoted(proto.name)} keeps its data outside the model and ${what}.`,
    proto.name,
  );
}
