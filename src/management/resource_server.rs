//! APIs: what the hosted product calls resource servers.

use serde::{Deserialize, Deserializer, Serialize};

#[cfg(not(target_arch = "wasm32"))]
use super::{MAX_SCOPE, MAX_TEXT, SCOPE_PATTERN, TEXT_PATTERN};
use super::{MAX_SCOPES, SubjectType, changed_text, is_scope, present, some_text, text};
use crate::tenant::Domain;

/// An API whose tokens clients may ask for.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ResourceServer {
    /// What names it in `audience` and `resource`, and in grants. It never changes.
    #[serde(deserialize_with = "text")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = MAX_TEXT), regex(pattern = TEXT_PATTERN)))]
    pub identifier: String,
    /// What people call it; the identifier if nobody says.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(with = "String", length(min = 1, max = MAX_TEXT), regex(pattern = TEXT_PATTERN)))]
    pub name: Option<String>,
    /// What may be done with it.
    #[serde(default, deserialize_with = "scopes")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(max = MAX_SCOPES)))]
    pub scopes: Vec<Scope>,
    /// Whether refresh tokens are issued for it.
    #[serde(default)]
    pub allow_offline_access: bool,
    /// Who may have a token for it without a grant.
    #[serde(default)]
    pub subject_type_authorization: SubjectTypeAuthorization,
}

/// Something that may be done with an API.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// The scope (RFC 6749 §3.3).
    #[serde(deserialize_with = "scope")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(max = MAX_SCOPE), regex(pattern = SCOPE_PATTERN)))]
    pub value: String,
    /// What it allows, for the page of consent.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(with = "String", length(min = 1, max = MAX_TEXT), regex(pattern = TEXT_PATTERN)))]
    pub description: Option<String>,
}

/// Who may have a token for an API without a grant. Third-party clients always need one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SubjectTypeAuthorization {
    /// On behalf of a user.
    pub user: UserAuthorization,
    /// On a client's own behalf.
    pub client: ClientAuthorization,
}

/// Tokens on behalf of a user.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct UserAuthorization {
    /// The policy.
    pub policy: UserPolicy,
}

/// Tokens on a client's own behalf.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ClientAuthorization {
    /// The policy.
    pub policy: ClientPolicy,
}

/// Which clients may have tokens on behalf of users.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UserPolicy {
    /// Every first-party client.
    #[default]
    AllowAll,
    /// None, not even with a grant.
    DenyAll,
    /// Those with a grant.
    RequireClientGrant,
}

/// Which clients may have tokens on their own behalf.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ClientPolicy {
    /// None, not even with a grant.
    DenyAll,
    /// Those with a grant.
    #[default]
    RequireClientGrant,
}

impl SubjectTypeAuthorization {
    /// Whether clients with a grant may have tokens on this behalf.
    pub fn allows_grants(&self, subject_type: SubjectType) -> bool {
        match subject_type {
            SubjectType::User => self.user.policy != UserPolicy::DenyAll,
            SubjectType::Client => self.client.policy != ClientPolicy::DenyAll,
        }
    }
}

/// The domain of the tenant whose Management API has this identifier: the audience of its tokens.
pub fn management_domain(identifier: &str) -> Option<Domain> {
    identifier.strip_prefix("https://")?.strip_suffix("/api/v2/")?.parse().ok()
}

/// Whether an identifier is that of a tenant's Management API, however many slashes it ends with: a system API, which
/// is nobody's to grant.
pub fn is_system_api(identifier: &str) -> bool {
    management_domain(&format!("{}/", identifier.trim_end_matches('/'))).is_some()
}

/// A change of an API: each member that is there replaces the one that was; `null` takes the name away.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ResourceServerPatch {
    /// What people call it; `null`: the identifier.
    #[serde(deserialize_with = "changed_text")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(with = "Option<String>", length(min = 1, max = MAX_TEXT), regex(pattern = TEXT_PATTERN)))]
    pub name: Option<Option<String>>,
    /// What may be done with it: all scopes, those that it had already too.
    #[serde(deserialize_with = "some_scopes")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(with = "Vec<Scope>", length(max = MAX_SCOPES)))]
    pub scopes: Option<Vec<Scope>>,
    /// Whether refresh tokens are issued for it.
    #[serde(deserialize_with = "present")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(with = "bool"))]
    pub allow_offline_access: Option<bool>,
    /// Who may have a token for it without a grant. It is replaced as a whole.
    #[serde(deserialize_with = "present")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(with = "SubjectTypeAuthorization"))]
    pub subject_type_authorization: Option<SubjectTypeAuthorization>,
}

impl ResourceServerPatch {
    /// The API after the change.
    pub fn apply(self, before: ResourceServer) -> ResourceServer {
        let Self { name, scopes, allow_offline_access, subject_type_authorization } = self;
        ResourceServer {
            identifier: before.identifier,
            name: name.unwrap_or(before.name),
            scopes: scopes.unwrap_or(before.scopes),
            allow_offline_access: allow_offline_access.unwrap_or(before.allow_offline_access),
            subject_type_authorization: subject_type_authorization.unwrap_or(before.subject_type_authorization),
        }
    }
}

fn scope<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let scope = String::deserialize(deserializer)?;
    if is_scope(&scope) {
        Ok(scope)
    } else {
        Err(serde::de::Error::custom("expected a scope: printable ASCII without blanks, quotes and backslashes"))
    }
}

fn scopes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Scope>, D::Error> {
    let scopes: Vec<Scope> = Vec::deserialize(deserializer)?;
    if scopes.len() > MAX_SCOPES {
        return Err(serde::de::Error::custom(format_args!("expected at most {MAX_SCOPES} scopes")));
    }
    let mut values: Vec<&str> = scopes.iter().map(|scope| scope.value.as_str()).collect();
    values.sort_unstable();
    match values.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(pair) => {
            let twice = pair.first().copied().unwrap_or_default();
            Err(serde::de::Error::custom(format_args!("the scope {twice} stands there twice")))
        }
        None => Ok(scopes),
    }
}

fn some_scopes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Scope>>, D::Error> {
    scopes(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn api(value: Value) -> Result<ResourceServer, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn an_api_needs_an_identifier_only_and_asks_third_parties_for_grants() {
        let api = api(json!({"identifier": "https://api.example"})).unwrap();
        assert_eq!((api.name.as_deref(), api.scopes.len(), api.allow_offline_access), (None, 0, false));
        let policies = json!({"user": {"policy": "allow_all"}, "client": {"policy": "require_client_grant"}});
        assert_eq!(serde_json::to_value(api.subject_type_authorization).unwrap(), policies);
    }

    #[test]
    fn bad_input_is_refused() {
        for (value, says) in [
            (json!({}), "missing field `identifier`"),
            (json!({"identifier": ""}), "expected 1 to 1000 characters"),
            (json!({"identifier": "a\nb"}), "without control characters"),
            (json!({"identifier": "a", "token_lifetime": 1}), "unknown field `token_lifetime`"),
            (json!({"identifier": "a", "scopes": [{"value": "a b"}]}), "expected a scope"),
            (json!({"identifier": "a", "scopes": [{"value": "a"}, {"value": "a"}]}), "the scope a stands there twice"),
            (json!({"identifier": "a", "scopes": [{"value": "a", "x": 1}]}), "unknown field `x`"),
            (
                json!({"identifier": "a", "subject_type_authorization": {"user": {"policy": "some"}}}),
                "unknown variant `some`",
            ),
            (json!({"identifier": "a", "name": null}), "invalid type: null"),
        ] {
            let error = api(value.clone()).unwrap_err();
            assert!(error.contains(says), "{value}: {error}");
        }
        let many: Vec<_> = (0..=MAX_SCOPES).map(|n| json!({"value": n.to_string()})).collect();
        assert!(api(json!({"identifier": "a", "scopes": many})).unwrap_err().contains("at most 1000 scopes"));
    }

    #[test]
    fn a_change_replaces_the_members_that_it_names_and_never_the_identifier() {
        let before = api(json!({"identifier": "a", "name": "n", "scopes": [{"value": "r"}]})).unwrap();
        let patch: ResourceServerPatch =
            serde_json::from_value(json!({"scopes": [], "allow_offline_access": true})).unwrap();
        let after = patch.apply(before.clone());
        assert_eq!(after, ResourceServer { scopes: vec![], allow_offline_access: true, ..before.clone() });
        let nameless: ResourceServerPatch = serde_json::from_value(json!({"name": null})).unwrap();
        assert_eq!(nameless.apply(before.clone()), ResourceServer { name: None, ..before });
        assert!(serde_json::from_value::<ResourceServerPatch>(json!({"identifier": "b"})).is_err());
    }
}
