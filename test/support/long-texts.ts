import { INLINE_BYTES, type LongTexts } from "../../src/service/blobs/long-texts.ts";

/** Long texts in memory, by who keeps them. */
export function createMemoryTexts(): LongTexts & { readonly kept: Map<string, string[]> } {
  const kept = new Map<string, string[]>();
  return {
    kept,
    async keep(owner, text) {
      if (Buffer.byteLength(text) <= INLINE_BYTES) return text;
      const own = kept.get(owner) ?? [];
      kept.set(owner, [...own, text]);
      return `@${owner} ${own.length}`;
    },
    async read(text) {
      const [, owner, index] = /^@(\S+) (\d+)$/.exec(text) ?? [];
      return owner === undefined ? text : kept.get(owner)![Number(index)]!;
    },
    async settle() {},
    release: async (owner) => void kept.delete(owner),
  };
}
