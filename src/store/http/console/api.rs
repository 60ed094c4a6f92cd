//! The Management API, as a session may use it: called within the process.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::Response;
use serde_json::Value;
use tower::ServiceExt;

use super::failure::Failure;
use super::session::{Notice, Session};
use crate::edge_api::is_client_id;

/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// The Management API.
#[derive(Clone)]
pub struct Api(Router);

/// What it answered to something that worked.
pub struct Answer {
    /// The body; `null` without one.
    pub body: Value,
    /// What follows from it.
    pub warnings: Vec<String>,
}

impl Answer {
    /// What the next page says of it.
    pub fn notice(self, done: impl Into<String>) -> Notice {
        Notice { done: done.into(), warnings: self.warnings }
    }
}

impl Api {
    /// The one that `router` answers for.
    pub fn new(router: Router) -> Self {
        Self(router)
    }

    /// Calls an operation with the session's token.
    pub async fn call(
        &self,
        session: &Session,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", session.token));
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        let request = request.body(body).map_err(|_| Failure::bad_request("The address has a character too many."))?;
        match self.0.clone().oneshot(request).await {
            Ok(response) => read(response).await,
            Err(never) => match never {},
        }
    }
}

/// What an answer of the Management API says.
pub async fn read(response: Response) -> Result<Answer, Failure> {
    let (parts, body) = response.into_parts();
    let unavailable = |_| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "The store cannot do this now; try again.");
    let body = to_bytes(body, MAX_ANSWER).await.map_err(unavailable)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if parts.status.is_success() {
        return Ok(Answer { body, warnings: warnings(&parts.headers) });
    }
    if parts.status == StatusCode::UNAUTHORIZED {
        return Err(Failure::signed_out());
    }
    let message = body.get("message").and_then(Value::as_str).unwrap_or("The store cannot do this now; try again.");
    Err(Failure::new(parts.status, without_place(message)))
}

/// A message without the place in a JSON text that nobody has seen.
fn without_place(message: &str) -> &str {
    match message.rsplit_once(" at line ") {
        Some((message, place))
            if place
                .split_once(" column ")
                .is_some_and(|(line, column)| [line, column].iter().all(|number| number.parse::<u64>().is_ok())) =>
        {
            message
        }
        _ => message,
    }
}

/// The texts of the `warning` headers (RFC 7234 §5.5).
fn warnings(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::WARNING).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    let text = |value: &str| value.split_once('"').map(|(_, text)| text.trim_end_matches('"').to_owned());
    values.filter_map(text).collect()
}

/// The id as a part of a path, if nothing in it has another meaning there. Those of an authorization server's clients are
/// the widest.
pub fn segment(id: &str) -> Result<&str, Failure> {
    if is_client_id(id) { Ok(id) } else { Err(Failure::not_found("There is nothing of this name.")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_loses_the_place_in_a_text_that_nobody_has_seen_and_nothing_else() {
        assert_eq!(without_place("a: expected b at line 1 column 135"), "a: expected b");
        for message in ["a: expected b", "look at line 7", "look at line 7 column x", " at line  column "] {
            assert_eq!(without_place(message), message);
        }
    }

    #[test]
    fn what_has_another_meaning_in_a_path_is_no_id() {
        for id in ["acl_Wq2dEr5TyU8iOp1aSd3fGh", "a.server~s-client"] {
            assert!(segment(id).is_ok(), "{id}");
        }
        for id in ["", "a/b", ".", "..", "a?b", "a#b", "a%2fb", "a b", "ä"] {
            assert!(segment(id).is_err(), "{id}");
        }
    }
}
