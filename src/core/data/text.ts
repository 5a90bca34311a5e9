import { CoreError } from "../errors.ts";
import { type ByteSource, chunksOf } from "./byte-source.ts";
import { LIMITS } from "./limits.ts";

const LINE_FEED = 0x0a;

/** The bytes of a file piece by piece; throws `invalid_dataset` where they are not UTF-8. */
export function* utf8Chunks(source: ByteSource): Generator<Uint8Array> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  for (const chunk of chunksOf(source)) {
    decode(decoder, chunk, true);
    yield chunk;
  }
  decode(decoder, new Uint8Array(0), false);
}

/** The lines of a text that are not empty, without their ends; `line` counts from 1. A byte order mark is passed over. */
export function* textLines(source: ByteSource): Generator<{ readonly line: number; readonly text: string }> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let line = 1;
  /** The beginning of a line that goes on in the next piece. */
  let begun: Uint8Array[] = [];
  let begunBytes = 0;
  const take = (rest: Uint8Array) => {
    begunBytes += rest.byteLength;
    if (begunBytes > LIMITS.lineBytes) {
      throw new CoreError("limit_exceeded", `Line ${line} has more than ${LIMITS.lineBytes} bytes.`);
    }
    begun.push(rest);
  };
  const end = () => {
    const text = decode(decoder, begun.length === 1 ? begun[0]! : Buffer.concat(begun), false).trim();
    begun = [];
    begunBytes = 0;
    return { line: line++, text };
  };
  for (const chunk of chunksOf(source)) {
    let start = 0;
    for (let at = chunk.indexOf(LINE_FEED); at >= 0; at = chunk.indexOf(LINE_FEED, start)) {
      take(chunk.subarray(start, at));
      start = at + 1;
      const ended = end();
      if (ended.text !== "") yield ended;
    }
    if (start < chunk.byteLength) take(chunk.subarray(start));
  }
  if (begunBytes > 0) {
    const ended = end();
    if (ended.text !== "") yield ended;
  }
}

function decode(decoder: InstanceType<typeof TextDecoder>, bytes: Uint8Array, stream: boolean): string {
  try {
    return decoder.decode(bytes, { stream });
  } catch (error) {
    throw new CoreError("invalid_dataset", "The file is not text in UTF-8.", undefined, { cause: error });
  }
}
