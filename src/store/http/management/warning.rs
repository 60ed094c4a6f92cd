//! Warnings that go with an answer.

use axum::http::{HeaderValue, header};
use axum::response::Response;

/// Adds a `warning` header (RFC 7234 §5.5). The text is ASCII, without quotation marks.
pub(super) fn warn(response: &mut Response, text: &str) {
    if let Ok(value) = HeaderValue::try_from(format!("299 - \"{text}\"")) {
        response.headers_mut().append(header::WARNING, value);
    }
}
