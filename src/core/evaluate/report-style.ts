import { Markup } from "./markup.ts";

/** The style sheet of the report: light and dark, phone to desktop, and print. */
export const REPORT_STYLE = new Markup(`
:root {
  --paper: #fbfbfa; --card: #fff; --ink: #1c1f23; --soft: #646c76; --line: #e2e4e8; --accent: #2563b8; --good: #1a7f45; --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131518; --card: #1b1e23; --ink: #e6e8eb; --soft: #9aa3ad; --line: #2e333a; --accent: #7fb0f5; --good: #5ecb8b; --bad: #ff8a80;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 68rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums;
}
h1 { margin: 0; font-size: clamp(1.5rem, 5vw, 2.1rem); line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0 0 .5rem; font-size: 1.1rem; }
p { margin: .25rem 0; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
.eyebrow { color: var(--accent); font-weight: 600; font-size: .85rem; letter-spacing: .04em; }
.muted { color: var(--soft); font-size: .9rem; }
.good { color: var(--good); }
.bad { color: var(--bad); }
.verdict { display: inline-block; margin-top: .75rem; padding: .25rem .75rem; border: 1px solid currentColor; border-radius: 99px; font-weight: 600; }
main > section { margin-top: 2.25rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(11.5rem, 100%), 1fr)); gap: .75rem; margin-top: 1.5rem; }
.tile { padding: .9rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
.tile h2 { margin: 0; color: var(--soft); font-size: .85rem; font-weight: 600; }
.figure { margin: .1rem 0; font-size: 1.6rem; font-weight: 650; line-height: 1.25; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .92rem; }
th, td { padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { color: var(--soft); font-weight: 500; white-space: nowrap; }
tbody th { font-weight: 500; }
details { margin-top: .75rem; }
summary { cursor: pointer; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .3rem 1.25rem; margin: 0; font-size: .92rem; }
dt { color: var(--soft); overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; }
.strip { display: block; width: 100%; min-width: 9rem; height: 1.5rem; }
.strip path { fill: none; vector-effect: non-scaling-stroke; }
.strip .line { stroke: var(--line); }
.strip .run { stroke: var(--accent); opacity: .45; }
.strip .median { stroke: var(--ink); stroke-width: 2; }
figure { margin: 0; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1.5rem; margin-bottom: 1rem; }
.curve { display: block; width: 100%; height: 11rem; border-bottom: 1px solid var(--line); border-left: 1px solid var(--line); }
.curve path { fill: none; stroke: var(--accent); stroke-width: 2; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.curve .baseline { stroke: var(--soft); stroke-dasharray: 5 4; }
td:has(.strip) { width: 55%; }
@media (max-width: 34rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
}
@media print { body { max-width: none; } .tile { break-inside: avoid; } }
`);
