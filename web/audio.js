// Microphone and speaker: one AudioContext, a capture worklet, a playout worklet.
//
// Drives the devices and decides nothing; what is played, held or dropped is told to it.

import { WIRE_RATE, decode } from "./pcm.js";
import { PlayoutTracker } from "./playout-tracker.js";
import { RemoteSound } from "./remote-sound.js";

const MICROPHONE = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };

// A browser without an output device may leave a context starting for ever.
const START_MS = 5000;

/** Nothing to play sound on. */
class NoOutput extends Error {
  name = "NoOutput";
}

export class Audio {
  /**
   * @param {object} on `piece(Int16Array, rms)` 20 ms from the microphone; `playing(event)` when
   *   playout starts, pauses, runs out; `level(rms, underruns)` of the reply; `microphoneLost()`
   */
  constructor(on) {
    this.on = on;
    this.context = null;
    this.player = null;
    this.microphone = null;
    this.remote = null; // the sound of a call
    this.tracker = new PlayoutTracker();
  }

  /** Opens the speaker. Call it from a click or a key: browsers allow sound only then. */
  async open() {
    if (this.context === null) {
      this.context = new AudioContext({ latencyHint: "interactive" });
      this.loading = Promise.all(
        ["./capture-worklet.js", "./playout-worklet.js"].map((path) =>
          this.context.audioWorklet.addModule(new URL(path, import.meta.url)),
        ),
      );
    }
    const resumed = this.context.resume();
    await this.loading;
    await within(START_MS, resumed);
    if (this.player !== null) return;
    this.player = new AudioWorkletNode(this.context, "duologue-playout", {
      numberOfInputs: 0,
      outputChannelCount: [1],
    });
    this.player.port.onmessage = ({ data }) => this.#report(data);
    this.player.connect(this.context.destination);
  }

  /** Opens the microphone. Rejects with what `getUserMedia` said. */
  async openMicrophone() {
    if (this.microphone !== null) return;
    const stream = await navigator.mediaDevices.getUserMedia({ audio: MICROPHONE });
    const source = this.context.createMediaStreamSource(stream);
    const capture = new AudioWorkletNode(this.context, "duologue-capture", {
      numberOfOutputs: 0,
      channelCount: 1,
      channelCountMode: "explicit",
    });
    capture.port.onmessage = ({ data }) => this.on.piece(data.samples, data.rms);
    source.connect(capture);
    const microphone = { stream, source, capture };
    this.microphone = microphone;
    stream.getAudioTracks()[0].onended = () => {
      if (this.microphone !== microphone) return;
      this.closeMicrophone();
      this.on.microphoneLost();
    };
  }

  closeMicrophone() {
    if (this.microphone === null) return;
    const { stream, source, capture } = this.microphone;
    this.microphone = null;
    source.disconnect();
    capture.port.postMessage("close");
    capture.port.onmessage = null;
    for (const track of stream.getTracks()) track.stop();
  }

  /** A muted microphone goes on sending, silence: the server's clock is the audio it gets. */
  mute(muted) {
    for (const track of this.microphone?.stream.getAudioTracks() ?? []) track.enabled = !muted;
  }

  /** Plays a call's sound. */
  attach(stream) {
    this.detach();
    if (this.context !== null) this.remote = new RemoteSound(this.context, stream, this.on);
  }

  detach() {
    this.remote?.close();
    this.remote = null;
  }

  play(item, base64) {
    const samples = decode(base64);
    this.player?.port.postMessage({ op: "push", item, samples }, [samples.buffer]);
  }

  /** @param {"end"|"pause"|"clear"} op */
  command(op, item = null) {
    this.remote?.command(op, item);
    this.player?.port.postMessage({ op, item });
  }

  /** Goes on after a pause. @param {number|null} ms where in the item the audio that follows begins */
  resume(item = null, ms = null) {
    this.remote?.resume(ms);
    const position = ms === null ? null : Math.round((ms * WIRE_RATE) / 1000);
    this.player?.port.postMessage({ op: "resume", item, position });
  }

  /** What has come out of the speaker by now: `{item, ms}` or null. */
  heard() {
    if (this.context === null) return null;
    if (this.remote !== null) return this.remote.heard();
    const heard = this.tracker.heard(this.context.currentTime - this.latency());
    return heard === null || heard.item === null ? null : { item: heard.item, ms: (heard.samples / WIRE_RATE) * 1000 };
  }

  /** Seconds from the audio thread to the ear, as far as the browser knows. */
  latency() {
    const latency = this.context?.outputLatency || this.context?.baseLatency || 0;
    return Math.min(1, latency);
  }

  #report({ time, events, item, samples, running, rms, underruns }) {
    for (const event of events) {
      this.tracker.rendered(event.item, event.samples, time);
      this.on.playing({ ...event, ms: (event.samples / WIRE_RATE) * 1000 });
    }
    if (running && item !== null) this.tracker.rendered(item, samples, time);
    if (this.remote === null) this.on.level(rms, underruns);
  }
}

function within(ms, promise) {
  return Promise.race([
    promise,
    new Promise((_, reject) => setTimeout(() => reject(new NoOutput("the sound output did not start")), ms)),
  ]);
}
