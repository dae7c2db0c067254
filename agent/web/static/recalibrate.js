// Recalibration by the people of the line: what is done, how far it is, what came of it, and the way back.

import { Connection } from "./connection.js";
import { dayAndClock, element, number } from "./format.js";
import { post } from "./post.js";

const TIMEOUT_MS = 15000;
const ROLLBACK_TIMEOUT_MS = 120000;
const get = (id) => document.getElementById(id);
const order = get("order");

let token = sessionStorage.getItem("token");
let canChange = true;
let underWay = null;
let versions = {};

const receivers = {
  hello(about) { canChange = about.canChange; show(); },
  update({ state }) {
    if (!state) return;
    const before = underWay;
    underWay = state.health.recalibration;
    if (before && !underWay) loadResult();
    if (JSON.stringify(state.versions) !== JSON.stringify(versions)) {
      versions = state.versions;
      zones();
      table();
    }
    show();
  },
};

const connection = new Connection((kind, content) => receivers[kind](content), show);

function show() {
  document.body.dataset.link = connection.isLive ? "live" : "lost";
  get("link").textContent = connection.isLive ? "live" : "NO CONNECTION";
  get("unlock").hidden = !canChange || Boolean(token);
  order.hidden = !token || !canChange;
  get("start").disabled = Boolean(underWay);
  get("cancel").disabled = !underWay;
  get("progress").hidden = !underWay;
  get("progress").value = underWay?.progress ?? 0;
  get("phase").textContent = underWay
    ? `${underWay.phase}, ${Math.round(100 * underWay.progress)} %${underWay.zone ? `, zone ${underWay.zone}` : ""}`
    : canChange ? "No recalibration is running." : "No recalibration is running; this page is read-only, because the station has no web.token_file.";
  for (const button of get("versions").querySelectorAll("button")) button.disabled = !token || Boolean(underWay);
}

function zones() {
  const names = Object.keys(versions);
  const select = order.elements.zone;
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  select.value = names.includes(chosen) ? chosen : names[0];
  get("zone-choice").hidden = names.length < 2;
}

function table() {
  const rows = Object.entries(versions).flatMap(([zone, all]) => all.map((version, place) => row(zone, version, all.slice(0, place))));
  get("versions").tBodies[0].replaceChildren(...rows);
}

// later: The versions after this one. A bundle comes back with its latest threshold, so only its last row offers it.
function row(zone, version, later) {
  const back = element("button", "quiet", "Go back to it");
  back.type = "button";
  back.setAttribute("aria-label", `Go back to bundle ${version.identity.slice(0, 12)}`);
  back.addEventListener("click", () => rollback(zone, version.identity));
  return element("tr", "", ...[
    dayAndClock(version.at), `${zone ? `${zone}: ` : ""}${version.identity.slice(0, 12)}`, version.by ?? "", version.why ?? "configured",
    number(version.threshold), later.length === 0 ? "active" : later.some((each) => each.identity === version.identity) ? "" : back,
  ].map((content) => element("td", "", content)));
}

async function loadResult() {
  try {
    const response = await fetch("recalibration", { signal: AbortSignal.timeout(TIMEOUT_MS) });
    const { isActive, isTrial, error, figures, proposal } = await response.json();
    get("result").hidden = isActive === null;
    get("outcome").textContent = [
      isActive ? "The new bundle is active." : isTrial && !error ? "Tried; nothing was changed." : `The bundle stays: ${error}`,
      proposal ? `Proposal: ${proposal.words}.` : "",
    ].join(" ");
    get("figures").replaceChildren(...figures.map(([name, value]) => element("div", "", element("dt", "", name), element("dd", "", value))));
  } catch {
    // the connection shows its state by itself, and the result is fetched with the next one
  }
}

async function send(path, content, answer, done, timeoutMs) {
  const response = await post(path, content, token, answer, done, timeoutMs);
  if (response?.status === 401 && path !== "unlock") {
    token = null;
    sessionStorage.removeItem("token");
  }
  show();
  return Boolean(response?.ok);
}

const zoneOf = (zone) => (zone ? { zone } : {});

async function start(event) {
  event.preventDefault();
  const { mode, parts, reason, zone } = Object.fromEntries(new FormData(order));
  const content = {
    mode, reason: reason.trim() || null, dryRun: order.elements.dryRun.checked, force: order.elements.force.checked,
    ...(parts ? { parts: Number(parts) } : {}), ...zoneOf(zone),
  };
  if (await send("recalibration", content, get("order-answer"), "Started: let good parts pass.")) get("result").hidden = true;
}

async function rollback(zone, bundle) {
  await send("command/rollback", { bundle, ...zoneOf(zone) }, get("versions-answer"), "Done: it is active again, with the threshold that it had.", ROLLBACK_TIMEOUT_MS);
}

get("unlock").addEventListener("submit", async (event) => {
  event.preventDefault();
  token = get("token").value;
  get("token").value = "";
  if (await send("unlock", {}, get("unlock-answer"), "")) sessionStorage.setItem("token", token);
  else token = null;
  show();
});
order.addEventListener("submit", start);
get("cancel").addEventListener("click", () => send("recalibration", { cancel: true, ...zoneOf(underWay?.zone) }, get("order-answer"), "Cancelled."));
loadResult();
show();
