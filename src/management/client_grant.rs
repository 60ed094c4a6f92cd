//! Client grants: which client may have tokens for which API, with which scopes.

use serde::{Deserialize, Deserializer, Serialize};

use super::{MAX_SCOPES, is_scope, present, text};

/// What a client, or every third-party client without a grant of its own, may ask of an API.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
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

/// A change of a grant: each member that is there replaces the one that was. `null` stands for none.
#[derive(Clone, Debug, Default, Deserialize)]
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
    let mut seen = std::collections::HashSet::new();
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
