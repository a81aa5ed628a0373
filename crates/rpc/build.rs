//! Generates the types of the worker ABI. The `.proto` is compiled by protox, so no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const PROTO: &str = "duologue/tts/v1/tts.proto";
const PACKAGE: &str = ".duologue.tts.v1";

fn main() -> Result<(), Box<dyn Error>> {
    let include = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", include.join(PROTO).display());

    let descriptors = protox::compile([PROTO], [&include])?;
    std::fs::write(out.join("tts.bin"), descriptors.encode_to_vec())?;

    // Messages and the client.
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(format!("{PACKAGE}.AudioFrame.pcm"))
        .compile_fds(descriptors.clone())?;

    // The server on its own, for it reads requests with a codec of its own.
    let server = out.join("server");
    std::fs::create_dir_all(&server)?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(PACKAGE, "crate")
        .codec_path("crate::codec::RequestCodec")
        .out_dir(server)
        .compile_fds(descriptors)?;
    Ok(())
}
