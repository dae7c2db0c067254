// All kept pictures: found by verdict, cause, zone, part, time, score and mark; more are loaded as one scrolls.

import { dayAndClock, element, multiple } from "./format.js";
import { post } from "./post.js";

const TIMEOUT_MS = 15000;
const TYPING_MS = 300;
const get = (id) => document.getElementById(id);
const filter = get("filter");

let token = sessionStorage.getItem("token");
let canChange = false;
let entries = [];
let hasMore = false;
let isLoading = false;
let asked = 0; // of several searches only the last one counts
let shown = -1;
let hasHeat = true;

function search() {
  const values = new URLSearchParams();
  for (const [name, value] of new FormData(filter)) {
    if (value) values.set(name, name === "since" || name === "until" ? new Date(value).getTime() : value);
  }
  return values;
}

async function load(isFirst) {
  if (isLoading && !isFirst) return;
  const number = isFirst ? (asked += 1) : asked;
  isLoading = true;
  const values = search();
  history.replaceState(null, "", `${values}` ? `?${values}` : location.pathname);
  if (!isFirst) values.set("before", entries[entries.length - 1].id);
  try {
    const response = await fetch(`archive?${values}`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    const content = await response.json();
    if (number !== asked) return;
    if (response.ok) take(content, isFirst);
    else get("caption").textContent = content.error;
  } catch {
    if (number === asked) get("caption").textContent = "No connection to the station; scroll or search to try again.";
  } finally {
    if (number === asked) isLoading = false;
  }
}

function take(content, isFirst) {
  if (isFirst) {
    entries = [];
    get("pictures").replaceChildren();
    get("caption").textContent = content.count ? `${content.count.toLocaleString("en")} pictures, the newest first.` : "No such pictures.";
    options(filter.elements.code, Object.entries(content.causes));
    options(filter.elements.zone, content.zones.map((zone) => [zone, zone]));
    get("zone-filter").hidden = !content.zones.length;
  }
  hasMore = content.hasMore;
  canChange = content.canChange;
  showUnlock();
  get("pictures").append(...content.images.map((entry, place) => item(entry, entries.length + place)));
  entries.push(...content.images);
  if (shown >= 0) showLarge(shown);
  if (hasMore && get("end").getBoundingClientRect().top < 2 * innerHeight) setTimeout(() => load(false));
}

function options(select, choices) {
  const before = select.value || new URLSearchParams(location.search).get(select.name) || "";
  select.replaceChildren(new Option("all", ""), ...choices.map(([value, words]) => new Option(words, value)));
  select.value = before;
}

function item(entry, place) {
  const image = element("img");
  image.loading = "lazy";
  image.src = `archive/${entry.id}/small.jpg`;
  image.alt = words(entry);
  const open = element("button", "open", image);
  open.type = "button";
  open.addEventListener("click", () => { showLarge(place); get("large").showModal(); });
  const made = element("li", "", open, element("p", "caption", words(entry)), element("p", "label", mark(entry)));
  made.dataset.id = entry.id;
  return made;
}

function words(entry) {
  const ratio = entry.ratio === null ? "" : `${multiple(entry.ratio)} threshold`;
  return [entry.verdict, entry.why, entry.zone, entry.part, ratio, dayAndClock(entry.at)].filter(Boolean).join(" · ");
}

function mark(entry) {
  return entry.label ? `marked ${entry.label} by ${entry.by}` : "";
}

function showLarge(place) {
  const entry = entries[place];
  if (!entry) return;
  shown = place;
  const source = `archive/${entry.id}/${hasHeat ? "large" : "frame"}.jpg`;
  if (!get("large-picture").src.endsWith(source)) get("large-picture").src = source;
  get("large-picture").alt = words(entry);
  get("large-caption").textContent = [words(entry), mark(entry)].filter(Boolean).join(" · ");
  get("heat").setAttribute("aria-pressed", hasHeat);
  get("previous").disabled = place === 0;
  get("next").disabled = place === entries.length - 1 && !hasMore;
  for (const label of ["good", "defect"]) get(label).disabled = !token || entry.label === label;
  if (place > entries.length - 8 && hasMore) load(false);
}

function step(by) {
  get("mark-answer").textContent = "";
  showLarge(Math.min(Math.max(shown + by, 0), entries.length - 1));
}

async function send(path, content, answer) {
  const response = await post(path, content, token, answer, "");
  if (response?.status === 401 && path !== "unlock") lock();
  return Boolean(response?.ok);
}

async function label(what) {
  const entry = entries[shown];
  if (!token || !entry || entry.label === what) return;
  if (!await send(`archive/${entry.id}`, { label: what }, get("mark-answer"))) return;
  Object.assign(entry, { label: what, by: "web" });
  const listed = get("pictures").children[entries.indexOf(entry)];
  if (listed) listed.querySelector(".label").textContent = mark(entry);
  showLarge(shown);
}

async function unlock(event) {
  event.preventDefault();
  token = get("token").value;
  get("token").value = "";
  if (await send("unlock", {}, get("unlock-answer"))) {
    sessionStorage.setItem("token", token);
  } else {
    token = null;
  }
  showUnlock();
  showLarge(shown);
}

function lock() {
  token = null;
  sessionStorage.removeItem("token");
  showUnlock();
}

function showUnlock() {
  get("unlock").hidden = !canChange || Boolean(token);
}

const KEYS = {
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  h: () => get("heat").click(),
  g: () => label("good"),
  d: () => label("defect"),
};

let typing = 0;
filter.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => load(true), TYPING_MS); });
filter.addEventListener("reset", () => setTimeout(() => load(true)));
filter.addEventListener("submit", (event) => event.preventDefault());
get("unlock").addEventListener("submit", unlock);
get("previous").addEventListener("click", () => step(-1));
get("next").addEventListener("click", () => step(1));
get("good").addEventListener("click", () => label("good"));
get("defect").addEventListener("click", () => label("defect"));
get("heat").addEventListener("click", () => { hasHeat = !hasHeat; showLarge(shown); });
get("close").addEventListener("click", () => get("large").close());
get("large").addEventListener("close", () => {
  get("pictures").children[shown]?.querySelector(".open").focus();
  shown = -1;
});
get("large").addEventListener("keydown", (event) => {
  const act = event.ctrlKey || event.metaKey || event.altKey ? null : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
new IntersectionObserver((seen) => {
  if (seen.some((each) => each.isIntersecting) && hasMore) load(false);
}, { rootMargin: "800px" }).observe(get("end"));

for (const [name, value] of new URLSearchParams(location.search)) {
  const field = filter.elements[name];
  if (!field) continue;
  const local = (ms) => new Date(ms - new Date(ms).getTimezoneOffset() * 60e3).toISOString().slice(0, 16);
  if (name === "code" || name === "zone") field.append(new Option(value, value));
  field.value = name === "since" || name === "until" ? local(Number(value)) : value;
}
load(true);
