// Verdict, lists, state and alerts.

import { SHAPES, age, clock, dayAndClock, element, multiple, number, shape, write } from "./format.js";

const OLD_AFTER_MS = 10 * 60000; // on a slow line the last verdict stays the last
const RECENT_MS = 10000;
const STATES = { paused: "PAUSED", lost: "CAMERA LOST", closed: "CAMERA CLOSED", fault: "FAULT", running: "" };
// Reasons in `dropped` of frames that need no result of their own: see messages/payloads.py.
const NO_LOSS = new Set(["skipped", "untriggered", "moving", "unsettled", "empty", "paused", "combined"]);
const get = (id) => document.getElementById(id);

export class Station {
  constructor() {
    this.update = null;
  }

  take(update) {
    this.update = update;
    rows(get("last"), update.last);
    rows(get("rejects"), update.rejects);
    if (update.state) {
      figures(update.state, update);
      alerts(update.state.alerts);
    }
  }

  // Called every half second, because ages grow.
  show(isLive, agentIsSilent, now) {
    const { shown, state } = this.update ?? { shown: null, state: null };
    const last = shown ? `${shown.verdict}, ${age(now - shown.at)}` : "no verdict yet";
    if (!isLive) setVerdict("none", "NO CONNECTION", "This page shows old data.", `before: ${last}`);
    else if (agentIsSilent) setVerdict("none", "NO ANSWER", "The agent does not answer.", `before: ${last}`);
    else if (state && STATES[state.state]) setVerdict("doubt", STATES[state.state], state.reason, `before: ${last}`);
    else if (!shown) setVerdict("none", "WAITING", "No part has been seen yet.", "");
    else verdict(shown, now);
  }
}

function verdict(shown, now) {
  const ratio = shown.ratio === null ? "no score"
    : `${multiple(shown.ratio)} threshold (score ${number(shown.score)}, threshold ${number(shown.threshold)})`;
  const part = shown.part === null ? `frame ${shown.seq ?? "none"}` : `part ${shown.part}`;
  const of = shown.of > 1 ? `worst of ${shown.of} in a second · ` : "";
  const zone = shown.zone === null ? "" : `${shown.zone}: `;
  const sinceMs = now - shown.at;
  const when = sinceMs > RECENT_MS ? `${age(sinceMs)}, at ${dayAndClock(shown.at)}` : clock(shown.at);
  setVerdict(SHAPES[shown.evaluation], shown.verdict, shown.why, `${of}${part} · ${zone}${ratio} · ${when}`);
  get("verdict").classList.toggle("old", sinceMs > OLD_AFTER_MS);
}

function setVerdict(kind, word, why, detail) {
  const tile = get("verdict");
  tile.className = kind;
  tile.dataset.length = word.length > 7 ? "long" : "short";
  tile.querySelector("use").setAttribute("href", `#shape-${kind}`);
  write(get("word"), word);
  write(get("why"), why);
  write(get("detail"), detail);
  document.title = `${word} – ${get("station").textContent}`;
}

function rows(table, entries) {
  const made = entries.map((entry) => {
    const name = entry.part ?? (entry.seq === null ? "" : `#${entry.seq}`);
    const why = [entry.why, entry.evaluation === 1 ? "" : entry.zone].filter(Boolean).join(", ");
    const row = element("tr", "",
      cell("time", clock(entry.at)),
      cell("verdict", shape(entry.evaluation), ` ${entry.verdict}`),
      cell("part", name),
      cell("score", entry.ratio === null ? "" : multiple(entry.ratio)),
      cell("reason", why));
    row.setAttribute("role", "row"); // rows are laid out as grids, which browsers do not call rows
    row.querySelector(".part").title = name;
    row.className = SHAPES[entry.evaluation];
    return row;
  });
  const none = element("tr", "", cell("", "none"));
  table.tBodies[0].replaceChildren(...(made.length ? made : [none]));
}

function cell(name, ...content) {
  const made = element("td", name, ...content);
  made.setAttribute("role", "cell");
  return made;
}

function alerts(active) {
  const made = active.map((alert) => element("p", "banner",
    `ALERT since ${dayAndClock(alert.startTime)}: ${alert.cause}, severity ${alert.severity} of 1000`));
  const before = [...get("alerts").children].map((each) => each.textContent).join();
  if (before !== made.map((each) => each.textContent).join()) get("alerts").replaceChildren(...made);
}

function counted(entries) {
  return entries.map(([what, count]) => `${(count ?? 0).toLocaleString("en")} ${what}`).join(", ");
}

function figures(state, update) {
  const { info, health } = state;
  const [dropped, withoutPart] = [false, true].map((isNoLoss) =>
    Object.entries(health.dropped).filter(([why, count]) => count && NO_LOSS.has(why) === isNoLoss));
  const activity = state.state === "running" ? "inspecting" : state.reason || state.state;
  const brokers = state.brokers.map((each) => [`Broker, ${each.name}`,
    each.connected ? "connected" : `NOT CONNECTED${each.error ? `: ${each.error}` : ""}`, !each.connected]);
  const waiting = state.brokers.map((each) => each.waiting.toLocaleString("en")).join(" + ");
  const latency = health.p99.total === undefined ? "" : `, ${number(health.p99.total)} ms p99`;
  const temperature = health.temperature === null ? "" : `, ${number(health.temperature)} °C`;
  const all = [
    ["State", activity, state.state !== "running"],
    ["Camera", `${health.camera === "running" ? "gives frames" : health.camera.toUpperCase()}, ${info.camera}`, health.camera !== "running"],
    ...brokers,
    ["Outbox", `${waiting} waiting`, state.brokers.some((each) => each.waiting > 100)],
    ["Frames", `${number(health.fps)} per second${latency}; without a part: ${counted(withoutPart) || "none"}`],
    ["Results", `${health.results.toLocaleString("en")}: ${counted([["OK", health.ok], ["NotOK", health.notOk], ["not decidable", health.notDecidable]])}`],
    ["Dropped", counted(dropped) || "nothing"],
    ...Object.entries(state.thresholds).flatMap(([zone, { now, base }]) => zoneFigures(zone, info.zones[zone] ?? info, now, base)),
    ["Device", `${number(health.diskFree / 2 ** 30)} GiB free${temperature}`],
  ];
  get("figures").replaceChildren(...all.map(([name, value, isBad]) => element("div", isBad ? "bad" : "",
    element("dt", "", name), element("dd", "", ...(isBad ? [shape(3), " "] : []), value))));
  write(get("about-page"), `${update.viewers} ${update.viewers === 1 ? "viewer" : "viewers"}`);
}

function zoneFigures(zone, bundle, now, base) {
  const set = now === base ? "the bundle's or configured" : `set by command; before: ${number(base)}`;
  const made = `bundle ${bundle.bundleHash.slice(0, 12)}, calibrated ${new Date(bundle.calibratedAt).toLocaleDateString("en-CA")}, on ${bundle.backend}`;
  return [[zone ? `Zone ${zone}` : "Threshold", `${zone ? "threshold " : ""}${number(now)}, ${set}; ${made}`]];
}
