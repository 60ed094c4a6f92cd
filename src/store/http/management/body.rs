//! Reading bodies.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::error::Category;

use crate::media_type::is_json;
use crate::store::http::error::ManagementError;

/// Most characters of a member's path, and of what is wrong with it, that an error has: both may have been sent.
const MAX_CHARACTERS: usize = 300;

/// The body of a request that has JSON, and the rest of it. The caller may send it: nobody else's body is read.
pub(super) async fn json_body(request: Request) -> Result<(Parts, Bytes), ManagementError> {
    let (parts, body) = request.into_parts();
    if !is_json(parts.headers.get_all(header::CONTENT_TYPE).iter().map(HeaderValue::as_bytes)) {
        let message = "The content-type must be application/json";
        return Err(ManagementError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
    }
    let body = Bytes::from_request(Request::from_parts(parts.clone(), body), &()).await?;
    Ok((parts, body))
}

/// What the JSON object in `body` says. An error names the member.
pub(super) fn json_object<T: DeserializeOwned>(body: &[u8]) -> Result<T, ManagementError> {
    let none =
        |reason: &str| ManagementError::invalid_body(shortened(&format!("The body is not a JSON object{reason}")));
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(none(""));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let object = serde_path_to_error::deserialize(&mut json).map_err(|error| match error.inner().classify() {
        Category::Data => of_member(error),
        // The parser says the same of what is not JSON and of JSON that an enumeration does not begin with.
        _ => match serde_json::from_slice(body).map(checked::<T>) {
            Ok(Err(of_value)) => of_value,
            _ => none(&format!(": {}", error.inner())),
        },
    })?;
    json.end().map_err(|error| none(&format!(": {error}")))?;
    Ok(object)
}

/// What `value` says. An error names the member.
pub(super) fn checked<T: DeserializeOwned>(value: Value) -> Result<T, ManagementError> {
    serde_path_to_error::deserialize(value).map_err(of_member)
}

/// What is wrong, without the text that is there: it may be a secret that came to a wrong place.
fn without_text(reason: String) -> String {
    match (reason.split_once("string \""), reason.rsplit_once("\", expected")) {
        (Some((before, _)), Some((_, after))) => format!("{before}string, expected{after}"),
        _ => reason,
    }
}

fn of_member(error: serde_path_to_error::Error<serde_json::Error>) -> ManagementError {
    let (member, reason) = (shortened(&error.path().to_string()), shortened(&without_text(error.inner().to_string())));
    // Of the object as a whole there is no name; the reason has that of a missing member.
    let is_whole = member == ".";
    ManagementError::invalid_body(if is_whole { reason } else { format!("{member}: {reason}") })
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Numbers {
        #[serde(default)]
        list: Vec<u32>,
        #[serde(default)]
        size: Size,
    }

    #[derive(Debug, Default, Deserialize)]
    enum Size {
        #[default]
        Small,
    }

    fn numbers(text: &str) -> Result<Numbers, String> {
        json_object(text.as_bytes()).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn a_body_that_is_no_object_is_told_so_and_a_bad_member_is_named() {
        assert_eq!(numbers(" {\"list\": [1, 2]}\n").unwrap().list, [1, 2]);
        for bad in ["", " ", "[]", "[[1]]", "null", "{", "{\"list\": [1", "{} {}", "{x", "{\"list\": [1,]}"] {
            assert!(numbers(bad).unwrap_err().contains("\"The body is not a JSON object"), "{bad}");
        }
        assert!(numbers("{\"list\": [1, -1]}").unwrap_err().contains("\"list[1]: invalid value"));
        for bad in ["null", "1", "true", "[]"] {
            assert!(numbers(&format!("{{\"size\": {bad}}}")).unwrap_err().contains("\"size: "), "{bad}");
        }
        assert!(matches!(numbers("{\"size\": \"Small\"}").unwrap().size, Size::Small));
    }

    #[test]
    fn an_error_has_a_part_of_what_was_sent_at_most() {
        let long = "ü".repeat(100_000);
        for bad in [
            format!("{{\"{long}\": 1}}"),
            format!("{{\"list\": [\"{long}\"]}}"),
            format!("{{\"list\": {{\"{long}\": 1}}}}"),
        ] {
            let error = numbers(&bad).unwrap_err();
            assert!(error.chars().count() < 1_000, "{}", error.len());
        }
    }
}
