// The newest kept pictures of a verdict, and their labels.

import { dayAndClock, element, multiple } from "./format.js";

const AT_MOST_EVERY_MS = 5000;
const OK_EVERY_MS = 60000; // few of them are kept
const MOST = 24;
const get = (id) => document.getElementById(id);

export class Archive {
  constructor(controls) {
    this.controls = controls;
    this.known = "";
    this.loadedAt = -Infinity;
    this.entries = [];
    get("archive-verdict").addEventListener("change", () => this.load());
  }

  // reject: id of the newest reject; a new one may have a picture.
  take(reject) {
    const now = performance.now();
    const isOld = get("archive-verdict").value === "ok" && now - this.loadedAt > OK_EVERY_MS;
    const isSame = reject === this.known && !this.isRetrying && !isOld;
    if (document.hidden || now - this.loadedAt < AT_MOST_EVERY_MS || isSame) return;
    this.loadedAt = now;
    this.isRetrying = reject !== this.known; // load once more: pictures are written a moment later
    this.known = reject;
    this.load();
  }

  async load() {
    const verdict = get("archive-verdict").value;
    get("archive-missed").hidden = verdict !== "ok";
    try {
      const response = await fetch(`archive?verdict=${verdict}`, { signal: AbortSignal.timeout(10000) });
      const content = await response.json();
      if (verdict !== get("archive-verdict").value) return; // another one was chosen meanwhile
      get("archive-caption").textContent = response.ok ? (content.images.length ? "" : "None yet.") : content.error;
      if (response.ok) this.show(content.images.slice(0, MOST));
    } catch {
      get("archive-caption").textContent = "The list cannot be loaded now.";
    }
  }

  show(entries) {
    this.entries = entries;
    const before = new Map([...get("pictures").children].map((item) => [item.dataset.id, item]));
    get("pictures").replaceChildren(...entries.map((entry) => this.fill(before.get(entry.id) ?? this.item(entry), entry)));
  }

  refresh() {
    this.show(this.entries);
  }

  item(entry) {
    const made = element("li");
    made.dataset.id = entry.id;
    const image = element("img");
    image.loading = "lazy";
    image.src = `archive/${entry.id}/small.jpg`;
    image.alt = `Picture of ${entry.part ?? "a part"} at ${dayAndClock(entry.at)}`;
    const open = element("button", "open", image);
    open.type = "button";
    open.addEventListener("click", () => {
      get("large-picture").src = `archive/${entry.id}/large.jpg`;
      get("large-picture").alt = image.alt;
      get("large").showModal();
    });
    made.append(open, element("p", "caption"), element("p", "label"), element("p", "marking"), element("p", "answer"));
    made.querySelector(".answer").setAttribute("role", "alert");
    return made;
  }

  fill(item, entry) {
    const ratio = entry.ratio === null ? "" : ` · ${multiple(entry.ratio)} threshold`;
    item.querySelector(".caption").textContent = `${dayAndClock(entry.at)}${entry.part ? ` · ${entry.part}` : ""}${ratio}`;
    item.querySelector(".label").textContent = entry.label ? `marked ${entry.label} by ${entry.by}` : "";
    const other = (entry.label ?? (entry.evaluation === 1 ? "good" : "defect")) === "good" ? "defect" : "good";
    const button = element("button", "", other === "good" ? "This was good" : "This was a defect");
    button.type = "button";
    button.addEventListener("click", () => this.mark(item, entry, other));
    item.querySelector(".marking").replaceChildren(...(this.controls.isUnlocked ? [button] : []));
    return item;
  }

  async mark(item, entry, label) {
    if (await this.controls.send(`archive/${entry.id}`, { label }, item.querySelector(".answer"), "")) {
      Object.assign(entry, { label, by: "web" });
      this.fill(item, entry);
    }
  }
}
