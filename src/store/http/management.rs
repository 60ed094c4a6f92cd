//! The Management API: what a tenant's owner sees and changes.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use super::App;
use super::error::ManagementError;
use crate::edge_api::TENANT_HEADER;
use crate::media_type::is_json;
use crate::store::db::{self, StoredTenant, update_tenant};
use crate::store::token::{Claims, Kind};
use crate::store::unix_now;
use crate::tenant::{Settings, Tenant};

/// `warning` header (RFC 7234 §5.5) of an answer that switched registration on.
const SWITCHED_ON: &str = "299 - \"Anyone may create applications now. They can reach no API until default \
                           permissions for third-party applications are defined.\"";

/// Whose Management API the request is for, and what its token allows there.
pub struct Access {
    tenant: Tenant,
    claims: Claims,
}

impl Access {
    fn require(&self, scope: &str) -> Result<(), ManagementError> {
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
        let token = super::bearer(&parts.headers)
            .ok_or_else(|| unauthorized("send one Management API token in the authorization header"))?;
        let claims =
            app.keys.check(token, Kind::Management, unix_now()).map_err(|error| unauthorized(&error.to_string()))?;
        let other = || unauthorized("the token's audience is not this tenant's Management API");
        let domain = claims.management_domain().ok_or_else(other)?;
        let StoredTenant { slot, tenant, .. } = app.database.tenant_of_host(&domain).await?.ok_or_else(other)?;
        if claims.slot != Some(slot) {
            return Err(other());
        }
        // The edge names the tenant of the host that the request came to.
        let named = parts.headers.get_all(TENANT_HEADER).iter().all(|name| name == tenant.name.as_str());
        if named { Ok(Self { tenant, claims }) } else { Err(other()) }
    }
}

/// `GET /api/v2/tenants/settings`
pub async fn settings(access: Access) -> Result<Json<Settings>, ManagementError> {
    access.require("read:tenant_settings")?;
    Ok(Json(access.tenant.settings))
}

/// `PATCH /api/v2/tenants/settings`
pub async fn change_settings(
    access: Access,
    State(app): State<App>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ManagementError> {
    access.require("update:tenant_settings")?;
    if !is_json(headers.get_all(header::CONTENT_TYPE).iter().map(HeaderValue::as_bytes)) {
        let message = "The content-type must be application/json";
        return Err(ManagementError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
    }
    let patch: Map<String, Value> = serde_json::from_slice(&body?)
        .map_err(|error| ManagementError::invalid_body(format!("The body is not a JSON object: {error}")))?;
    if patch.get("dynamic_client_registration_security_mode").is_some_and(|mode| mode == "permissive") {
        let message = "dynamic_client_registration_security_mode: this tenant is not eligible for the permissive mode; \
                       only strict is available";
        return Err(ManagementError::new(StatusCode::FORBIDDEN, "not_eligible", message));
    }
    let changed = update_tenant(&*app.database, &access.tenant.name, |tenant| {
        Ok::<_, ManagementError>(Tenant { settings: merge(&tenant.settings, patch.clone())?, ..tenant })
    })
    .await?
    .ok_or_else(|| ManagementError::new(StatusCode::NOT_FOUND, "inexistent_tenant", "The tenant was deleted"))?;

    let enabled = |tenant: &Tenant| tenant.settings.flags.enable_dynamic_client_registration;
    let switched_on = enabled(&changed.after) && !enabled(&changed.before);
    let mut response = Json(changed.after.settings).into_response();
    if switched_on {
        response.headers_mut().insert(header::WARNING, HeaderValue::from_static(SWITCHED_ON));
    }
    Ok(response)
}

/// Merges a patch: members of `flags` and of `dcr_edge` replace one by one, others as a whole, and `null` brings a
/// member's default back.
fn merge(settings: &Settings, patch: Map<String, Value>) -> Result<Settings, ManagementError> {
    let unwritable = |_| db::Error::Failed("settings cannot be written as JSON".to_owned());
    let mut merged = serde_json::to_value(settings).map_err(unwritable)?;
    let defaults = serde_json::to_value(Settings::default()).map_err(unwritable)?;
    for (name, value) in patch {
        let default = defaults.get(&name);
        match (value, merged.get_mut(&name)) {
            (Value::Object(members), Some(Value::Object(present))) => {
                for (name, value) in members {
                    let default = default.and_then(|default| default.get(&name));
                    present.insert(name, or_default(value, default));
                }
            }
            (value, _) => {
                if let Value::Object(merged) = &mut merged {
                    merged.insert(name, or_default(value, default));
                }
            }
        }
    }
    serde_path_to_error::deserialize(merged).map_err(|error| {
        let member = error.path().to_string();
        ManagementError::invalid_body(format!("{member}: {}", error.into_inner()))
    })
}

/// A `null` without a default stays: it is the way to say that an optional member is absent, and an error elsewhere.
fn or_default(value: Value, default: Option<&Value>) -> Value {
    match (value, default) {
        (Value::Null, Some(default)) => default.clone(),
        (value, _) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(settings: Value, patch: Value) -> Result<Value, String> {
        let settings = serde_json::from_value(settings).unwrap();
        let Value::Object(patch) = patch else { panic!("a patch is an object") };
        merge(&settings, patch)
            .map(|settings| serde_json::to_value(settings).unwrap())
            .map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn members_replace_one_by_one_and_null_brings_the_default_back() {
        let before = json!({
            "flags": {"enable_dynamic_client_registration": true},
            "dcr_edge": {"client_quota": 7, "rate_limit": {"burst": 1, "per_second": 2}, "cors_origins": ["https://a.example"]}
        });
        let after = merged(before.clone(), json!({"dcr_edge": {"client_quota": null, "rate_limit": null}})).unwrap();
        assert_eq!(after["dcr_edge"].get("client_quota"), None);
        assert_eq!(after["dcr_edge"]["rate_limit"], json!({"burst": 5, "per_second": 5}));
        assert_eq!(after["dcr_edge"]["cors_origins"], json!(["https://a.example"]));
        assert_eq!(after["flags"]["enable_dynamic_client_registration"], true);

        let after = merged(before, json!({"dcr_edge": null, "flags": null})).unwrap();
        assert_eq!(after, serde_json::to_value(Settings::default()).unwrap());
    }

    #[test]
    fn a_patch_that_breaks_a_rule_is_refused_and_the_member_named() {
        for (patch, member) in [
            (json!({"typo": 1}), "typo"),
            (json!({"typo": null}), "typo"),
            (json!({"flags": {"typo": null}}), "flags.typo"),
            (json!({"flags": 1}), "flags"),
            (json!({"dcr_edge": {"rate_limit": {"burst": 1}}}), "dcr_edge.rate_limit"),
            (json!({"dcr_edge": {"client_quota": 0}}), "dcr_edge.client_quota"),
            (json!({"dynamic_client_registration_security_mode": "lax"}), "dynamic_client_registration_security_mode"),
        ] {
            let error = merged(json!({}), patch).unwrap_err();
            assert!(error.contains(&format!("\"{member}: ")), "{error}");
        }
    }
}
