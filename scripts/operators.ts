import { readFile, writeFile } from "node:fs/promises";
import { EXPANSIONS } from "../src/core/autodiff/expand.ts";
import { GRADIENT_RULES } from "../src/core/autodiff/rules.ts";
import type { OperatorRecord } from "../src/core/operators/operator-record.ts";
import { CONTRIB_OPERATORS, ONNX_OPERATORS } from "../src/core/operators/operators.ts";
import { float16Rule } from "../src/core/passes/float16-policy.ts";
import { ruleForOperator } from "../src/core/quantize/static/operators.ts";
import { DYNAMIC_INT8 } from "../src/core/targets/onnxruntime-cpu.ts";

/** Writes docs/operators.md from the records of operators; with `--check` only says whether it is what they say. */

const FILE = new URL("../docs/operators.md", import.meta.url);

const HEAD = `<!-- Printed from the records by \`npm run operators\`. -->

# Operators

What each method does with each operator of ai.onnx. A node of an operator that is not here stays as it is: it keeps a model from no method but
training, which needs a derivative of everything between the weights and the loss. Many entries depend on how a node uses its operator; the plan
of a job (\`POST /v1/jobs/plan\`) says so node by node.

| column | meaning |
|---|---|
| since | the operator set that it came with |
| static | static int8: **compute** is quantized whenever it can be, *pointwise* between quantized neighbours, *movement* keeps quantized values as they are |
| dynamic | dynamic int8: **kernel** computes in 8 bits, *weight* has its weight stored in 8 bits |
| weight | weight-only: its weight is stored in 8, 4 or 2 bits |
| float16 | **yes**; *some*: where its attributes allow; no: stays in float32, with the reason |
| gradient | trained through: **rule**, or by way of simpler operators (*parts*); *zero*: no gradient flows, and none is needed |
| width | a student may be derived that is narrower here: how its channels relate |
| MACs | multiply-accumulates are counted |
| folds | computed once, when all it reads is constant |
`;

type Row = readonly string[];

function table(head: Row, rows: readonly Row[]): string {
  const line = (cells: Row) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

const mark = (holds: boolean) => (holds ? "yes" : "");

/** Whether weight-only quantization finds a weight. */
function isCompressible({ weights }: OperatorRecord): boolean {
  return weights?.some(({ reducedAxes }) => reducedAxes !== undefined) ?? false;
}

function staticKind(opType: string): string {
  const kind = ruleForOperator(opType)?.kind;
  if (!kind) return "";
  return kind === "compute" ? "**compute**" : `*${kind}*`;
}

function dynamicKind(opType: string, record: OperatorRecord): string {
  if ((DYNAMIC_INT8 as ReadonlySet<string>).has(opType)) return "**kernel**";
  return isCompressible(record) && !record.quantized ? "*weight*" : "";
}

function float16Kind(opType: string, domain: string): string {
  const rule = float16Rule({ domain, opType });
  if (typeof rule === "function") return "*some*";
  return rule ? `no: ${rule.code}` : "**yes**";
}

function gradientKind(opType: string, { derivative }: OperatorRecord): string {
  if (opType in GRADIENT_RULES) return "**rule**";
  if (opType in EXPANSIONS) return "*parts*";
  return derivative === "zero" ? "*zero*" : "";
}

export function operatorsDocument(): string {
  const sorted = (records: Readonly<Record<string, OperatorRecord>>) =>
    Object.entries(records).sort(([a], [b]) => (a < b ? -1 : 1));
  const onnx = sorted(ONNX_OPERATORS).map(([opType, record]) => [
    opType,
    String(record.since),
    staticKind(opType),
    dynamicKind(opType, record),
    mark(isCompressible(record) && !record.quantized),
    float16Kind(opType, ""),
    gradientKind(opType, record),
    record.channels && record.channels !== "none" ? record.channels : "",
    mark(record.macs !== undefined),
    mark(record.folds !== undefined),
  ]);
  const contrib = sorted(CONTRIB_OPERATORS).map(([opType, record]) => [
    opType,
    mark(record.weights !== undefined),
    mark(record.quantized !== undefined),
    float16Kind(opType, "com.microsoft"),
    mark(record.macs !== undefined),
  ]);
  return [
    HEAD,
    table(["operator", "since", "static", "dynamic", "weight", "float16", "gradient", "width", "MACs", "folds"], onnx),
    `
## Operators of com.microsoft

onnxruntime's own, which results of this service and other quantized models contain. They are kept as they are.
`,
    table(["operator", "weights are listed", "reads quantized values", "float16", "MACs"], contrib),
    "",
  ].join("\n");
}

if (import.meta.main) {
  const text = operatorsDocument();
  if (!process.argv.includes("--check")) await writeFile(FILE, text);
  else if ((await readFile(FILE, "utf8")) !== text) {
    console.error("docs/operators.md is not what the records say; run `npm run operators`.");
    process.exitCode = 1;
  }
}
