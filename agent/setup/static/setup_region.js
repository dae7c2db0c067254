// Rectangles drawn on the frozen picture by mouse or finger: the region of each zone, and what is ignored in it.

import { svgElement } from "./format.js";

const LEAST_PX = 4;

export class RegionEditor {
  // svg lies over the picture. changed: called with the zones after each change by a person.
  constructor(svg, changed) {
    this.svg = svg;
    this.changed = changed;
    this.zones = [{ name: null, region: null, ignored: [] }];
    this.current = 0;
    this.drawing = null; // "region" or "ignored" while a rectangle is expected
    this.size = [640, 480];
    this.hasGrid = false;
    this.start = null;
    svg.addEventListener("pointerdown", (event) => this.begin(event));
    svg.addEventListener("pointermove", (event) => this.follow(event));
    svg.addEventListener("pointerup", (event) => this.end(event));
    svg.addEventListener("pointercancel", () => this.cancel());
  }

  get zone() {
    return this.zones[this.current];
  }

  get isDrawing() {
    return this.drawing !== null;
  }

  take(zones, size) {
    if (!this.isDrawing) this.zones = structuredClone(zones);
    this.current = Math.min(this.current, this.zones.length - 1);
    this.size = size ?? this.size;
    this.show();
  }

  draw(what) {
    this.drawing = what;
    this.svg.classList.add("draws");
    this.show();
  }

  cancel() {
    this.drawing = this.start = null;
    this.svg.classList.remove("draws");
    this.show();
  }

  begin(event) {
    if (!this.drawing) return;
    event.preventDefault();
    this.svg.setPointerCapture(event.pointerId);
    this.start = this.at(event);
  }

  follow(event) {
    if (this.start) this.show(this.between(this.start, this.at(event)));
  }

  end(event) {
    if (!this.start) return;
    const rectangle = this.between(this.start, this.at(event));
    const what = this.drawing;
    this.start = null;
    if (rectangle[2] < LEAST_PX || rectangle[3] < LEAST_PX) return this.show(); // a click, not a rectangle
    this.cancel();
    if (what === "region") this.zone.region = rectangle;
    else this.zone.ignored.push(rectangle);
    this.show();
    this.changed(this.zones);
  }

  // Pixels of the frame.
  at(event) {
    const box = this.svg.getBoundingClientRect();
    const inside = (value, most) => Math.round(Math.min(Math.max(value, 0), 1) * most);
    return [inside((event.clientX - box.left) / box.width, this.size[0]), inside((event.clientY - box.top) / box.height, this.size[1])];
  }

  between([x, y], [toX, toY]) {
    return [Math.min(x, toX), Math.min(y, toY), Math.abs(toX - x), Math.abs(toY - y)];
  }

  show(drawn = null) {
    const [columns, rows] = this.size;
    this.svg.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
    const pieces = this.hasGrid ? [1, 2].flatMap((third) => [
      svgElement("line", "grid", { x1: columns * third / 3, x2: columns * third / 3, y1: 0, y2: rows }),
      svgElement("line", "grid", { y1: rows * third / 3, y2: rows * third / 3, x1: 0, x2: columns }),
    ]) : [];
    this.zones.forEach((zone, place) => {
      if (zone.region) pieces.push(...both(zone.region, place === this.current ? "current" : ""));
      for (const each of zone.ignored) pieces.push(rect(each, "ignored"));
    });
    if (drawn) pieces.push(...both(drawn, this.drawing === "region" ? "current" : "ignored"));
    this.svg.replaceChildren(...pieces);
  }
}

function both(sides, kind) {
  return [rect(sides, "under"), rect(sides, kind)];
}

function rect([x, y, width, height], kind) {
  return svgElement("rect", kind, { x, y, width, height });
}
