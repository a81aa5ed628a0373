// From "handed to the sound card" to "heard".
//
// The playout worklet says how far it has rendered and when; the speaker is behind that by the
// output latency (a wireless headset: a quarter of a second). The tracker remembers the last
// few seconds of those reports and looks up where the listener is.

const KEPT = 512;

export class PlayoutTracker {
  constructor() {
    this.points = []; // {time, item, samples}, rising in time
  }

  /** @param {number} time the audio clock, s @param {number} samples rendered of the item so far */
  rendered(item, samples, time) {
    this.points.push({ item, samples, time });
    if (this.points.length > KEPT) this.points.shift();
  }

  /** Where the listener is at `time`: `{item, samples}`, or null before the first sample. */
  heard(time) {
    const points = this.points;
    let at = points.length - 1;
    while (at >= 0 && points[at].time > time) at--;
    if (at < 0) return null;
    const here = points[at];
    const next = points[at + 1];
    if (next === undefined || next.item !== here.item || next.time <= here.time) {
      return { item: here.item, samples: here.samples };
    }
    const part = (time - here.time) / (next.time - here.time);
    return { item: here.item, samples: Math.round(here.samples + part * (next.samples - here.samples)) };
  }
}
