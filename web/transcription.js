// What LiveKit's conventions say of a conversation, as the events that the page knows.
//
// An agent in a LiveKit room tells what is said in text streams of the topic `lk.transcription`: a
// segment is a message, a later stream of the same segment takes the place of the earlier. The
// agent's words grow in one stream, the user's come whole each time. This is the pure part: pieces
// of streams in, events out.

/** Topic of the text streams that hold what is said. */
export const TRANSCRIPTION = "lk.transcription";
/** Attribute of a participant that says what the agent does. */
export const AGENT_STATE = "lk.agent.state";

const SEGMENT = "lk.segment_id";
const FINAL = "lk.transcription_final";

/** Events of the session's own that say the same as the text streams. */
const SAID_BY_STREAMS = new Set([
  "conversation.item.input_audio_transcription.delta",
  "conversation.item.input_audio_transcription.completed",
  "response.output_audio_transcript.delta",
  "response.output_audio_transcript.done",
  "response.output_text.delta",
  "response.output_text.done",
]);

/** Whether the text streams tell this, so that the event is not needed. */
export function isTranscribed(event) {
  return SAID_BY_STREAMS.has(event.type);
}

export class Transcription {
  #begun = new Set(); // segments of the agent that had a stream already

  /**
   * A stream begins.
   * @param {string} id of the stream, which names the segment where no attribute does
   * @param {boolean} ofUser whether the words are the user's
   * @returns {Stream}
   */
  stream(id, attributes, ofUser) {
    const segment = attributes[SEGMENT] ?? id;
    const replaces = ofUser || this.#begun.has(segment);
    if (!ofUser) this.#begun.add(segment);
    return new Stream(segment, ofUser, replaces);
  }
}

class Stream {
  #text = "";

  constructor(segment, ofUser, replaces) {
    this.segment = segment;
    this.ofUser = ofUser;
    this.replaces = replaces;
  }

  /** A piece came. @returns {object[]} events */
  piece(text) {
    this.#text += text;
    if (this.replaces || text === "") return [];
    return [{ type: "response.output_audio_transcript.delta", item_id: this.segment, delta: text }];
  }

  /** It is over. @param {object} attributes which the end of a stream may have added to */
  end(attributes) {
    const final = attributes[FINAL] === "true";
    const [item_id, transcript] = [this.segment, this.#text];
    if (this.ofUser && final) {
      return [{ type: "conversation.item.input_audio_transcription.completed", item_id, transcript }];
    }
    if (this.ofUser) return [{ type: "local.partial", item: item_id, text: transcript }];
    return final ? [{ type: "response.output_audio_transcript.done", item_id, transcript }] : [];
  }
}
