// The live page: one connection, and the parts that show its data.

import { Archive } from "./archive.js";
import { Chart } from "./chart.js";
import { Connection } from "./connection.js";
import { Controls } from "./controls.js";
import { age } from "./format.js";
import { Picture } from "./picture.js";
import { Station } from "./station.js";

const AGENT_SILENT_AFTER_MS = 3000;
const PICTURE_OLD_AFTER_MS = 5000;
const get = (id) => document.getElementById(id);

const chart = new Chart(get("chart"), get("chart-caption"));
const picture = new Picture();
const station = new Station();
const controls = new Controls(chart, () => archive?.refresh());
const archive = new Archive(controls);
let known = null;
let agentSilentMs = 0;

const receivers = {
  hello(about) {
    if (known !== null && known !== about.version) location.reload(); // this page belongs to another version
    known = about.version;
    const levels = about.station.split("/");
    get("station").textContent = levels[levels.length - 1];
    get("path").textContent = levels.slice(0, -1).filter((level) => level !== "vision").join(" / ");
    get("version").textContent = `Shiftwatch ${about.version}`;
    get("archive").hidden = !about.hasArchive;
    controls.allow(about.canChange);
  },
  update(update) {
    agentSilentMs = update.silentMs;
    chart.take(update.bins, update.isWhole);
    station.take(update);
    if (update.state) controls.take(update.state);
    if (!get("archive").hidden) archive.take(update.rejects[0]?.id ?? "none");
    chart.draw(update.now);
    show();
  },
};

const connection = new Connection((kind, content) => receivers[kind](content), show);

function show() {
  const isSilent = agentSilentMs > AGENT_SILENT_AFTER_MS;
  const isLive = connection.isLive && !isSilent;
  document.body.dataset.link = isLive ? "live" : "lost";
  get("link").textContent = connection.isLive
    ? (isSilent ? `no answer from the agent for ${Math.round(agentSilentMs / 1000)} s` : "live")
    : `NO CONNECTION for ${Math.round(connection.silentMs() / 1000)} s; trying again`;
  station.show(connection.isLive, isSilent, connection.now());
  const pictureAge = picture.at === null ? null : connection.now() - picture.at;
  get("picture-age").textContent = pictureAge === null ? "" : age(pictureAge);
  get("stage").classList.toggle("old", !picture.isHeld && (!isLive || pictureAge > PICTURE_OLD_AFTER_MS));
}

setInterval(show, 500);
