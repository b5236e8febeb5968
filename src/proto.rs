//! The only door to generated code.

pub mod json;

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType};

mod messages {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("longhaul.v1");
}

mod servers {
    #![allow(missing_docs, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/servers/longhaul.v1.rs"));
}

macro_rules! enumerations {
    ($($name:ty),+) => {
        $(impl json::Enumeration for $name {
            fn name(&self) -> &'static str {
                self.as_str_name()
            }
        })+
    };
}

enumerations!(job::State, log_line::Level);

pub use messages::*;
pub use servers::{job_service_server, worker_service_server};

/// The descriptors of every file of the contract and of what it imports, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// A `JobEvent` that is encoded already.
///
/// Cloning it costs a reference count, so that one encoding serves every watcher. It is only ever sent: decoding one
/// leaves it empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncodedEvent(pub Bytes);

impl prost::Message for EncodedEvent {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        prost::encoding::skip_field(wire_type, tag, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}
