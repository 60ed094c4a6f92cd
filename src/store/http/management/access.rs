//! Who may use the Management API.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::operation::Scopes;
use crate::edge_api::TENANT_HEADER;
use crate::store::db::StoredTenant;
use crate::store::http::error::ManagementError;
use crate::store::http::{App, bearer};
use crate::store::token::{Claims, Kind};
use crate::store::unix_now;

/// Whose Management API the request is for. Its token allows what the operation asks for.
pub struct Access {
    /// The tenant.
    pub stored: StoredTenant,
}

impl Access {
    /// What a token says, and the tenant whose Management API it opens.
    pub async fn of_token(app: &App, token: &str) -> Result<(Claims, StoredTenant), ManagementError> {
        let unauthorized = |reason: &str| ManagementError::unauthorized(reason);
        let claims = app.verifier.check(token, Kind::Management, unix_now()).await?;
        let no_tenant = || unauthorized("no tenant answers for the domain of the token's audience (aud)");
        let domain = claims.management_domain().ok_or_else(no_tenant)?;
        let stored = app.database.tenant_of_host(&domain).await?.ok_or_else(no_tenant)?;
        if !claims.opens(stored.slot) {
            return Err(unauthorized("the token is of a tenant that was deleted or lost its domain; get a new token"));
        }
        Ok((claims, stored))
    }
}

impl FromRequestParts<App> for Access {
    type Rejection = ManagementError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ManagementError> {
        let unauthorized = |reason: &str| ManagementError::unauthorized(reason);
        let token = bearer(&parts.headers)
            .ok_or_else(|| unauthorized("send one Management API token in the authorization header"))?;
        let (claims, stored) = Self::of_token(app, token).await?;
        // The edge names the tenant of the host that the request came to.
        let named = parts.headers.get_all(TENANT_HEADER).iter().all(|name| name == stored.tenant.name.as_str());
        if !named {
            return Err(unauthorized("the token's audience (aud) is another tenant's Management API"));
        }
        require(&claims, parts.extensions.get::<Scopes>())?;
        Ok(Self { stored })
    }
}

/// Refuses a token that allows none of the scopes; one of an operation that asks for none, too.
fn require(claims: &Claims, scopes: Option<&Scopes>) -> Result<(), ManagementError> {
    let scopes = scopes.map_or(&[][..], |Scopes(scopes)| scopes.as_slice());
    if scopes.iter().any(|scope| claims.allows(scope)) {
        return Ok(());
    }
    let message = format!("Insufficient scope, expected: {}", scopes.first().map_or("", String::as_str));
    Err(ManagementError::new(StatusCode::FORBIDDEN, "insufficient_scope", message))
}
