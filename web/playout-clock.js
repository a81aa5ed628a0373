// How far a reply has been heard when somebody else plays it: the browser itself, from a call.
//
// Nobody counts its samples for us, so time is counted: from when the server said that it
// sounds, less the pauses. What is heard is behind what was sent by the delay of the way.

export class PlayoutClock {
  constructor() {
    this.item = null;
    this.position = 0; // ms sent when it last stopped, or began to run
    this.since = null; // time it has been running since; null while it stands
    this.ended = null; // ms, where known
  }

  /** A reply begins to sound. @param {number} now ms */
  begin(item, now) {
    this.item = item;
    this.position = 0;
    this.since = now;
    this.ended = null;
  }

  pause(now) {
    this.position = this.sent(now);
    this.since = null;
  }

  /** Goes on, where it stopped or at `ms`. */
  resume(ms, now) {
    this.position = ms ?? this.sent(now);
    this.since = now;
    this.ended = null;
  }

  /** No more will be sent. */
  end(now) {
    if (this.ended === null) this.ended = this.sent(now);
  }

  clear() {
    this.item = null;
    this.since = null;
    this.position = 0;
    this.ended = null;
  }

  /** ms of the reply that were sent. */
  sent(now) {
    const ms = this.position + (this.since === null ? 0 : now - this.since);
    return this.ended === null ? ms : Math.min(ms, this.ended);
  }

  /** ms of it that were heard, where sound takes `delay` ms. Held sound is not heard any more. */
  heard(now, delay) {
    if (this.since === null) return Math.max(0, this.position - delay);
    const ms = this.position + now - this.since - delay;
    return Math.max(0, this.ended === null ? ms : Math.min(ms, this.ended));
  }
}
