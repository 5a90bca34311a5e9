import assert from "node:assert/strict";
import { test } from "node:test";
import type { KernelBook } from "../../../../src/core/contract.ts";
import {
  bookFromBytes,
  bookToBytes,
  MAX_BOOK_BYTES,
  mergedBooks,
} from "../../../../src/service/kinds/quantize/kernels-file.ts";

type KernelVerdict = NonNullable<ReturnType<KernelBook["models"]["get"]>>;

const HOST = { cpu: "a processor", isa: ["avx2", "avx_vnni"] };
const keyOf = (number: number) => String(number).padStart(22, "k");

function book(of: { units?: number[]; us?: number; models?: number[]; layers?: number }): KernelBook {
  const us = of.us ?? 5;
  const facts: KernelVerdict["facts"] = {
    ...{ float_ms: us, int8_speedup: 1.5, mixed_speedup: null, predicted_speedup: null },
    ...{ basis: "measured", chosen: "int8" },
  };
  const costs: KernelVerdict["costs"] = {
    ...{ quantize: [us, 0, 0.5], dequantize: [1, 0, 0.25], reorder: [0, 0, 0] },
    units: Array.from({ length: of.layers ?? 2 }, (_, i) => ({ floatUs: us + i, int8Us: 1.25 })),
  };
  return {
    units: new Map((of.units ?? []).map((key) => [keyOf(key), { floatUs: us, int8Us: 2.5 }])),
    conversions: new Map((of.units ?? []).map((key) => [keyOf(key), us])),
    models: new Map(
      (of.models ?? []).map((key) => [keyOf(key), key % 2 === 0 ? { facts, costs } : { facts, costs: undefined }]),
    ),
  };
}

test("a book is read as it was written, on a machine of the same kind only", () => {
  const written = book({ units: [1, 2], models: [3, 4] });
  const bytes = bookToBytes(written, HOST);
  assert.deepEqual(bookFromBytes(bytes, HOST), written);
  assert.equal(bookFromBytes(bytes, { ...HOST, isa: ["avx2"] }), undefined);
  assert.equal(bookFromBytes(bytes, { ...HOST, cpu: "another" }), undefined);
});

test("of two books what was kept first stays, and what the other one has besides is added", () => {
  const kept = bookToBytes(book({ units: [1], us: 5, models: [4] }), HOST);
  const found = bookToBytes(book({ units: [1, 2], us: 9, models: [4, 6] }), HOST);
  const both = bookFromBytes(mergedBooks(kept, found, HOST)!, HOST)!;
  assert.deepEqual(
    [...both.units.values()].map(({ floatUs }) => floatUs),
    [5, 9],
  );
  assert.deepEqual([...both.conversions.values()], [5, 9]);
  assert.deepEqual(
    [...both.models.values()].map(({ facts }) => facts.float_ms),
    [5, 9],
  );
  // Of a machine that has changed nothing is kept.
  const other = { ...HOST, cpu: "another" };
  const own = bookToBytes(book({ units: [3] }), other);
  assert.deepEqual([...bookFromBytes(mergedBooks(kept, own, other)!, other)!.units.keys()], [keyOf(3)]);
});

test("what is no book adds nothing", () => {
  const kept = bookToBytes(book({ units: [1] }), HOST);
  const text = Buffer.from(kept).toString();
  const hostile = [
    "",
    "[]",
    "{",
    text.replace('"format":1', '"format":2'),
    text.replace(keyOf(1), "__proto__"),
    text.replace(/,5,2.5\]/, ",-5,2.5]"),
    text.replace(/,5,2.5\]/, ",1e400,2.5]"),
    text.replace(/,5,2.5\]/, ',"5",2.5]'),
    text.replace('"models":[]', `"models":[["${keyOf(1)}",{"chosen":"int8"},null]]`),
    text.replace('"models":[]', '"models":[],"more":1'),
    `${text}${" ".repeat(MAX_BOOK_BYTES)}`,
  ];
  for (const it of hostile) {
    assert.notEqual(it, text);
    assert.equal(bookFromBytes(Buffer.from(it), HOST), undefined, it.slice(0, 200));
    assert.equal(mergedBooks(kept, Buffer.from(it), HOST), undefined);
  }
});

test("a book has a bound: the oldest give way", () => {
  const many = Array.from({ length: 20_000 }, (_, i) => i);
  const { units } = bookFromBytes(bookToBytes(book({ units: many }), HOST), HOST)!;
  assert.ok(units.size < many.length && units.has(keyOf(19_999)) && !units.has(keyOf(0)));
  const large = book({ units: [1], models: many.slice(0, 200).map((it) => 2 * it), layers: 5000 });
  const bytes = bookToBytes(large, HOST);
  assert.ok(bytes.byteLength <= MAX_BOOK_BYTES);
  const { models } = bookFromBytes(bytes, HOST)!;
  assert.ok(models.size > 0 && models.has(keyOf(398)) && !models.has(keyOf(0)));
});
