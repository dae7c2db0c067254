// From a camera to a running station, step by step; the station keeps what was decided, and this page shows it.

import { clock, element, multiple } from "./format.js";
import { commandOf } from "./setup_command.js";
import { Pictures } from "./setup_pictures.js";
import { RegionEditor } from "./setup_region.js";
import { taught } from "./setup_taught.js";

const POLL_MS = 700;
const TIMEOUT_MS = 30000;
const STARTED_WITHIN_MS = 60000;
const STEPS = { camera: "Camera", region: "Region", part: "Part", collect: "Collect", teach: "Teach", test: "Test", go: "Go" };
const get = (id) => document.getElementById(id);
const fields = (form) => form.elements;

let token = takeToken();
let state = null;
let step = sessionStorage.getItem("setup-step") ?? "camera";
let isStarting = false;
let startedAt = 0;
const editor = new RegionEditor(get("drawing"), (zones) => order("zones", { zones }, get("region-form")));
const pictures = new Pictures(() => token, editor);

// The address that the command prints has the token behind its #.
function takeToken() {
  const given = location.hash.slice(1);
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("token");
}

async function ask(path, content) {
  const headers = { Authorization: `Bearer ${encodeURI(token)}`, ...(content ? { "Content-Type": "application/json" } : {}) };
  const request = content ? { method: "POST", body: JSON.stringify(content) } : {};
  const response = await fetch(path, { ...request, headers, signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (response.status === 401) lock();
  if (!response.ok) {
    const { error } = await response.json().catch(() => ({}));
    throw new Error(error ?? `HTTP ${response.status}`);
  }
  return response.json();
}

// Give an order to the station; its answer, or why not, stands in the form. True if it was done.
async function order(name, content, form, done = "") {
  const answer = form?.querySelector(".answer");
  if (answer) Object.assign(answer, { textContent: "…", className: "answer" });
  try {
    show(await ask(`setup/${name}`, content), true);
    if (form) delete form.dataset.dirty;
    if (answer) answer.textContent = done;
    return true;
  } catch (error) {
    const why = error instanceof TypeError || error.name === "TimeoutError" ? "Not done: no connection to the station." : error.message;
    if (answer) Object.assign(answer, { textContent: why, className: "answer bad" });
    return false;
  }
}

function lock() {
  token = null;
  sessionStorage.removeItem("token");
  get("unlock").hidden = false;
  get("bench").hidden = true;
}

async function poll() {
  if (isStarting) {
    await lookForStation();
  } else if (token) {
    try {
      show(await ask("setup"));
      connection("live", "connected");
    } catch {
      connection(token ? "lost" : "waiting", token ? "NO CONNECTION" : "locked");
    }
  } else {
    connection("waiting", "locked");
    get("unlock").hidden = false;
  }
  setTimeout(poll, POLL_MS);
}

// The station's own page has the same address as this one.
async function lookForStation() {
  pictures.isWanted = false;
  const isLate = Date.now() - startedAt > STARTED_WITHIN_MS;
  connection(isLate ? "lost" : "waiting", isLate ? "NOT STARTED: see the terminal or the log" : "the station starts …");
  try {
    const events = await fetch("events", { signal: AbortSignal.timeout(2000) });
    if (events.ok) location.replace("./");
  } catch { /* it is still starting */ }
}

function connection(link, text) {
  document.body.dataset.link = link;
  get("link").textContent = text;
}

// isOwn: the answer to an order of this page, so that its forms are filled again.
function show(now, isOwn = false) {
  const isFirst = state === null;
  state = now;
  get("unlock").hidden = true;
  get("bench").hidden = false;
  const { draft, camera } = state;
  const zones = (draft.zones ?? [{}]).map((zone) => ({ name: null, region: null, ignored: [], ...zone }));
  editor.take(zones, camera.size);
  if (isFirst || isOwn) fill();
  live();
  nav();
  for (const each of Object.keys(STEPS)) get(`step-${each}`).hidden = each !== step;
  const source = draft.trigger?.source ?? "every_frame";
  for (const each of document.querySelectorAll("[data-for]")) each.hidden = each.dataset.for !== chosenSource(source);
  ({ camera: showCamera, region: showRegion, part: showPart, collect: showTray, teach: showTeaching, test: showTest, go: showGo })[step]();
  get("command").textContent = commandOf(step, state);
}

function chosenSource(source) {
  return step === "part" ? get("part-form").elements.source.value || source : source;
}

function isDone(name) {
  const { camera, draft, tray, teaching, broker } = state;
  return {
    camera: camera.isLive, region: Boolean(draft.zones), part: Boolean(draft.trigger), teach: teaching.zones.length > 0,
    collect: tray.filter((each) => !each.isOut).length >= state.leastImages, test: state.hasTested, go: Boolean(broker.isGood),
  }[name];
}

function nav() {
  const items = Object.entries(STEPS).map(([name, title], place) => {
    const button = element("button", isDone(name) ? "done" : "", `${place + 1}`, element("span", "", title));
    button.type = "button";
    button.setAttribute("aria-label", `${place + 1} ${title}${isDone(name) ? ", done" : ""}`);
    button.id = `go-${name}`;
    if (name === step) button.setAttribute("aria-current", "step");
    button.addEventListener("click", () => open(name));
    return element("li", "", button);
  });
  const before = [...get("steps").querySelectorAll("button")].map((each) => `${each.className}${each.ariaCurrent}`).join();
  const after = items.map((item) => `${item.firstChild.className}${item.firstChild.ariaCurrent}`).join();
  if (before !== after) {
    const focused = document.activeElement?.id;
    get("steps").replaceChildren(...items);
    if (focused?.startsWith("go-")) get(focused)?.focus();
  }
}

function open(name) {
  step = name;
  sessionStorage.setItem("setup-step", name);
  editor.cancel();
  show(state, true);
}

// Fill the forms with what was decided, but not while a person writes in them.
function fill() {
  const { draft, camera } = state;
  const values = {
    "camera-form": { source: camera.source, ...draft.camera },
    "part-form": { source: draft.trigger?.source ?? "motion", settled_ms: 200, delay_ms: 0, ...draft.trigger },
    "teach-form": { rate: draft.false_reject_rate ?? 0.01 },
    "broker-form": {
      enterprise: "enterprise", site: "site", area: "area", line: "line", cell: "cell", name: "station", ...draft.station,
      ...draft.mqtt, tls: draft.mqtt?.tls?.enabled, ca_file: draft.mqtt?.tls?.ca_file,
    },
  };
  for (const [id, given] of Object.entries(values)) {
    const form = get(id);
    if (form.dataset.dirty) continue;
    for (const [name, value] of Object.entries(given)) {
      const field = fields(form)[name];
      if (!field || value === undefined || value === null) continue;
      if (field.type === "checkbox") field.checked = Boolean(value);
      else field.value = String(value);
    }
  }
  fillRegion();
}

function fillRegion() {
  const form = get("region-form");
  const { region, name } = editor.zone;
  if (form.dataset.dirty) return;
  ["x", "y", "width", "height"].forEach((side, place) => { fields(form)[side].value = region?.[place] ?? ""; });
  fields(form).name.value = name ?? "";
}

function live() {
  const { camera } = state;
  pictures.isWanted = camera.source !== null;
  get("no-picture").hidden = camera.isLive;
  get("no-picture").textContent = camera.source === null ? "choose a camera" : camera.problem || "waiting for the first picture";
  get("picture-facts").textContent = camera.isLive ? `${camera.size.join(" × ")} pixels, ${camera.framesPerS} pictures/s` : "";
  const { focus, mean, white, black, advice = [] } = camera.figures;
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const shown = focus === undefined ? [] : [
    ["focus", `${Math.round(100 * focus)} % of the best seen`], ["brightness", `${Math.round(mean)} of 255`],
    ["without detail", `${percent(white)} white, ${percent(black)} black`],
  ];
  get("camera-figures").hidden = step !== "camera";
  list("camera-figures", shown, ([name, value]) => element("div", "", element("dt", "", name), element("dd", "", value)));
  list("advice", [...advice, ...(camera.isLive && camera.problem ? [camera.problem] : [])], (text) => element("li", "", text));
}

// Children are made again only where they differ, so that nothing flickers or loses the focus.
function list(id, items, make) {
  const key = JSON.stringify(items);
  if (get(id).dataset.key === key) return;
  get(id).dataset.key = key;
  get(id).replaceChildren(...items.map(make));
}

function showCamera() {
  list("cameras", state.camera.found, (name) => new Option(name, name));
  list("refused-settings", state.camera.refused, (text) => element("li", "", `not taken by the camera: ${text}`));
}

function showRegion() {
  const { zones, current, zone } = editor;
  list("zone-tabs", zones.length > 1 ? zones.map((each, place) => [each.name ?? "zone", place === current]) : [], ([name, isCurrent], ) => {
    const tab = element("button", "", name);
    tab.type = "button";
    tab.setAttribute("aria-pressed", isCurrent);
    tab.addEventListener("click", () => {
      editor.current = editor.zones.findIndex((each) => (each.name ?? "zone") === name);
      delete get("region-form").dataset.dirty;
      fillRegion();
      show(state);
    });
    return tab;
  });
  get("zone-name-label").hidden = zones.length < 2;
  get("remove-zone").hidden = zones.length < 2;
  get("drawing-help").textContent = editor.isDrawing
    ? `The picture is frozen: draw a rectangle for ${editor.drawing === "region" ? "the region" : "the ignored area"}.`
    : zone.region ? "" : "The whole picture is inspected.";
  list("ignored", zone.ignored, (sides) => {
    const remove = element("button", "quiet", "Inspect it again");
    remove.type = "button";
    remove.addEventListener("click", () => {
      const kept = editor.zone.ignored.filter((each) => each.join() !== sides.join());
      editor.zone.ignored = kept;
      order("zones", { zones: editor.zones }, get("region-form"));
    });
    return element("li", "", `ignored: ${sides.join(", ")} `, remove);
  });
}

function showPart() {
  const { parts, partsOverS, hasEmptyPlace } = state.camera;
  get("parts-seen").textContent = `${parts} ${parts === 1 ? "part" : "parts"} seen in the last ${partsOverS} s`;
  get("empty-text").textContent = hasEmptyPlace
    ? "The empty place is known: it is no part."
    : "Without an image of the empty place, it counts as a part as soon as it stands still.";
  get("empty-forget").hidden = !hasEmptyPlace;
}

function showTray() {
  const kept = state.tray.filter((each) => !each.isOut);
  const marked = kept.filter((each) => each.mark);
  get("collect").textContent = state.camera.isCollecting ? "Stop collecting" : "Start collecting";
  get("tray-count").textContent = `${kept.length} good ${kept.length === 1 ? "part" : "parts"}${marked.length ? `, ${marked.length} to look at` : ""}${
    state.teaching.progress ? "; looking for strays …" : ""}`;
  get("from-archive").hidden = !state.hasArchive;
  get("empty-unknown").hidden = state.camera.hasEmptyPlace || state.draft.trigger?.source !== "motion";
  const rank = (each) => (each.isOut ? 2 : each.mark ? 0 : 1);
  const shown = [...state.tray].reverse().sort((a, b) => rank(a) - rank(b));
  list("tray", shown, trayItem);
}

function trayItem({ name, isOut, mark }) {
  const button = element("button", "open", pictures.image(`setup/tray/${encodeURIComponent(name)}/small`, name));
  button.type = "button";
  button.setAttribute("aria-label", `Look at ${name}${isOut ? ", thrown out" : mark ? `, ${mark}` : ""}`);
  button.addEventListener("click", () => enlarge(name));
  const words = isOut ? "thrown out" : mark;
  return element("li", isOut ? "out" : mark ? "marked" : "", button, element("p", "caption", words));
}

const throwOut = (name, out) => order("throw_out", { name, out }, get(step === "teach" ? "teach-form" : "collect-form"));

async function enlarge(name) {
  const dialog = get("large");
  dialog.querySelector("img").src = await pictures.url(`setup/tray/${encodeURIComponent(name)}/large`);
  const isOut = state.tray.find((each) => each.name === name)?.isOut;
  get("large-out").textContent = isOut ? "Take it back" : "Throw it out";
  get("large-empty").hidden = state.draft.trigger?.source !== "motion";
  get("large-empty").onclick = () => { dialog.close(); order("empty_place", { name }, get("collect-form"), "Known now; images that show it are thrown out."); };
  get("large-out").onclick = () => { dialog.close(); throwOut(name, !isOut); };
  dialog.showModal();
}

function showTeaching() {
  const { progress, error } = state.teaching;
  get("teach").hidden = Boolean(progress);
  get("teach").textContent = state.teaching.zones.length ? "Teach again" : "Teach";
  get("teach-cancel").hidden = !progress;
  get("teaching").hidden = !progress && !error;
  get("teaching-bar").hidden = !progress;
  get("teaching-bar").value = progress?.share ?? 0;
  const left = progress?.leftS ? `, about ${Math.max(1, Math.round(progress.leftS))} s left` : "";
  get("teaching-text").textContent = progress ? `${progress.zone ? `zone ${progress.zone}: ` : ""}${progress.step}${left}` : error ?? "";
  get("teaching-text").className = progress ? "" : "bad";
  const shown = state.teaching.zones.map((zone) => [zone, state.tray.filter((each) => each.isOut).map((each) => each.name)]);
  list("taught", shown, ([zone, out]) => taught(zone, out, pictures, throwOut, enlarge));
}

function showTest() {
  const { trial, camera } = state;
  get("test").textContent = trial ? "Stop the test" : "Start the test";
  const answer = get("test-form").querySelector(".answer");
  if (camera.trialProblem) Object.assign(answer, { textContent: camera.trialProblem, className: "answer bad" });
  get("test-counts").textContent = trial
    ? `${trial.counts.ok} ok, ${trial.counts.defect} defect${trial.counts["not decidable"] ? `, ${trial.counts["not decidable"]} not decidable` : ""}`
    : "";
  if (trial) list("tested", trial.parts, testedItem);
}

function testedItem({ id, at, verdict, ratio, zone, reason, isWrong }) {
  const wrong = element("button", "quiet", isWrong ? "noted" : verdict === "defect" ? "Wrong: it is good" : "Wrong: it is a defect");
  wrong.type = "button";
  wrong.disabled = isWrong;
  wrong.addEventListener("click", () => order("wrong", { id }, get("test-form"), verdict === "defect"
    ? "It is in the tray now: teach again when you are through." : "It is kept. Teach with a larger share of rejected parts, or a smaller region."));
  const words = `${verdict.toUpperCase()}${ratio === null ? "" : `, ${multiple(ratio)} the threshold`}${zone ? `, zone ${zone}` : ""}${reason ? `: ${reason}` : ""}`;
  return element("li", { ok: "ok", defect: "defect" }[verdict] ?? "marked", pictures.image(`setup/trial/${id}`, words),
    element("p", "caption", `${clock(at)} ${words}`), wrong);
}

function showGo() {
  get("topics").textContent = state.topics;
  const { isGood, text } = state.broker;
  get("broker-result").textContent = text ?? "";
  get("broker-result").className = isGood ? "good" : "bad";
  const warnings = state.teaching.zones.map(({ forecast }) => forecast?.warning).filter(Boolean);
  const open = [
    ...Object.entries({ camera: "the camera gives no picture", teach: "nothing is taught yet", go: "the broker was not tried, or did not let the station in" })
      .filter(([name]) => !isDone(name)).map(([, words]) => words),
    ...warnings,
  ];
  list("open-points", open, (words) => element("li", "", words));
  get("go").disabled = !isDone("teach") || !state.camera.source || isStarting;
}

const numberOrNull = (text) => (text === "" ? null : Number(text));
const numberOrText = (text) => (text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text));

function on(id, act) {
  get(id).addEventListener("submit", (event) => {
    event.preventDefault();
    act(get(id), Object.fromEntries(new FormData(get(id))));
  });
  get(id).addEventListener("input", () => { get(id).dataset.dirty = "yes"; });
}

on("unlock", async () => {
  token = get("token").value.trim();
  sessionStorage.setItem("token", token);
  get("token").value = "";
  try {
    show(await ask("setup"));
  } catch (error) {
    get("unlock-answer").textContent = error.message;
  }
});
on("camera-form", (form, { source, width, height, exposure, gain }) => order("camera", {
  source, width: numberOrNull(width), height: numberOrNull(height), exposure: numberOrText(exposure), gain: numberOrNull(gain),
}, form));
on("region-form", (form, { x, y, width, height, name }) => {
  if (width && height) editor.zone.region = [x, y, width, height].map(Number);
  if (editor.zones.length > 1) editor.zone.name = name || null;
  order("zones", { zones: editor.zones }, form);
});
on("part-form", (form, { source, settled_ms: settled, delay_ms: delay }) => order("part", {
  source, ...(source === "motion" ? { settled_ms: Number(settled) } : {}), ...(source === "command" ? { delay_ms: Number(delay) } : {}),
}, form));
on("collect-form", (form) => order("collect", { on: !state.camera.isCollecting }, form));
on("teach-form", (form, { rate }) => order("teach", { falseRejectRate: Number(rate) }, form));
on("test-form", (form) => order("test", { on: !state.trial }, form));
on("broker-form", (form, { enterprise, site, area, line, cell, name, host, port, tls, ca_file: authority, username, password }) => order("broker", {
  station: { enterprise, site, area, line, cell, name },
  mqtt: {
    host, port: numberOrNull(port), username, password, tls: { enabled: Boolean(tls), ca_file: authority },
  },
}, form));
on("go-form", async (form) => {
  startedAt = Date.now();
  isStarting = await order("go", {}, form, "Written. The station starts; its own page comes here.");
});
on("empty-form", () => {});
get("from-archive").addEventListener("click", () => order("from_archive", {}, get("collect-form")));
get("empty-now").addEventListener("click", () => order("empty_place", {}, get("empty-form")));
get("empty-forget").addEventListener("click", () => order("empty_place", { forget: true }, get("empty-form")));
get("draw-region").addEventListener("click", () => { editor.draw("region"); showRegion(); });
get("draw-ignored").addEventListener("click", () => { editor.draw("ignored"); showRegion(); });
get("whole").addEventListener("click", () => {
  editor.zone.region = null;
  order("zones", { zones: editor.zones }, get("region-form"));
});
get("add-zone").addEventListener("click", () => {
  const names = new Set(editor.zones.map((zone) => zone.name));
  const free = [...Array(20).keys()].map((place) => `zone${place + 1}`).filter((name) => !names.has(name));
  for (const zone of editor.zones) zone.name ??= free.shift();
  editor.zones.push({ name: free.shift(), region: null, ignored: [] });
  editor.current = editor.zones.length - 1;
  order("zones", { zones: editor.zones }, get("region-form"));
});
get("remove-zone").addEventListener("click", () => {
  editor.zones.splice(editor.current, 1);
  if (editor.zones.length === 1) editor.zones[0].name = null;
  order("zones", { zones: editor.zones }, get("region-form"));
});
get("teach-cancel").addEventListener("click", () => order("teach", { cancel: true }, get("teach-form")));
for (const button of document.querySelectorAll(".take")) button.addEventListener("click", () => order("take", {}, null));
get("grid").addEventListener("change", () => { editor.hasGrid = get("grid").checked; editor.show(); });
get("large-close").addEventListener("click", () => get("large").close());
get("part-form").addEventListener("change", () => show(state));
poll();
pictures.run();
