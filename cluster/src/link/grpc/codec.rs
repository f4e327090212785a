//! Frames as gRPC messages: buffers of a useful size, and bounds that are looked at before anything is built.
//!
//! An element of two bytes on the wire may take a hundred in memory, so elements are counted before decoding. Never
//! copies a payload that arrives: it stays part of the buffer that was read. Used by the generated client and server.

use bytes::{Buf, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::envelope::MAX_PAYLOAD_BYTES;
use crate::link::gossip::{FRAME_DATAGRAMS, MAX_DATAGRAM_BYTES};
use crate::link::lane::ledger::FRAME_ENVELOPES;
use crate::link::session::FRAME_ANSWERS;
use crate::wire::Frame;

/// Largest frame in bytes: one envelope of the largest size behind a batch of small ones, or the largest datagrams.
pub(crate) const MAX_FRAME_BYTES: usize = MAX_PAYLOAD_BYTES + (512 << 10);

const _: () = assert!(FRAME_DATAGRAMS * (MAX_DATAGRAM_BYTES + 16) < MAX_FRAME_BYTES);

/// Elements of all repeated fields of a frame together.
pub(crate) const MAX_FRAME_ELEMENTS: usize = FRAME_ENVELOPES + FRAME_ANSWERS + FRAME_DATAGRAMS;

/// Bytes of a frame's numbers that are packed together.
const MAX_PACKED_BYTES: usize = FRAME_ANSWERS * 10;

/// Bytes by which tonic's buffers begin and grow.
const BUFFER_BYTES: usize = 64 << 10;

/// Bytes after which an encoder hands over what it has.
const YIELD_BYTES: usize = 128 << 10;

/// The codec of the link's stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FrameCodec;

impl Codec for FrameCodec {
    type Encode = Frame;
    type Decode = Frame;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for FrameCodec {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        frame.encode(buffer).map_err(|error| Status::internal(format!("a frame cannot be encoded: {error}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Frame>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        decode(bytes).map(Some).map_err(Status::invalid_argument)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

/// Reads a frame that keeps the bounds.
pub(crate) fn decode(bytes: Bytes) -> Result<Frame, String> {
    if bytes.len() > MAX_FRAME_BYTES {
        return Err(format!("a frame of {} bytes is longer than {MAX_FRAME_BYTES}", bytes.len()));
    }
    count_elements(&bytes)?;
    Frame::decode(bytes).map_err(|error| format!("no frame: {error}"))
}

/// Walks over the fields of a frame without building anything.
fn count_elements(bytes: &[u8]) -> Result<(), String> {
    let (mut rest, mut elements, mut packed) = (bytes, 0_usize, 0_usize);
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let length = match tag & 7 {
            0 => {
                varint(&mut rest)?;
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?).unwrap_or(usize::MAX),
            5 => 4,
            other => return Err(format!("no frame: wire type {other}")),
        };
        if length > rest.len() {
            return Err("no frame: it ends too early".to_owned());
        }
        rest.advance(length);
        elements += 1;
        // Field 4 holds the ids that were acknowledged, packed.
        packed += if tag >> 3 == 4 { length } else { 0 };
        if elements > MAX_FRAME_ELEMENTS + FRAME_FIELDS || packed > MAX_PACKED_BYTES {
            return Err("a frame has too many elements".to_owned());
        }
    }
    Ok(())
}

/// Fields of a frame that are there once.
const FRAME_FIELDS: usize = 16;

fn varint(rest: &mut &[u8]) -> Result<u64, String> {
    prost::encoding::decode_varint(rest).map_err(|error| format!("no frame: {error}"))
}

#[cfg(test)]
mod tests;
