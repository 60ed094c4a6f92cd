//! The parameters of a query.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use crate::store::http::error::ManagementError;

/// The names and values of a query, in its order.
pub struct Parameters(pub Vec<(String, String)>);

impl Parameters {
    /// Those in the query of `parts`.
    pub(super) fn of(parts: &Parts) -> Result<Self, ManagementError> {
        let Query(parameters) = Query::try_from_uri(&parts.uri)
            .map_err(|_| ManagementError::invalid_query("the query is not one of names and values"))?;
        Ok(Self(parameters))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ManagementError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ManagementError> {
        Self::of(parts)
    }
}
