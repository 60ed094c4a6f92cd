//! Reading bodies.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::media_type::is_json;
use crate::store::http::error::ManagementError;

/// The JSON object that a request has for its body.
pub(super) fn json_object(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Map<String, Value>, ManagementError> {
    if !is_json(headers.get_all(header::CONTENT_TYPE).iter().map(HeaderValue::as_bytes)) {
        let message = "The content-type must be application/json";
        return Err(ManagementError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
    }
    serde_json::from_slice(&body?)
        .map_err(|error| ManagementError::invalid_body(format!("The body is not a JSON object: {error}")))
}

/// What `value` says. An error names the member.
pub(super) fn checked<T: DeserializeOwned>(value: Value) -> Result<T, ManagementError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let member = error.path().to_string();
        let reason = error.into_inner();
        // Of the object as a whole there is no name; the reason has that of a missing member.
        let is_whole = member == ".";
        ManagementError::invalid_body(if is_whole { reason.to_string() } else { format!("{member}: {reason}") })
    })
}
