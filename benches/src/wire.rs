//! HTTP/1.1 messages over a kept connection, one at a time: a head, and as many bytes as it says.
//!
//! Knows no chunks, no pipelining and no TLS. Used by the load generator and by the echo server, which share the
//! machine's cores with what is measured and so must cost little.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Where the parts of a message lie in the buffer that it was read into.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// The first line and the headers, with the empty line.
    pub(crate) head: Range<usize>,
    /// The body; empty where the head tells no length.
    pub(crate) body: Range<usize>,
}

/// Reads one message. None when the other side closed the connection before it began one.
///
/// # Errors
/// When the connection breaks within a message, or its body comes in chunks.
pub(crate) async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<Message>> {
    buffer.clear();
    let body_at = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(buffer).await? == 0 {
            ensure!(buffer.is_empty(), "the connection was closed within a head");
            return Ok(None);
        }
    };
    let end = body_at + length(&buffer[..body_at])?;
    while buffer.len() < end {
        ensure!(stream.read_buf(buffer).await? > 0, "the connection was closed within a body");
    }
    Ok(Some(Message { head: 0..body_at, body: body_at..end }))
}

fn length(head: &[u8]) -> Result<usize> {
    let head = std::str::from_utf8(head)?.to_ascii_lowercase();
    ensure!(!head.contains("\r\ntransfer-encoding:"), "a body in chunks: {head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    length.map_or(Ok(0), |length| length.trim().parse().with_context(|| format!("no length: {length}")))
}
