// Numbers and times for people; small elements of the page.

export const SHAPES = { 0: "doubt", 1: "ok", 2: "not-ok", 3: "doubt" };

export function number(value) {
  if (value === null || value === undefined) return "none";
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3)) return value.toExponential(2).replace("e+", "e");
  return Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 });
}

// A score as a multiple of its threshold: 0.53 ×, 1.84 ×, 12.3 ×.
export function multiple(ratio) {
  const size = Math.abs(ratio);
  return `${size >= 1e4 ? number(ratio) : Number(ratio.toPrecision(size < 1 ? 2 : 3)).toLocaleString("en")} ×`;
}

export function clock(ms) {
  return new Date(ms).toLocaleTimeString("en-GB", { hour12: false });
}

export function dayAndClock(ms) {
  const isToday = new Date(ms).toDateString() === new Date().toDateString();
  return isToday ? clock(ms) : `${new Date(ms).toLocaleDateString("en-CA")} ${clock(ms)}`;
}

export function age(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 1.5) return "now";
  if (s < 90) return `${Math.round(s)} s ago`;
  if (s < 5400) return `${Math.round(s / 60)} min ago`;
  return `${Math.round(s / 3600)} h ago`;
}

export function element(tag, className, ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

// A text that has not changed is not written again: screen readers would read it again.
export function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

export function svgElement(tag, kind, attributes) {
  const piece = document.createElementNS("http://www.w3.org/2000/svg", tag);
  piece.setAttribute("class", kind);
  for (const [key, value] of Object.entries(attributes)) piece.setAttribute(key, value);
  return piece;
}

export function shape(evaluation) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", `shape ${SHAPES[evaluation]}`);
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#shape-${SHAPES[evaluation]}`);
  svg.append(use);
  return svg;
}
