//! Makes the frames of the link, and its one gRPC service, from `proto/link.proto`.
//!
//! Never looks for `protoc`: protox compiles the file. Used by cargo.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["proto/link.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // A payload stays the bytes that arrived.
        .bytes(".")
        .codec_path("crate::link::grpc::codec::FrameCodec")
        .emit_rerun_if_changed(false)
        .compile_fds(files)?;
    Ok(())
}
