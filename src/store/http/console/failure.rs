//! What went wrong, as a page.

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use maud::html;

use super::document;
use crate::store::db;
use crate::store::http::error::ManagementError;

/// Why there is no such page, or why nothing was changed.
#[derive(Debug)]
pub struct Failure {
    /// The answer's status.
    pub status: StatusCode,
    /// What is wrong, for the person who asked.
    pub message: String,
    /// Whether signing in again is what helps.
    signs_out: bool,
}

impl Failure {
    /// One with this status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), signs_out: false }
    }

    /// Nothing is there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// What was sent cannot be used.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Whether other input would have done.
    pub fn is_about_input(&self) -> bool {
        matches!(self.status, StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::NOT_FOUND)
    }

    /// Nobody is signed in, or no longer.
    pub fn signed_out() -> Self {
        Self { signs_out: true, ..Self::new(StatusCode::UNAUTHORIZED, "Sign in to see this page.") }
    }
}

impl From<ManagementError> for Failure {
    fn from(error: ManagementError) -> Self {
        match error.status() {
            StatusCode::UNAUTHORIZED => Self::signed_out(),
            status => Self::new(status, error.message()),
        }
    }
}

impl From<db::Error> for Failure {
    fn from(error: db::Error) -> Self {
        ManagementError::from(error).into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if self.signs_out {
            return (StatusCode::SEE_OTHER, [(header::LOCATION, "/console/sign-in")]).into_response();
        }
        let title = match self.status {
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::FORBIDDEN => "Not allowed",
            StatusCode::SERVICE_UNAVAILABLE => "Not possible at the moment",
            _ => "This did not work",
        };
        let content = html! {
            h1 { (title) }
            p role="alert" { (self.message) }
            p { a href="/console/" { "Back to the overview" } }
        };
        (self.status, Html(document::bare(title, &content).into_string())).into_response()
    }
}
