/** Which outputs of two models mean the same, and whether they can be compared: known from facts, before anything is built. */
import { CoreError } from "../errors.ts";
import type { OutputFacts } from "../facts.ts";
import { didYouMean, nearestNames } from "../nearest-names.ts";
import { areShares } from "../onnx/class-axis.ts";

/** How an output is compared with the teacher's. `kl` is for class scores and shares, `dkd` for class scores, the others for any numbers. */
export type OutputLoss = "kl" | "dkd" | "mse" | "huber" | "cosine";

/** Outputs of two models that mean the same. */
export interface OutputPair {
  readonly teacher: string;
  readonly student: string;
}

/** What two models that are compared are called in messages, and what to do where their outputs cannot be told apart. */
interface Roles {
  readonly teacher: string;
  readonly student: string;
  readonly remedy: string;
}

const TEACHING: Roles = { teacher: "teacher", student: "student", remedy: "say which belong together" };

/** Of networks that teach each other: the student, and one of its peers. */
export const PEERS: Roles = { teacher: "student", student: "peer", remedy: "give them the same names" };

/** Which of two models' outputs mean the same. Throws `invalid_params` where that is not clear. */
export function pairOutputs(
  teacher: readonly { readonly name: string }[],
  student: readonly { readonly name: string }[],
  given: readonly OutputPair[] | undefined,
  roles = TEACHING,
): readonly OutputPair[] {
  const [ours, theirs] = [student, teacher].map((outputs) => outputs.map(({ name }) => name)) as [string[], string[]];
  const pairs =
    given ??
    (ours.length === 1 && theirs.length === 1
      ? [{ teacher: theirs[0]!, student: ours[0]! }]
      : ours.filter((name) => theirs.includes(name)).map((name) => ({ teacher: name, student: name })));
  for (const pair of pairs) {
    for (const [name, names, whose] of [
      [pair.student, ours, roles.student] as const,
      [pair.teacher, theirs, roles.teacher] as const,
    ]) {
      if (names.includes(name)) continue;
      const nearest = didYouMean(nearestNames(name, names));
      throw new CoreError("invalid_params", `The ${whose} has no output ${JSON.stringify(name)}.${nearest}`, name);
    }
  }
  if (pairs.length === 0) {
    throw new CoreError(
      "invalid_params",
      `No output of the ${roles.student} (${ours.join(", ")}) has the name of one of the ${roles.teacher}'s (${theirs.join(", ")}): ${roles.remedy}.`,
    );
  }
  return pairs;
}

/** Why a loss (null: the one for what they are) cannot compare two outputs, or `unknown` where their shapes do not say; undefined when it can. */
export function outputMisfit(
  kind: OutputLoss | null,
  teacher: OutputFacts,
  student: OutputFacts,
  roles = TEACHING,
): { readonly about: "shapes" | "loss"; readonly message: string } | "unknown" | undefined {
  const shares = [student, teacher].filter(areShares);
  if (shares.length > 0 && (kind === "dkd" || (kind === "kl" && shares.length === 1))) {
    const message = kind === "kl" ? unequalShares(shares[0]!, teacher, student) : unlikeShares(kind, shares[0]!.name);
    return { about: "loss", message };
  }
  const [theirs, ours] = [teacher, student].map(({ shape }) => shape?.slice(1).filter((dim) => dim !== 1));
  if (!theirs || !ours) return "unknown";
  const text = ({ name, shape }: OutputFacts) => `"${name}" [${shape!.map((dim) => dim ?? "?").join(", ")}]`;
  const isOpen = [...theirs, ...ours].some((dim) => typeof dim !== "number");
  const fits = theirs.length === ours.length && theirs.every((dim, i) => dim === ours[i] || isSymbolic(dim, ours[i]));
  if (!fits && (!isOpen || theirs.length === ours.length)) {
    const message = `The ${roles.teacher}'s output ${text(teacher)} and the ${roles.student}'s ${text(student)} cannot be compared: behind the first axis, which counts the samples, only axes of 1 may differ.`;
    return { about: "shapes", message };
  }
  const readsNumbers = kind === null || kind === "mse" || kind === "huber" || (kind === "kl" && shares.length === 2);
  if (ours.length === 0 && theirs.length === 0 && !readsNumbers) {
    const message = `The loss ${kind} compares scores of classes or directions, and the output ${text(student)} has one number for each sample: take mse or huber.`;
    return { about: "loss", message };
  }
  return fits && theirs.every((dim, i) => dim !== null && dim === ours[i]) ? undefined : "unknown";
}

/** That a loss of class scores cannot compare shares. */
export function unlikeShares(loss: OutputLoss, output: string): string {
  return `The loss ${loss} compares scores of classes to choose from, and ${sharesText(output)}: take kl, mse or huber.`;
}

function unequalShares(shares: OutputFacts, ...[teacher, student]: readonly OutputFacts[]): string {
  const other = shares === teacher ? student! : teacher!;
  return `The loss kl compares like with like: ${sharesText(shares.name)}, and those of ${JSON.stringify(other.name)} are not. Put a Sigmoid behind that, or take mse or huber.`;
}

/** Of such an output, for messages. */
export function sharesText(output: string): string {
  return `each number of the output ${JSON.stringify(output)} is a share by itself, as a Sigmoid makes them`;
}

function isSymbolic(...dims: readonly (number | string | null | undefined)[]): boolean {
  return dims.some((dim) => typeof dim !== "number");
}
