//! Generates the flagd protocol's messages and services; protox reads the files, so no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["flagd/evaluation/v1/evaluation.proto", "flagd/evaluation/v2/evaluation.proto", "flagd/sync/v1/sync.proto"];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
