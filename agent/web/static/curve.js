// What other thresholds would reject and find, as calibration measured it: see zones/threshold_curve.py.

import { number, svgElement, write } from "./format.js";

const MARGIN = { left: 46, right: 14, top: 10, bottom: 26 };
const TICKS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100];
const NARROW_PX = 400;
const SPOKEN = [0.25, 0.5, 1, 2, 4];
const MANY = 0.1;
const ROUNDING = 1e-5;
const get = (id) => document.getElementById(id);

export class Curve {
  constructor() {
    this.shown = "";
    this.curve = null;
    new ResizeObserver(() => this.draw()).observe(get("curve"));
  }

  // curve: null if the bundle has none. now, proposed: thresholds; proposed is null where no other is.
  show(curve, now, proposed) {
    const shown = JSON.stringify([curve, now, proposed]);
    if (shown === this.shown) return;
    [this.shown, this.curve, this.now, this.proposed] = [shown, curve, now, proposed];
    for (const id of ["threshold-chart", "curve-legend"]) get(id).hidden = !curve;
    get("legend-rejected").hidden = curve?.points[0][1] === null;
    get("curve-caption").textContent = curve
      ? `From the calibration, at multiples of the present threshold. Its ${curve.defects} defects are drawn, not real, and most of them are small: what is found here is no promise for defects that look different.`
      : "What other thresholds would find is not known: the calibration of this bundle drew no defects. Calibrate again to know it.";
    this.describe();
    this.draw();
  }

  // What a threshold rejects and finds; null outside the curve, where no command may set it.
  at(threshold) {
    const { points } = this.curve;
    const next = points.findIndex(([each]) => each * (1 + ROUNDING) >= threshold);
    if (next < 0 || threshold * (1 + ROUNDING) < points[0][0]) return null;
    const [low, high] = [points[Math.max(next - 1, 0)], points[next]];
    const part = low === high ? 1 : Math.min(Math.log(threshold / low[0]) / Math.log(high[0] / low[0]), 1);
    const [found, largest] = [2, 3].map((place) => low[place] + part * (high[place] - low[place]));
    return { rejected: high[1] === null ? null : low[1] ** (1 - part) * high[1] ** part, found, largest };
  }

  describe() {
    const now = this.curve && this.at(this.now);
    const proposed = this.curve && this.proposed && this.at(this.proposed);
    const meant = this.proposed ? proposed : now;
    write(get("threshold-expected"), meant ? this.sentence(meant, this.proposed ? now : null) : "");
    const isBlind = meant && meant.largest < this.curve.leastDetection;
    write(get("threshold-blind"), isBlind ? `Nearly blind: only ${percent(meant.largest)} of the largest drawn defects are found.` : "");
    if (this.curve) get("curve").setAttribute("aria-label", this.spoken());
  }

  sentence(meant, now) {
    const found = `${percent(meant.found)} of the drawn defects are found`;
    const where = this.proposed ? "At this threshold" : "Now";
    if (meant.rejected === null) return `${where} ${found}${now ? ` (now: ${percent(now.found)})` : ""}; good parts were too few to say how many are rejected.`;
    const before = now ? ` (now: ${this.rejects(now.rejected)} and ${percent(now.found)})` : "";
    return `${where} ${this.rejects(meant.rejected)} ${meant.rejected > MANY ? "are" : "is"} rejected and ${found}${before}.`;
  }

  rejects(share) {
    if (share > MANY) return `about ${percent(share)} of good parts`;
    const isLeast = share <= this.curve.lowestRate * (1 + ROUNDING);
    return `${isLeast ? "at most" : "about"} 1 good part in ${Number((1 / share).toPrecision(2)).toLocaleString("en")}`;
  }

  // The curve for those who do not see it.
  spoken() {
    const said = SPOKEN.map((multiple) => [multiple, this.at(multiple * this.now)]).filter(([, at]) => at)
      .map(([multiple, { rejected, found }]) => `at ${number(multiple)} × ${percent(found)}${rejected === null ? "" : ` and ${this.rejects(rejected)}`}`);
    return `Drawn defects found and good parts rejected, by multiples of the present threshold: ${said.join("; ")}`;
  }

  draw() {
    const { width, height } = get("curve").getBoundingClientRect();
    if (!this.curve || !width || !height) return;
    const { points } = this.curve;
    const [right, bottom] = [width - MARGIN.right, height - MARGIN.bottom];
    const [low, high] = [points[0][0], points[points.length - 1][0]];
    const x = (threshold) => MARGIN.left + (Math.log(threshold / low) / Math.log(high / low)) * (right - MARGIN.left);
    const y = (share) => bottom - share * (bottom - MARGIN.top);
    const path = (kind, place) => svgElement("polyline", kind, { points: points.map((each) => `${x(each[0]).toFixed(1)},${y(each[place]).toFixed(1)}`).join(" ") });
    const rule = (kind, threshold) => svgElement("line", kind, { x1: x(threshold), x2: x(threshold), y1: MARGIN.top, y2: bottom });
    const dots = (at) => [["found", at.found], ["rejected", at.rejected]].filter(([, share]) => share !== null)
      .map(([kind, share]) => svgElement("circle", kind, { cx: x(at.threshold), cy: y(share), r: 5 }));
    const marked = [["threshold", this.now], ["proposed", this.proposed]].filter(([, threshold]) => threshold && this.at(threshold));
    const ticks = TICKS.filter((each) => each * this.now >= low / (1 + ROUNDING) && each * this.now <= high * (1 + ROUNDING) && (width > NARROW_PX || /1/.test(each)));
    get("curve").setAttribute("viewBox", `0 0 ${width} ${height}`);
    get("curve").replaceChildren(
      ...[0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
        svgElement("line", "grid", { x1: MARGIN.left, x2: right, y1: y(share), y2: y(share) }),
        text(MARGIN.left - 8, y(share) + 4, percent(share), "end"),
      ]),
      ...ticks.map((each) => text(x(each * this.now), bottom + 18, `${each} ×`, x(each * this.now) > right - 20 ? "end" : "middle")),
      ...marked.map(([kind, threshold]) => rule(kind, threshold)),
      ...(points[0][1] === null ? [] : [path("rejected", 1)]), path("found", 2),
      ...marked.flatMap(([, threshold]) => dots({ threshold, ...this.at(threshold) })),
    );
  }
}

const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

function text(x, y, content, anchor) {
  const piece = svgElement("text", "tick", { x, y, "text-anchor": anchor });
  piece.textContent = content;
  return piece;
}
