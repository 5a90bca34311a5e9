/**
 * Scales and zero points of activations, from the ranges that calibration has found.
 *
 * The values of a group are t = f·g + h of one g, and their codes are the same, so with s_g and z_g those of g
 *
 *     s_t = f · s_g        z_t = z_g − h / s_t
 *
 * which has an integer z_t only when h / (f·s_g) is one. Scales are free to grow a little, so s_g is raised to the next value for which it is.
 * The range of g holds the ranges of all members that are read, and the zero of every member, so that padding and zeros are exact.
 */
import { CoreError } from "../../errors.ts";
import type { Value } from "../../onnx/ir.ts";
import type { Affine } from "../../operators/operator-record.ts";
import type { Range } from "../calibration/thresholds.ts";
import { type AffineParams, affineParams, type CodeRange } from "../params.ts";
import type { Placement } from "./placement.ts";

export interface ActivationParams {
  /** Of quantized values and of their aliases. */
  readonly params: ReadonlyMap<Value, AffineParams>;
  /** Names of sums with a number that no zero point can express; place the quantizers again with these computed. */
  readonly inexpressible: ReadonlySet<string>;
}

/** A shift of fewer codes is not rounded to whole codes: that would cost more range than computing the sum costs. */
const MIN_SHIFT_CODES = 4;

interface Group {
  min: number;
  max: number;
  /** What s_g must divide; undefined: nothing. */
  anchor?: number;
  /** Sums that only an integer multiple of s_g can express. */
  readonly sums: string[];
  inexpressible: boolean;
}

/**
 * `ranges` has the range of every leaf, by name. `given` has scales and zero points that are decided, by the names of values: they hold for all values
 * of their groups. `symmetric`: every zero point is 0. Throws `internal` when a range is missing, or what is given contradicts itself.
 */
export function activationParams(
  placement: Placement,
  ranges: ReadonlyMap<string, Range>,
  codes: CodeRange,
  given: Readonly<Record<string, AffineParams>> = {},
  symmetric = false,
): ActivationParams {
  const groups = collectGroups(placement, ranges);
  const grids = new Map([...groups].map(([number, group]) => [number, gridOf(group, codes, symmetric)]));
  for (const [number, grid] of givenGrids(placement, given)) {
    grids.set(number, grid);
    groups.get(number)!.inexpressible = false;
  }
  const params = new Map<Value, AffineParams>();
  for (const { value, group, affine } of placement.values.values()) params.set(value, under(affine, grids.get(group)!));
  for (const [value, alias] of placement.aliases) params.set(value, under(alias, params.get(alias.base)!));
  const inexpressible = [...groups.values()].flatMap((group) => (group.inexpressible ? group.sums : []));
  return { params, inexpressible: new Set(inexpressible) };
}

/** The scales and zero points of g that are given by those of members. Throws `internal` when members of one group contradict each other. */
function givenGrids(placement: Placement, given: Readonly<Record<string, AffineParams>>): Map<number, AffineParams> {
  const grids = new Map<number, AffineParams>();
  for (const { value, group, affine } of placement.values.values()) {
    const own = given[value.name];
    if (!own) continue;
    const grid = {
      scale: Math.fround(own.scale / affine.factor),
      zeroPoint: own.zeroPoint + Math.round(affine.shift / own.scale),
    };
    const known = grids.get(group) ?? grid;
    if (known.zeroPoint !== grid.zeroPoint || Math.abs(known.scale - grid.scale) > 1e-6 * grid.scale) {
      throw new CoreError("internal", "Values that share their integers are given different scales.", value.name);
    }
    grids.set(group, known);
  }
  return grids;
}

function collectGroups(placement: Placement, ranges: ReadonlyMap<string, Range>): Map<number, Group> {
  const groups = new Map<number, Group>();
  const groupOf = (number: number): Group => {
    const group = groups.get(number) ?? {
      min: Number.POSITIVE_INFINITY,
      max: Number.NEGATIVE_INFINITY,
      sums: [],
      inexpressible: false,
    };
    groups.set(number, group);
    return group;
  };
  const include = (group: Group, { factor, shift }: Affine, { min, max }: Range) => {
    group.min = Math.min(group.min, (Math.min(min, 0) - shift) / factor);
    group.max = Math.max(group.max, (Math.max(max, 0) - shift) / factor);
    if (shift === 0) return;
    group.inexpressible ||=
      group.anchor !== undefined && Math.abs(group.anchor - shift / factor) > 1e-6 * Math.abs(group.anchor);
    group.anchor ??= shift / factor;
  };
  for (const { value, group, affine, leaf, clip } of placement.values.values()) {
    const observed = leaf ? ranges.get(value.name) : { min: 0, max: 0 };
    if (!observed) throw new CoreError("internal", "A quantized value has no range.", value.name);
    include(groupOf(group), affine, { min: Math.max(observed.min, clip.min), max: Math.min(observed.max, clip.max) });
  }
  for (const { base, factor, shift, node } of placement.aliases.values()) {
    const { group, affine } = placement.values.get(base)!;
    const composed = { factor: factor * affine.factor, shift: factor * affine.shift + shift };
    include(groupOf(group), composed, { min: 0, max: 0 });
    if (shift !== 0) groupOf(group).sums.push(node.name);
  }
  return groups;
}

function gridOf(group: Group, codes: CodeRange, symmetric: boolean): AffineParams {
  const { scale, zeroPoint } = affineParams(group.min, group.max, codes, { symmetric });
  if (group.anchor === undefined) return { scale, zeroPoint };
  if (symmetric) {
    group.inexpressible = true;
    return { scale, zeroPoint };
  }
  const shiftCodes = Math.floor(Math.abs(group.anchor) / scale);
  if (shiftCodes < MIN_SHIFT_CODES) {
    group.inexpressible = true;
    return { scale, zeroPoint };
  }
  // A larger scale over the same number of codes: the zero point moves with the lower end of the range.
  const anchored = Math.fround(Math.abs(group.anchor) / shiftCodes);
  return {
    scale: anchored,
    zeroPoint: Math.min(Math.max(Math.round(codes.min - group.min / anchored), codes.min), codes.max),
  };
}

/** Scale and zero point of factor · g + shift, given those of g. */
function under({ factor, shift }: Affine, { scale, zeroPoint }: AffineParams): AffineParams {
  return { scale: Math.fround(factor * scale), zeroPoint: zeroPoint - Math.round(shift / (factor * scale)) };
}
