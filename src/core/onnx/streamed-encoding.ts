/** protobuf with tensors put between the parts that the library encodes. */
import { create, type DescField, type DescMessage, isFieldSet, type Message, toBinary } from "@bufbuild/protobuf";
import { AttributeProtoSchema, GraphProtoSchema, ModelProtoSchema, NodeProtoSchema, TensorProtoSchema } from "onnx-buf";
import type { Tensor } from "./tensor.ts";

/** Bytes to write, in order; a tensor's are fetched when its turn comes. */
export type Chunk = Uint8Array | Tensor;

export interface EncodedFile {
  readonly byteLength: number;
  readonly chunks: readonly Chunk[];
}

/** Messages that can hold tensors, however deep; only these are taken apart when they are encoded. */
const CONTAINERS: ReadonlySet<DescMessage> = new Set<DescMessage>([
  ModelProtoSchema,
  GraphProtoSchema,
  NodeProtoSchema,
  AttributeProtoSchema,
  TensorProtoSchema,
]);

const RAW_DATA = TensorProtoSchema.field.rawData!;

/** Tag and length of a length-delimited field (wire type 2). */
function lengthDelimited(field: DescField, length: number): Uint8Array {
  return Uint8Array.from([...varint(field.number * 8 + 2), ...varint(length)]);
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  bytes.push(value);
  return bytes;
}

/** Messages, some of which were made without the bytes of a tensor that belong into them. */
export class StreamedMessages {
  /** Bytes of the tensors whose messages were made without them. */
  readonly #payloads = new WeakMap<Message, Chunk>();
  /** Messages that hold a streamed tensor somewhere below. */
  readonly #streamed = new WeakSet<Message>();

  /** The raw data of `proto` are the bytes of `value`. */
  stream(proto: Message, value: Tensor): void {
    this.#payloads.set(proto, value);
    this.#streamed.add(proto);
  }

  /** To be called for each message when all that it holds are there. */
  mark(parent: Message, children: readonly Message[]): void {
    if (children.some((child) => this.#streamed.has(child))) this.#streamed.add(parent);
  }

  /**
   * protobuf writes fields in the order of their numbers. Runs of fields without streamed tensors go to the library as one partial message;
   * those with them are written as tag, length, and the chunks of the element. Unknown fields come last, as the library has them.
   */
  encode(schema: DescMessage, message: Message): EncodedFile {
    const chunks: Chunk[] = [];
    let byteLength = 0;
    const push = (chunk: Chunk) => {
      if (chunk.byteLength === 0) return;
      chunks.push(chunk);
      byteLength += chunk.byteLength;
    };
    let run: Record<string, unknown> & Message = create(schema) as never;
    const flush = () => {
      push(toBinary(schema, run));
      run = create(schema) as never;
    };
    for (const field of [...schema.fields].sort((a, b) => a.number - b.number)) {
      const payload = field === RAW_DATA ? this.#payloads.get(message) : undefined;
      if (payload) {
        flush();
        push(lengthDelimited(field, payload.byteLength));
        push(payload);
        continue;
      }
      if (!isFieldSet(message, field)) continue;
      const value = (message as unknown as Record<string, unknown>)[field.localName];
      if (!field.message || !CONTAINERS.has(field.message)) {
        run[field.localName] = value;
        continue;
      }
      for (const element of (field.fieldKind === "list" ? value : [value]) as Message[]) {
        if (this.#streamed.has(element)) {
          flush();
          const inner = this.encode(field.message, element);
          push(lengthDelimited(field, inner.byteLength));
          for (const chunk of inner.chunks) push(chunk);
        } else if (field.fieldKind === "list") {
          const pending = run[field.localName] as Message[];
          pending.push(element);
        } else {
          run[field.localName] = element;
        }
      }
    }
    if (message.$unknown) run.$unknown = message.$unknown;
    flush();
    return { byteLength, chunks };
  }
}
