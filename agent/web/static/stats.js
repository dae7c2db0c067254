// Parts, verdicts, causes and scores of the past, by hour, shift or day.

import { element, multiple, svgElement } from "./format.js";

const TIMEOUT_MS = 15000;
const DAY_MS = 86400e3;
const AGAIN_AFTER_MS = 60e3;
const MARGIN = { left: 62, right: 14, top: 10, bottom: 26 };
const LABEL_PX = 130;
const KINDS = [["ok", "ok"], ["notDecidable", "doubt"], ["notOk", "not-ok"]];
const get = (id) => document.getElementById(id);
const filter = get("filter");
let periods = [];

async function load() {
  const { by, days } = Object.fromEntries(new FormData(filter));
  const values = new URLSearchParams({ by, since: Date.now() - days * DAY_MS });
  get("totals-csv").href = `statistics.csv?${values}`;
  get("results-csv").href = `results.csv?${values}`;
  try {
    const response = await fetch(`statistics?${values}`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    const content = await response.json();
    if (response.ok) show(content, by);
    else get("caption").textContent = content.error;
  } catch {
    get("caption").textContent = "No connection to the station.";
  }
}

function show(content, by) {
  periods = content.periods.map((each) => ({ ...each, parts: each.ok + each.notOk + each.notDecidable, name: name(each, by) }));
  const parts = sum(periods.map((each) => each.parts));
  const rejects = parts - sum(periods.map((each) => each.ok));
  get("caption").textContent = parts
    ? `${parts.toLocaleString("en")} parts, ${rejects.toLocaleString("en")} rejected (${percent(rejects / parts)}).`
    : "No parts in this time.";
  if (content.leftOut) get("caption").append(` Periods before these, ${content.leftOut.toLocaleString("en")}, are only in the CSV file.`);
  causes(content.causes);
  table();
  draw();
}

function name({ at, shift }, by) {
  const day = new Date(at).toLocaleDateString("en-CA");
  if (by === "day") return day;
  if (by === "shift") return `${day} ${shift}`;
  return `${day} ${new Date(at).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })}`;
}

function causes(all) {
  const total = sum(all.map(([, count]) => count));
  const rows = all.map(([cause, count]) => {
    const bar = element("span", "share");
    bar.style.width = `${(100 * count) / all[0][1]}%`;
    return element("li", "", element("span", "", cause), element("span", "", bar), element("span", "count", `${count.toLocaleString("en")}, ${percent(count / total)}`));
  });
  get("causes").replaceChildren(...(rows.length ? rows : [element("li", "", "none")]));
}

function table() {
  const rows = [...periods].reverse().map((each) => element("tr", "", ...[
    each.name, each.shift, ...[each.parts, each.ok, each.notOk, each.notDecidable].map((count) => count.toLocaleString("en")),
    percent((each.parts - each.ok) / each.parts), each.mean === null ? "" : multiple(each.mean), each.highest === null ? "" : multiple(each.highest),
  ].map((text) => element("td", "", text))));
  get("figures").tBodies[0].replaceChildren(...rows);
}

function draw() {
  const most = Math.max(1, ...periods.map((each) => each.parts));
  chart(get("parts"), most, (value) => value.toLocaleString("en"), (each, y, bar) => {
    let below = 0;
    return KINDS.map(([key, kind]) => {
      const made = bar(kind, y(below + each[key]), y(below));
      below += each[key];
      return made;
    });
  });
  const highest = Math.max(1.5, ...periods.map((each) => Math.min(each.highest ?? 0, 10)));
  chart(get("scores"), highest, (value) => `${value} ×`, (each, y, bar) => (each.highest === null ? [] : [
    bar("range", y(Math.min(each.highest, highest)), y(each.mean ?? 0)), bar("ok", y(each.mean ?? 0) - 2, y(each.mean ?? 0) + 2),
  ]), 1);
}

// Bars from left to right; marks gives those of a period. line: a value to draw a line at.
function chart(target, most, words, marks, line = null) {
  const { width, height } = target.getBoundingClientRect();
  if (!width) return;
  const bottom = height - MARGIN.bottom;
  const wide = (width - MARGIN.left - MARGIN.right) / Math.max(periods.length, 1);
  const y = (value) => bottom - (value / most) * (bottom - MARGIN.top);
  const grid = steps(most).flatMap((value) => [
    svgElement("line", "grid", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
    text(MARGIN.left - 8, y(value) + 4, words(value), "end"),
  ]);
  const bars = periods.flatMap((each, place) => {
    const bar = (kind, top, low) => svgElement("rect", `bar ${kind}`, {
      x: MARGIN.left + place * wide + wide * 0.1, width: Math.max(wide * 0.8, 0.5), y: top, height: Math.max(low - top, 0),
    });
    const group = svgElement("g", "", {});
    const title = svgElement("title", "", {});
    title.textContent = `${each.name}: ${each.parts} parts, ${percent((each.parts - each.ok) / each.parts)} rejected`;
    group.append(title, ...marks(each, y, bar));
    return [group];
  });
  const every = Math.ceil(periods.length / Math.max(1, Math.floor((width - MARGIN.left) / LABEL_PX)));
  const times = periods.flatMap((each, place) => (place % every ? [] : [
    text(Math.min(Math.max(MARGIN.left + (place + 0.5) * wide, LABEL_PX / 2), width - LABEL_PX / 2), bottom + 18, each.name.slice(5), "middle"),
  ]));
  const rule = line === null ? [] : [svgElement("line", "threshold", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(line), y2: y(line) })];
  target.setAttribute("viewBox", `0 0 ${width} ${height}`);
  target.replaceChildren(...grid, ...bars, ...rule, ...times);
}

function steps(most) {
  const rough = most / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, place) => Number((place * step).toPrecision(6)));
}

function text(x, y, content, anchor) {
  const piece = svgElement("text", "tick", { x, y, "text-anchor": anchor });
  piece.textContent = content;
  return piece;
}

const sum = (values) => values.reduce((a, b) => a + b, 0);
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 2 : 1)} %`;

filter.addEventListener("input", load);
filter.addEventListener("submit", (event) => event.preventDefault());
new ResizeObserver(draw).observe(get("parts"));
setInterval(() => { if (!document.hidden) load(); }, AGAIN_AFTER_MS);
load();
