// What was taught, and what it will find.

import { element, multiple, number } from "./format.js";

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;
const percent = (share) => `${Math.round(100 * share)} %`;

// zone: what came of teaching it. out: names of the images that are thrown out now.
export function taught(zone, out, pictures, throwOut, enlarge) {
  const { forecast, without } = zone;
  const pieces = [element("h3", "", zone.zone ? `Zone ${zone.zone}` : "Taught"), element("p", "",
    `From ${zone.images} images. The threshold is ${number(zone.threshold)}; of good parts ${(100 * zone.falseRejectRate).toPrecision(2)} % are expected above it.`)];
  if (forecast?.warning) pieces.push(element("p", "warning", `Perhaps nearly blind: ${forecast.warning}`));
  if (forecast) pieces.push(element("p", "big", sentence(forecast.smallest)), tables(forecast));
  for (const { what, images } of zone.findings) pieces.push(element("p", "small", `${what}: ${images.length}`));
  if (without) {
    pieces.push(element("p", "good", `Without what was thrown out since: threshold about ${number(without.threshold)}${
      without.found === null ? "" : `, ${percent(without.found)} of the drawn defects found instead of ${percent(forecast.found)}`}. Teach again to use it.`));
  }
  const shown = (images, isOdd) => element("ul", "tray", ...images.map((each) => item(each, isOdd, out, pictures, throwOut, enlarge)));
  const odd = new Set(zone.suspicious.map(({ name }) => name));
  if (odd.size) pieces.push(element("h3", "", "Unlike the other images"), shown(zone.suspicious, true));
  pieces.push(element("h3", "", "The images that set the threshold"), shown(zone.highest.filter(({ name }) => !odd.has(name)), false));
  return element("div", "", ...pieces);
}

function tables({ sizes, curve }) {
  const table = (head, rows) => element("table", "", element("thead", "", row("th", head)), element("tbody", "", ...rows.map((each) => row("td", each))));
  return element("div", "tools",
    table(["drawn defects of", "found"], sizes.map(({ side, found }) => [side, percent(found)])),
    table(["rejected", "found"], curve.map(({ rejected, found }) => [rejected, percent(found)])));
}

const row = (tag, cells) => element("tr", "", ...cells.map((cell) => element(tag, "", cell)));

function item({ name, ratio }, isOdd, out, pictures, throwOut, enlarge) {
  const isOut = out.includes(name);
  const look = element("button", "open", pictures.image(`setup/tray/${encodeURIComponent(name)}/small`, name));
  look.type = "button";
  look.setAttribute("aria-label", `Look at ${name}`);
  look.addEventListener("click", () => enlarge(name));
  const toggle = element("button", "quiet", isOut ? "Keep it" : "Leave it out");
  toggle.type = "button";
  toggle.addEventListener("click", () => throwOut(name, !isOut));
  return element("li", isOut ? "out" : isOdd ? "marked" : "", look, element("p", "caption", `${multiple(ratio)} the threshold`), toggle);
}
