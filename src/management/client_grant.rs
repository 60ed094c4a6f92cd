//! Client grants: which client may have tokens for which API, with which scopes.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Deserializer, Serialize};

#[cfg(not(target_arch = "wasm32"))]
use super::{MAX_SCOPE, MAX_TEXT, SCOPE_PATTERN, TEXT_PATTERN};
use super::{MAX_SCOPES, SubjectTypeAuthorization, is_scope, is_system_api, present, text};

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
    /// The client that it is for. One of this and `default_for` is there.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(with = "String"))]
    client_id: Option<String>,
    /// Every client of this kind that has no grant of its own for the API; its `subject_type` is `user`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(with = "DefaultFor"))]
    default_for: Option<DefaultFor>,
    /// The identifier of the API.
    #[serde(deserialize_with = "text")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = MAX_TEXT), regex(pattern = TEXT_PATTERN)))]
    audience: String,
    /// The most scopes that a token may have; empty with `allow_all_scopes`.
    #[serde(default, deserialize_with = "scope")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(max = MAX_SCOPES), inner(length(max = MAX_SCOPE), regex(pattern = SCOPE_PATTERN))))]
    scope: Vec<String>,
    /// Whose behalf the tokens are on.
    #[serde(default)]
    subject_type: SubjectType,
    /// Whether every scope of the API is allowed, also one that it gets later.
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

/// On whose behalf a client may have tokens at all, by the grant types that it registered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Abilities {
    /// Whether it has users.
    pub has_users: bool,
    /// Whether it may act on its own behalf.
    pub acts_for_itself: bool,
    /// Whether it may have refresh tokens.
    pub refreshes: bool,
}

impl Abilities {
    /// Those of a client that may ask for whatever third parties may ask for.
    pub const OF_THIRD_PARTIES: Self = Self { has_users: true, acts_for_itself: false, refreshes: true };

    fn include(self, subject_type: SubjectType) -> bool {
        match subject_type {
            SubjectType::User => self.has_users,
            SubjectType::Client => self.acts_for_itself,
        }
    }
}

/// A grant, or what stands for one, with what matters of its API: that may be large.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GrantOfApi {
    /// What it is.
    pub source: PermissionSource,
    /// See [`ClientGrant::audience`].
    pub audience: String,
    /// See [`ClientGrant::subject_type`].
    pub subject_type: SubjectType,
    /// See [`ClientGrant::scope`].
    pub scope: Vec<String>,
    /// See [`ClientGrant::allow_all_scopes`].
    pub allow_all_scopes: bool,
    /// See [`super::ResourceServer::subject_type_authorization`].
    pub subject_type_authorization: SubjectTypeAuthorization,
    /// The scopes that the API has.
    pub scopes_of_api: Vec<String>,
    /// See [`super::ResourceServer::allow_offline_access`].
    pub allow_offline_access: bool,
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
    /// What allows it.
    pub source: PermissionSource,
    /// Whether there may be a refresh token. The owner sees that at the API and at the client.
    #[serde(skip)]
    pub allow_offline_access: bool,
}

/// Where a permission is from; a later one wins over an earlier one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PermissionSource {
    /// The default grant for third-party clients.
    Default,
    /// The client's own grant.
    ClientGrant,
    /// No grant: the API's policy allows all clients that are not held to the controls of third parties.
    ApiPolicy,
}

impl PermissionSource {
    /// The source with this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "default" => Some(Self::Default),
            "client_grant" => Some(Self::ClientGrant),
            "api_policy" => Some(Self::ApiPolicy),
            _ => None,
        }
    }
}

/// What a client with these abilities may do, by its own grants and the defaults or the policies of the APIs.
///
/// For one API and subject type the client's own grant wins over the default, even if it allows less. A grant allows nothing where the
/// client has not the subject type, where the API is a system API or its policy denies all, and if the API has none of
/// the scopes that it names.
pub fn effective_permissions(client: Abilities, grants: Vec<GrantOfApi>) -> Vec<Permission> {
    let mut winners = HashMap::new();
    for grant in &grants {
        let winner = winners.entry((grant.audience.clone(), grant.subject_type)).or_insert(grant.source);
        *winner = grant.source.max(*winner);
    }
    let permission = |grant: GrantOfApi| {
        let GrantOfApi { source, audience, subject_type, scope, allow_all_scopes, scopes_of_api, .. } = grant;
        let is_denied = !grant.subject_type_authorization.allows_grants(subject_type);
        if !client.include(subject_type) || is_denied || is_system_api(&audience) {
            return None;
        }
        let wins = winners.get(&(audience.clone(), subject_type)) == Some(&source);
        let scope: Vec<String> = if allow_all_scopes {
            scopes_of_api
        } else {
            let of_api: HashSet<String> = scopes_of_api.into_iter().collect();
            scope.into_iter().filter(|scope| of_api.contains(scope)).collect()
        };
        // All scopes of an API that has none yet are an access all the same.
        let allows = allow_all_scopes || !scope.is_empty();
        // Where there is no user, nobody is away.
        let allow_offline_access = grant.allow_offline_access && client.refreshes && subject_type == SubjectType::User;
        (wins && allows).then_some(Permission { audience, subject_type, scope, source, allow_offline_access })
    };
    grants.into_iter().filter_map(permission).collect()
}

/// A change of a grant: each member that is there replaces the one that was. `null` stands for none.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ClientGrantPatch {
    /// The most scopes that a token may have; `null`: none. Any scope takes `allow_all_scopes` away.
    #[serde(deserialize_with = "some_scope")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(max = MAX_SCOPES), inner(length(max = MAX_SCOPE), regex(pattern = SCOPE_PATTERN))))]
    pub scope: Option<Vec<String>>,
    /// Whether every scope of the API is allowed, also one that it gets later; `null`: no. `true` takes the scopes away.
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
    use crate::management::ResourceServer;
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

    /// The permissions by these grants, at APIs `a` with the scopes `r` and `w`, `b` without scopes, and `apis`, of a
    /// client that may do everything.
    fn permissions(grants: &[Value], apis: &[Value]) -> Value {
        let everything = Abilities { has_users: true, acts_for_itself: true, refreshes: true };
        serde_json::to_value(effective_permissions(everything, with_apis(grants, apis))).unwrap()
    }

    fn with_apis(grants: &[Value], apis: &[Value]) -> Vec<GrantOfApi> {
        let mut all = vec![json!({"identifier": "a", "scopes": [{"value": "r"}, {"value": "w"}]})];
        all.splice(0..0, apis.iter().cloned());
        all.push(json!({"identifier": "b"}));
        let with_api = |value: &Value| {
            let api = all.iter().find(|api| api["identifier"] == value["audience"]).unwrap();
            let ClientGrant { whose, audience, scope, subject_type, allow_all_scopes } = grant(value.clone()).unwrap();
            let api: ResourceServer = serde_json::from_value(api.clone()).unwrap();
            GrantOfApi {
                source: match whose {
                    Whose::Client(_) => PermissionSource::ClientGrant,
                    Whose::ThirdPartyClients => PermissionSource::Default,
                },
                audience,
                subject_type,
                scope,
                allow_all_scopes,
                subject_type_authorization: api.subject_type_authorization,
                scopes_of_api: api.scopes.into_iter().map(|scope| scope.value).collect(),
                allow_offline_access: api.allow_offline_access,
            }
        };
        grants.iter().map(with_api).collect()
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
    fn a_grant_allows_only_what_the_client_can_do() {
        let api = json!({"identifier": "o", "scopes": [{"value": "r"}], "allow_offline_access": true});
        let grants = [default("a", json!(["r"])), own("o", "user", json!(["r"])), own("o", "client", json!(["r"]))];
        for (has_users, acts_for_itself, refreshes, expected) in [
            (true, false, false, &[("a", SubjectType::User, false), ("o", SubjectType::User, false)][..]),
            (true, false, true, &[("a", SubjectType::User, false), ("o", SubjectType::User, true)]),
            (false, true, true, &[("o", SubjectType::Client, false)]),
            (false, false, false, &[]),
        ] {
            let abilities = Abilities { has_users, acts_for_itself, refreshes };
            let permissions = effective_permissions(abilities, with_apis(&grants, std::slice::from_ref(&api)));
            let seen: Vec<_> = permissions
                .iter()
                .map(|one| (one.audience.as_str(), one.subject_type, one.allow_offline_access))
                .collect();
            assert_eq!(seen, expected, "{abilities:?}");
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
