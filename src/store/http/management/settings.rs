//! The tenant's settings.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::access::Access;
use super::body::{checked, json_body, json_object};
use super::fields::Fields;
use super::openapi;
use super::operation::{Answer, Operation, Schema};
use super::warning::warn;
use crate::store::clock::unix_millis;
use crate::store::db::{self, SETTINGS_CHANGED, default_permissions, settings_event, update_known_tenant};
use crate::store::http::App;
use crate::store::http::error::ManagementError;
use crate::tenant::{SecurityMode, Settings, Tenant};

/// The warning in an answer that switched registration on, and what follows it where something is missing.
const SWITCHED_ON: &str = "Anyone may create applications now.";
const WITHOUT_GRANT: &str = "They can reach no API until default permissions for third-party applications are defined: \
                             a client grant with default_for.";
/// The warning in an answer that chose the permissive mode.
const PERMISSIVE: &str = "New registrations get no third-party controls from now on: no PKCE is required of them, they may \
                          have more grant types, and no client grant limits what they reach. Clients registered now stay \
                          permissive when the mode is strict again.";
const WITHOUT_CONNECTION: &str =
    "Nobody can log in with them until a connection is promoted to domain level: is_domain_connection.";

const NOT_ELIGIBLE: &str = "dynamic_client_registration_security_mode: this tenant is not eligible for the permissive \
                            mode; whoever operates the gateway can mark it with dcr-store tenant update \
                            --permissive-eligible";

/// The warning in an answer that lets unused clients be deleted before any counts as used.
const NONE_IS_USED: &str = "All clients count as unused until an authorization server asks this store for them, and it \
                            has not asked for any yet.";

/// The members of `dcr_edge` that let unused clients be deleted.
const DELETING: [&str; 2] = ["client_quota", "unused_client_ttl"];

/// What can be done with the settings.
pub(super) fn operations() -> [Operation; 2] {
    const PATH: &str = "/api/v2/tenants/settings";
    let shown = Schema::of_output::<Settings>;
    let mut patch = Schema::of_change::<Settings>().named("SettingsPatch");
    for member in NESTED {
        patch.with_nulls(&format!("/properties/dcr_edge/properties/{member}"));
    }
    for pointer in ["/properties/flags", "/properties/dcr_edge", ""] {
        patch.with_nulls(pointer);
    }
    let example = json!({"flags": {"enable_dynamic_client_registration": true}, "dcr_edge": {"client_quota": null}});
    [
        Operation::new(Method::GET, PATH, "The tenant's settings", show)
            .scope("read:tenant_settings")
            .query(openapi::fields())
            .answers(StatusCode::OK, Answer::One(openapi::some_of(shown()))),
        Operation::new(Method::PATCH, PATH, "Changes settings; null brings a default back", change)
            .scope("update:tenant_settings")
            .body(patch, example)
            .answers(StatusCode::OK, Answer::One(shown()))
            .warns(),
    ]
}

/// `GET /api/v2/tenants/settings`
pub async fn show(access: Access, fields: Fields) -> Result<Json<Map<String, Value>>, ManagementError> {
    Ok(Json(fields.of(&access.stored.tenant.settings)?))
}

/// `PATCH /api/v2/tenants/settings`
pub async fn change(access: Access, State(app): State<App>, request: Request) -> Result<Response, ManagementError> {
    let (_, body) = json_body(request).await?;
    let patch: Map<String, Value> = json_object(&body)?;
    let changed = update_known_tenant(&*app.database, &access.stored, app.clock.now(), |tenant| {
        let after = Tenant { settings: merge(&tenant.settings, patch.clone())?, ..tenant };
        if mode(&after) == SecurityMode::Permissive && !after.permissive_eligible {
            return Err(ManagementError::new(StatusCode::FORBIDDEN, "not_eligible", NOT_ELIGIBLE));
        }
        Ok(after)
    })
    .await?
    .ok_or_else(ManagementError::tenant_deleted)?;

    let enabled = |tenant: &Tenant| tenant.settings.flags.enable_dynamic_client_registration;
    let switched_on = enabled(&changed.after) && !enabled(&changed.before);
    let mode_after = mode(&changed.after);
    let new_mode = Some(mode_after).filter(|after| *after != mode(&changed.before));
    let mut response = Json(changed.after.settings).into_response();
    if switched_on {
        let text = switched_on_warning(&app, access.stored.slot, mode_after).await;
        warn(&mut response, &text);
        let changed = json!({"flags": {"enable_dynamic_client_registration": true}});
        log_switch(&app, access.stored.slot, changed, Some(&text)).await;
    }
    if let Some(mode) = new_mode {
        let warning = (mode == SecurityMode::Permissive).then_some(PERMISSIVE);
        if let Some(text) = warning {
            warn(&mut response, text);
        }
        let changed = json!({"dynamic_client_registration_security_mode": mode});
        log_switch(&app, access.stored.slot, changed, warning).await;
    }
    let of_product = patch.get("dcr_edge");
    let sets = |name: &&str| of_product.and_then(|members| members.get(*name)).is_some_and(|value| !value.is_null());
    if DELETING.iter().any(sets) {
        match app.database.has_used_client(access.stored.slot).await {
            Ok(true) => {}
            Ok(false) => warn(&mut response, NONE_IS_USED),
            // The change is made, and that is what the answer must say.
            Err(error) => tracing::error!(%error, "deleting unused clients was set without a word on which those are"),
        }
    }
    Ok(response)
}

fn mode(tenant: &Tenant) -> SecurityMode {
    tenant.settings.dynamic_client_registration_security_mode
}

/// What follows now that registration is on.
async fn switched_on_warning(app: &App, slot: u32, mode: SecurityMode) -> String {
    let mut texts = vec![SWITCHED_ON];
    // Permissive clients need neither default grants nor connections for third parties.
    if mode == SecurityMode::Permissive {
        return texts.concat();
    }
    let _turn = app.permission_turn().await;
    match (default_permissions(&*app.database, slot).await, app.database.domain_connections(slot).await) {
        (Ok(permissions), Ok(connections)) => {
            texts.extend(permissions.is_empty().then_some(WITHOUT_GRANT));
            texts.extend(connections.is_empty().then_some(WITHOUT_CONNECTION));
        }
        // The change is made, and that is what the answer must say.
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "registration was switched on without a word on what third parties still lack");
        }
    }
    texts.join(" ")
}

/// Leaves the change in the tenant's log, with its warning, where whoever missed it finds it.
async fn log_switch(app: &App, slot: u32, changed: Value, warning: Option<&str>) {
    let mut details = changed;
    if let (Value::Object(details), Some(warning)) = (&mut details, warning) {
        details.insert("warning".to_owned(), warning.into());
    }
    let event = settings_event(&details);
    if let Err(error) = app.database.write_log_event(slot, SETTINGS_CHANGED, &event, unix_millis()).await {
        tracing::error!(%error, "the tenant's log does not say what was switched on");
    }
}

/// Members of `dcr_edge` whose own members replace one by one too: whoever says one path means to change no other.
const NESTED: [&str; 2] = ["paths", "parameters"];

/// Merges a patch: members of `flags`, of `dcr_edge` and of what is [`NESTED`] replace one by one, others as a whole, and
/// `null` brings a member's default back.
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
                    match (value, present.get_mut(&name)) {
                        (Value::Object(members), Some(Value::Object(present))) if NESTED.contains(&name.as_str()) => {
                            replace(present, members, default);
                        }
                        (value, _) => _ = present.insert(name, or_default(value, default)),
                    }
                }
            }
            (value, _) => {
                if let Value::Object(merged) = &mut merged {
                    merged.insert(name, or_default(value, default));
                }
            }
        }
    }
    checked(merged)
}

/// Replaces members one by one.
fn replace(present: &mut Map<String, Value>, members: Map<String, Value>, defaults: Option<&Value>) {
    for (name, value) in members {
        let default = defaults.and_then(|defaults| defaults.get(&name));
        present.insert(name, or_default(value, default));
    }
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
    fn whoever_says_one_path_changes_no_other() {
        let before = json!({"dcr_edge": {"paths": {"closed": ["/own/*"], "token": ["/t"]}, "parameters": {"audience": "resource"}}});
        let patch = json!({"dcr_edge": {
            "paths": {"authorization": ["/a"], "token": null}, "parameters": {"connection": "kc_idp_hint"}
        }});
        let after = merged(before.clone(), patch).unwrap();
        let paths = &after["dcr_edge"]["paths"];
        assert_eq!((&paths["closed"], &paths["authorization"]), (&json!(["/own/*"]), &json!(["/a"])));
        assert_eq!(paths["token"], json!(["/oauth/token"]));
        let words = &after["dcr_edge"]["parameters"];
        assert_eq!((&words["audience"], &words["connection"]), (&json!("resource"), &json!("kc_idp_hint")));
        let after = merged(before, json!({"dcr_edge": {"paths": null}})).unwrap();
        assert_eq!(
            after["dcr_edge"]["paths"]["closed"],
            serde_json::to_value(Settings::default()).unwrap()["dcr_edge"]["paths"]["closed"]
        );
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
