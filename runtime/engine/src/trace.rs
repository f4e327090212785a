//! W3C trace context: which request, and which part of it, a message belongs to.
//!
//! Never draws ids itself: entropy is handed in. Used by every message, run and outgoing call.
//! Source: W3C Trace Context, level 1.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Trace id, parent span id and flags of one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TraceContext {
    /// Identity of the whole trace; never zero.
    pub trace_id: u128,
    /// Identity of the span that caused this; never zero.
    pub span_id: u64,
    /// Whether the caller records the trace.
    pub sampled: bool,
}

impl TraceContext {
    /// Starts a trace from entropy; zero ids, which the standard forbids, become one.
    #[must_use]
    pub fn start(trace_entropy: u128, span_entropy: u64) -> Self {
        Self { trace_id: trace_entropy.max(1), span_id: span_entropy.max(1), sampled: false }
    }

    /// The same trace seen from a new span.
    #[must_use]
    pub fn child(self, span_entropy: u64) -> Self {
        Self { span_id: span_entropy.max(1), ..self }
    }

    /// Reads a `traceparent` header. Anything that the standard calls invalid gives none, and a new trace starts.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let bytes = header.as_bytes();
        let lower_hex = |s: &str| s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if bytes.len() < 55 || !header.is_char_boundary(55) {
            return None;
        }
        let mut parts = header[..55].split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let shaped = (version.len(), trace.len(), span.len(), flags.len()) == (2, 32, 16, 2)
            && [version, trace, span, flags].into_iter().all(lower_hex);
        let longer_allowed = version != "00" && bytes.get(55) == Some(&b'-');
        if !shaped || version == "ff" || (bytes.len() > 55 && !longer_allowed) {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|&id| id != 0)?;
        let span_id = u64::from_str_radix(span, 16).ok().filter(|&id| id != 0)?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Self { trace_id, span_id, sampled })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_by_the_standard() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(TraceContext::parse(good).unwrap().to_string(), good);
        assert!(TraceContext::parse(&format!("01{}-extra", &good[2..])).is_some());
        for bad in [
            "",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333é-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }
}
