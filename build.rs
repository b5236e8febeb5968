//! Turns `proto/` into code, without a protoc on the machine.
//!
//! Two passes. The first makes every message and the clients. The second makes the servers only, over the messages of
//! the first, except that a streamed `JobEvent` is `crate::proto::EncodedEvent` there: an event is encoded once and
//! handed to every watcher as bytes.

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
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
    let descriptors = FileDescriptorSet::decode(compiler.encode_file_descriptor_set().as_slice())?;

    with_json(tonic_build::configure(), &descriptors)
        .build_server(false)
        .btree_map(".")
        .bytes(".longhaul.v1.Output.data")
        .bytes(".longhaul.v1.AppendOutputRequest.data")
        .bytes(".longhaul.v1.Checkpoint.data")
        .bytes(".longhaul.v1.Assignment.checkpoint")
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

/// Lets everything that the server sends to clients be written as protobuf's canonical JSON.
fn with_json(builder: tonic_build::Builder, descriptors: &FileDescriptorSet) -> tonic_build::Builder {
    let files = descriptors.file.iter().filter(|file| file.name() != "longhaul/v1/worker_service.proto");
    let messages = files.filter(|file| file.package() == "longhaul.v1").flat_map(|file| &file.message_type);
    // What is asked for is read by its descriptor: see `http/json`.
    let sent = messages.filter(|message| !message.name().ends_with("Request"));
    sent.fold(builder, |builder, message| {
        json_of(builder, message, &format!(".longhaul.v1.{}", message.name()))
    })
}

fn json_of(builder: tonic_build::Builder, message: &DescriptorProto, path: &str) -> tonic_build::Builder {
    let derive = r#"#[derive(serde::Serialize)] #[serde(rename_all = "camelCase")]"#;
    let mut builder = builder;
    let oneofs: Vec<&str> = real_oneofs(message).collect();
    for oneof in &oneofs {
        builder = builder.enum_attribute(format!("{path}.{oneof}"), derive);
    }
    let nested = message.nested_type.iter().filter(|nested| !is_map_entry(nested));
    builder = nested
        .fold(builder, |builder, nested| json_of(builder, nested, &format!("{path}.{}", nested.name())));
    // The variants of a oneof stand among the other fields, which no attribute on a path can say.
    if !oneofs.is_empty() {
        return builder;
    }
    builder = builder.message_attribute(path, derive);
    for field in message.field.iter().filter(|field| !is_in_oneof(field)) {
        let path = format!("{path}.{}", field.name());
        let skip = r#"#[serde(skip_serializing_if = "crate::proto::json::is_default")]"#;
        builder = builder.field_attribute(&path, skip);
        if let Some(function) = form(field, message) {
            let with = format!(r#"#[serde(serialize_with = "crate::proto::json::{function}")]"#);
            builder = builder.field_attribute(&path, with);
        }
    }
    builder
}

/// The function of `proto::json` for a field that serde would write otherwise.
fn form(field: &FieldDescriptorProto, message: &DescriptorProto) -> Option<String> {
    let optional = if field.proto3_optional() { "optional_" } else { "" };
    let name = field.type_name();
    match field.r#type() {
        Type::Int64 => Some(format!("{optional}long")),
        Type::Double => Some(format!("{optional}double")),
        Type::Bytes => Some("base64".to_owned()),
        Type::Enum if field.label() != Label::Repeated => {
            Some(format!("enumeration::<crate::proto::{}, _>", rust_path(name)))
        }
        Type::Message => match name {
            ".google.protobuf.Timestamp" | ".google.protobuf.Duration" => Some("text".to_owned()),
            ".google.protobuf.Struct" => Some("object".to_owned()),
            ".google.protobuf.Value" => Some("value".to_owned()),
            _ => {
                let entry =
                    message.nested_type.iter().find(|nested| name.ends_with(&format!(".{}", nested.name())));
                let value = entry.filter(|entry| is_map_entry(entry)).and_then(|entry| entry.field.last());
                value.filter(|value| value.r#type() == Type::Double).map(|_| "doubles".to_owned())
            }
        },
        _ => None,
    }
}

/// `.longhaul.v1.LogLine.Level` is `log_line::Level`.
fn rust_path(name: &str) -> String {
    let mut parts: Vec<String> = name.split('.').skip(3).map(str::to_owned).collect();
    let parents = parts.len() - 1;
    for parent in &mut parts[..parents] {
        let mut module = String::new();
        for (index, letter) in parent.char_indices() {
            if letter.is_uppercase() && index > 0 {
                module.push('_');
            }
            module.extend(letter.to_lowercase());
        }
        *parent = module;
    }
    parts.join("::")
}

fn real_oneofs(message: &DescriptorProto) -> impl Iterator<Item = &str> {
    message.oneof_decl.iter().enumerate().filter_map(|(index, oneof)| {
        let mut fields = message.field.iter().filter(|field| is_in_oneof(field));
        fields.any(|field| field.oneof_index == Some(index as i32)).then_some(oneof.name())
    })
}

/// In a real one: an optional field is the only one of a oneof that nobody sees.
fn is_in_oneof(field: &FieldDescriptorProto) -> bool {
    field.oneof_index.is_some() && !field.proto3_optional()
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}
