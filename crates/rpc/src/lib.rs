//! The worker ABI, `duologue.tts.v1`: how an orchestrator asks a TTS worker for speech.
//!
//! Everything here but the codec is generated from `proto/duologue/tts/v1/tts.proto`, whose comments are
//! the documentation of the messages and of each call's errors.

mod codec;
pub mod trace_context;

pub use generated::*;
pub use server::tts_worker_server;

/// The compiled `.proto` files, for gRPC reflection: an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tts.bin"));

#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/duologue.tts.v1.rs"));
}

#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod server {
    include!(concat!(env!("OUT_DIR"), "/server/duologue.tts.v1.rs"));
}
