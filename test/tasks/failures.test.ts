import assert from "node:assert/strict";
import { test } from "node:test";
import { CoreError } from "../../src/core/index.ts";
import { ServiceError } from "../../src/service/errors.ts";
import { type Exit, failureOfError, failureOfExit } from "../../src/tasks/failures.ts";
import { TaskError } from "../../src/tasks/protocol.ts";

const LIMITS = { timeoutMs: 90_000, memoryBytes: 512 * 2 ** 20 };
const NOTHING: Exit = { code: null, signal: null, killedFor: undefined, stderr: "", kernelOomKill: false };

const CASES: readonly (readonly [string, Partial<Exit>, string, RegExp])[] = [
  ["killed by us when cancelled", { signal: "SIGKILL", killedFor: "cancelled" }, "cancelled", /cancelled/],
  ["ended by our SIGTERM", { signal: "SIGTERM", killedFor: "timeout" }, "timeout", /after 90 s/],
  ["killed by us for its memory", { signal: "SIGKILL", killedFor: "out_of_memory" }, "out_of_memory", /512 MiB/],
  ["killed by the kernel for its memory", { signal: "SIGKILL", kernelOomKill: true }, "out_of_memory", /machine/],
  ["killed by somebody", { signal: "SIGKILL" }, "unavailable", /from outside by SIGKILL/],
  ["told to end by somebody", { signal: "SIGTERM" }, "unavailable", /from outside by SIGTERM/],
  ["crashed while the kernel killed another", { signal: "SIGSEGV", kernelOomKill: true }, "worker_crashed", /SIGSEGV/],
  [
    "V8's heap limit",
    { signal: "SIGABRT", stderr: "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory" },
    "out_of_memory",
    /memory/,
  ],
  ["a failed new", { signal: "SIGABRT", stderr: "terminate called … 'std::bad_alloc'" }, "out_of_memory", /memory/],
  ["an assertion", { signal: "SIGABRT", stderr: "Check failed" }, "worker_crashed", /SIGABRT/],
  ["an exit code", { code: 3 }, "worker_crashed", /exit code 3/],
];

for (const [name, exit, code, message] of CASES) {
  test(name, () => {
    const failure = failureOfExit({ ...NOTHING, ...exit }, LIMITS);
    assert.equal(failure.code, code);
    assert.match(failure.message, message);
  });
}

test("an error keeps its code, message and subject; what is not a refusal is internal", () => {
  const noSpace = Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
  const cases: readonly (readonly [unknown, ReturnType<typeof failureOfError>])[] = [
    [new CoreError("unsupported", "m", "s"), { code: "unsupported", message: "m", subject: "s" }],
    [new CoreError("non_finite", "m"), { code: "non_finite", message: "m" }],
    [new TaskError({ code: "timeout", message: "m" }), { code: "timeout", message: "m" }],
    [
      new TaskError({
        code: "invalid_params",
        message: "m",
        fields: [{ pointer: "/p", code: "required", message: "f" }],
      }),
      { code: "invalid_params", message: "m", fields: [{ pointer: "/p", code: "required", message: "f" }] },
    ],
    [new ServiceError("not_found", "m"), { code: "not_found", message: "m" }],
    [
      new RangeError("Array buffer allocation failed"),
      { code: "out_of_memory", message: "The work could not get the memory it needs." },
    ],
    [noSpace, { code: "unavailable", message: "There is no space left on the disk that the work needs." }],
    [
      new Error("write failed", { cause: noSpace }),
      { code: "unavailable", message: "There is no space left on the disk that the work needs." },
    ],
    [
      new Error("Protobuf serialization failed: No space left on device"),
      { code: "unavailable", message: "There is no space left on the disk that the work needs." },
    ],
    [
      Object.assign(new Error("spawn EAGAIN"), { code: "EAGAIN" }),
      { code: "unavailable", message: "No more processes can be started on the machine of the work." },
    ],
    [new TypeError("bug"), { code: "internal", message: "The work failed in an unexpected way: bug" }],
    ["text", { code: "internal", message: "The work failed in an unexpected way: text" }],
  ];
  for (const [error, failure] of cases) assert.deepEqual(failureOfError(error), failure);
});
