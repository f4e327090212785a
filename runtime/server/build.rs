//! Makes the messages and the service of the Open Inference Protocol from `proto/open_inference.proto`.
//!
//! Never looks for `protoc`: protox compiles the file. Used by cargo.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["proto/open_inference.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Tensors stay the bytes that arrived.
        .bytes(".")
        .build_client(false)
        .emit_rerun_if_changed(false)
        .compile_fds(files)?;
    Ok(())
}
