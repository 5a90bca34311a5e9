import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import type { ByteSource } from "../src/core/index.ts";
import { CoreError } from "../src/core/index.ts";

/** Random access to a file on the local disk. The descriptor lives as long as the process, which does one task. */
export function openByteSource(path: string): ByteSource & { close(): void } {
  const fd = openSync(path, "r");
  return {
    size: fstatSync(fd).size,
    read(offset, length) {
      const bytes = Buffer.allocUnsafeSlow(length);
      for (let done = 0; done < length; ) {
        const count = readSync(fd, bytes, done, length - done, offset + done);
        if (count === 0) throw new CoreError("internal", "A file has shrunk while it was being read.");
        done += count;
      }
      return bytes;
    },
    close: () => closeSync(fd),
  };
}
