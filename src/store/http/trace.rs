//! Which trace a request is a part of: every line of the log that is written for it says so.

use axum::http::{HeaderMap, header::HeaderName};
use tracing::Span;

use crate::edge_api::{REQUEST_ID_HEADER, is_harmless_id};
use crate::trace_context::{TRACEPARENT, TRACESTATE, TraceContext};

/// The store's part in the trace that a request says to be a part of; none of a request that says nothing, such as a
/// look for settings.
pub fn span(headers: &HeaderMap) -> Span {
    let one = |name: &'static str| headers.get(HeaderName::from_static(name)).map(|value| value.as_bytes());
    let Some(context) = one(TRACEPARENT).and_then(|parent| TraceContext::received(parent, one(TRACESTATE))) else {
        return Span::none();
    };
    let span_id = span_id();
    let request_id = one(REQUEST_ID_HEADER).filter(|id| is_harmless_id(id)).map(String::from_utf8_lossy);
    tracing::info_span!(
        "request",
        trace_id = context.trace_id(),
        parent_id = context.parent_id(),
        span_id,
        request_id = request_id.as_deref().map(tracing::field::display),
    )
}

/// A new id: 16 hexadecimal digits.
fn span_id() -> String {
    let mut id = [0; 8];
    // Without randomness the part loses its name, and nothing else.
    let _ = getrandom::fill(&mut id);
    hex::encode(id)
}
