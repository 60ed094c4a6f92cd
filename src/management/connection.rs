//! Connections: where users come from.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

#[cfg(not(target_arch = "wasm32"))]
use super::{MAX_TEXT, TEXT_PATTERN};
use super::{changed_text, present, some_text, text};

/// Longest name of a connection, in characters, as the hosted API has it.
const MAX_NAME: usize = 128;

/// What the API's description says of it.
#[cfg(not(target_arch = "wasm32"))]
const NAME_PATTERN: &str = "^[0-9A-Za-z]([0-9A-Za-z-]*[0-9A-Za-z])?$";

/// Most bytes of a connection's `options` as JSON, which are kept for whoever runs the server behind.
const MAX_OPTIONS: usize = 16 * 1024;

/// A source of users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// What names it in `connection`. It never changes.
    #[serde(deserialize_with = "name")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(max = MAX_NAME), regex(pattern = NAME_PATTERN)))]
    pub name: String,
    /// What people call it.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(with = "String", length(min = 1, max = MAX_TEXT), regex(pattern = TEXT_PATTERN)))]
    pub display_name: Option<String>,
    /// What kind it is, such as `auth0` for a database or `google-oauth2`.
    #[serde(deserialize_with = "text")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = MAX_TEXT), regex(pattern = TEXT_PATTERN)))]
    pub strategy: String,
    /// Whether third-party clients may use it: what the hosted product calls promoted to domain level.
    #[serde(default)]
    pub is_domain_connection: bool,
    /// What the server behind needs to know of it; kept as it is.
    #[serde(default, deserialize_with = "options", skip_serializing_if = "Map::is_empty")]
    pub options: Map<String, Value>,
}

/// A change of a connection: each member that is there replaces the one that was; `null` takes it away.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionPatch {
    /// What people call it; `null`: nothing.
    #[serde(deserialize_with = "changed_text")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(with = "Option<String>", length(min = 1, max = MAX_TEXT), regex(pattern = TEXT_PATTERN)))]
    pub display_name: Option<Option<String>>,
    /// Whether third-party clients may use it.
    #[serde(deserialize_with = "present")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(with = "bool"))]
    pub is_domain_connection: Option<bool>,
    /// What the server behind needs to know of it; `null`: nothing.
    #[serde(deserialize_with = "some_options")]
    pub options: Option<Map<String, Value>>,
}

impl ConnectionPatch {
    /// The connection after the change.
    pub fn apply(self, before: Connection) -> Connection {
        let Self { display_name, is_domain_connection, options } = self;
        Connection {
            display_name: display_name.unwrap_or(before.display_name),
            is_domain_connection: is_domain_connection.unwrap_or(before.is_domain_connection),
            options: options.unwrap_or(before.options),
            ..before
        }
    }
}

/// A name as the hosted API has it: letters, digits and hyphens, none of these at the ends.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let is_inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let is_name = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(is_inner)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if is_name {
        Ok(name)
    } else {
        Err(serde::de::Error::custom(format_args!(
            "expected 1 to {MAX_NAME} letters, digits and hyphens, no hyphen first or last"
        )))
    }
}

fn options<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    let options = Map::deserialize(deserializer)?;
    let size = serde_json::to_vec(&options).map_or(usize::MAX, |json| json.len());
    if size <= MAX_OPTIONS {
        Ok(options)
    } else {
        Err(serde::de::Error::custom(format_args!("expected at most {MAX_OPTIONS} bytes")))
    }
}

fn some_options<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Map<String, Value>>, D::Error> {
    #[derive(Deserialize)]
    struct Options(#[serde(deserialize_with = "options")] Map<String, Value>);
    let changed: Option<Options> = Option::deserialize(deserializer)?;
    Ok(Some(changed.map(|Options(options)| options).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn connection(value: Value) -> Result<Connection, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn a_connection_is_not_for_third_parties_unless_its_owner_says_so() {
        assert!(!connection(json!({"name": "db", "strategy": "auth0"})).unwrap().is_domain_connection);
    }

    #[test]
    fn bad_input_is_refused() {
        for (value, says) in [
            (json!({"strategy": "auth0"}), "missing field `name`"),
            (json!({"name": "db"}), "missing field `strategy`"),
            (json!({"name": "-db", "strategy": "auth0"}), "letters, digits and hyphens"),
            (json!({"name": "d b", "strategy": "auth0"}), "letters, digits and hyphens"),
            (json!({"name": "a".repeat(129), "strategy": "auth0"}), "letters, digits and hyphens"),
            (json!({"name": "db", "strategy": "auth0", "realms": []}), "unknown field `realms`"),
            (json!({"name": "db", "strategy": "auth0", "options": {"a": "x".repeat(20_000)}}), "at most 16384 bytes"),
            (json!({"name": "db", "strategy": "auth0", "is_domain_connection": null}), "invalid type: null"),
        ] {
            let error = connection(value.clone()).unwrap_err();
            assert!(error.contains(says), "{value}: {error}");
        }
    }

    #[test]
    fn a_change_replaces_the_members_that_it_names_and_never_name_and_strategy() {
        let before = connection(json!({"name": "db", "strategy": "auth0", "options": {"a": 1}})).unwrap();
        let patch: ConnectionPatch = serde_json::from_value(json!({"is_domain_connection": true})).unwrap();
        assert_eq!(patch.apply(before.clone()), Connection { is_domain_connection: true, ..before.clone() });
        let named: ConnectionPatch = serde_json::from_value(json!({"display_name": "DB"})).unwrap();
        let named = named.apply(before.clone());
        assert_eq!(named.display_name.as_deref(), Some("DB"));
        let bare: ConnectionPatch = serde_json::from_value(json!({"display_name": null, "options": null})).unwrap();
        assert_eq!(bare.apply(named), Connection { options: Map::new(), ..before });
        for never in ["name", "strategy"] {
            assert!(serde_json::from_value::<ConnectionPatch>(json!({never: "x"})).is_err(), "{never}");
        }
    }
}
