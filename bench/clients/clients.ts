/** The generators, and how each is run. The flags are those of docs/guides/clients.md. */

export interface Client {
  readonly name: string;
  /** A command that fails, and says why, when something is not installed. */
  readonly needs: string;
  readonly generate: string;
  /** File of `tours/`, and what it is called beside what is generated. */
  readonly tour: string;
  readonly tourAs: string;
  readonly compile: string;
  /** Prints `ok <step>` for each step of the tour that has worked. */
  readonly drive: string;
}

export const STEPS = [
  ...["model", "two_files", "dataset", "plan", "quantize", "distill", "stream", "download", "refusal", "list"],
  // Lists of a later version of the service: `test/support/later-service.ts`.
  ...["new_field", "new_method", "new_status", "new_type"],
] as const;

const has = (what: string) => `test -e ${what} || { echo "${what} is missing: run bench/clients/setup.sh"; exit 1; }`;
const hasTool = (tool: string) => `command -v ${tool} || { echo "there is no ${tool}"; exit 1; }`;

const JAR = "$TOOLS/venv/lib/python3*/site-packages/openapi_generator_cli/openapi-generator.jar";
const generator = (language: string, properties = "") =>
  `java -jar ${JAR} generate -i "$DOCUMENT" -g ${language} ${properties} -o client`;
const TSC =
  "$ROOT/node_modules/.bin/tsc --noEmit --strict --skipLibCheck --target es2024 --module esnext --moduleResolution bundler --types node --typeRoots $ROOT/node_modules/@types";
const PYTHON = "$TOOLS/venv/bin/python";
const BUNDLED =
  "$TOOLS/node_modules/.bin/esbuild tour.ts --bundle --platform=node --format=esm --outfile=tour.mjs --log-level=warning && node tour.mjs";

export const CLIENTS: readonly Client[] = [
  {
    name: "openapi-fetch",
    needs: has("$ROOT/node_modules/openapi-fetch"),
    generate:
      "$ROOT/node_modules/.bin/openapi-typescript $DOCUMENT --default-non-nullable=false -o api.ts && ln -sfn $ROOT/node_modules node_modules",
    tour: "openapi-fetch.ts.txt",
    tourAs: "tour.ts",
    compile: `${TSC} tour.ts`,
    drive: BUNDLED,
  },
  {
    name: "hey-api",
    needs: has("$TOOLS/node_modules/@hey-api/openapi-ts"),
    generate:
      "ln -sfn $TOOLS/node_modules node_modules && node_modules/.bin/openapi-ts -i $DOCUMENT -o client -c @hey-api/client-fetch",
    tour: "hey-api.ts.txt",
    tourAs: "tour.ts",
    compile: `${TSC} tour.ts`,
    drive: BUNDLED,
  },
  {
    name: "openapi-generator typescript-fetch",
    needs: `${has(JAR)}; ${hasTool("java")}`,
    generate: generator("typescript-fetch"),
    tour: "typescript-fetch.ts.txt",
    tourAs: "tour.ts",
    compile: `${TSC} tour.ts`,
    drive: BUNDLED,
  },
  {
    name: "openapi-generator python",
    needs: `${has(JAR)}; ${hasTool("java")}`,
    generate: generator("python"),
    tour: "openapi-generator.py",
    tourAs: "tour.py",
    compile: `${PYTHON} -m compileall -q client/openapi_client && PYTHONPATH=client ${PYTHON} -c "import openapi_client.models"`,
    drive: `PYTHONPATH=client ${PYTHON} tour.py`,
  },
  {
    name: "openapi-generator java",
    needs: `${has(JAR)}; ${hasTool("javac")}`,
    generate: generator("java", "-p library=native,openApiNullable=false"),
    tour: "Tour.java",
    tourAs: "Tour.java",
    // The libraries that the client's pom.xml names: in the generator's own jar, and Debian's.
    compile: `mkdir out && javac -nowarn -d out -cp $(echo ${JAR}):/usr/share/java/geronimo-annotation-1.3-spec.jar:/usr/share/java/httpmime.jar:/usr/share/java/httpcore.jar $(find client/src/main -name "*.java") Tour.java`,
    drive: `java -cp out:$(echo ${JAR}):/usr/share/java/httpmime.jar:/usr/share/java/httpcore.jar:/usr/share/java/geronimo-annotation-1.3-spec.jar Tour`,
  },
  {
    name: "openapi-generator go",
    needs: `${has(JAR)}; ${hasTool("go")}`,
    // Without the test files, which need a module that the client does not.
    generate: `${generator("go", "-p enumClassPrefix=true,disallowAdditionalPropertiesIfNotPresent=false")} && mkdir -p go/src && mv client go/src/openapi && rm -rf go/src/openapi/test`,
    tour: "tour.go.txt",
    tourAs: "tour.go",
    // In GOPATH mode: Debian's packages stand for the module proxy.
    compile: "GO111MODULE=off GOPATH=$PWD/go:/usr/share/gocode GOCACHE=$PWD/cache go build -o tour tour.go",
    drive: "./tour",
  },
  {
    name: "openapi-python-client",
    needs: has("$TOOLS/venv/bin/openapi-python-client"),
    generate:
      "printf 'content_type_overrides:\\n  application/offset+octet-stream: application/octet-stream\\n  application/yaml: text/plain\\n' > config.yml && " +
      "PATH=$TOOLS/venv/bin:$PATH openapi-python-client generate --path $DOCUMENT --config config.yml --output-path modelpress_client --meta none --fail-on-warning",
    tour: "openapi-python-client.py",
    tourAs: "tour.py",
    compile: `${PYTHON} -m compileall -q modelpress_client && ${PYTHON} -c "import modelpress_client.models"`,
    drive: `${PYTHON} tour.py`,
  },
  {
    name: "datamodel-code-generator",
    needs: has("$TOOLS/venv/bin/datamodel-codegen"),
    generate:
      "$TOOLS/venv/bin/datamodel-codegen --input $DOCUMENT --input-file-type openapi --output models.py --output-model-type pydantic_v2.BaseModel --formatters builtin",
    tour: "datamodel-code-generator.py",
    tourAs: "tour.py",
    compile: `${PYTHON} -c "import models"`,
    drive: `${PYTHON} tour.py`,
  },
];
