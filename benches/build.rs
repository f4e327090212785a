//! Makes the bare gRPC service of the link's bench from `proto/bare.proto`.
//!
//! Never looks for `protoc`: protox compiles the file. Used by cargo.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["proto/bare.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").emit_rerun_if_changed(false).compile_fds(files)?;
    Ok(())
}
