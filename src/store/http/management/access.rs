//! Who may use the Management API.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

use crate::edge_api::TENANT_HEADER;
use crate::store::db::StoredTenant;
use crate::store::http::error::ManagementError;
use crate::store::http::{App, bearer};
use crate::store::token::{Claims, Kind};
use crate::store::unix_now;

/// Whose Management API the request is for, and what its token allows there.
pub struct Access {
    /// The tenant.
    pub stored: StoredTenant,
    claims: Claims,
}

impl Access {
    /// Refuses a token that does not allow `scope`.
    pub fn require(&self, scope: &str) -> Result<(), ManagementError> {
        if self.claims.allows(scope) {
            Ok(())
        } else {
            let message = format!("Insufficient scope, expected: {scope}");
            Err(ManagementError::new(StatusCode::FORBIDDEN, "insufficient_scope", message))
        }
    }
}

impl FromRequestParts<App> for Access {
    type Rejection = ManagementError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ManagementError> {
        let unauthorized = |reason: &str| ManagementError::unauthorized(reason);
        let token = bearer(&parts.headers)
            .ok_or_else(|| unauthorized("send one Management API token in the authorization header"))?;
        let claims = app.verifier.check(token, Kind::Management, unix_now()).await?;
        let no_tenant = || unauthorized("no tenant answers for the domain of the token's audience (aud)");
        let domain = claims.management_domain().ok_or_else(no_tenant)?;
        let stored = app.database.tenant_of_host(&domain).await?.ok_or_else(no_tenant)?;
        if !claims.opens(stored.slot) {
            return Err(unauthorized("the token is of a tenant that was deleted or lost its domain; get a new token"));
        }
        // The edge names the tenant of the host that the request came to.
        let named = parts.headers.get_all(TENANT_HEADER).iter().all(|name| name == stored.tenant.name.as_str());
        if named {
            Ok(Self { stored, claims })
        } else {
            Err(unauthorized("the token's audience (aud) is another tenant's Management API"))
        }
    }
}
