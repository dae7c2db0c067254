// The connection to the page's process: it is made again until it works, and knows how old its data are.

const SILENT_AFTER_MS = 3000;
const AGAIN_AFTER_MS = 1500;

export class Connection {
  // receive: called with "hello" or "update" and an object. changed: called when the connection comes or goes.
  constructor(receive, changed) {
    this.receive = receive;
    this.changed = changed;
    this.isLive = false;
    this.receivedAt = performance.now();
    this.serverNow = Date.now();
    setInterval(() => this.check(), 500);
    document.addEventListener("visibilitychange", () => this.follow());
    this.open();
  }

  // The station's time, which may differ from that of this device.
  now() {
    return this.serverNow + (performance.now() - this.receivedAt);
  }

  silentMs() {
    return performance.now() - this.receivedAt;
  }

  open() {
    this.close();
    if (document.hidden) return; // no one is watching: save the station the work
    this.triedAt = performance.now();
    this.source = new EventSource("events");
    this.source.addEventListener("hello", (event) => this.receive("hello", JSON.parse(event.data)));
    this.source.addEventListener("message", (event) => this.update(JSON.parse(event.data)));
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

  update(update) {
    this.receivedAt = performance.now();
    this.serverNow = update.now;
    this.receive("update", update);
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
