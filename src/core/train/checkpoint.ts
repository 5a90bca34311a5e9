/**
 * The state of a run between two steps, as bytes in the layout of safetensors: u64 length of a JSON header, the header, tensor data. What a
 * run draws at random depends on its seed and position alone, so that this is the whole state: a resumed run ends in the same bytes.
 */
import { CoreError } from "../errors.ts";
import type { Floats } from "./parameter-kernels.ts";

export interface Checkpoint {
  /** JSON: position, history, what the best epoch was. */
  readonly state: unknown;
  readonly arrays: Readonly<Record<string, Floats>>;
}

interface Entry {
  readonly dtype: "F32";
  readonly shape: readonly [number];
  readonly data_offsets: readonly [number, number];
}

export function encodeCheckpoint({ state, arrays }: Checkpoint): Uint8Array {
  const header: Record<string, Entry | { readonly state: string }> = {
    __metadata__: { state: JSON.stringify(state) },
  };
  let offset = 0;
  for (const [name, array] of Object.entries(arrays)) {
    header[name] = { dtype: "F32", shape: [array.length], data_offsets: [offset, offset + array.byteLength] };
    offset += array.byteLength;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  // Padded with spaces, so that the data begins at a multiple of eight bytes.
  const headerBytes = Math.ceil(json.byteLength / 8) * 8;
  const bytes = new Uint8Array(8 + headerBytes + offset).fill(0x20, 8, 8 + headerBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(headerBytes), true);
  bytes.set(json, 8);
  let at = 8 + headerBytes;
  for (const array of Object.values(arrays)) {
    bytes.set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength), at);
    at += array.byteLength;
  }
  return bytes;
}

/** Throws `invalid_params` for bytes that are no checkpoint. */
export function decodeCheckpoint(bytes: Uint8Array): Checkpoint {
  try {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const headerBytes = Number(view.getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerBytes)));
    const { __metadata__: metadata, ...entries } = header as { __metadata__: { state: string } } & Record<
      string,
      Entry
    >;
    const start = 8 + headerBytes;
    const arrays = Object.entries(entries).map(
      ([
        name,
        {
          data_offsets: [from, to],
        },
      ]) => {
        if (start + to > bytes.byteLength) throw new RangeError(`"${name}" is cut off`);
        // A copy that begins at an aligned address; `slice` of a Buffer would be none.
        return [name, new Float32Array(new Uint8Array(bytes.subarray(start + from, start + to)).buffer)] as const;
      },
    );
    return { state: JSON.parse(metadata.state), arrays: Object.fromEntries(arrays) };
  } catch (error) {
    throw new CoreError("invalid_params", `The checkpoint cannot be read: ${(error as Error).message}.`, undefined, {
      cause: error,
    });
  }
}
