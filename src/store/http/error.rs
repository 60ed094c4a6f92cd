//! Errors as they leave the store. No statement of the database and no secret ever gets into one.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::edge_api::{ErrorBody, OUTCOME_HEADER, RateLimited};
use crate::store::admission::Refusal;
use crate::store::db;
use crate::store::token;
use crate::store::writer::NotRegistered;

const UNAVAILABLE: &str = "the store cannot do this at the moment; try again";

/// An error of the edge's interface (RFC 7591 §3.2.2), and of every path that is not the Management API's.
#[derive(Debug)]
pub struct EdgeError {
    status: StatusCode,
    error: &'static str,
    outcome: &'static str,
    description: String,
    /// Nanoseconds until the next token arrives, where one is what was missing.
    next_token_in: Option<u64>,
}

/// Why a request was refused, for the log. It goes with the response, inside of the process only.
#[derive(Clone, Copy)]
pub struct Reason {
    /// The error's code.
    pub error: &'static str,
    /// What became of the registration, or the code once more if it did not get that far.
    pub outcome: &'static str,
}

impl EdgeError {
    /// An error with its code and a sentence.
    pub fn new(status: StatusCode, error: &'static str, description: impl Into<String>) -> Self {
        Self { status, error, outcome: error, description: description.into(), next_token_in: None }
    }

    /// The request is not well-formed.
    pub fn bad_request(description: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    /// The store cannot do it now.
    pub fn unavailable(description: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", description)
    }
}

impl From<NotRegistered> for EdgeError {
    fn from(reason: NotRegistered) -> Self {
        let outcome = reason.outcome();
        let NotRegistered::Refused(refusal) = reason else {
            return Self { outcome, ..Self::unavailable(UNAVAILABLE) };
        };
        let (status, error) = match &refusal {
            Refusal::UnknownTenant => (StatusCode::NOT_FOUND, "not_found"),
            Refusal::Disabled | Refusal::QuotaUsedUp => (StatusCode::FORBIDDEN, "access_denied"),
            Refusal::Invalid(rejection) => (StatusCode::BAD_REQUEST, rejection.error.as_str()),
            Refusal::SecretMismatch => (StatusCode::BAD_REQUEST, "invalid_request"),
            // Nothing is wrong with it, and a moment later the edge checks the same request as the tenant wants it.
            Refusal::OtherMode | Refusal::OtherRegistrar => {
                (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable")
            }
            Refusal::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests"),
            Refusal::Conflict => (StatusCode::CONFLICT, "conflict"),
        };
        let next_token_in = match refusal {
            Refusal::RateLimited { next_token_in } => Some(next_token_in),
            _ => None,
        };
        Self { outcome, next_token_in, ..Self::new(status, error, refusal.to_string()) }
    }
}

impl From<db::Error> for EdgeError {
    fn from(error: db::Error) -> Self {
        tracing::error!(%error, "a request below /edge/ failed");
        Self::unavailable(UNAVAILABLE)
    }
}

impl From<token::Error> for EdgeError {
    fn from(error: token::Error) -> Self {
        match error {
            token::Error::Database(error) => error.into(),
            _ => Self::new(StatusCode::UNAUTHORIZED, "invalid_token", error.to_string()),
        }
    }
}

impl From<BytesRejection> for EdgeError {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(rejection.status(), "invalid_request", rejection.body_text())
    }
}

impl IntoResponse for EdgeError {
    fn into_response(self) -> Response {
        let (error, error_description) = (self.error.to_owned(), self.description);
        let mut response = match self.next_token_in {
            None => with_status(self.status, self.error, Json(ErrorBody { error, error_description })),
            Some(nanos) => {
                let next_token_in_ms = nanos.div_ceil(1_000_000);
                let retry_after = next_token_in_ms.div_ceil(1_000).max(1);
                let body = Json(RateLimited { error, error_description, next_token_in_ms });
                let mut response = with_status(self.status, self.error, body);
                response.headers_mut().insert(header::RETRY_AFTER, retry_after.into());
                response
            }
        };
        if self.outcome != self.error {
            response.headers_mut().insert(OUTCOME_HEADER, HeaderValue::from_static(self.outcome));
        }
        response.extensions_mut().insert(Reason { error: self.error, outcome: self.outcome });
        response
    }
}

/// An error of the Management API.
#[derive(Debug)]
pub struct ManagementError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

/// What every error of the Management API has.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagementErrorBody {
    status_code: u16,
    error: &'static str,
    message: String,
    error_code: &'static str,
}

impl ManagementError {
    /// An error with its code and a sentence.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The request's body breaks a rule.
    pub fn invalid_body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_body", message)
    }

    /// The request's query breaks a rule.
    pub fn invalid_query(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_query_string", message)
    }

    /// The tenant was deleted while the request was on its way.
    pub fn tenant_deleted() -> Self {
        Self::new(StatusCode::NOT_FOUND, "inexistent_tenant", "The tenant was deleted")
    }

    /// The token is not one for this tenant's Management API.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_token", message)
    }
}

impl From<db::Error> for ManagementError {
    fn from(error: db::Error) -> Self {
        match &error {
            db::Error::RedirectsToItself(_) => return Self::invalid_body(format!("rule.action.redirect_uri: {error}")),
            db::Error::TooManyAcls(_) => return Self::invalid_body(format!("rule: {error}")),
            db::Error::Duplicate(_) => return Self::new(StatusCode::CONFLICT, "resource_exists", error.to_string()),
            db::Error::TooManyDocuments(..)
            | db::Error::TooManyGrantsOfClient(_)
            | db::Error::TooManyDefaultGrants(_) => {
                return Self::new(StatusCode::FORBIDDEN, "too_many_entities", error.to_string());
            }
            db::Error::NoSuchScope(_) => return Self::invalid_body(format!("scope: {error}")),
            db::Error::SearchTooLong => return Self::invalid_query(error.to_string()),
            db::Error::NoSuchApi => {
                return Self::new(StatusCode::NOT_FOUND, "inexistent_resource_server", format!("audience: {error}"));
            }
            db::Error::NoSuchClient => {
                return Self::new(StatusCode::NOT_FOUND, "inexistent_client", format!("client_id: {error}"));
            }
            _ => {}
        }
        tracing::error!(%error, "a request of the Management API failed");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", UNAVAILABLE)
    }
}

impl From<token::Error> for ManagementError {
    fn from(error: token::Error) -> Self {
        match error {
            token::Error::Database(error) => error.into(),
            token::Error::NoIssuerKeys => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", error.to_string())
            }
            _ => Self::unauthorized(error.to_string()),
        }
    }
}

impl From<BytesRejection> for ManagementError {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(rejection.status(), "invalid_body", rejection.body_text())
    }
}

impl IntoResponse for ManagementError {
    fn into_response(self) -> Response {
        let body = ManagementErrorBody {
            status_code: self.status.as_u16(),
            error: self.status.canonical_reason().unwrap_or_default(),
            message: self.message,
            error_code: self.code,
        };
        with_status(self.status, self.code, Json(body))
    }
}

/// Adds the headers that a status and an error's code call for.
fn with_status(status: StatusCode, code: &str, body: impl IntoResponse) -> Response {
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    match status {
        // The caller's token is good; it is a client's secret that is not.
        StatusCode::UNAUTHORIZED if code == "invalid_client" => {}
        StatusCode::UNAUTHORIZED => _ = headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
        StatusCode::SERVICE_UNAVAILABLE => _ = headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1")),
        _ => {}
    }
    response
}
