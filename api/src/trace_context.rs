//! The place of a request in a distributed trace, as the W3C recommendation Trace Context, level 1, has it.

use std::fmt;

use axum::http::HeaderMap;
use rand::Rng;
use tokio::task::futures::TaskLocalFuture;

/// The header's name.
pub const HEADER: &str = "traceparent";

tokio::task_local! {
    static TRACE: TraceContext;
}

/// A trace and the span that is the parent of what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace, never zero.
    pub trace_id: u128,
    /// The parent span, never zero.
    pub span_id: u64,
    /// Whether the caller records the trace.
    pub sampled: bool,
}

impl TraceContext {
    /// A new trace, begun here.
    pub fn new_root() -> Self {
        let mut random = rand::rng();
        Self { trace_id: random.random::<u128>() | 1, span_id: random.random::<u64>() | 1, sampled: false }
    }

    /// The same trace with a new span, for a call or message that goes out.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: rand::rng().random::<u64>() | 1, ..self }
    }

    /// Reads `traceparent`; a malformed one is as good as none.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(HEADER)?.to_str().ok()?)
    }

    /// Reads `<version>-<trace id>-<parent id>-<flags>` in lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace_id, span_id, flags) = (
            hexadecimal(parts.next()?, 2)?,
            hexadecimal(parts.next()?, 32)?,
            hexadecimal(parts.next()?, 16)?,
            { hexadecimal(parts.next()?, 2)? },
        );
        // Later versions may have more parts, and 255 is none.
        let more = parts.next().is_some();
        if version == 255 || (version == 0 && more) || trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self { trace_id, span_id: u64::try_from(span_id).ok()?, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == digits && text.bytes().all(lower)).then(|| u128::from_str_radix(text, 16).ok())?
}

/// The trace of the request that this task serves.
pub fn current() -> Option<TraceContext> {
    TRACE.try_with(|trace| *trace).ok()
}

/// Runs a future as part of a trace.
pub fn scope<F: Future>(trace: TraceContext, future: F) -> TaskLocalFuture<TraceContext, F> {
    TRACE.scope(trace, future)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_recommendation_is_read_and_written() {
        let trace = TraceContext::parse(EXAMPLE).expect("the example is right");
        assert!(trace.sampled);
        assert_eq!(trace.to_string(), EXAMPLE);
        assert_eq!(trace.child().trace_id, trace.trace_id);
    }

    #[test]
    fn malformed_parents_are_ignored() {
        for text in [
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }
}
