import type { Affine } from "../../operators/operator-record.ts";

/** Union-find over things that are in affine proportion: all members of a group are factor · g + shift of one g. */
export class AffineGroups<T> {
  readonly #parents = new Map<T, Affine & { readonly parent: T }>();
  readonly #numbers = new Map<T, number>();

  /** The group of a member, and what it is in terms of the group's g. */
  find(member: T): Affine & { readonly group: number } {
    const { root, factor, shift } = this.#root(member);
    const group = this.#numbers.get(root) ?? this.#numbers.size;
    this.#numbers.set(root, group);
    return { group, factor, shift };
  }

  /** From now on b = factor · a + shift. A second relation between members of one group is ignored. */
  join(a: T, { factor, shift }: Affine, b: T): void {
    const from = this.#root(a);
    const to = this.#root(b);
    if (from.root === to.root) return;
    // to.factor · root(b) + to.shift = factor · (from.factor · root(a) + from.shift) + shift
    this.#parents.set(to.root, {
      parent: from.root,
      factor: (factor * from.factor) / to.factor,
      shift: (factor * from.shift + shift - to.shift) / to.factor,
    });
  }

  #root(member: T): Affine & { readonly root: T } {
    let root = member;
    let factor = 1;
    let shift = 0;
    for (let up = this.#parents.get(root); up; up = this.#parents.get(root)) {
      shift += factor * up.shift;
      factor *= up.factor;
      root = up.parent;
    }
    return { root, factor, shift };
  }
}
