import { create } from "@bufbuild/protobuf";
import { type ModelProto, StringStringEntryProtoSchema } from "onnx-buf";

/** Where a model comes from, as its file says. */
export interface Origin {
  readonly producerName: string;
  readonly producerVersion: string;
  /** `metadata_props`, less the prefix of their keys. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** Of the keys in `metadata_props` that are this project's: the others are the model's own, and stay. */
const PREFIX = "modelpress.";

/** Says nothing: two models that differ in their origin only are written as the same bytes. */
export const UNTOLD: Origin = { producerName: "", producerVersion: "", metadata: {} };

/** Says the origin in the message that is written, in place of what an earlier one has said. The order of keys is that of `metadata`. */
export function tellOrigin(proto: ModelProto, { producerName, producerVersion, metadata }: Origin): void {
  proto.producerName = producerName;
  proto.producerVersion = producerVersion;
  const entries = Object.entries(metadata).map(([key, value]) => ({ key: PREFIX + key, value }));
  proto.metadataProps = [
    ...proto.metadataProps.filter(({ key }) => !key.startsWith(PREFIX)),
    ...entries.map((entry) => create(StringStringEntryProtoSchema, entry)),
  ];
}

/** What an earlier file of a model has said about a key of ours. */
export function toldBefore(proto: ModelProto | undefined, key: string): string | undefined {
  return proto?.metadataProps.find((entry) => entry.key === PREFIX + key)?.value;
}
