//! Turns `proto/` into code, without a protoc on the machine.
//!
//! Two passes. The first makes every message and the clients. The second makes the servers only, over the messages of
//! the first, except that a streamed `JobEvent` is `crate::proto::EncodedEvent` there: an event is encoded once and
//! handed to every watcher as bytes.

use prost::Message as _;
use std::error::Error;
use std::path::PathBuf;

const FILES: &[&str] = &[
    "proto/longhaul/v1/job.proto",
    "proto/longhaul/v1/job_service.proto",
    "proto/longhaul/v1/worker_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(FILES.iter().map(|file| &file[6..]))?;
    // The compiler's own bytes: prost-types would drop extensions.
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let descriptors =
        prost_types::FileDescriptorSet::decode(compiler.encode_file_descriptor_set().as_slice())?;

    tonic_build::configure()
        .build_server(false)
        .btree_map(".")
        .bytes(".longhaul.v1.Output.data")
        .bytes(".longhaul.v1.AppendOutputRequest.data")
        .compile_fds(descriptors.clone())?;

    let servers = out.join("servers");
    std::fs::create_dir_all(&servers)?;
    tonic_build::configure()
        .build_client(false)
        .extern_path(".longhaul.v1", "crate::proto")
        .extern_path(".longhaul.v1.JobEvent", "crate::proto::EncodedEvent")
        .out_dir(&servers)
        .compile_fds(descriptors)?;
    Ok(())
}
