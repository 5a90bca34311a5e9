import assert from "node:assert/strict";
import { describe, it, test } from "node:test";
import fc from "fast-check";
import { type ByteSource, memoryScratch, memorySource } from "../../../src/core/data/byte-source.ts";
import { type Dataset, openDataset } from "../../../src/core/data/dataset.ts";
import type { CsvSpec, RowsSpec, TableDType } from "../../../src/core/data/spec.ts";
import { CoreError, type CoreErrorCode } from "../../../src/core/errors.ts";
import { type ArrayDType, arrayOf, tensorOf } from "../../../src/core/onnx/tensor.ts";

type Inputs = Readonly<Record<string, { columns?: string[]; dtype?: TableDType; shape?: number[] }>>;

const withDtypes = (inputs: Inputs) =>
  Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, { dtype: "float32" as const, ...input }]));
const csvSpec = (inputs: Inputs, rest: Partial<CsvSpec> = {}): CsvSpec => ({
  ...{ kind: "csv", header: true, delimiter: ",", inputs: withDtypes(inputs) },
  ...rest,
});
const jsonlSpec = (inputs: Inputs, labels?: string): RowsSpec => ({
  ...{ kind: "jsonl", inputs: withDtypes(inputs) },
  labels,
});

const open = (text: string | Uint8Array, spec: CsvSpec | RowsSpec): Promise<Dataset> =>
  openDataset(memorySource(typeof text === "string" ? Buffer.from(text) : text), { spec, verify: true });

async function valuesOf(dataset: Dataset, name = "x"): Promise<(number | bigint)[]> {
  const [all] = await Array.fromAsync(dataset.batches({ batchSize: dataset.facts.samples }));
  const tensor = name === "labels" ? all!.labels! : all!.feeds[name]!;
  return [...(arrayOf(tensor, tensor.dtype as ArrayDType) as Iterable<number | bigint>)];
}

async function assertRefused(
  text: string | Uint8Array,
  spec: CsvSpec | RowsSpec,
  message: RegExp,
  subject?: string,
  code: CoreErrorCode = "invalid_dataset",
): Promise<void> {
  await assert.rejects(open(text, spec), (error) => {
    assert.ok(error instanceof CoreError, String(error));
    assert.match(error.message, message);
    assert.deepEqual([error.code, error.subject], [code, subject]);
    return true;
  });
}

describe(".csv", () => {
  it("gives the columns of each input, in the order asked for, and the labels", async () => {
    const text = 'b,"the a",label,mask\r\n1,2.5,0,1\r\n-3e2,.25,1,0\r\n';
    const spec = csvSpec(
      { x: { columns: ["the a", "b"] }, m: { columns: ["mask"], dtype: "bool", shape: [] } },
      { labels: "label" },
    );
    const dataset = await open(text, spec);
    assert.deepEqual(dataset.facts, {
      samples: 2,
      fields: [
        { name: "x", dtype: "float32", shape: [2] },
        { name: "m", dtype: "bool", shape: [] },
      ],
      has_labels: true,
      classes: null,
    });
    assert.deepEqual(await valuesOf(dataset), [2.5, 1, 0.25, -300]);
    assert.deepEqual(await valuesOf(dataset, "m"), [1, 0]);
    assert.deepEqual(await valuesOf(dataset, "labels"), [0n, 1n]);
    assert.deepEqual(dataset.gather([1]).feeds.x, tensorOf("float32", [1, 2], [0.25, -300]));
  });

  it("takes all other columns when none are named, and shapes them", async () => {
    const dataset = await open(
      "label,p0,p1,p2,p3\n7,1,2,3,4\n",
      csvSpec({ x: { shape: [1, 2, 2] } }, { labels: "label" }),
    );
    assert.deepEqual(dataset.facts.fields, [{ name: "x", dtype: "float32", shape: [1, 2, 2] }]);
    assert.deepEqual(await valuesOf(dataset), [1, 2, 3, 4]);
  });

  it("reads without a header by number, with other delimiters, a byte order mark and blank lines", async () => {
    const spec = csvSpec({ x: {} }, { header: false, delimiter: ";", labels: 0 });
    const dataset = await open("\ufeff1;0.5;2\n\n2; 1 ;3\n\n", spec);
    assert.deepEqual(await valuesOf(dataset), [0.5, 2, 1, 3]);
    assert.deepEqual(await valuesOf(dataset, "labels"), [1n, 2n]);
  });

  it("gives back every number of every dtype that was written", async () => {
    const ranges: [TableDType, fc.Arbitrary<number | bigint>][] = [
      ["int8", fc.integer({ min: -128, max: 127 })],
      ["uint8", fc.integer({ min: 0, max: 255 })],
      ["int16", fc.integer({ min: -32768, max: 32767 })],
      ["uint16", fc.integer({ min: 0, max: 65535 })],
      ["int32", fc.integer()],
      ["uint32", fc.integer({ min: 0, max: 2 ** 32 - 1 })],
      ["int64", fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })],
      ["uint64", fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })],
      ["float32", fc.float({ noNaN: true, noDefaultInfinity: true })],
      ["float64", fc.double({ noNaN: true, noDefaultInfinity: true })],
    ];
    for (const [dtype, values] of ranges) {
      await fc.assert(
        fc.asyncProperty(fc.array(values, { minLength: 1, maxLength: 20 }), async (column) => {
          const dataset = await open(`v\n${column.join("\n")}\n`, csvSpec({ x: { columns: ["v"], dtype } }));
          const read = await valuesOf(dataset);
          // Zero has no sign in a text.
          assert.deepEqual(read.map(String), column.map(String));
        }),
        { numRuns: 50 },
      );
    }
  });

  it("reads rows longer and shorter than the pieces of a file, at any place where they are cut", async () => {
    const rows = Array.from({ length: 300 }, (_, row) =>
      Array.from({ length: 1000 }, (_, i) => (row * 1000 + i) % 997),
    );
    const text = `${rows[0]!.map((_, i) => `c${i}`)}\n${rows.map((row) => row.join()).join("\n")}`;
    assert.ok(text.length > 2 ** 20);
    const dataset = await open(text, csvSpec({ x: {} }));
    assert.deepEqual(await valuesOf(dataset), rows.flat());
  });

  const spec = csvSpec({ x: { columns: ["a", "b"], dtype: "uint8" } });
  const cases: [string, string | Uint8Array, CsvSpec, RegExp, string | undefined][] = [
    ["an empty cell", "a,b\n1,2\n3,\n", spec, /^Line 3, column "b" is empty\.$/, "b"],
    ["NaN", "a,b\nNaN,2\n", spec, /^Line 2, column "a" holds "NaN", which is not a number\.$/, "a"],
    ["infinity", "a,b\n1,-inf\n", spec, /"-inf", which is not a number/, "b"],
    ["another notation", "a,b\n0x10,1\n", spec, /"0x10"/, "a"],
    ["a number out of range", "a,b\n1,256\n", spec, /holds 256; uint8 goes from 0 to 255/, "b"],
    ["a fraction", "a,b\n1,2.5\n", spec, /holds 2.5, which is not an integer as uint8 wants it/, "b"],
    ["a float too large", "a\n1e39\n", csvSpec({ x: {} }), /too large for float32/, "a"],
    ["an integer too large to be exact", "a\n1e17\n", csvSpec({ x: { dtype: "int64" } }), /read exactly/, "a"],
    ["a row too short", "a,b\n1,2\n3\n", spec, /line 3/, undefined],
    ["a row too long", "a,b\n1,2\n3,4,5\n", spec, /line 3/, undefined],
    ["an open quote", 'a,b\n1,"2\n', spec, /cannot be read: .*quote/i, undefined],
    ["a column that is not there", "a,c\n1,2\n", spec, /no column "b" for the input "x"; there are "a", "c"/, "b"],
    ["a column there twice", "a,b,a\n1,2,3\n", spec, /two columns "a"/, "a"],
    ["a number past the columns", "1,2\n", csvSpec({ x: {} }, { header: false, labels: 2 }), /no column 2/, "2"],
    ["labels that are not there", "a,b\n1,2\n", csvSpec({ x: {} }, { labels: "y" }), /"y" for the labels/, "y"],
    ["no columns left", "a\n1\n", csvSpec({ x: {} }, { labels: "a" }), /No column is left/, "x"],
    ["a shape that is not filled", "a,b\n1,2\n", csvSpec({ x: { shape: [3] } }), /2 numbers .* shape \[3\]/, "a"],
    ["no rows", "a,b\n", spec, /no rows/, undefined],
    ["nothing", "", spec, /empty/, undefined],
    ["other encodings", Buffer.from("a,b\n1,\xe4\n", "latin1"), spec, /UTF-8/, undefined],
    ["UTF-16", Buffer.from("\ufeffa,b\n1,2\n", "utf16le"), spec, /UTF-8/, undefined],
    ["an unusable name", "a\n1\n", csvSpec({ "a\u0000": {} }), /not usable/, "a?"],
  ];
  for (const [name, text, itsSpec, message, subject] of cases) {
    it(`refuses ${name}`, () => assertRefused(text, itsSpec, message, subject));
  }

  it("refuses a line without end", async () => {
    const endless = Buffer.alloc(17 * 2 ** 20, "1");
    await assertRefused(endless, csvSpec({ x: {} }), /Max Record Size|maximum/i);
  });
});

describe(".jsonl", () => {
  it("gives fields in any order, nested lists, and more lines than the first one tells", async () => {
    const text = [
      '{"ids":[[1,2,3],[4,5,6]],"mask":true,"w":0.5,"label":"b"}',
      "",
      '{"label":"a","w":1e-3,"mask":false,"more":null,"ids":[[7,8,9],[0,0,9007199254740991]]}\r',
    ].join("\n");
    const spec = jsonlSpec(
      {
        ids: { columns: ["ids"], dtype: "int64" },
        mask: { columns: ["mask"], dtype: "bool" },
        w: { columns: ["w"], dtype: "float64", shape: [1, 1] },
      },
      "label",
    );
    const dataset = await open(text, spec);
    assert.deepEqual(dataset.facts, {
      samples: 2,
      fields: [
        { name: "ids", dtype: "int64", shape: [2, 3] },
        { name: "mask", dtype: "bool", shape: [1] },
        { name: "w", dtype: "float64", shape: [1, 1] },
      ],
      has_labels: true,
      classes: ["a", "b"],
    });
    assert.deepEqual(await valuesOf(dataset, "ids"), [1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n, 9n, 0n, 0n, 9007199254740991n]);
    assert.deepEqual(await valuesOf(dataset, "mask"), [1, 0]);
    assert.deepEqual(await valuesOf(dataset, "w"), [0.5, 1e-3]);
    assert.deepEqual(await valuesOf(dataset, "labels"), [1n, 0n]);
  });

  it("takes all other fields when none are named, a list too", async () => {
    const scalars = await open('{"y":1,"b":2,"a":3}\n{"a":4,"b":5,"y":6}', jsonlSpec({ x: {} }, "y"));
    assert.deepEqual(await valuesOf(scalars), [2, 3, 5, 4]);
    const list = await open('{"pixels":[1,2],"y":1}', jsonlSpec({ x: {} }, "y"));
    assert.deepEqual(list.facts.fields, [{ name: "x", dtype: "float32", shape: [2] }]);
  });

  it("finds lines wherever pieces of the file end", async () => {
    const count = 60_000;
    const text = Array.from({ length: count }, (_, i) => `{"v":${i},"text":"ä€😀"}`).join("\n");
    assert.ok(text.length > 2 ** 20);
    const dataset = await open(text, jsonlSpec({ x: { columns: ["v"], dtype: "int32" } }));
    assert.deepEqual(
      await valuesOf(dataset),
      Array.from({ length: count }, (_, i) => i),
    );
  });

  const spec = jsonlSpec({ x: { columns: ["v"] } });
  const cases: [string, string, RowsSpec, RegExp, string | undefined][] = [
    ["a missing field", '{"v":1}\n{"w":1}', spec, /^Line 2, column "v" is missing\.$/, "v"],
    ["null", '{"v":null}', spec, /^Line 1, column "v" is empty\.$/, "v"],
    ["a text", '{"v":1}\n\n{"v":"2"}', spec, /^Line 3, column "v" holds "2", which is not a number\.$/, "v"],
    ["a bool", '{"v":true}', spec, /holds "true", which is not a number/, "v"],
    ["infinity", '{"v":1e999}', spec, /too large for float32/, "v"],
    ["an inexact integer", '{"v":9007199254740993}', jsonlSpec({ x: { dtype: "int64" } }), /read exactly/, "v"],
    ["another shape", '{"v":[1,2]}\n{"v":[1,2,3]}', spec, /Line 2.* shape \[3\] where the first row has \[2\]/, "v"],
    ["ragged lists", '{"v":[[1,2],[3]]}', spec, /lists of different lengths/, "v"],
    ["lists and numbers", '{"v":[1,[2]]}', spec, /lists of different lengths/, "v"],
    ["a text in a list", '{"v":[1,"2"]}', spec, /"2", which is not a number/, "v"],
    ["deep lists", `{"v":${"[".repeat(20)}1${"]".repeat(20)}}`, spec, /nested 20 deep/, "v"],
    ["a list among numbers", '{"a":1,"b":[2]}', jsonlSpec({ x: {} }), /holds a list, which is not a number/, "b"],
    ["what is not JSON", '{"v":1}\n{v:2}', spec, /^Line 2 of the \.jsonl file is not JSON\.$/, undefined],
    ["a JSON array", "[1,2]", spec, /not a JSON object/, undefined],
    [
      "an inherited field",
      '{"a":1}',
      jsonlSpec({ x: { columns: ["__proto__"] } }),
      /no column "__proto__"/,
      "__proto__",
    ],
    ["nothing", " \n\n", spec, /empty/, undefined],
  ];
  for (const [name, text, itsSpec, message, subject] of cases) {
    it(`refuses ${name}`, () => assertRefused(text, itsSpec, message, subject));
  }

  it("refuses a line without end", async () => {
    const endless = Buffer.alloc(17 * 2 ** 20, "1");
    await assertRefused(endless, spec, /Line 1 has more than/, undefined, "limit_exceeded");
  });
});

describe("labels", () => {
  const csv = (labels: readonly string[]) =>
    open(`x,y\n${labels.map((label) => `1,${label}`).join("\n")}\n`, csvSpec({ x: {} }, { labels: "y" }));

  it("are class numbers, class names, or numbers to predict", async () => {
    const names = await csv(["tabby cat", "dog", "tabby cat", "7"]);
    assert.deepEqual(names.facts.classes, ["7", "dog", "tabby cat"]);
    assert.deepEqual(await valuesOf(names, "labels"), [2n, 1n, 2n, 0n]);
    const numbers = await csv(["1.5", "2", "-3e1"]);
    assert.equal(numbers.facts.classes, null);
    assert.deepEqual(await valuesOf(numbers, "labels"), [1.5, 2, -30]);
    assert.deepEqual(await valuesOf(await csv(["3", "0"]), "labels"), [3n, 0n]);
  });

  it("that begin as numbers stay numbers: a slip is found", async () => {
    const label = (why: string) => new RegExp(`^Line 4, column "y" ${why}`);
    const spec = csvSpec({ x: {} }, { labels: "y" });
    await assertRefused("x,y\n1,2\n1,3\n1,3a\n", spec, label('holds "3a", which is not a number as the labels'), "y");
    await assertRefused("x,y\n1,2\n1,3\n1,\n", spec, label("is empty"), "y");
    await assertRefused("x,y\n1,a\n1,b\n1,\n", spec, label("is empty"), "y");
    await assertRefused(
      '{"y":"a","v":1}\n{"y":2,"v":1}',
      jsonlSpec({ x: {} }, "y"),
      /a number where the labels before/,
      "y",
    );
  });

  it("refuses more classes than there are meant to be", async () => {
    const many = Array.from({ length: 65_537 }, (_, i) => `class ${i}`);
    await assert.rejects(csv(many), { code: "limit_exceeded" });
  });
});

it("a table of any length takes the same memory", async () => {
  const row = `${Array.from({ length: 50 }, (_, i) => i).join()}\n`;
  const rows = 25_000;
  const size = rows * row.length;
  let read = 0;
  // A file that is never in memory as a whole.
  const endless: ByteSource = {
    size,
    read(offset, length) {
      read = Math.max(read, length);
      const repeated = Buffer.from(row.repeat(Math.ceil(length / row.length) + 1));
      return repeated.subarray(offset % row.length, (offset % row.length) + length);
    },
  };
  let longest = 0;
  const scratch = memoryScratch(2 ** 31);
  const openScratch = () => ({
    get size() {
      return scratch.size;
    },
    read: scratch.read,
    reserve: scratch.reserve,
    write(offset: number, bytes: Uint8Array) {
      longest = Math.max(longest, bytes.byteLength);
      scratch.write(offset, bytes);
    },
  });
  const dataset = await openDataset(endless, {
    spec: csvSpec({ x: { dtype: "uint8" } }, { header: false }),
    openScratch,
  });
  assert.equal(dataset.facts.samples, rows);
  assert.ok(read <= 2 ** 20 && longest <= 2 ** 20, `${read} bytes were read and ${longest} written at once`);
  assert.deepEqual(
    dataset.gather([rows - 1]).feeds.x,
    tensorOf(
      "uint8",
      [1, 50],
      Array.from({ length: 50 }, (_, i) => i),
    ),
  );
});

// The patterns that these are read with once took time that grew with the square of a cell's length: minutes, where now it is moments.
test("cells of millions of characters are refused in moments", { timeout: 60_000 }, async () => {
  const spec = csvSpec({ x: {} });
  for (const cell of [
    `${"1".repeat(5_000_000)}e`,
    "9".repeat(5_000_000),
    `${"1".repeat(3_000_000)}.${"1".repeat(2_000_000)}x`,
  ]) {
    await assertRefused(`a\n${cell}\n`, spec, /^Line 2, column "a" holds "[19]{40}", which is not a number/, "a");
  }
  const exact = `0.${"0".repeat(300)}1`;
  assert.deepEqual(await valuesOf(await open(`a\n${exact}\n`, csvSpec({ x: { dtype: "float64" } }))), [1e-301]);
});

test("more columns than tables have, and values nested without end, are refused", async () => {
  const names = Array.from({ length: 2 ** 18 + 1 }, (_, i) => `c${i}`).join(",");
  await assertRefused(`${names}\n`, csvSpec({ x: {} }), /^The table has 262145 columns/, undefined, "limit_exceeded");
  const deep = `{"v":${'{"a":'.repeat(100_000)}1${"}".repeat(100_000)}}`;
  await assertRefused(deep, jsonlSpec({ x: {} }), /holds an object, which is not a number/, "v");
});
