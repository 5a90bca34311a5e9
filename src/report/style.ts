import { Markup } from "./markup.ts";

/** The style sheet of the report: light and dark, phone to desktop, and print. */
export const REPORT_STYLE = new Markup(`
:root {
  --paper: #fbfbfa; --card: #fff; --ink: #1c1f23; --soft: #5b636d; --line: #e2e4e8; --accent: #2563b8; --good: #1a7f45; --bad: #b3261e; --warn: #8a5300; --tint: #fff6e5;
  --before: #7b8591; --after: #2f6fc4; --box: #2f6fc42e;
  --full: #8a94a0; --sixteen: #4a86d8; --eight: #1d9a8a; --four: #d18a26; --rest: #cdd1d7;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131518; --card: #1b1e23; --ink: #e6e8eb; --soft: #a3abb5; --line: #2e333a; --accent: #7fb0f5; --good: #5ecb8b; --bad: #ff8a80; --warn: #e8b45a; --tint: #2a2416;
    --before: #949ea9; --after: #7fb0f5; --box: #7fb0f533;
    --full: #7d8792; --sixteen: #6ba3ee; --eight: #3fbfae; --four: #e3a64e; --rest: #454b54;
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
.warn { color: var(--warn); }
.sentence { margin: .6rem 0; font-size: clamp(1.05rem, 3.5vw, 1.25rem); line-height: 1.4; }
.verdicts { display: flex; flex-wrap: wrap; gap: .5rem; margin-top: .75rem; }
.verdict.plain { color: var(--soft); font-weight: 500; }
.notices { margin: .9rem 0 0; padding: .7rem 1rem .7rem 2rem; background: var(--tint); border: 1px solid var(--warn); border-radius: .6rem; font-size: .95rem; overflow-wrap: anywhere; }
.term, summary, a { color: inherit; }
.term { text-decoration: underline dotted; text-underline-offset: .2em; cursor: help; }
a:not(.term) { color: var(--accent); }
.next { margin: 0; padding-left: 1.4rem; }
.next li { margin: .5rem 0; }
.next details { margin-top: .2rem; }
pre { margin: .4rem 0; padding: .7rem .9rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; overflow: auto; max-height: 24rem; white-space: pre-wrap; }
pre + pre { margin-top: .75rem; }
button { font: inherit; font-size: .85rem; color: var(--accent); background: none; border: 1px solid var(--line); border-radius: .35rem; padding: .15rem .6rem; cursor: pointer; }
footer { margin-top: 2.5rem; }
:target { background: var(--tint); }
.verdict { display: inline-block; padding: .25rem .75rem; border: 1px solid currentColor; border-radius: 99px; font-weight: 600; }
main > section { margin-top: 2.25rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(9rem, 100%), 1fr)); gap: .75rem; margin-top: 1.5rem; }
.tile { padding: .9rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
.tile h2 { margin: 0; color: var(--soft); font-size: .85rem; font-weight: 600; }
.figure { margin: .1rem 0; font-size: 1.35rem; font-weight: 650; line-height: 1.25; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .92rem; }
th, td { padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { color: var(--soft); font-weight: 500; white-space: nowrap; }
tbody th { min-width: 6.5rem; font-weight: 500; }
td { white-space: nowrap; }
td:has(code), td.prose, td .prose { white-space: normal; }
details { margin-top: .75rem; }
summary { cursor: pointer; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .3rem 1.25rem; margin: 0; font-size: .92rem; }
dt { color: var(--soft); overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; font-size: .95rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1.5rem 2rem; margin: .75rem 0 1rem; }
.chart { padding: .9rem 1rem .6rem; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
section > .chart { margin: .75rem 0; }
.plot { display: block; width: 100%; height: auto; font: .8125rem system-ui, sans-serif; font-variant-numeric: tabular-nums; }
.plot.whole { max-width: 60rem; }
.plot text { white-space: pre; }
.plot.narrow { display: none; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: .3rem 0 .4rem; padding: 0; list-style: none; color: var(--soft); font-size: .85rem; }
.legend i { display: inline-block; width: .75rem; height: .75rem; margin-right: .4rem; border-radius: 2px; vertical-align: -1px; }
.legend .full { background: var(--full); }
.legend .sixteen { background: var(--sixteen); }
.legend .eight { background: var(--eight); }
.legend .four { background: var(--four); }
.legend .rest { background: var(--rest); }
.legend .tick { width: 2px; margin-left: .3rem; background: var(--after); border-radius: 0; }
.legend .median { width: 3px; margin-left: .3rem; background: var(--ink); border-radius: 0; }
.legend .box { background: var(--box); }
.legend .dot { background: var(--after); border-radius: 50%; }
.legend .hollow { border: 1.5px solid var(--after); border-radius: 50%; }
.legend .ring { border: 1.5px solid var(--bad); border-radius: 50%; }
.legend .ring.good { border-color: var(--good); background: none; }
.legend .square { background: var(--before); border-radius: 0; }
.legend .line, .legend .dash { width: 1.25rem; height: 0; border-radius: 0; border-top: 2px solid var(--after); vertical-align: 4px; }
.legend .line.baseline { border-top: 2px dashed var(--before); }
.legend .line.teacher { border-top: 2px dotted var(--good); }
.legend .dash { border-top: 2px dashed var(--ink); }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; margin: 1rem 0 .25rem; }
.controls[hidden] { display: none; }
.controls label { display: flex; gap: .5rem; align-items: center; color: var(--soft); font-size: .92rem; }
input, select, th button { font: inherit; color: inherit; }
input, select { max-width: 100%; padding: .3rem .5rem; background: var(--card); color: var(--ink); border: 1px solid var(--line); border-radius: .35rem; }
.tall { max-height: 32rem; overflow: auto; border: 1px solid var(--line); border-radius: .6rem; }
.tall th:first-child, .tall td:first-child { padding-left: .75rem; }
.tall thead th { position: sticky; top: 0; background: var(--card); z-index: 1; }
.tall tbody tr:last-child > * { border-bottom: 0; }
.sortable { min-width: 50rem; }
.sortable td code { white-space: nowrap; }
th button { padding: 0; border: 0; color: inherit; font-size: inherit; font-weight: inherit; }
th button::after { content: " ↕"; opacity: .45; }
[aria-sort=ascending] button::after { content: " ↑"; opacity: 1; }
[aria-sort=descending] button::after { content: " ↓"; opacity: 1; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media (max-width: 34rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
  .rows thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .rows, .rows tbody, .rows tr, .rows th, .rows td { display: block; min-width: 0; white-space: normal; overflow-wrap: anywhere; }
  .rows tr { padding: .35rem 0; border-bottom: 1px solid var(--line); }
  .rows th, .rows td { padding: .1rem 0; border: 0; }
  .rows td:not(:empty) { display: flex; justify-content: space-between; gap: 1rem; text-align: right; }
  .rows td::before { content: attr(data-label); flex: none; max-width: 50%; color: var(--soft); text-align: left; }
  .rows td > code { text-align: right; }
  .chart { padding: .8rem .6rem .4rem; }
  .plot.wide { display: none; }
  .plot.narrow { display: block; }
  .controls label { width: 100%; }
  .controls label > :is(input, select) { flex: 1; min-width: 0; }
}
@media print { body { max-width: none; } .tile, .chart { break-inside: avoid; } .tall { max-height: none; } .controls { display: none; } }
`);
