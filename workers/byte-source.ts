import { closeSync, fstatSync, openSync, readSync, statfsSync, unlinkSync, writeSync } from "node:fs";
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

/** What is left of the disk to everybody else. */
const FREE_BYTES = 256 * 1024 * 1024;
/** The disk is looked at before the first write and whenever so much was written since. */
const RESERVED_BYTES = 64 * 1024 * 1024;

/**
 * Throws when the disk that `directory` is on has no room for `bytes` more: `limit_exceeded` when it never can have, and as the file system
 * does, with `ENOSPC`, when it is full now.
 */
export function checkDiskSpace(directory: string, bytes: number): void {
  const { bsize, blocks, bavail } = statfsSync(directory);
  const [whole, free] = [blocks * bsize, bavail * bsize];
  if (bytes + FREE_BYTES > whole) {
    throw new CoreError(
      "limit_exceeded",
      `The samples take ${bytes} bytes of scratch space when they are decoded, more than the disk has (${whole}).`,
    );
  }
  if (bytes + FREE_BYTES <= free) return;
  const message = `The samples take ${bytes} bytes of scratch space when they are decoded; ${free} are free.`;
  throw Object.assign(new Error(message), { code: "ENOSPC" });
}

/**
 * A file in the directory for temporary files, which its parent has set up for this process. It has no name any more when it is used, so
 * that it is gone with the process however that ends; what was never written takes no space.
 */
export function openScratch(): ScratchBytes {
  const path = join(tmpdir(), `samples-${process.pid}-${scratchFiles++}`);
  const fd = openSync(path, "wx+", 0o600);
  unlinkSync(path);
  let reserved = 0;
  return {
    reserve: (bytes) => checkDiskSpace(tmpdir(), bytes),
    get size() {
      return fstatSync(fd).size;
    },
    read: (offset, length) => readExactly(fd, offset, length),
    write(offset, bytes) {
      reserved -= bytes.byteLength;
      if (reserved < 0) {
        checkDiskSpace(tmpdir(), Math.max(bytes.byteLength, RESERVED_BYTES));
        reserved = RESERVED_BYTES;
      }
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
