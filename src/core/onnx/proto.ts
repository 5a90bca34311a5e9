import { create, type DescMessage, type Message } from "@bufbuild/protobuf";

/** A copy of a message whose fields can be replaced one by one, or a new one. */
export function shallow<T extends Message>(schema: DescMessage, source: T | undefined): T {
  return (source ? Object.assign(create(schema), source) : create(schema)) as T;
}
