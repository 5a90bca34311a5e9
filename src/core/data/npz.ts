import { CoreError } from "../errors.ts";
import type { ByteSource } from "./byte-source.ts";
import { checkName, LIMITS } from "./limits.ts";
import { readNpy } from "./npy.ts";
import type { StoredArray } from "./sample-array.ts";
import { ZipArchive } from "./zip.ts";

const SUFFIX = ".npy";

/**
 * The arrays of a .npz file, a zip archive of .npy files. Stored members are read in place; deflated ones are unpacked into memory, within
 * `LIMITS.memoryBytes`. `verify` also checks the checksums of stored members, which reads them once.
 * Throws `invalid_dataset` or `limit_exceeded`.
 */
export async function readNpz(source: ByteSource, verify: boolean): Promise<StoredArray[]> {
  const archive = await ZipArchive.open(source, {
    what: "the .npz archive",
    maxMembers: LIMITS.arrays,
    nameOf: arrayName,
  });
  const deflated = archive.members.filter((member) => member.deflated);
  const unpackedBytes = deflated.reduce((sum, { bytes }) => sum + bytes, 0);
  if (unpackedBytes > LIMITS.memoryBytes) {
    throw new CoreError(
      "limit_exceeded",
      `The compressed members of the .npz archive hold ${unpackedBytes} bytes; at most ${LIMITS.memoryBytes} can be unpacked. ` +
        "Save it with numpy.savez, which does not compress and has no such limit.",
    );
  }
  const arrays: StoredArray[] = [];
  for (const member of archive.members) arrays.push(readNpy(await archive.read(member, verify), member.name));
  return arrays;
}

/** The array's name: the member's without `.npy`. Members in folders are refused, so nothing can point outside either. */
function arrayName(path: string): string {
  const name = path.endsWith(SUFFIX) ? path.slice(0, -SUFFIX.length) : "";
  const shown = path.slice(0, 60).replace(/\p{Cc}/gu, "?");
  if (name === "" || /[/\\]/.test(name)) {
    throw new CoreError("invalid_dataset", `The .npz archive has a member that is not an array: "${shown}".`, shown);
  }
  checkName(name);
  return name;
}
