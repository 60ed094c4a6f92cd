//! Client grants: which client may have tokens for which API, with which scopes.

use std::collections::HashSet;

use serde::{Deserialize, Deserializer, Serialize};

use super::{MAX_SCOPES, ResourceServer, is_scope, is_system_api, present, text};

/// What a client, or every third-party client without a grant of its own, may ask of an API.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(try_from = "Raw", into = "Raw")]
pub struct ClientGrant {
    /// For whom.
    pub whose: Whose,
    /// The identifier of the API.
    pub audience: String,
    /// The most scopes that a token may have; ignored if all are allowed.
    pub scope: Vec<String>,
    /// Whose behalf the tokens are on.
    pub subject_type: SubjectType,
    /// Whether every scope of the API is allowed, also one that it gets later.
    pub allow_all_scopes: bool,
}

/// For whom a grant is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Whose {
    /// This client.
    Client(String),
    /// Every third-party client that has no grant of its own for the API.
    ThirdPartyClients,
}

/// Whose behalf tokens are on.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SubjectType {
    /// The client's own.
    #[default]
    Client,
    /// A user's.
    User,
}

impl SubjectType {
    /// Its name, as serde has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::User => "user",
        }
    }
}

/// The members as they are written.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    default_for: Option<DefaultFor>,
    #[serde(deserialize_with = "text")]
    audience: String,
    #[serde(default, deserialize_with = "scope")]
    scope: Vec<String>,
    #[serde(default)]
    subject_type: SubjectType,
    #[serde(default)]
    allow_all_scopes: bool,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum DefaultFor {
    ThirdPartyClients,
}

impl TryFrom<Raw> for ClientGrant {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let Raw { client_id, default_for, audience, scope, subject_type, allow_all_scopes } = raw;
        let whose = match (client_id, default_for) {
            (Some(client_id), None) => Whose::Client(client_id),
            (None, Some(DefaultFor::ThirdPartyClients)) => Whose::ThirdPartyClients,
            _ => return Err("expected one of client_id and default_for".to_owned()),
        };
        if whose == Whose::ThirdPartyClients && subject_type == SubjectType::Client {
            return Err("subject_type: third-party clients act for users only: expected user".to_owned());
        }
        let grant = Self { whose, audience, scope, subject_type, allow_all_scopes };
        grant.check_scopes()?;
        Ok(grant)
    }
}

impl From<ClientGrant> for Raw {
    fn from(grant: ClientGrant) -> Self {
        let ClientGrant { whose, audience, scope, subject_type, allow_all_scopes } = grant;
        let (client_id, default_for) = match whose {
            Whose::Client(client_id) => (Some(client_id), None),
            Whose::ThirdPartyClients => (None, Some(DefaultFor::ThirdPartyClients)),
        };
        Self { client_id, default_for, audience, scope, subject_type, allow_all_scopes }
    }
}

impl ClientGrant {
    fn check_scopes(&self) -> Result<(), String> {
        if self.allow_all_scopes && !self.scope.is_empty() {
            return Err("scope: with allow_all_scopes no scope is named".to_owned());
        }
        Ok(())
    }
}

/// What a client may ask of an API at this moment.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
pub struct Permission {
    /// The identifier of the API.
    pub audience: String,
    /// Whose behalf the tokens are on.
    pub subject_type: SubjectType,
    /// The most scopes that a token may have, in the order of the grant, or in that of the API if all are allowed.
    pub scope: Vec<String>,
    /// Which kind of grant allows it.
    pub source: PermissionSource,
}

/// Which kind of grant a permission is from.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PermissionSource {
    /// The client's own.
    ClientGrant,
    /// The default for third-party clients.
    Default,
}

/// What a third-party client may do, by its own grants and the defaults, each with its API.
///
/// For one API and subject type the client's own grant wins, even if it allows less. A grant allows nothing where the
/// API is a system API or its policy denies all, and if the API has none of the scopes that it names.
pub fn effective_permissions(grants: Vec<(ClientGrant, ResourceServer)>) -> Vec<Permission> {
    let is_own = |grant: &ClientGrant| matches!(grant.whose, Whose::Client(_));
    let own = grants.iter().filter(|(grant, _)| is_own(grant));
    let own: HashSet<_> = own.map(|(grant, _)| (grant.audience.clone(), grant.subject_type)).collect();
    let permission = |(grant, api): (ClientGrant, ResourceServer)| {
        let is_own = is_own(&grant);
        let ClientGrant { audience, scope, subject_type, allow_all_scopes, .. } = grant;
        if is_system_api(&audience) || !api.subject_type_authorization.allows_grants(subject_type) {
            return None;
        }
        let of_api = api.scopes.into_iter().map(|scope| scope.value);
        let scope: Vec<String> = if allow_all_scopes {
            of_api.collect()
        } else {
            let of_api: HashSet<String> = of_api.collect();
            scope.into_iter().filter(|scope| of_api.contains(scope)).collect()
        };
        let source = if is_own { PermissionSource::ClientGrant } else { PermissionSource::Default };
        let wins = is_own || !own.contains(&(audience.clone(), subject_type));
        // All scopes of an API that has none yet are an access all the same.
        let allows = allow_all_scopes || !scope.is_empty();
        (wins && allows).then_some(Permission { audience, subject_type, scope, source })
    };
    grants.into_iter().filter_map(permission).collect()
}

/// A change of a grant: each member that is there replaces the one that was. `null` stands for none.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ClientGrantPatch {
    /// See [`ClientGrant::scope`].
    #[serde(deserialize_with = "some_scope")]
    pub scope: Option<Vec<String>>,
    /// See [`ClientGrant::allow_all_scopes`].
    #[serde(deserialize_with = "some_flag")]
    pub allow_all_scopes: Option<bool>,
}

impl ClientGrantPatch {
    /// The grant after the change.
    ///
    /// # Errors
    /// It would name scopes and allow all of them; says so.
    pub fn apply(self, before: ClientGrant) -> Result<ClientGrant, String> {
        let Self { scope, allow_all_scopes } = self;
        // Whoever says one of the two means it: the other gives way.
        let after = match (scope, allow_all_scopes) {
            (None, Some(true)) => ClientGrant { scope: Vec::new(), allow_all_scopes: true, ..before },
            (Some(scope), None) if !scope.is_empty() => ClientGrant { scope, allow_all_scopes: false, ..before },
            (scope, all) => ClientGrant {
                scope: scope.unwrap_or_else(|| before.scope.clone()),
                allow_all_scopes: all.unwrap_or(before.allow_all_scopes),
                ..before
            },
        };
        after.check_scopes()?;
        Ok(after)
    }
}

fn scope<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let mut scopes: Vec<String> = Vec::deserialize(deserializer)?;
    let error = serde::de::Error::custom;
    if scopes.len() > MAX_SCOPES {
        return Err(error(format_args!("expected at most {MAX_SCOPES} scopes")));
    }
    if let Some(place) = scopes.iter().position(|scope| !is_scope(scope)) {
        return Err(error(format_args!("entry {place}: expected a scope without blanks, quotes and backslashes")));
    }
    let mut seen = HashSet::new();
    scopes.retain(|scope| seen.insert(scope.clone()));
    Ok(scopes)
}

fn some_scope<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    struct List(#[serde(deserialize_with = "scope")] Vec<String>);
    let list: Option<List> = Option::deserialize(deserializer)?;
    Ok(Some(list.map(|List(scope)| scope).unwrap_or_default()))
}

fn some_flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    Option::<bool>::deserialize(deserializer).map(|flag| Some(flag.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn grant(value: Value) -> Result<ClientGrant, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    fn patched(before: Value, patch: Value) -> Result<Value, String> {
        let patch: ClientGrantPatch = serde_json::from_value(patch).map_err(|error| error.to_string())?;
        Ok(serde_json::to_value(patch.apply(grant(before).unwrap())?).unwrap())
    }

    #[test]
    fn a_grant_is_for_one_client_or_for_all_third_parties() {
        let own = grant(json!({"client_id": "c", "audience": "a", "scope": ["r", "w", "r"]})).unwrap();
        assert_eq!(
            (&own.whose, own.subject_type, own.scope.len()),
            (&Whose::Client("c".into()), SubjectType::Client, 2)
        );
        let all = json!({"default_for": "third_party_clients", "audience": "a", "subject_type": "user", "allow_all_scopes": true});
        assert_eq!(grant(all).unwrap().whose, Whose::ThirdPartyClients);
    }

    #[test]
    fn bad_input_is_refused() {
        for (value, says) in [
            (json!({"audience": "a"}), "one of client_id and default_for"),
            (json!({"audience": "a", "client_id": "c", "default_for": "third_party_clients"}), "one of client_id"),
            (json!({"client_id": "c"}), "missing field `audience`"),
            (json!({"audience": "a", "default_for": "everybody"}), "unknown variant `everybody`"),
            (json!({"audience": "a", "default_for": "third_party_clients"}), "subject_type: third-party clients act"),
            (json!({"audience": "a", "client_id": "c", "scope": ["a b"]}), "entry 0: expected a scope"),
            (json!({"audience": "a", "client_id": "c", "scope": ["r"], "allow_all_scopes": true}), "no scope is named"),
            (json!({"audience": "a", "client_id": "c", "organization_usage": "deny"}), "unknown field"),
            (json!({"audience": "a", "client_id": null}), "invalid type: null"),
        ] {
            let error = grant(value.clone()).unwrap_err();
            assert!(error.contains(says), "{value}: {error}");
        }
    }

    /// The permissions by these grants, at APIs `a` with the scopes `r` and `w`, `b` without scopes, and `APIS`.
    fn permissions(grants: &[Value], apis: &[Value]) -> Value {
        let mut all = vec![json!({"identifier": "a", "scopes": [{"value": "r"}, {"value": "w"}]})];
        all.splice(0..0, apis.iter().cloned());
        all.push(json!({"identifier": "b"}));
        let with_api = |value: &Value| {
            let api = all.iter().find(|api| api["identifier"] == value["audience"]).unwrap();
            (grant(value.clone()).unwrap(), serde_json::from_value(api.clone()).unwrap())
        };
        serde_json::to_value(effective_permissions(grants.iter().map(with_api).collect())).unwrap()
    }

    fn default(audience: &str, scope: Value) -> Value {
        json!({"default_for": "third_party_clients", "audience": audience, "subject_type": "user", "scope": scope})
    }

    fn own(audience: &str, subject_type: &str, scope: Value) -> Value {
        json!({"client_id": "c", "audience": audience, "subject_type": subject_type, "scope": scope})
    }

    fn permission(audience: &str, subject_type: &str, scope: Value, source: &str) -> Value {
        json!({"audience": audience, "subject_type": subject_type, "scope": scope, "source": source})
    }

    #[test]
    fn a_clients_own_grant_wins_over_the_default_for_its_api_and_subject_type() {
        assert_eq!(permissions(&[], &[]), json!([]));
        let by_default = permission("a", "user", json!(["r", "w"]), "default");
        let both = default("a", json!(["r", "w"]));
        assert_eq!(permissions(std::slice::from_ref(&both), &[]), json!([by_default]));
        for (grants, expected) in [
            (
                [both.clone(), own("a", "user", json!(["r"]))],
                json!([permission("a", "user", json!(["r"]), "client_grant")]),
            ),
            ([own("a", "user", json!([])), both.clone()], json!([])),
            (
                [both, own("a", "client", json!(["w"]))],
                json!([by_default, permission("a", "client", json!(["w"]), "client_grant")]),
            ),
        ] {
            assert_eq!(permissions(&grants, &[]), expected);
        }
    }

    #[test]
    fn a_permission_has_the_scopes_that_the_api_has_at_the_moment() {
        let mut all = own("a", "user", json!([]));
        all["allow_all_scopes"] = json!(true);
        assert_eq!(permissions(&[all.clone()], &[])[0]["scope"], json!(["r", "w"]));
        all["audience"] = json!("b");
        assert_eq!(permissions(&[all], &[])[0]["scope"], json!([]));
        assert_eq!(permissions(&[own("a", "user", json!(["w", "gone"]))], &[])[0]["scope"], json!(["w"]));
        for nothing in [json!([]), json!(["gone"])] {
            assert_eq!(permissions(&[own("a", "user", nothing)], &[]), json!([]));
        }
    }

    #[test]
    fn system_apis_and_policies_that_deny_all_allow_nothing_whatever_is_granted() {
        let system = "https://a.example/api/v2/";
        let api = json!({"identifier": system, "scopes": [{"value": "r"}]});
        assert_eq!(permissions(&[own(system, "user", json!(["r"])), default(system, json!(["r"]))], &[api]), json!([]));
        let grants = [own("p", "user", json!(["r"])), own("p", "client", json!(["r"]))];
        for (user, client, left) in [
            ("deny_all", "require_client_grant", json!(["client"])),
            ("allow_all", "deny_all", json!(["user"])),
            ("deny_all", "deny_all", json!([])),
            ("require_client_grant", "require_client_grant", json!(["user", "client"])),
        ] {
            let policies = json!({"user": {"policy": user}, "client": {"policy": client}});
            let api = json!({"identifier": "p", "scopes": [{"value": "r"}], "subject_type_authorization": policies});
            let allowed = permissions(&grants, &[api]);
            let types: Value = allowed.as_array().unwrap().iter().map(|one| one["subject_type"].clone()).collect();
            assert_eq!(types, left, "{user} {client}");
        }
    }

    #[test]
    fn a_change_of_the_scopes_ends_all_of_them_and_the_other_way_round() {
        let some = json!({"client_id": "c", "audience": "a", "scope": ["r"]});
        let all = json!({"client_id": "c", "audience": "a", "allow_all_scopes": true});
        let scopes = |value: Value| (value["scope"].clone(), value["allow_all_scopes"].clone());
        assert_eq!(scopes(patched(some.clone(), json!({"allow_all_scopes": true})).unwrap()), (json!([]), json!(true)));
        assert_eq!(scopes(patched(all.clone(), json!({"scope": ["w"]})).unwrap()), (json!(["w"]), json!(false)));
        assert_eq!(scopes(patched(some.clone(), json!({"scope": null})).unwrap()), (json!([]), json!(false)));
        assert_eq!(scopes(patched(all, json!({"allow_all_scopes": null})).unwrap()), (json!([]), json!(false)));
        assert!(patched(some.clone(), json!({"scope": ["w"], "allow_all_scopes": true})).is_err());
        for never in ["audience", "client_id", "subject_type", "default_for"] {
            assert!(patched(some.clone(), json!({never: "user"})).is_err(), "{never}");
        }
    }
}
