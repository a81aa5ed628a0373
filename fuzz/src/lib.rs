//! What strangers send, fed to everything that reads it.
//!
//! A target is a function of bytes that must not panic, must not run for ever, and must not take more memory than
//! its input is worth; some check more, such as that what is written reads back the same. Each has two drivers: a
//! program of its own under cargo-fuzz, which finds its way by what code an input reaches (`cargo xtask fuzz`), and
//! the tests of this crate, which need no nightly compiler and take seconds: they run the kept corpus and some
//! thousand mutations of it, the same ones each time.
//!
//! The targets use what the crates offer; where a parser is private, the crate has a hidden module `fuzzing` that
//! leads to it and does nothing else.

pub mod mutate;
mod pieces;
mod sound;
mod stored;
mod talk;
mod text;
mod wire;

pub use sound::{audio_file, input_sound, opus_packets, rtp_stream};
pub use stored::{
    model_header, package_index, policies_and_scenes, stored_record, voicepack_metadata,
};
pub use talk::{call_request, realtime_event, transcription_request};
pub use text::{endpoint_stream, spoken_text};
pub use wire::{datagram, livekit_message, worker_calls};

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name; its corpus is the folder of that name in `corpus/`.
    pub name: &'static str,
    /// What it reads and who sends that, for people.
    pub about: &'static str,
    /// Runs it.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident: $about:literal;)*) => {
        /// All there are.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), about: $about, run: $name }),*];
    };
}

targets! {
    realtime_event: "Events of WebSocket and data channel, the settings in them, their sound";
    call_request: "`POST /v1/realtime/calls`: SDP, plain or in a form, up to the answer";
    transcription_request: "`POST /v1/audio/transcriptions`: forms";
    audio_file: "WAV, FLAC, MP3, Ogg Vorbis, Ogg Opus as they are uploaded";
    input_sound: "PCM and G.711 of events, cut anywhere";
    opus_packets: "Opus packets: decoded, recovered, concealed";
    rtp_stream: "Packets of a voice into the jitter buffer, at any time in any order";
    datagram: "What comes to the UDP port before it is known whose it is";
    livekit_message: "Data packets and text streams of others in a room, signals and offers of the LiveKit server";
    worker_calls: "gRPC calls of a voice worker, over its real service";
    spoken_text: "Text on its way to the voice: made speakable, phonemes, words' places";
    voicepack_metadata: "`metadata.yaml` of a voicepack, catalogues";
    policies_and_scenes: "Routing policies and scenes";
    model_header: "Piper's configuration, ONNX graphs as far as they are cut up, vocabularies";
    endpoint_stream: "What a language model or a recognizer elsewhere answers";
    package_index: "Pages of package indexes, pip's configuration";
    stored_record: "Conversations in the journal, workers in the registry";
}
