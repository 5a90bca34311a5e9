import { readFileSync, writeFileSync } from "node:fs";

/** Writes the list of the packages that a service is made of, with their licences, from the lock file. */

const LOCK = new URL("../package-lock.json", import.meta.url);
const LIST = new URL("../docs/licences.md", import.meta.url);

interface Locked {
  readonly version: string;
  readonly license?: string;
  readonly dev?: boolean;
  readonly optional?: boolean;
}

/** The list as it is committed. */
export function licenceList(): string {
  const { packages } = JSON.parse(readFileSync(LOCK, "utf8")) as { packages: Readonly<Record<string, Locked>> };
  const shipped = Object.entries(packages)
    .filter(([path, { dev }]) => path !== "" && dev !== true)
    .map(([path, { version, license, optional }]) => ({
      name: path.split("node_modules/").at(-1)!,
      version,
      license: license ?? "not said",
      optional: optional === true,
    }));
  const rows = [...new Set(shipped.map(rowOf))].sort();
  const counts = Map.groupBy(shipped, ({ license }) => license);
  const summary = [...counts]
    .sort(([, a], [, b]) => b.length - a.length)
    .map(([license, all]) => `${license} ${all.length}`)
    .join(", ");
  return `# Licences of what is shipped

The npm packages of a service, as the lock file names them; those of tests and tools are left out. Written by \`npm run licences\`. Optional: installed on some
platforms only. The Docker image holds besides: Node.js (MIT and others), Debian packages under their own licences, and redis-server.

${summary}.

| package | version | licence |
|---|---|---|
${rows.join("\n")}
`;
}

function rowOf({
  name,
  version,
  license,
  optional,
}: {
  name: string;
  version: string;
  license: string;
  optional: boolean;
}) {
  return `| \`${name}\`${optional ? " (optional)" : ""} | ${version} | ${license} |`;
}

if (import.meta.main) writeFileSync(LIST, licenceList());
