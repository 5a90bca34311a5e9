import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { ModelProtoSchema, TensorProtoSchema } from "onnx-buf";
import { CoreError } from "../errors.ts";
import { LIMITS } from "./limits.ts";

/**
 * Reads the structure of a file without decoding it, so that what is decoded afterwards is known to be well-formed and of bearable
 * size. It is stricter than the decoder: lengths must add up and wire types must be those of the schema. Where readers differ
 * (protobuf-es takes a field of the wrong wire type for the right one, C++ skips it) we would check another model than onnxruntime runs.
 */
export function scanModelBytes(bytes: Uint8Array): void {
  if (bytes.byteLength > LIMITS.fileBytes) {
    throw new CoreError(
      "limit_exceeded",
      "A model file can have at most 2 GiB; larger models keep weights in external data.",
    );
  }
  new Scanner(bytes).message(ModelProtoSchema, bytes.byteLength, 1);
}

const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;

const FIXED_WIRE: Partial<Record<ScalarType, number>> = {
  [ScalarType.DOUBLE]: WIRE.fixed64,
  [ScalarType.FIXED64]: WIRE.fixed64,
  [ScalarType.SFIXED64]: WIRE.fixed64,
  [ScalarType.FLOAT]: WIRE.fixed32,
  [ScalarType.FIXED32]: WIRE.fixed32,
  [ScalarType.SFIXED32]: WIRE.fixed32,
  [ScalarType.STRING]: WIRE.bytes,
  [ScalarType.BYTES]: WIRE.bytes,
};

/** What the scanner has to know of a field. */
interface Field {
  readonly wire: number;
  /** Set for messages. */
  readonly message: DescMessage | undefined;
  /** Whether a list of numbers, which may come packed into one byte string. */
  readonly isNumberList: boolean;
  readonly maxBytes: number;
}

const TABLES = new Map<DescMessage, ReadonlyMap<number, Field>>();

function fieldsOf(schema: DescMessage): ReadonlyMap<number, Field> {
  let table = TABLES.get(schema);
  if (!table) {
    table = new Map(schema.fields.map((field) => [field.number, describe(field)]));
    TABLES.set(schema, table);
  }
  return table;
}

function describe(field: DescField): Field {
  const wire = field.message ? WIRE.bytes : field.scalar ? (FIXED_WIRE[field.scalar] ?? WIRE.varint) : WIRE.varint;
  return {
    wire,
    message: field.message,
    isNumberList: field.fieldKind === "list" && wire !== WIRE.bytes,
    maxBytes: field === TensorProtoSchema.field.rawData ? LIMITS.fileBytes : LIMITS.stringBytes,
  };
}

class Scanner {
  readonly #bytes: Uint8Array;
  #at = 0;
  #messages = 0;
  #strings = 0;
  #numbers = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  message(schema: DescMessage, end: number, depth: number): void {
    if (depth > LIMITS.messageDepth) throw tooMuch(`nests deeper than ${LIMITS.messageDepth} levels`);
    if (++this.#messages > LIMITS.messages) throw tooMuch(`has more than ${LIMITS.messages} parts`);
    const fields = fieldsOf(schema);
    while (this.#at < end) {
      const tag = this.#varint(end);
      const field = fields.get(Math.floor(tag / 8));
      const wire = tag % 8;
      if (tag < 8 || tag >= 2 ** 32) throw malformed("a field has an impossible number");
      if (field && wire !== field.wire && !(field.isNumberList && wire === WIRE.bytes)) {
        throw malformed(`a field of ${schema.name} is encoded as something else than the format says`);
      }
      // A field we do not know is kept as a message of its own.
      if (!field && ++this.#messages > LIMITS.messages) throw tooMuch(`has more than ${LIMITS.messages} parts`);
      if (wire === WIRE.bytes) this.#lengthDelimited(field, end, depth);
      else {
        if (wire === WIRE.varint) this.#varint(end);
        else if (wire === WIRE.fixed64) this.#skip(8, end);
        else if (wire === WIRE.fixed32) this.#skip(4, end);
        else throw malformed("it uses groups, which ONNX never does");
        if (field?.isNumberList) this.#count(1);
      }
    }
  }

  #lengthDelimited(field: Field | undefined, end: number, depth: number): void {
    const length = this.#varint(end);
    if (length > end - this.#at) throw malformed("it ends in the middle of a field");
    if (field?.message) {
      this.message(field.message, this.#at + length, depth + 1);
    } else if (field?.isNumberList) {
      this.#packed(field.wire, length);
    } else {
      if (++this.#strings > LIMITS.strings) throw tooMuch(`has more than ${LIMITS.strings} strings`);
      if (length > (field?.maxBytes ?? LIMITS.stringBytes)) {
        throw tooMuch(`has a string of ${length} bytes (at most ${LIMITS.stringBytes})`);
      }
      this.#at += length;
    }
  }

  #packed(wire: number, length: number): void {
    if (wire !== WIRE.varint) {
      const size = wire === WIRE.fixed64 ? 8 : 4;
      if (length % size !== 0) throw malformed("a list of numbers ends in the middle of one");
      this.#count(length / size);
      this.#at += length;
      return;
    }
    const end = this.#at + length;
    while (this.#at < end) {
      this.#varint(end);
      this.#count(1);
    }
  }

  #count(numbers: number): void {
    this.#numbers += numbers;
    if (this.#numbers > LIMITS.listedNumbers) {
      throw tooMuch(
        `lists more than ${LIMITS.listedNumbers} numbers one by one; tensors of that size belong into raw_data`,
      );
    }
  }

  #skip(length: number, end: number): void {
    if (length > end - this.#at) throw malformed("it ends in the middle of a field");
    this.#at += length;
  }

  /** The next varint; exact below 2^53, which is more than any tag or length can be. */
  #varint(end: number): number {
    let value = 0;
    for (let shift = 0; shift < 10; shift++) {
      if (this.#at >= end) throw malformed("it ends in the middle of a field");
      const byte = this.#bytes[this.#at++]!;
      value += (byte & 127) * 128 ** shift;
      if (byte < 128) return value;
    }
    throw malformed("a number has more than 10 bytes");
  }
}

function malformed(what: string): CoreError {
  return new CoreError("invalid_model", `This is not an ONNX model, or it is damaged: ${what}.`);
}

function tooMuch(what: string): CoreError {
  return new CoreError("limit_exceeded", `The model ${what}.`);
}
