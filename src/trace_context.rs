//! Trace context as the W3C has it (Trace Context, level 1): which trace a request is a part of. The edge passes on what
//! came with a request, or makes one up from the request's id; the store continues it in its log.

use sha2::{Digest, Sha256};

/// Header with the ids of the trace and of the caller's part in it.
pub const TRACEPARENT: &str = "traceparent";

/// Header with what vendors say about the trace.
pub const TRACESTATE: &str = "tracestate";

/// Longest `tracestate` that is passed on, in bytes: what the W3C wants at least (§3.3.1.5).
const MAX_TRACESTATE: usize = 512;

/// Which trace a request is a part of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TraceContext {
    traceparent: String,
    tracestate: Option<String>,
}

impl TraceContext {
    /// What the headers of a request say; `None` if they say nothing that has a meaning.
    pub fn received(traceparent: &[u8], tracestate: Option<&[u8]>) -> Option<Self> {
        let traceparent = std::str::from_utf8(traceparent).ok()?.trim();
        if !is_traceparent(traceparent) {
            return None;
        }
        let is_harmless = |state: &&str| {
            state.len() <= MAX_TRACESTATE && state.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
        };
        let tracestate = tracestate.and_then(|state| std::str::from_utf8(state).ok()).filter(is_harmless);
        Some(Self { traceparent: traceparent.to_owned(), tracestate: tracestate.map(str::to_owned) })
    }

    /// One for a request that is a part of none. The trace has the id of the request where that is a UUID, as Envoy's are,
    /// so that whoever knows one knows the other; it is not sampled.
    pub fn of_request(id: &str) -> Self {
        let hash = Sha256::digest(id);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let uuid: String = id.chars().filter(|character| *character != '-').collect::<String>().to_ascii_lowercase();
        let trace_id = if is_id(&uuid, 32) { uuid } else { hex(hash.get(..16).unwrap_or_default()) };
        let parent_id = hex(hash.get(16..24).unwrap_or_default());
        Self { traceparent: format!("00-{trace_id}-{parent_id}-00"), tracestate: None }
    }

    /// The headers that say it.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let tracestate = self.tracestate.as_deref().map(|state| (TRACESTATE, state));
        [(TRACEPARENT, self.traceparent.as_str())].into_iter().chain(tracestate)
    }

    /// The trace: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        self.part(1)
    }

    /// The caller's part in it: 16 hexadecimal digits.
    pub fn parent_id(&self) -> &str {
        self.part(2)
    }

    fn part(&self, place: usize) -> &str {
        self.traceparent.split('-').nth(place).unwrap_or_default()
    }
}

/// Whether it is `version-trace_id-parent_id-flags` (§3.2.2). What a later version has behind that is let pass.
fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let (Some(version), Some(trace), Some(parent), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let has_more = parts.next().is_some();
    is_hex(version, 2)
        && version != "ff"
        && !(version == "00" && has_more)
        && is_id(trace, 32)
        && is_id(parent, 16)
        && is_hex(flags, 2)
        && text.len() <= 128
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_id(text: &str, length: usize) -> bool {
    is_hex(text, length) && text.bytes().any(|byte| byte != b'0')
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_a_well_formed_context_is_taken_over() {
        let context = TraceContext::received(GOOD.as_bytes(), Some(b"congo=t61rcWkgMzE")).unwrap();
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.parent_id(), "00f067aa0ba902b7");
        assert_eq!(context.headers().collect::<Vec<_>>(), [(TRACEPARENT, GOOD), (TRACESTATE, "congo=t61rcWkgMzE")]);
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes";
        assert!(TraceContext::received(later.as_bytes(), None).is_some());
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-a b",
        ] {
            assert_eq!(TraceContext::received(bad.as_bytes(), None), None, "{bad}");
        }
        for bad in [&b"a=\n"[..], b"\xff", &[b'a'; 513]] {
            let context = TraceContext::received(GOOD.as_bytes(), Some(bad)).unwrap();
            assert_eq!(context.headers().count(), 1);
        }
    }

    #[test]
    fn a_request_without_a_context_gets_the_one_of_its_id() {
        let of_uuid = TraceContext::of_request("E562BA4D-98e4-43c8-96e6-c49b1e1bf67c");
        assert_eq!(of_uuid.trace_id(), "e562ba4d98e443c896e6c49b1e1bf67c");
        for id in ["e562ba4d-98e4-43c8-96e6-c49b1e1bf67c", "another id", "", "00000000-0000-0000-0000-000000000000"] {
            let context = TraceContext::of_request(id);
            let (_, traceparent) = context.headers().next().unwrap();
            assert_eq!(TraceContext::received(traceparent.as_bytes(), None), Some(context.clone()), "{id}");
            assert_eq!(TraceContext::of_request(id), context);
        }
    }
}
