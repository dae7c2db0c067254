// The line to the page's process: it is made again for ever, and what it brought says how old it is.

const SILENT_AFTER_MS = 3000;
const AGAIN_AFTER_MS = 1500;

export class Connection {
  // told: called with "hello" or "update" and an object. changed: called when the line comes and goes.
  constructor(told, changed) {
    this.told = told;
    this.changed = changed;
    this.isLive = false;
    this.heardAt = performance.now();
    this.serverNow = Date.now();
    setInterval(() => this.check(), 500);
    document.addEventListener("visibilitychange", () => this.follow());
    this.open();
  }

  // The station's time, which need not be that of this device.
  now() {
    return this.serverNow + (performance.now() - this.heardAt);
  }

  silentMs() {
    return performance.now() - this.heardAt;
  }

  open() {
    this.close();
    if (document.hidden) return; // nobody looks: the station need not work for it
    this.triedAt = performance.now();
    this.source = new EventSource("events");
    this.source.addEventListener("hello", (event) => this.told("hello", JSON.parse(event.data)));
    this.source.addEventListener("message", (event) => this.hear(JSON.parse(event.data)));
    this.source.addEventListener("error", () => this.setLive(false));
  }

  close() {
    if (this.source) this.source.close();
    this.source = null;
  }

  follow() {
    if (document.hidden) {
      this.close();
      this.setLive(false);
    } else {
      this.open();
    }
  }

  hear(update) {
    this.heardAt = performance.now();
    this.serverNow = update.now;
    this.told("update", update);
    this.setLive(true);
  }

  check() {
    if (document.hidden) return;
    const isSilent = this.silentMs() > SILENT_AFTER_MS;
    if (isSilent) this.setLive(false);
    const isOver = !this.source || this.source.readyState === EventSource.CLOSED;
    const sinceTry = performance.now() - this.triedAt;
    if ((isOver && sinceTry > AGAIN_AFTER_MS) || (isSilent && sinceTry > SILENT_AFTER_MS)) this.open();
  }

  setLive(isLive) {
    if (this.isLive === isLive) return;
    this.isLive = isLive;
    this.changed(isLive);
  }
}
