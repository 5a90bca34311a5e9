import { readFile, writeFile } from "node:fs/promises";
import openapiTypescript, { astToString } from "openapi-typescript";
import { buildOpenApi } from "../src/service/api/openapi.ts";
import { openApiYaml } from "../src/service/api/system.ts";
import { VERSIONS } from "../src/service/versions.ts";

/**
 * Writes openapi.yaml and the types that the acceptance tests drive the API with; with `--check` only says whether they
 * are what the code says.
 */

const HEADER = "# Generated from the zod schemas by `npm run openapi`.\n";
const TYPES_HEADER = "// Generated from openapi.yaml by `npm run openapi`.\n";

export interface Generated {
  readonly file: URL;
  readonly text: string;
}

export async function generate(): Promise<readonly Generated[]> {
  const yaml = HEADER + (await openApiYaml(buildOpenApi(VERSIONS.modelpress)));
  // Fields with a default may be left out of a request.
  const types = await openapiTypescript(Buffer.from(yaml), { defaultNonNullable: false });
  return [
    { file: new URL("../openapi.yaml", import.meta.url), text: yaml },
    { file: new URL("../test/support/api-types.ts", import.meta.url), text: TYPES_HEADER + astToString(types) },
  ];
}

if (import.meta.main) {
  for (const { file, text } of await generate()) {
    if (!process.argv.includes("--check")) await writeFile(file, text);
    else if ((await readFile(file, "utf8")) !== text) {
      console.error(`${file.pathname} is not what the code says; run \`npm run openapi\`.`);
      process.exitCode = 1;
    }
  }
}
