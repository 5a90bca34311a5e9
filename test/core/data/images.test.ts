import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { memoryScratch, memorySource } from "../../../src/core/data/byte-source.ts";
import { type Dataset, datasetView, openDataset } from "../../../src/core/data/dataset.ts";
import type { ImageDecoder } from "../../../src/core/data/images.ts";
import { LIMITS } from "../../../src/core/data/limits.ts";
import type { ImagesSpec } from "../../../src/core/data/spec.ts";
import { CoreError, type CoreErrorCode } from "../../../src/core/errors.ts";
import { arrayOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { writeZip, type ZipMember } from "../../support/dataset-writers.ts";

/** Images of one pixel: "IMG" and the pixel's value. */
const image = (value: number) => Buffer.from([0x49, 0x4d, 0x47, value]);

function countingDecoder(): ImageDecoder & { readonly decoded: number[]; readonly checked: number[] } {
  const decoded: number[] = [];
  const checked: number[] = [];
  const pixelOf = (file: Uint8Array) => {
    if (Buffer.from(file).toString("latin1", 0, 3) !== "IMG" || file.length !== 4) throw new Error("bad magic\nat 0");
    return file[3]!;
  };
  return {
    decoded,
    checked,
    async check(file) {
      checked.push(pixelOf(file));
    },
    async decode(file) {
      const value = pixelOf(file);
      decoded.push(value);
      return { height: 1, width: 1, data: new Uint8Array([value, value, value]) };
    },
  };
}

const SPEC: ImagesSpec = {
  ...{ kind: "images", input: "x", size: [1, 1], layout: "NCHW", color: "gray", resize: "stretch", dtype: "uint8" },
};

const members = (files: Readonly<Record<string, Uint8Array>>, deflate = false): ZipMember[] =>
  Object.entries(files).map(([name, data]) => ({ name, data, deflate }));

function open(zip: Uint8Array, { spec = SPEC, decoder = countingDecoder(), verify = true } = {}): Promise<Dataset> {
  return openDataset(memorySource(zip), { spec, imageDecoder: decoder, verify });
}

/** The pixel of every sample, and the labels. */
async function contents(dataset: Dataset) {
  const [all] = await Array.fromAsync(dataset.batches({ batchSize: dataset.facts.samples }));
  return {
    pixels: [...arrayOf(all!.feeds.x!, "uint8")],
    labels: all!.labels && [...arrayOf(all!.labels, "int64")].map(Number),
  };
}

async function assertRefused(
  opened: Promise<Dataset>,
  code: CoreErrorCode,
  subject: string | undefined,
  message: RegExp,
) {
  await assert.rejects(opened, (error) => {
    assert.ok(error instanceof CoreError, String(error));
    assert.match(error.message, message);
    assert.deepEqual([error.code, error.subject], [code, subject]);
    return true;
  });
}

describe("images in folders", () => {
  it("are labelled by their folder, classes sorted by name and taking turns", async () => {
    const files = {
      "dog/b.png": image(5),
      "cat/2.jpg": image(2),
      "dog/a.png": image(4),
      "cat/1.jpg": image(1),
      "cat/3.jpg": image(3),
    };
    for (const deflate of [false, true]) {
      const dataset = await open(writeZip(members(files, deflate)));
      assert.deepEqual(dataset.facts, {
        samples: 5,
        fields: [{ name: "x", dtype: "uint8", shape: [1, 1, 1] }],
        has_labels: true,
        classes: ["cat", "dog"],
      });
      assert.deepEqual(await contents(dataset), { pixels: [1, 4, 2, 5, 3], labels: [0, 1, 0, 1, 0] });
    }
  });

  it("may have long paths", async () => {
    const [long, other] = ["a".repeat(200), `${"a".repeat(199)}b`];
    const dataset = await open(writeZip(members({ [`${long}/1.png`]: image(1), [`${other}/1.png`]: image(2) })));
    assert.deepEqual(dataset.facts.classes, [long, other]);
  });

  it("come in the same order however the archive was made", async () => {
    const files = fc.uniqueArray(fc.tuple(fc.constantFrom("a", "b", "ä", "B"), fc.nat(99)), {
      minLength: 5,
      maxLength: 20,
      selector: ([folder, name]) => `${folder}/${name}`,
    });
    await fc.assert(
      fc.asyncProperty(files, fc.array(fc.nat(), { minLength: 20, maxLength: 20 }), async (files, keys) => {
        const all = files.map(([folder, name], i) => ({ name: `all/${folder}/${name}.png`, data: image(i) }));
        const mixed = all
          .map((member, i) => ({ member, key: keys[i]! }))
          .sort((a, b) => a.key - b.key)
          .map(({ member }) => member);
        const [one, other] = [await open(writeZip(all)), await open(writeZip(mixed))];
        assert.deepEqual(one.facts, other.facts);
        assert.deepEqual(await contents(one), await contents(other));
      }),
      { numRuns: 50 },
    );
  });

  it("have no labels without folders, or below one folder only", async () => {
    for (const folder of ["", "photos/", "a/b/"]) {
      const dataset = await open(writeZip(members({ [`${folder}2.png`]: image(2), [`${folder}1.png`]: image(1) })));
      assert.equal(dataset.facts.has_labels, false);
      assert.equal(dataset.facts.classes, null);
      assert.deepEqual(await contents(dataset), { pixels: [1, 2], labels: undefined });
    }
  });

  it("leave out what file managers and archivers put in", async () => {
    const files = {
      "x/": Buffer.alloc(0),
      "x/cat/1.PNG": image(1),
      "x/cat/Thumbs.db": image(9),
      "x/dog/2.webp": image(2),
      "x/dog/.DS_Store": image(9),
      "__MACOSX/x/dog/._2.webp": image(9),
      ".git/config": image(9),
      "x/desktop.ini": image(9),
    };
    const dataset = await open(writeZip(members(files)));
    assert.deepEqual(dataset.facts.classes, ["cat", "dog"]);
    assert.deepEqual(await contents(dataset), { pixels: [1, 2], labels: [0, 1] });
  });
});

describe("pixels", () => {
  const files = Object.fromEntries(
    Array.from({ length: 40 }, (_, i) => [`${String(i).padStart(2, "0")}.png`, image(i)]),
  );
  const zip = writeZip(members(files));

  it("are decoded when they are asked for, and once", async () => {
    const decoder = countingDecoder();
    const dataset = await open(zip, { decoder, verify: false });
    assert.deepEqual(decoder.decoded, []);
    await Array.fromAsync(dataset.batches({ batchSize: 4, limit: 8 }));
    assert.deepEqual(
      decoder.decoded.toSorted((a, b) => a - b),
      [0, 1, 2, 3, 4, 5, 6, 7],
    );
    for (let epoch = 0; epoch < 3; epoch++) {
      for await (const { feeds } of dataset.batches({ batchSize: 7, shuffleSeed: epoch })) {
        assert.equal(feeds.x!.dims[1], 1);
      }
    }
    assert.equal(decoder.decoded.length, 40);
    const view = datasetView(dataset, Uint32Array.of(30, 3));
    await view.prepare([0, 1]);
    assert.deepEqual(view.gather([1, 0]).feeds.x, tensorOf("uint8", [2, 1, 1, 1], [3, 30]));
    assert.equal(decoder.decoded.length, 40);
  });

  it("are kept in as much memory as there may be, and not in a byte more", () => {
    const scratch = memoryScratch(1000);
    scratch.write(400, new Uint8Array(600).fill(7));
    assert.deepEqual([scratch.size, scratch.read(999, 1)[0]], [1000, 7]);
    assert.throws(() => scratch.write(400, new Uint8Array(601)), { code: "limit_exceeded" });
  });

  it("are scaled when they are read: a byte is kept for each", async () => {
    const scratch = memoryScratch(1000);
    const spec: ImagesSpec = { ...SPEC, dtype: "float32", scale: 0.5, mean: [1], std: [2] };
    const options = { spec, imageDecoder: countingDecoder(), openScratch: () => scratch };
    const dataset = await openDataset(memorySource(zip), options);
    assert.equal(dataset.facts.fields[0]!.dtype, "float32");
    await dataset.prepare([4, 5, 39]);
    assert.deepEqual(dataset.gather([39, 4, 5]).feeds.x, tensorOf("float32", [3, 1, 1, 1], [9.25, 0.5, 0.75]));
    assert.equal(scratch.size, 40);
    assert.throws(() => dataset.gather([6]), { code: "internal" });
  });

  it("are all looked at when the file arrives", async () => {
    const decoder = countingDecoder();
    await open(zip, { decoder });
    assert.equal(decoder.decoded.length, 40);
  });

  it("of the first in a damaged archive are named, whatever is decoded at the same time", async () => {
    const damaged = { ...files, "07.png": Buffer.from("text"), "08.png": Buffer.from("text") };
    await assertRefused(
      open(writeZip(members(damaged))),
      "invalid_dataset",
      "07.png",
      /^"07.png" cannot be decoded: bad magic\.$/,
    );
    const later = await open(writeZip(members(damaged)), { verify: false });
    await assert.rejects(contents(later), { code: "invalid_dataset", subject: "07.png" });
  });

  it("are not decoded any more when cancelled", async () => {
    const controller = new AbortController();
    const dataset = await open(zip, { verify: false });
    controller.abort();
    await assert.rejects(dataset.prepare([1], controller.signal), { code: "cancelled" });
  });
});

describe("an archive that is refused", () => {
  const good = image(1);
  const named = (name: string) => writeZip([{ name, data: good }]);
  const huge = Buffer.alloc(LIMITS.imageFileBytes + 1);
  const bomb = Buffer.alloc(70 * 2 ** 20);
  const cases: [string, Uint8Array, CoreErrorCode, string | undefined, RegExp][] = [
    ["a path upwards", named("../1.png"), "invalid_dataset", undefined, /\.\.\/1\.png/],
    ["an absolute path", named("/1.png"), "invalid_dataset", undefined, /absolute/],
    ["a backslash", named("a\\1.png"), "invalid_dataset", undefined, /1\.png/],
    ["a control character", named("a\u0007/1.png"), "invalid_dataset", "a?/1.png", /not usable/],
    ["one far behind", named(`${"a".repeat(90)}\u0007/1.png`), "invalid_dataset", "a".repeat(80), /not usable/],
    ["a direction override", named("a\u202egnp.1.png"), "invalid_dataset", "a?gnp.1.png", /not usable/],
    ["another file", named("cat/labels.txt"), "invalid_dataset", "cat/labels.txt", /leave it out/],
    ["a drawing", named("cat/1.svg"), "invalid_dataset", "cat/1.svg", /not an image that can be read/],
    [
      "a pickle",
      writeZip([{ name: "1.png", data: Buffer.from("\x80\x04cos\n") }]),
      "invalid_dataset",
      "1.png",
      /decoded/,
    ],
    ["no images", writeZip([{ name: "a/", data: Buffer.alloc(0) }]), "invalid_dataset", undefined, /no images/],
    [
      "a mixture",
      writeZip(members({ "cat/1.png": good, "2.png": good })),
      "invalid_dataset",
      "2.png",
      /folder of a class/,
    ],
    [
      "folders in folders",
      writeZip(members({ "train/cat/1.png": good, "val/cat/1.png": good })),
      "invalid_dataset",
      "train/cat/1.png",
      /one folder for each class/,
    ],
    [
      "twice the same",
      writeZip([
        { name: "1.png", data: good },
        { name: "1.png", data: good },
      ]),
      "invalid_dataset",
      "1.png",
      /twice/,
    ],
    [
      "a wrong checksum",
      writeZip([{ name: "1.png", data: good, declared: { crc: 1 } }]),
      "invalid_dataset",
      "1.png",
      /checksum/,
    ],
    ["a huge file", writeZip([{ name: "1.png", data: huge }]), "limit_exceeded", "1.png", /at most/],
    ["a bomb", writeZip([{ name: "1.png", data: bomb, deflate: true }]), "limit_exceeded", undefined, /100 times/],
    ["a file cut short", zipCutShort(), "invalid_dataset", undefined, /cannot be read/],
    [
      "something else",
      Buffer.from("not a zip at all, but long enough to look"),
      "invalid_dataset",
      undefined,
      /cannot be read/,
    ],
  ];
  for (const [name, zip, code, subject, message] of cases) {
    it(`for ${name}`, () => assertRefused(open(zip), code, subject, message));
  }

  it("for more pixels than there is room for", async () => {
    const files = Object.fromEntries(Array.from({ length: 600 }, (_, i) => [`${i}.png`, good]));
    const spec: ImagesSpec = { ...SPEC, size: [8192, 8192] };
    await assertRefused(open(writeZip(members(files)), { spec }), "limit_exceeded", undefined, /600 images/);
  });

  it("where nothing decodes images", async () => {
    const opened = openDataset(memorySource(named("1.png")), { spec: SPEC });
    await assertRefused(opened, "unsupported", undefined, /Images/);
  });

  function zipCutShort(): Uint8Array {
    const zip = writeZip(members({ "1.png": good, "2.png": good }));
    return zip.subarray(0, zip.length - 30);
  }

  it("or a dataset, for any damage", async () => {
    const zip = writeZip(members({ "cat/1.png": image(1), "dog/2.png": image(2) }, true));
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(zip.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        async (changes) => {
          const damaged = Uint8Array.from(zip);
          for (const [at, byte] of changes) damaged[at] = byte;
          try {
            await contents(await open(damaged));
          } catch (error) {
            assert.ok(error instanceof CoreError, String(error));
            assert.notEqual(error.code, "internal");
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});
