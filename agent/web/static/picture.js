// The newest picture, its heat map and its defect marks: fetched one by one, as fast as this device can show them.
// A picture of a part stays while someone looks at it: with the pointer or a finger on it, or the focus.

import { SHAPES, shape } from "./format.js";

const TIMEOUT_MS = 8000;
const AGAIN_AFTER_MS = 1000;
const HELD_MS = 2000;
const get = (id) => document.getElementById(id);

export class Picture {
  constructor() {
    this.at = null;
    this.id = "";
    this.fetched = 0;
    this.heldUntil = 0;
    this.isOfPart = false;
    this.isLookedAt = false;
    const stage = get("stage");
    for (const event of ["pointerenter", "focus"]) stage.addEventListener(event, () => this.look(true));
    for (const event of ["pointerleave", "blur"]) stage.addEventListener(event, () => this.look(false));
    get("show-heat").addEventListener("change", () => this.style());
    get("show-marks").addEventListener("change", () => this.style());
    get("opacity").addEventListener("input", () => this.style());
    this.style();
    this.follow();
  }

  async follow() {
    for (;;) {
      const began = performance.now();
      try {
        if (!document.hidden && performance.now() >= this.heldUntil && !this.isHeld) await this.next();
        else await sleep(AGAIN_AFTER_MS);
      } catch {
        await sleep(AGAIN_AFTER_MS); // the page shows that the connection is lost, and how old the picture is
      }
      await sleep(Math.max(0, 60 - (performance.now() - began)));
    }
  }

  get isHeld() {
    return this.isLookedAt && this.isOfPart;
  }

  look(isLookedAt) {
    this.isLookedAt = isLookedAt;
    get("held").hidden = !this.isHeld;
  }

  async next() {
    const response = await fetch(`picture?after=${this.id}`, { signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store" });
    if (response.status === 204 || this.isHeld) return;
    if (!response.ok) throw new Error(`${response.status}`);
    const content = await response.arrayBuffer();
    const length = new DataView(content).getUint32(0);
    const about = JSON.parse(new TextDecoder().decode(new Uint8Array(content, 4, length)));
    const jpegAt = 4 + length;
    const heatAt = jpegAt + about.jpegBytes;
    await draw(get("frame"), new Blob([content.slice(jpegAt, heatAt)], { type: "image/jpeg" }));
    if (about.heatBytes) await draw(get("heat"), new Blob([content.slice(heatAt)], { type: "image/png" }));
    get("heat").hidden = !about.heatBytes;
    this.place(about);
    this.isOfPart = about.evaluation !== null;
    this.look(this.isLookedAt);
    const isReject = this.isOfPart && about.evaluation !== 1;
    this.heldUntil = isReject && get("hold").checked ? performance.now() + HELD_MS : 0;
    get("picture-of").replaceChildren(...(this.isOfPart
      ? [shape(about.evaluation), ` ${about.verdict} ${about.part ?? `#${about.seq}`}`] : ["between parts"]));
    get("picture-of").className = this.isOfPart ? `of ${SHAPES[about.evaluation]}` : "of";
    this.id = about.id;
    this.at = about.at;
    this.fetched += 1;
    get("stage").dataset.fetched = this.fetched;
    get("no-picture").hidden = true;
  }

  place(about) {
    const { rows, columns, region, regions } = about;
    const stage = get("stage");
    const heat = get("heat").style;
    stage.style.setProperty("--ratio", columns / rows);
    heat.left = `${(100 * region[0]) / columns}%`;
    heat.top = `${(100 * region[1]) / rows}%`;
    heat.width = `${(100 * region[2]) / columns}%`;
    heat.height = `${(100 * region[3]) / rows}%`;
    const marks = get("marks");
    marks.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
    const boxes = regions.map((each) => rectangle(around(each, columns / 100), "defect"));
    marks.replaceChildren(...(about.isWhole ? [] : [rectangle(region, "region")]), ...boxes.flat());
  }

  style() {
    get("heat").style.opacity = get("show-heat").checked ? get("opacity").value / 100 : 0;
    get("opacity").disabled = !get("show-heat").checked;
    get("marks").style.display = get("show-marks").checked ? "" : "none";
  }
}

function around(defect, margin) {
  return [defect.x - margin, defect.y - margin, defect.width + 2 * margin, defect.height + 2 * margin];
}

// White under colour: one of them is visible on any part.
function rectangle([x, y, width, height], kind) {
  return [`${kind} under`, kind].map((name) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    made.setAttribute("class", name);
    for (const [key, value] of Object.entries({ x, y, width, height })) made.setAttribute(key, value);
    return made;
  });
}

async function draw(canvas, blob) {
  const image = await createImageBitmap(blob);
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").drawImage(image, 0, 0);
  image.close();
}

function sleep(ms) {
  return new Promise((resolve) => { setTimeout(resolve, ms); });
}
