// Changes of the station: they need the token, which is sent in a header and kept in this tab.

import { Curve } from "./curve.js";
import { number, write } from "./format.js";
import { post } from "./post.js";
import { RecentScores } from "./recent.js";

const WIDEST = 10;
const get = (id) => document.getElementById(id);

export class Controls {
  // chart: shows a proposed threshold. changed: called when the page is locked or unlocked.
  constructor(chart, changed) {
    this.chart = chart;
    this.changed = changed;
    this.curve = new Curve();
    this.recent = new RecentScores(() => this.showEffect());
    this.token = sessionStorage.getItem("token");
    this.zone = "";
    this.thresholds = {};
    this.proposed = null; // a threshold that is chosen, but not set
    this.isPaused = false;
    get("unlock").addEventListener("submit", (event) => this.unlock(event));
    get("lock").addEventListener("click", () => this.lock(""));
    get("threshold-slider").addEventListener("input", () => this.propose(this.base * WIDEST ** (get("threshold-slider").value / 1000), true));
    get("threshold-number").addEventListener("input", () => this.propose(Number(get("threshold-number").value), false));
    get("threshold").addEventListener("submit", (event) => this.setThreshold(event, Number(get("threshold-number").value)));
    get("threshold-zone").addEventListener("change", () => this.choose(get("threshold-zone").value));
    get("threshold-back").addEventListener("click", (event) => this.setThreshold(event, null));
    get("pause").addEventListener("submit", (event) => this.pauseOrResume(event));
  }

  allow(canChange) {
    this.canChange = canChange;
    this.show();
  }

  get isUnlocked() {
    return Boolean(this.canChange && this.token);
  }

  // Otherwise the chart and the last parts are of other zones as well.
  get isAlone() {
    return Object.keys(this.thresholds).length === 1;
  }

  // The threshold of the chosen zone before any command.
  get base() {
    return this.thresholds[this.zone]?.base ?? null;
  }

  // The present one, of the chosen zone.
  get now() {
    return this.thresholds[this.zone].now;
  }

  take(state) {
    const zones = Object.keys(state.thresholds);
    if (zones.join() !== Object.keys(this.thresholds).join()) {
      get("threshold-zone").replaceChildren(...zones.map((zone) => new Option(zone, zone)));
      get("zone").hidden = zones.length === 1;
      [this.zone, this.proposed] = [zones[0], null];
    }
    this.thresholds = state.thresholds;
    this.activeSince = state.versions?.[this.zone]?.[0]?.at ?? 0;
    this.isPaused = state.state === "paused";
    get("pause-button").textContent = this.isPaused ? "Resume inspection" : "Pause inspection";
    get("reason").disabled = this.isPaused;
    if (this.proposed === null) this.follow();
    this.showEffect();
  }

  choose(zone) {
    this.zone = zone;
    this.forget();
    this.follow();
  }

  forget() {
    this.proposed = null;
    this.showEffect();
  }

  // Show the present threshold, while no other is proposed.
  follow() {
    if (document.activeElement === get("threshold-number")) return;
    get("threshold-number").value = Number(this.now.toPrecision(6));
    this.moveSlider(this.now);
  }

  propose(threshold, isFromSlider) {
    this.proposed = threshold;
    if (isFromSlider) get("threshold-number").value = Number(threshold.toPrecision(4));
    if (threshold > 0) this.moveSlider(threshold);
    if (this.isAlone) this.recent.refresh(this.activeSince);
    this.showEffect();
  }

  moveSlider(threshold) {
    get("threshold-slider").value = 1000 * Math.log10(threshold / this.base) / Math.log10(WIDEST);
    get("threshold-slider").setAttribute("aria-valuetext", number(threshold));
  }

  // What the proposed threshold would do, by the calibration and to the last parts.
  showEffect() {
    if (!this.thresholds[this.zone]) return;
    const proposed = this.proposed > 0 ? this.proposed : null;
    this.curve.show(this.thresholds[this.zone].curve ?? null, this.now, proposed);
    this.chart.proposed = this.isAlone && proposed ? proposed / this.now : null;
    write(get("threshold-effect"), this.isAlone && proposed ? this.ofTheLast(proposed) : "");
  }

  ofTheLast(threshold) {
    const parts = this.recent.scores.length;
    if (parts) return `Of the last ${parts.toLocaleString("en")} parts ${this.recent.above(threshold)} lie above ${number(threshold)} (above the present one: ${this.recent.above(this.now)}).`;
    const [above, of] = this.chart.above(threshold / this.now);
    return `${above} of the ${of} points in the chart lie above ${number(threshold)}.`;
  }

  async setThreshold(event, threshold) {
    event.preventDefault();
    const done = threshold === null ? "back to the bundle's or configured threshold" : `the threshold is ${number(threshold)}`;
    const content = this.zone ? { threshold, zone: this.zone } : { threshold };
    if (await this.send("command/threshold", content, get("threshold-answer"), done)) this.forget();
  }

  async pauseOrResume(event) {
    event.preventDefault();
    const reason = get("reason").value.trim() || null;
    if (this.isPaused) await this.send("command/resume", {}, get("pause-answer"), "resumed");
    else if (await this.send("command/pause", { reason }, get("pause-answer"), "paused; results report that nothing is decided")) get("reason").value = "";
  }

  async unlock(event) {
    event.preventDefault();
    this.token = get("token").value;
    get("token").value = "";
    const isRight = await this.send("unlock", {}, get("unlock-answer"), "");
    if (isRight) sessionStorage.setItem("token", this.token);
    else this.token = null;
    this.show();
    if (isRight) get("threshold-slider").focus();
  }

  lock(why) {
    this.token = null;
    this.forget();
    sessionStorage.removeItem("token");
    get("unlock-answer").textContent = why;
    this.show();
  }

  show() {
    get("read-only").hidden = this.canChange;
    get("unlock").hidden = !this.canChange || this.isUnlocked;
    get("unlocked").hidden = !this.isUnlocked;
    this.changed();
  }

  // True if it was done; shows that, or the reason why not, in answer.
  async send(path, content, answer, done) {
    const response = await post(path, content, this.token, answer, done && `Done: ${done}.`);
    if (response?.status === 401 && path !== "unlock") this.lock("The token has changed; enter the new one.");
    return Boolean(response?.ok);
  }
}
