import { closeSync, fstatSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ByteSource, ScratchBytes } from "../src/core/index.ts";
import { CoreError } from "../src/core/index.ts";

/** Random access to a file on the local disk. The descriptor lives as long as the process, which does one task. */
export function openByteSource(path: string): ByteSource & { close(): void } {
  const fd = openSync(path, "r");
  return {
    size: fstatSync(fd).size,
    read: (offset, length) => readExactly(fd, offset, length),
    close: () => closeSync(fd),
  };
}

let scratchFiles = 0;

/**
 * A file in the directory for temporary files, which its parent has set up for this process. It has no name any more when it is used, so
 * that it is gone with the process however that ends; what was never written takes no space.
 */
export function openScratch(): ScratchBytes {
  const path = join(tmpdir(), `samples-${process.pid}-${scratchFiles++}`);
  const fd = openSync(path, "wx+", 0o600);
  unlinkSync(path);
  return {
    get size() {
      return fstatSync(fd).size;
    },
    read: (offset, length) => readExactly(fd, offset, length),
    write(offset, bytes) {
      for (let done = 0; done < bytes.byteLength; ) {
        done += writeSync(fd, bytes, done, bytes.byteLength - done, offset + done);
      }
    },
  };
}

function readExactly(fd: number, offset: number, length: number): Uint8Array {
  const bytes = Buffer.allocUnsafeSlow(length);
  for (let done = 0; done < length; ) {
    const count = readSync(fd, bytes, done, length - done, offset + done);
    if (count === 0) throw new CoreError("internal", "A file has shrunk while it was being read.");
    done += count;
  }
  return bytes;
}
