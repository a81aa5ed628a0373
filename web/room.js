// A LiveKit room: the conversation as LiveKit's own client has it.
//
// It offers what `Call` offers. Sound, states and words come by LiveKit's conventions; the data
// topic `oai-events` has what those lack, such as an interruption that is held. The client is only
// loaded when a room is wanted, from this very server.

import { retryDelay } from "./connection.js";
import { wayOf } from "./call.js";
import { withKey } from "./key.js";
import { AGENT_STATE, TRANSCRIPTION, Transcription, isTranscribed } from "./transcription.js";

const CLIENT = "./vendor/livekit-client.umd.js"; // 2.23.0
const EVENTS = "oai-events";
const CONNECT_MS = 10000; // of the room, and then of an agent in it
const ABSENT_MS = 15000; // an agent that is away for so long is not expected any more
const PACKET_BYTES = 14000; // of a data packet; what is longer goes as a text stream
const STATISTICS_MS = 1000;
const TALKS = new Set(["listening", "thinking", "speaking"]);

let client = null;

/** LiveKit's client. Rejects where it cannot be loaded. */
function livekit() {
  client ??= import(CLIENT).then(
    () => {
      globalThis.LivekitClient.setLogLevel("warn");
      return globalThis.LivekitClient;
    },
    (error) => {
      client = null;
      throw error;
    },
  );
  return client;
}

/** Why a room was not joined, for people. @param {Error} error of the client */
export function whyNotJoined(error, { ConnectionErrorReason: reasons }) {
  switch (error.reason) {
    case reasons.NotAllowed:
      return "the LiveKit server refused this page's token";
    case reasons.ServerUnreachable:
    case reasons.WebSocket:
    case reasons.ServiceNotFound:
      return "the LiveKit server cannot be reached from here";
    case reasons.Timeout:
      return "the LiveKit server did not answer in time";
    default:
      return error.message;
  }
}

export class RoomCall {
  /** @param {object} on as of `Call`, and `agent(state)` what the agent does, in LiveKit's words */
  constructor(on) {
    this.on = on;
    this.room = null;
    this.address = null;
    this.track = null;
    this.published = null;
    this.outputMs = 0;
    this.attempt = 0;
    this.opened = false;
    this.ended = null; // why the server ended the conversation
    this.agent = null; // its identity
    this.session = null; // its id
    this.timers = new Map();
  }

  open(address) {
    this.close();
    this.address = address;
    this.attempt = 0;
    this.#try();
  }

  /** Ends it for good; nothing is reported. */
  close() {
    this.address = null;
    this.#drop();
  }

  /** The microphone, or null. */
  async microphone(track) {
    this.track = track;
    await this.#publish();
  }

  /** Others in the room are told that the microphone is muted. */
  async mute(muted) {
    await (muted ? this.published?.mute() : this.published?.unmute())?.catch(() => {});
  }

  /** Sends an event if there is a connection; says whether it did. */
  send(event) {
    if (!this.opened || this.agent === null) return false;
    const text = JSON.stringify(event);
    const bytes = new TextEncoder().encode(text);
    const to = { topic: EVENTS, destinationIdentities: [this.agent] };
    const { localParticipant } = this.room;
    const sending =
      bytes.length > PACKET_BYTES ? localParticipant.sendText(text, to) : localParticipant.publishData(bytes, { ...to, reliable: true });
    sending.catch((error) => console.warn(`${event.type} was not sent:`, error));
    return true;
  }

  async #try() {
    this.on.connecting();
    this.ended = null;
    const address = this.address;
    let library;
    let place;
    try {
      library = await livekit();
      const answer = await fetch(address, { method: "POST", headers: withKey() });
      if (address !== this.address) return; // hung up, or begun anew
      if (answer.status === 401) {
        this.close();
        this.on.closed({ kind: "locked" });
        return;
      }
      if (answer.status !== 201) {
        const { error } = await answer.json().catch(() => ({}));
        this.on.unavailable(error?.message ?? `HTTP ${answer.status}`);
        return;
      }
      place = await answer.json();
    } catch (error) {
      if (address === this.address) this.#again({ kind: "unreachable" }, error);
      return;
    }
    if (address !== this.address) return;
    const room = new library.Room({ stopLocalTrackOnUnpublish: false, disconnectOnPageLeave: true });
    this.room = room;
    this.#listen(room, library);
    this.#after("connect", CONNECT_MS, () => this.#unavailable(room, "the LiveKit server did not answer in time"));
    try {
      await room.connect(place.server_url, place.participant_token);
    } catch (error) {
      this.#unavailable(room, whyNotJoined(error, library));
      return;
    }
    if (room !== this.room) return;
    // Only now: a room that was not joined is told of as disconnected too.
    room.on(library.RoomEvent.Disconnected, () => room === this.room && this.#lost());
    for (const participant of room.remoteParticipants.values()) this.#found(room, participant);
    await this.#publish();
    if (room !== this.room || this.opened) return;
    this.#after("connect", CONNECT_MS, () => this.#unavailable(room, "nobody answered in the LiveKit room"));
  }

  #listen(room, { RoomEvent }) {
    const current = (handler) => (...given) => {
      if (room === this.room) handler(...given);
    };
    const isAgent = (participant) => participant?.isAgent === true;
    room.on(RoomEvent.ParticipantConnected, current((participant) => this.#found(room, participant)));
    room.on(RoomEvent.ParticipantAttributesChanged, current((_changed, participant) => this.#found(room, participant)));
    room.on(RoomEvent.ParticipantDisconnected, current((participant) => {
      if (!isAgent(participant) || participant.identity !== this.agent) return;
      if (this.ended !== null) this.#lost();
      else this.#after("absent", ABSENT_MS, () => this.#lost());
    }));
    room.on(RoomEvent.TrackSubscribed, current((track, _publication, participant) => {
      if (track.kind !== "audio" || !isAgent(participant)) return;
      this.on.sound(new MediaStream([track.mediaStreamTrack]));
      this.#measure(room, track);
    }));
    room.on(RoomEvent.DataReceived, current((payload, participant, _kind, topic) => {
      if (topic === EVENTS && isAgent(participant)) this.#told(room, participant.identity, new TextDecoder().decode(payload));
    }));
    room.registerTextStreamHandler(EVENTS, async (reader, { identity }) => {
      const text = await reader.readAll();
      if (room === this.room && isAgent(room.remoteParticipants.get(identity))) this.#told(room, identity, text);
    });
    const transcription = new Transcription();
    room.registerTextStreamHandler(TRANSCRIPTION, async (reader, { identity }) => {
      const ofUser = identity === room.localParticipant.identity;
      const stream = transcription.stream(reader.info.id, reader.info.attributes ?? {}, ofUser);
      const tell = (events) => {
        if (room === this.room) for (const event of events) this.on.event(event);
      };
      for await (const piece of reader) tell(stream.piece(piece));
      tell(stream.end(reader.info.attributes ?? {}));
    });
  }

  // An agent is there, or says what it does.
  #found(room, participant) {
    if (!participant.isAgent) return;
    const state = participant.attributes[AGENT_STATE];
    this.on.agent(state ?? "initializing");
    if (this.agent === participant.identity) this.#stop("absent");
    if (TALKS.has(state)) this.#open(room, participant.identity);
  }

  #open(room, identity) {
    this.agent = identity;
    if (this.opened) return;
    this.opened = true;
    this.attempt = 0;
    this.#stop("connect");
    this.on.open();
  }

  #told(room, identity, text) {
    let event;
    try {
      event = JSON.parse(text);
    } catch {
      console.warn("A message of the agent was not JSON and was left out.");
      return;
    }
    if (event.type === "session.created") {
      // Another server went on under the same identity; it knows nothing of what we told the one before.
      if (this.session !== null && this.session !== event.session.id) this.opened = false;
      this.session = event.session.id;
      this.#open(room, identity);
    }
    if (identity !== this.agent || isTranscribed(event)) return;
    // Another agent may go on with it.
    if (event.type === "duologue.ended" && event.reason !== "shutdown") this.ended = event.reason;
    this.on.event(event);
  }

  async #publish() {
    const { room, track } = this;
    if (room?.state !== "connected") return;
    const before = this.published;
    if (before?.mediaStreamTrack === track) return;
    this.published = null;
    try {
      if (before !== null) await room.localParticipant.unpublishTrack(before, false);
      if (track === null) return;
      // RED would be for nothing: the agent asks for plain Opus.
      const { track: published } = await room.localParticipant.publishTrack(track, { source: "microphone", red: false });
      if (room === this.room) this.published = published;
    } catch (error) {
      if (room === this.room) console.warn("The microphone was not published:", error);
    }
  }

  #unavailable(room, why) {
    if (room !== this.room || this.opened) return;
    this.#drop();
    this.on.unavailable(why);
  }

  #lost() {
    const { ended, opened, room } = this;
    if (!opened && ended === null) {
      this.#unavailable(room, "the LiveKit server closed the room");
      return;
    }
    this.#drop();
    if (ended !== null) {
      this.address = null;
      this.on.closed({ kind: "ended", detail: ended.replaceAll("_", " ") });
    } else {
      this.#again({ kind: navigator.onLine === false ? "offline" : "lost" });
    }
  }

  #again(failure, error) {
    if (error !== undefined) console.warn(error);
    const seconds = retryDelay(this.attempt++, Math.random());
    this.#after("again", seconds * 1000, () => this.#try());
    this.on.waiting(failure, seconds);
  }

  async #measure(room, track) {
    let before = null;
    while (room === this.room && track.mediaStreamTrack.readyState === "live") {
      const report = (await track.receiver?.getStats().catch(() => null)) ?? [];
      let after = null;
      let roundTrip = 0;
      report.forEach((entry) => {
        if (entry.type === "inbound-rtp" && entry.kind === "audio") after = entry;
        if (entry.type === "candidate-pair" && entry.nominated) roundTrip = (entry.currentRoundTripTime ?? 0) * 1000;
      });
      const way = wayOf(before, after, roundTrip, this.outputMs);
      if (way !== null && this.opened) this.on.way(way);
      before = after;
      await new Promise((resolve) => setTimeout(resolve, STATISTICS_MS));
    }
  }

  #after(name, ms, task) {
    this.#stop(name);
    this.timers.set(name, setTimeout(task, ms));
  }

  #stop(name) {
    clearTimeout(this.timers.get(name));
    this.timers.delete(name);
  }

  #drop() {
    for (const name of [...this.timers.keys()]) this.#stop(name);
    const { room } = this;
    this.room = null;
    this.published = null;
    this.agent = null;
    this.session = null;
    this.opened = false;
    room?.disconnect(false).catch(() => {});
  }
}
