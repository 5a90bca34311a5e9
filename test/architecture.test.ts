import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { basename, dirname, join, normalize } from "node:path";
import { describe, test } from "node:test";
import ts from "typescript";
import { CONTRIB_OPERATORS, ONNX_OPERATORS } from "../src/core/operators/operators.ts";

/**
 * Who may import whom, and where the outside world may be touched. The tables below are the rules; ARCHITECTURE.md explains them.
 */

const ROOT = new URL("..", import.meta.url).pathname;

/** What all of core may import: errors and facts, and what operators are, which is knowledge and builds nothing. */
const SHARED = [
  "src/core/codes.ts",
  "src/core/errors.ts",
  "src/core/facts.ts",
  "src/core/facts/",
  "src/core/intervals.ts",
  "src/core/meter.ts",
  "src/core/nearest-names.ts",
  "src/core/note-codes.ts",
  "src/core/operators/",
  "src/core/random.ts",
  "src/core/rounding-notes.ts",
  "src/core/min-cut.ts",
  "src/core/wasm-assembler.ts",
];

/** What quantized values are, what schemes and plans say, how values are packed, and where biases are. */
const ARITHMETIC = ["params.ts", "scheme.ts", "packing.ts", "plan.ts", "bias-add.ts"].map(
  (file) => `src/core/quantize/${file}`,
);

interface Layer {
  /** A folder or a file; the first row that fits a file is its layer. */
  readonly of: string;
  /** Folders and files of this repository it may import, besides its own. */
  readonly may: readonly string[];
  /** ... and those it may import types from. */
  readonly types?: readonly string[];
  /** npm packages; undefined: any but the runtime. */
  readonly packages?: readonly string[];
}

const LAYERS: readonly Layer[] = [
  {
    of: "src/core/operators/",
    may: ["src/core/onnx/class-axis.ts", "src/core/onnx/dtype.ts", "src/core/onnx/tensor.ts"],
    types: ["src/core/onnx/"],
    packages: [],
  },
  { of: "src/core/targets/", may: [...SHARED, "src/core/onnx/tensor.ts"], types: ["src/core/onnx/"], packages: [] },
  { of: "src/core/onnx/", may: SHARED, packages: ["@bufbuild/protobuf", "onnx-buf"] },
  { of: "src/core/passes/", may: [...SHARED, "src/core/onnx/", "src/core/targets/"], packages: [] },
  { of: "src/core/autodiff/", may: [...SHARED, "src/core/onnx/"], packages: [] },
  { of: "src/core/data/", may: [...SHARED, "src/core/onnx/"], packages: ["csv-parse", "hyparquet", "yauzl"] },
  {
    of: "src/core/quantize/calibration/",
    may: [...SHARED, "src/core/onnx/", "src/core/passes/"],
    types: ["src/core/runtime/"],
    packages: [],
  },
  {
    of: "src/core/quantize/rounding/",
    may: [...SHARED, ...["onnx/", "passes/", "quantize/calibration/"].map((it) => `src/core/${it}`), ...ARITHMETIC],
    packages: [],
  },
  {
    of: "src/core/quantize/weights/",
    may: [
      ...SHARED,
      ...["onnx/", "passes/", "quantize/calibration/", "quantize/rounding/"].map((it) => `src/core/${it}`),
      ...ARITHMETIC,
    ],
    packages: [],
  },
  {
    of: "src/core/quantize/",
    // Sessions come in as arguments; what is measured with them needs no native code to load.
    may: [
      ...SHARED,
      ...["onnx/", "passes/", "targets/", "runtime/latency.ts", "runtime/kernel-profile.ts"].map(
        (it) => `src/core/${it}`,
      ),
    ],
    types: ["src/core/runtime/", "src/core/data/"],
    packages: [],
  },
  {
    of: "src/core/train/",
    may: [...SHARED, "src/core/onnx/", "src/core/autodiff/", "src/core/quantize/params.ts"],
    types: ["src/core/runtime/", "src/core/data/"],
    packages: [],
  },
  {
    of: "src/core/qat/",
    may: [
      ...SHARED,
      "src/core/onnx/",
      "src/core/passes/",
      "src/core/quantize/",
      "src/core/train/",
      "src/core/distill/",
    ],
  },
  {
    of: "src/core/distill/",
    may: [...SHARED, "src/core/onnx/", "src/core/passes/", "src/core/train/"],
    types: ["src/core/runtime/", "src/core/data/"],
    packages: [],
  },
  {
    of: "src/core/runtime/session.ts",
    may: [...SHARED, "src/core/onnx/", "src/core/runtime/threaded-session.ts"],
    packages: ["onnxruntime-node"],
  },
  { of: "src/core/runtime/", may: [...SHARED, "src/core/onnx/", "src/core/targets/"], packages: [] },
  {
    of: "src/core/evaluate/",
    // Sessions come in as arguments; what is measured with them needs no native code to load.
    may: [
      ...SHARED,
      "src/core/onnx/",
      "src/core/data/",
      "src/core/runtime/latency.ts",
      "src/core/runtime/fusion-audit.ts",
      "src/core/train/trainable.ts",
      "src/core/quantize/calibration/calibrate.ts",
      "src/core/passes/pass.ts",
      "src/core/passes/value-dtypes.ts",
      "src/core/targets/check-artifact.ts",
    ],
    types: ["src/core/runtime/", "src/core/passes/pass.ts"],
    packages: [],
  },
  {
    of: "src/core/contract.ts",
    may: [
      ...SHARED,
      ...[
        "data/",
        "onnx/class-axis.ts",
        "onnx/dtype.ts",
        "onnx/tensor.ts",
        "evaluate/metrics.ts",
        "evaluate/model-warnings.ts",
      ].map((it) => `src/core/${it}`),
      ...[
        "autodiff/trainable-operators.ts",
        "distill/output-pairs.ts",
        "train/samples.ts",
        "train/update-roundings.ts",
        "qat/qat-algorithms.ts",
      ].map((it) => `src/core/${it}`),
      ...["calibration/calibration-methods.ts", "rounding/roundings.ts", "static/layer-precisions.ts"].map(
        (it) => `src/core/quantize/${it}`,
      ),
    ],
    types: ["src/core/"],
    packages: [],
  },
  {
    of: "src/core/index.ts",
    may: [
      ...SHARED,
      "src/core/contract.ts",
      ...["onnx", "passes", "targets", "quantize", "autodiff", "train", "distill", "qat", "data", "evaluate"].map(
        (it) => `src/core/${it}/`,
      ),
    ],
    types: ["src/core/runtime/"],
    packages: [],
  },
  { of: "src/core/facts/", may: SHARED, types: ["src/core/onnx/", "src/core/evaluate/metrics.ts"], packages: [] },
  { of: "src/core/facts.ts", may: SHARED, types: ["src/core/onnx/", "src/core/evaluate/metrics.ts"], packages: [] },
  { of: "src/core/", may: SHARED, types: ["src/core/onnx/"], packages: [] },
  {
    of: "src/report/",
    may: [
      ...SHARED,
      ...["onnx/dtype.ts", "evaluate/lossy-layers.ts", "evaluate/metrics.ts", "evaluate/verdict.ts"].map(
        (it) => `src/core/${it}`,
      ),
    ],
    types: ["src/core/"],
    packages: ["@observablehq/plot", "linkedom"],
  },
  {
    of: "src/tasks/",
    may: ["src/core/contract.ts", "src/service/errors.ts", "src/leftovers.ts"],
    types: ["src/service/"],
    packages: ["pino", "zod"],
  },
  { of: "src/service/redis-server.ts", may: ["src/service/", "src/secrets.ts"] },
  {
    of: "src/service/",
    may: ["src/core/contract.ts", "src/core/index.ts", "src/report/", "src/tasks/protocol.ts", "src/leftovers.ts"],
    types: ["src/core/index.ts"],
  },
  { of: "src/console/", may: [], packages: ["fastify"] },
  { of: "src/config-error.ts", may: [] },
  { of: "src/config.ts", may: ["src/config-error.ts"] },
  { of: "src/secrets.ts", may: ["src/config-error.ts"] },
  { of: "src/leftovers.ts", may: [] },
  { of: "src/neighbours.ts", may: ["src/config.ts", "src/leftovers.ts", "src/service/", "src/tasks/"] },
  { of: "src/deps.ts", may: ["src/config.ts", "src/neighbours.ts", "src/service/", "src/tasks/"] },
  { of: "src/app.ts", may: ["src/config.ts", "src/console/", "src/deps.ts", "src/service/", "src/tasks/protocol.ts"] },
  {
    of: "src/api-process.ts",
    may: ["src/config.ts", "src/config-error.ts", "src/secrets.ts", "src/neighbours.ts", "src/deps.ts", "src/app.ts"],
  },
  { of: "src/main.ts", may: ["src/secrets.ts", "src/api-process.ts"] },
  { of: "workers/image-decoder.ts", may: ["src/core/index.ts"], packages: ["sharp"] },
  { of: "workers/", may: ["src/"] },
  { of: "tools/", may: ["src/core/", "src/report/", "src/service/", "src/tasks/", "workers/model-files.ts"] },
  { of: "scripts/", may: ["src/", "workers/", "test/support/"] },
  { of: "bench/", may: ["src/", "workers/", "scripts/", "test/support/"] },
  { of: "test/acceptance/", may: ["test/support/", "scripts/", "src/tasks/protocol.ts"] },
  { of: "test/", may: ["src/", "tools/", "workers/", "scripts/", "bench/"] },
];

/** What starts, watches and kills child processes. */
const TASK_PROCESSES = ["compile-cache.ts", "process-memory.ts", "reaper.ts", "sandbox.ts", "task-process.ts"].map(
  (file) => `src/tasks/${file}`,
);

/** Either end of a thread that computes: runs of models, factors of matrices, updates of parameters. */
const THREADS = [
  "src/core/quantize/rounding/factor-thread.ts",
  "src/core/quantize/rounding/factors-ahead.ts",
  "src/core/runtime/session-thread.ts",
  "src/core/runtime/threaded-session.ts",
  "src/core/train/update-thread.ts",
  "src/core/train/update-threads.ts",
];

/** Node's modules that reach outside the process, and the only files of `src/` that may import them. */
const OUTSIDE: Readonly<Record<string, readonly string[]>> = {
  "node:fs": [
    "src/leftovers.ts",
    "src/secrets.ts",
    "src/service/blobs/fs.ts",
    "src/service/redis-server.ts",
    "src/tasks/process-memory.ts",
    "src/tasks/sandbox.ts",
    "src/tasks/supervisor.ts",
  ],
  "node:fs/promises": [
    "src/console/console.ts",
    "src/leftovers.ts",
    "src/service/blobs/fs.ts",
    "src/service/redis-server.ts",
    "src/tasks/compile-cache.ts",
    "src/tasks/supervisor.ts",
  ],
  "node:child_process": ["src/service/redis-server.ts", ...TASK_PROCESSES],
  "node:worker_threads": THREADS,
};

/** What the library may use of Node: computing, and nothing that reaches outside. */
const CORE_BUILTINS = ["node:buffer", "node:crypto", "node:stream", "node:stream/promises", "node:zlib"];

/** Native libraries, which are given what users send, and who may import them. */
const NATIVE: Readonly<Record<string, readonly string[]>> = {
  "onnxruntime-node": ["src/core/runtime/session.ts"],
  sharp: ["workers/image-decoder.ts", "scripts/demo/", "test/"],
};

/** Large packages that most services are never asked for: the API loads them when it first is. */
const LATE = [
  "@aws-sdk/client-s3",
  "@aws-sdk/lib-storage",
  "@bull-board/api",
  "@bull-board/fastify",
  "@huggingface/hub",
  "@scalar/fastify-api-reference",
  "@tus/file-store",
  "@tus/server",
  "bullmq",
  "undici",
  "yaml",
];

type Program = "API" | "worker" | "child";

const PROGRAMS: Readonly<Record<Program, string>> = {
  API: "src/main.ts",
  worker: "workers/main.ts",
  child: "workers/child.ts",
};

/**
 * Whose process files belong to; those that are not named may be loaded by all. The first row that fits a file counts. The work itself, and
 * with it all that builds graphs, is the children's: other processes would take seconds and a hundred megabytes longer to start for what they never use.
 */
const PROCESSES: readonly (readonly [place: string | RegExp, programs: readonly Program[]])[] = [
  ["src/service/api/", ["API"]],
  ["src/console/", ["API"]],
  [/^src\/(main|api-process|app|deps|neighbours)\.ts$/, ["API"]],
  [/^src\/service\/(redis|catalog)\.ts$|^src\/service\/(blobs|jobs|mlflow)\/(?!job\.ts)/, ["API", "worker"]],
  [/^src\/service\/kinds\/(.+\/)?(checks|[a-z]+-checks)\.ts$/, ["API"]],
  [/^src\/service\/kinds\/([a-z]+\/)?run\//, ["child"]],
  [/^src\/report\/(script|markup|style)\.ts$/, ["API", "child"]],
  ["src/report/", ["child"]],
  ["src/core/index.ts", ["child"]],
  [/^src\/core\/onnx\/(?!class-axis|dtype|tensor)/, ["child"]],
  [/^src\/core\/(operators|targets|passes|runtime)\/|^src\/core\/qat\/(?!qat-algorithms)/, ["child"]],
  ["src/tasks/task-server.ts", ["child"]],
  [
    /^workers\/(child|tasks|image-decoder|byte-source|model-files|measure-peak|peak-child|measure-web|web-child|thread-clock)\.ts$/,
    ["child"],
  ],
  ["src/service/jobs/job-consumer.ts", ["worker"]],
  ["workers/host.ts", ["worker", "child"]],
  ["workers/", ["worker"]],
];

const VAGUE_NAMES = ["utils", "util", "helpers", "helper", "common", "types", "manager", "misc", "shared"];

/**
 * The files of core that may name operators, by why they do. What an operator is stands in its record, what a runtime makes of it in
 * `core/targets`: nothing else of core says anything of an operator by its name.
 */
const NAME_OPERATORS: Readonly<Record<string, readonly string[]>> = {
  records: ["operators/", "targets/"],
  "builders: graphs are made of operators": [
    "autodiff/",
    "onnx/graph-builder.ts",
    "onnx/opset.ts",
    "passes/unfuse.ts",
    "qat/",
    "quantize/calibration/summaries.ts",
    "quantize/rounding/adaround.ts",
    "quantize/rounding/statistics.ts",
    "quantize/static/batched-correction.ts",
    "quantize/static/body-readers.ts",
    "quantize/static/forms.ts",
    "quantize/static/qdq.ts",
    "quantize/static/stored-weights.ts",
    "quantize/static/unit-bias.ts",
    "quantize/weights/",
    "train/blocked-convolutions.ts",
    "train/distillation-losses.ts",
    "train/fewer-products.ts",
    "train/losses.ts",
    "train/scattered-rows.ts",
    "train/shared-normalizations.ts",
    "train/step-graph.ts",
  ],
  "rewrites of one pattern, and what reads such a pattern again": [
    "distill/born-again.ts",
    "distill/exits.ts",
    "distill/factorize.ts",
    "distill/layer-moments.ts",
    "distill/matrix-products.ts",
    "distill/slim.ts",
    "evaluate/layer-errors.ts",
    "evaluate/layer-facts.ts",
    "evaluate/model-weights.ts",
    "passes/fold-constants.ts",
    "passes/float16.ts",
    "passes/float16-exact.ts",
    "passes/float16-keep.ts",
    "passes/fuse-affine.ts",
    "passes/identity.ts",
    "passes/rounded.ts",
    "passes/weight-views.ts",
    "passes/widen.ts",
    "quantize/bias-add.ts",
    "quantize/static/bias-correction.ts",
    "quantize/static/channel-scaling.ts",
    "quantize/static/epilogue.ts",
    "quantize/static/measured-costs.ts",
    "quantize/static/placement.ts",
    "quantize/static/round-weights.ts",
    "quantize/static/stretched.ts",
    "runtime/fusion-audit.ts",
    "train/parameters.ts",
    "train/rewrites.ts",
    "train/statistics.ts",
    "train/trainable.ts",
    "distill/channel-labels.ts",
  ],
  "bodies of If and Loop, which are run otherwise than other nodes": [
    "evaluate/model-cost.ts",
    "passes/value-dtypes.ts",
    "quantize/calibration/calibrate.ts",
  ],
  "what a method prefers": ["passes/float16-policy.ts", "quantize/static/operators.ts"],
  "files before they are graphs": ["onnx/checks.ts", "onnx/functions.ts", "onnx/node.ts", "onnx/operand-checks.ts"],
};

interface Import {
  /** A path in this repository, or the package's or Node module's name. */
  readonly target: string;
  readonly typeOnly: boolean;
  /** By a call, when it is first needed. */
  readonly lazy: boolean;
}

interface Module {
  readonly path: string;
  readonly imports: readonly Import[];
  readonly defaultExport: boolean;
  /** Property accesses such as `process.env`, each once. */
  readonly accesses: ReadonlySet<string>;
  /** Operators that are named by strings and keys. */
  readonly operators: ReadonlySet<string>;
}

const OPERATORS: ReadonlySet<string> = new Set([...Object.keys(ONNX_OPERATORS), ...Object.keys(CONTRIB_OPERATORS)]);

function parseModule(path: string): Module {
  const source = ts.createSourceFile(path, readFileSync(join(ROOT, path), "utf8"), ts.ScriptTarget.ESNext);
  const imports: Import[] = [];
  const accesses = new Set<string>();
  const operators = new Set<string>();
  let defaultExport = false;

  const add = (specifier: ts.Node | undefined, typeOnly: boolean, lazy = false) => {
    if (specifier === undefined || !ts.isStringLiteral(specifier)) return;
    const { text } = specifier;
    if (text.startsWith(".")) imports.push({ target: normalize(join(dirname(path), text)), typeOnly, lazy });
    else if (text.startsWith("node:")) imports.push({ target: text, typeOnly, lazy });
    else
      imports.push({
        target: text
          .split("/")
          .slice(0, text.startsWith("@") ? 2 : 1)
          .join("/"),
        typeOnly,
        lazy,
      });
  };
  const allTypes = (names: readonly (ts.ImportSpecifier | ts.ExportSpecifier)[]) =>
    names.length > 0 && names.every((name) => name.isTypeOnly);

  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) {
      const clause = node.importClause;
      const bindings = clause?.namedBindings;
      const named = bindings !== undefined && ts.isNamedImports(bindings) ? bindings.elements : [];
      const typeOnly =
        clause?.phaseModifier === ts.SyntaxKind.TypeKeyword || (clause?.name === undefined && allTypes(named));
      add(node.moduleSpecifier, typeOnly);
    } else if (ts.isExportDeclaration(node)) {
      const named =
        node.exportClause !== undefined && ts.isNamedExports(node.exportClause) ? node.exportClause.elements : [];
      add(node.moduleSpecifier, node.isTypeOnly || allTypes(named));
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0], false, true);
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      add(node.argument.literal, true);
    } else if (ts.isExportAssignment(node)) {
      defaultExport = true;
    } else if (ts.isPropertyAccessExpression(node) && ts.isIdentifier(node.expression)) {
      accesses.add(`${node.expression.text}.${node.name.text}`);
    }
    if (ts.isStringLiteral(node) && OPERATORS.has(node.text)) operators.add(node.text);
    if ((ts.isPropertyAssignment(node) || ts.isMethodDeclaration(node)) && ts.isIdentifier(node.name)) {
      if (OPERATORS.has(node.name.text)) operators.add(node.name.text);
    }
    if (ts.canHaveModifiers(node)) {
      defaultExport ||= ts.getModifiers(node)?.some(({ kind }) => kind === ts.SyntaxKind.DefaultKeyword) ?? false;
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return { path, imports, defaultExport, accesses, operators };
}

const MODULES = new Map(
  globSync("{src,tools,workers,scripts,bench,test}/**/*.ts", { cwd: ROOT })
    .sort()
    .map((path) => [path, parseModule(path)]),
);
const ALL = [...MODULES.values()];

const isWithin = (path: string, places: readonly string[]) =>
  places.some((place) => path === place || (place.endsWith("/") && path.startsWith(place)));
const isFile = (target: string) => /^(src|tools|workers|scripts|bench|test)\//.test(target);
const layerOf = (path: string) => LAYERS.find(({ of }) => isWithin(path, [of]));

function importViolations({ path, imports }: Module): string[] {
  const layer = layerOf(path);
  if (layer === undefined) return [`${path} belongs to no layer of the table`];
  return imports.flatMap(({ target, typeOnly }) => {
    const what = `${path} imports ${typeOnly ? "types from " : ""}${target}`;
    if (target.startsWith("node:")) {
      if (path.startsWith("src/core/") && !CORE_BUILTINS.includes(target) && !THREADS.includes(path))
        return [`${what}: core reaches nothing outside`];
      const allowed = path.startsWith("src/") ? OUTSIDE[target] : undefined;
      return allowed === undefined || allowed.includes(path)
        ? []
        : [`${what}: only ${allowed.join(", ") || "nobody"} may`];
    }
    if (isFile(target)) {
      const allowed = [layer.of, ...layer.may, ...(typeOnly ? (layer.types ?? []) : [])];
      return isWithin(target, allowed) ? [] : [`${what}: ${layer.of} may import ${allowed.join(", ")}`];
    }
    const allowed = layer.packages ?? (isWithin(path, NATIVE[target] ?? [path]) ? [target] : []);
    return allowed.includes(target) ? [] : [`${what}: not a package of ${layer.of}`];
  });
}

/** The chain of value imports that leads from `start` to `goal`, or undefined; `atStart`: without what is loaded when it is first needed. */
function chain(start: string, goal: (target: string) => boolean, atStart = false): string[] | undefined {
  const cameFrom = new Map<string, string | undefined>([[start, undefined]]);
  for (const path of cameFrom.keys()) {
    for (const { target, typeOnly, lazy } of MODULES.get(path)?.imports ?? []) {
      if (typeOnly || cameFrom.has(target) || (atStart && lazy)) continue;
      cameFrom.set(target, path);
      if (!goal(target)) continue;
      const links: string[] = [];
      for (let link: string | undefined = target; link !== undefined; link = cameFrom.get(link)) links.unshift(link);
      return links;
    }
  }
  return undefined;
}

function programsOf(path: string): readonly Program[] {
  const row = PROCESSES.find(([place]) => (typeof place === "string" ? isWithin(path, [place]) : place.test(path)));
  return row?.[1] ?? (Object.keys(PROGRAMS) as Program[]);
}

/** Every file that needs itself to be loaded, with the way. Types do not count: they are gone when the program runs. */
function cycles(): string[] {
  const found: string[] = [];
  const state = new Map<string, "open" | "done">();
  const trail: string[] = [];
  const enter = (path: string): void => {
    if (state.get(path) === "done") return;
    if (state.get(path) === "open") {
      found.push([...trail.slice(trail.indexOf(path)), path].join(" -> "));
      return;
    }
    state.set(path, "open");
    trail.push(path);
    for (const { target, typeOnly } of MODULES.get(path)?.imports ?? []) {
      if (!typeOnly && MODULES.has(target)) enter(target);
    }
    trail.pop();
    state.set(path, "done");
  };
  for (const path of MODULES.keys()) enter(path);
  return found;
}

const NAMING = Object.values(NAME_OPERATORS)
  .flat()
  .map((place) => `src/core/${place}`);

const RULES: Readonly<Record<string, () => readonly string[]>> = {
  "core speaks of operators by name only where the table says so": () =>
    ALL.filter(({ path, operators }) => path.startsWith("src/core/") && operators.size > 0)
      .filter(({ path }) => !isWithin(path, NAMING))
      .map(
        ({ path, operators }) =>
          `${path} names ${[...operators].join(", ")}: what is known of them belongs in their records`,
      ),
  "what the table says may name operators does": () =>
    NAMING.filter((place) => !ALL.some(({ path, operators }) => isWithin(path, [place]) && operators.size > 0)).map(
      (place) => `${place} names none`,
    ),
  "a file imports only what its layer may": () => ALL.flatMap(importViolations),
  "an import leads to a file that exists": () =>
    ALL.flatMap(({ path, imports }) =>
      imports
        .filter(({ target }) => isFile(target) && !MODULES.has(target) && !target.endsWith(".json"))
        .map(({ target }) => `${path} imports ${target}, which is not there`),
    ),
  "there are no import cycles": cycles,
  "the API and the worker cannot reach native libraries": () =>
    (["API", "worker"] as const).flatMap((program) => {
      const way = chain(PROGRAMS[program], (target) => target in NATIVE);
      return way === undefined ? [] : [way.join(" -> ")];
    }),
  "the API starts without what most services are not asked for": () => {
    // What it loads by a call: `main.ts` the first, after it has turned the cache of compiled modules on, and that the others, while it waits.
    return ["src/api-process.ts", "src/deps.ts", "src/app.ts"].flatMap((path) => {
      const way = chain(path, (target) => LATE.includes(target), true);
      return way === undefined ? [] : [way.join(" -> ")];
    });
  },
  "a process loads only what belongs in it": () =>
    Object.entries(PROGRAMS).flatMap(([program, path]) => {
      const way = chain(path, (target) => MODULES.has(target) && !programsOf(target).includes(program as Program));
      return way === undefined ? [] : [`the ${program} loads ${way.at(-1)}: ${way.join(" -> ")}`];
    }),
  "only src/config.ts, src/secrets.ts and, before anything is loaded, the programs read the environment": () =>
    ALL.filter(
      ({ path, accesses }) =>
        /^(src|workers)\//.test(path) &&
        !["src/config.ts", "src/secrets.ts", PROGRAMS.API, PROGRAMS.worker].includes(path) &&
        accesses.has("process.env"),
    ).map(({ path }) => `${path} uses process.env`),
  "the library draws its random numbers from src/core/random.ts": () =>
    ALL.filter(({ path, accesses }) => path.startsWith("src/core/") && accesses.has("Math.random")).map(
      ({ path }) => `${path} uses Math.random`,
    ),
  "there are no default exports": () =>
    ALL.filter(({ defaultExport }) => defaultExport).map(({ path }) => `${path} has a default export`),
  "files are named in kebab-case after what they hold": () =>
    ALL.filter(({ path }) => {
      const name = basename(path).replace(/(\.test)?\.ts$/, "");
      return !/^[a-z0-9]+(-[a-z0-9]+)*$/.test(name) || VAGUE_NAMES.includes(name);
    }).map(({ path }) => path),
};

describe("architecture", () => {
  for (const [rule, violations] of Object.entries(RULES)) {
    test(rule, () => {
      const found = violations();
      assert.equal(found.length, 0, `\n${found.map((violation) => `  ${violation}`).join("\n")}`);
    });
  }
});
