import { readFile, writeFile } from "node:fs/promises";
import { DEPLOYMENTS } from "../src/service/kinds/quantize/deployments.ts";

/** Writes docs/targets.md from the records of runtimes; with `--check` only says whether it is what they say. */

const FILE = new URL("../docs/targets.md", import.meta.url);

const HEAD = `<!-- Printed from the records by \`npm run targets\`. -->

# Targets that are other runtimes

What each runtime wants of a model, and where that stands written. Static int8 is made by these rules, every result for such a target is checked
against them (\`metrics.deployment.rules\`), and what a runtime cannot take is refused before there is a job. Only what says *measured* is run in the runtime
itself; of the others the metrics and the latency of a result are those of onnxruntime on the machine that ran the job.
`;

type Row = readonly string[];

function table(head: Row, rows: readonly Row[]): string {
  const line = (cells: Row) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

const link = (source: string) => `[${new URL(source).hostname}](${source})`;

/** A value of a rule: `uint8`, `inputs`, `Conv, MatMul`. */
function told(value: unknown): string {
  if (Array.isArray(value)) return value.length === 0 ? "none" : value.join(", ");
  if (typeof value !== "object" || value === null) return String(value);
  return Object.entries(value)
    .map(([name, part]) => (typeof part === "boolean" ? `${part ? "" : "not "}${name}` : `${name} ${told(part)}`))
    .join(", ");
}

/** The text of docs/targets.md. */
export function targetsDocument(): string {
  const sections = Object.entries(DEPLOYMENTS).map(([name, deployment]) => {
    const { runtime, description, rules, refuses, slower, measuredIn } = deployment;
    const refused = refuses.map(({ method, field, says, instead, source }) => [
      field === "method" ? `\`${method}\`` : `\`${method}\`, \`${field}\``,
      says,
      instead,
      link(source),
    ]);
    return [
      `## \`${name}\`: ${runtime}`,
      `${description} ${measuredIn ? `*Measured* in ${measuredIn} where a worker has that package.` : ""}`.trim(),
      table(
        ["rule", "is", "because", "source"],
        Object.entries(rules).map(([rule, { is, says, source }]) => [rule, told(is), says, link(source)]),
      ),
      ...(slower
        ? [
            `${slower.depthwise} They stay in float there, unless \`float_where_slower\` is false ([measured](guides/benchmarks.md#openvino)).`,
          ]
        : []),
      ...(refused.length > 0 ? ["Refused:", table(["what", "why", "instead", "source"], refused)] : []),
    ].join("\n\n");
  });
  return `${HEAD}\n${sections.join("\n\n")}\n`;
}

if (import.meta.main) {
  const text = targetsDocument();
  if (!process.argv.includes("--check")) await writeFile(FILE, text);
  else if ((await readFile(FILE, "utf8")) !== text) {
    console.error("docs/targets.md is not what the records say; run `npm run targets`.");
    process.exitCode = 1;
  }
}
