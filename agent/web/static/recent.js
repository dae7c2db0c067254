// Scores of the last parts that the active bundle inspected, from the statistics.

const TIMEOUT_MS = 5000;
const AGAIN_AFTER_MS = 10e3;

export class RecentScores {
  // changed: called when there are other scores.
  constructor(changed) {
    this.changed = changed;
    this.scores = [];
    this.askedAt = -Infinity;
    this.since = null;
  }

  // since: when the active bundle became active; the scores of others are not comparable.
  async refresh(since) {
    if (since === this.since && performance.now() - this.askedAt < AGAIN_AFTER_MS) return;
    if (since !== this.since) this.scores = [];
    [this.since, this.askedAt] = [since, performance.now()];
    try {
      const response = await fetch(`scores?since=${since}`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
      this.scores = response.ok ? (await response.json()).scores : [];
    } catch {
      this.scores = []; // the connection shows its state by itself
    }
    this.changed();
  }

  above(threshold) {
    return this.scores.filter((score) => score > threshold).length;
  }
}
