// Scores of the last minutes, as multiples of the threshold of that time, on a logarithmic scale.

import { number, svgElement } from "./format.js";

const WINDOWS_MS = [60e3, 120e3, 300e3];
const KINDS = { 0: "doubt", 1: "ok", 2: "not-ok", 3: "doubt" };
const MARGIN = { left: 62, right: 14, top: 14, bottom: 26 };
const NAMES = ["ok", "doubt", "not-ok"]; // in drawing order
const MARKS = {
  ok: (x, y) => `M${x - 2.5},${y}a2.5,2.5 0 1,0 5,0a2.5,2.5 0 1,0 -5,0`,
  "not-ok": (x, y) => `M${x - 6},${y + 5}h12l-6,-11z`,
  doubt: (x, y) => `M${x - 4},${y - 4}h8v8h-8z`,
};

export class Chart {
  constructor(svg, caption) {
    this.svg = svg;
    this.caption = caption;
    this.bins = new Map(); // start time -> score as a multiple of the threshold, evaluation, count
    this.proposed = null; // a multiple of the present threshold
    new ResizeObserver(() => this.draw(this.now)).observe(svg);
  }

  take(bins, isWhole) {
    if (isWhole) this.bins.clear();
    for (const [at, ...rest] of bins) this.bins.set(at, rest);
  }

  // The number of points above a multiple of the threshold, and of all points with a score.
  above(multiple) {
    const scores = this.points().map((point) => point.score).filter((score) => score !== null);
    return [scores.filter((score) => score > multiple).length, scores.length];
  }

  points() {
    const longest = WINDOWS_MS[WINDOWS_MS.length - 1];
    for (const at of this.bins.keys()) if (at < this.now - longest) this.bins.delete(at);
    return [...this.bins].map(([at, [score, evaluation, count]]) => ({ at, score, evaluation, count }));
  }

  draw(now) {
    if (!now) return;
    this.now = now;
    const { width, height } = this.svg.getBoundingClientRect();
    const points = this.points();
    if (!width || !height) return;
    const span = points.length ? now - points[0].at : 0;
    const windowMs = WINDOWS_MS.find((each) => each >= span) ?? WINDOWS_MS[WINDOWS_MS.length - 1];
    const [low, high] = this.limits(points);
    const right = width - MARGIN.right;
    const bottom = height - MARGIN.bottom;
    const x = (at) => Math.round(10 * (right - ((now - at) / windowMs) * (right - MARGIN.left))) / 10;
    const share = (score) => (Math.log(score) - Math.log(low)) / (Math.log(high) - Math.log(low));
    const y = (score) => Math.round(10 * (bottom - share(Math.max(score, low)) * (bottom - MARGIN.top))) / 10;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren(
      ...this.grid(ticks(low, high), y, right), ...this.times(windowMs, x, bottom),
      ...this.thresholds(y, right), ...this.marks(points, x, y, bottom),
    );
    this.describe(points, windowMs);
  }

  limits(points) {
    const scores = points.map((point) => point.score).filter((score) => score > 0);
    const all = [...scores, 1, ...(this.proposed ? [this.proposed] : [])];
    const low = all.reduce((a, b) => Math.min(a, b));
    const high = all.reduce((a, b) => Math.max(a, b));
    return [Math.min(low / 1.25, 0.5), Math.max(high * 1.25, 2)];
  }

  grid(values, y, right) {
    return values.flatMap((value) => [
      line("grid", MARGIN.left, y(value), right, y(value)),
      text("tick", MARGIN.left - 8, y(value) + 4, `${number(value)} ×`, "end"),
    ]);
  }

  times(windowMs, x, bottom) {
    const minutes = windowMs / 60e3;
    const step = minutes > 2 ? 1 : 0.5;
    const made = [];
    for (let ago = 0; ago <= minutes; ago += step) {
      const label = ago === 0 ? "now" : ago < 1 ? `${60 * ago} s` : `${ago} min`;
      made.push(text("tick", x(this.now - 60e3 * ago), bottom + 18, label, ago === 0 ? "end" : "middle"));
    }
    return made;
  }

  thresholds(y, right) {
    const made = [line("threshold", MARGIN.left, y(1), right, y(1))];
    if (this.proposed && this.proposed !== 1) made.push(line("proposed", MARGIN.left, y(this.proposed), right, y(this.proposed)));
    return made;
  }

  marks(points, x, y, bottom) {
    const shapes = { ok: "", doubt: "", "not-ok": "" };
    for (const { at, score, evaluation } of points) {
      const name = KINDS[evaluation];
      if (x(at) >= MARGIN.left) shapes[name] += MARKS[name](x(at), score === null ? bottom - 6 : y(score));
    }
    return NAMES.map((name) => path(`mark ${name}`, shapes[name]));
  }

  describe(points, windowMs) {
    const counts = { ok: 0, doubt: 0, "not-ok": 0 };
    for (const { evaluation, count } of points) counts[KINDS[evaluation]] += count;
    const span = `last ${windowMs / 60e3} min`;
    const said = `${counts["not-ok"]} NOT OK, ${counts.doubt} NOT DECIDABLE, ${counts.ok} OK`;
    this.caption.textContent = points.length
      ? `The worst score of each quarter of a second, as a multiple of the threshold; ${span}: ${said}.`
      : "No score yet.";
  }
}

function ticks(low, high) {
  const all = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const digit of [1, 2, 5]) {
      const value = Number(`${digit}e${power}`);
      if (value >= low && value <= high) all.push(value);
    }
  }
  const decades = all.filter((value) => /^1(e|0*$)|^0?\.?0*1$/.test(String(value)));
  const chosen = all.length > 6 && decades.length > 1 ? decades : all;
  const step = Math.ceil(chosen.length / 6);
  return chosen.filter((_, index) => index % step === 0);
}

const line = (kind, x1, y1, x2, y2) => svgElement("line", kind, { x1, y1, x2, y2 });
const path = (kind, d) => svgElement("path", kind, { d });

function text(kind, x, y, content, anchor) {
  const piece = svgElement("text", kind, { x, y, "text-anchor": anchor });
  piece.textContent = content;
  return piece;
}
