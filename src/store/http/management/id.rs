//! The id in a path.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::store::http::error::ManagementError;

/// The id in a path, if it is text.
pub struct Id(Option<String>);

impl Id {
    /// The id; the error `unknown` for one that is no text, which is nobody's.
    pub fn or(self, unknown: impl FnOnce() -> ManagementError) -> Result<String, ManagementError> {
        self.0.ok_or_else(unknown)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(Self(Path::from_request_parts(parts, state).await.ok().map(|Path(id)| id)))
    }
}
