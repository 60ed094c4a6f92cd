//! The filter's configuration: the JSON in the plugin's `configuration`.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::acl::rule::active_rules;
use crate::acl::{NetworkAcl, Rule, Signal, SignalSet};
use crate::registration::DEFAULT_MAX_BODY_BYTES;

/// The filter's configuration. Unknown members are errors.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the store is.
    pub store: Store,
    /// What becomes of requests for a host of no tenant.
    #[serde(default)]
    pub unknown_hosts: UnknownHosts,
    /// Longest registration request, in bytes.
    #[serde(default = "default_max_body_bytes", deserialize_with = "max_body_bytes")]
    pub max_body_bytes: usize,
    /// The signals for which this proxy has a source, beyond those that every proxy has. What is not named here is
    /// never read, so that nobody can forge it where the proxy does not set it.
    #[serde(default, deserialize_with = "signal_sources")]
    pub signal_sources: SignalSet,
    /// Access rules for all tenants, before those of the tenant itself.
    #[serde(default, deserialize_with = "network_acls")]
    pub network_acls: Vec<Rule>,
}

/// Where the store is and how it is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The Envoy cluster of the store.
    #[serde(deserialize_with = "non_empty")]
    pub cluster: String,
    /// The `:authority` of calls to it.
    #[serde(default = "default_authority", deserialize_with = "non_empty")]
    pub authority: String,
    /// How long a call may take, in milliseconds.
    #[serde(default = "default_timeout", deserialize_with = "timeout_ms", rename = "timeout_ms")]
    pub timeout: Duration,
    /// Time between two looks for changed settings, in milliseconds.
    #[serde(default = "default_poll_interval", deserialize_with = "poll_interval_ms", rename = "poll_interval_ms")]
    pub poll_interval: Duration,
}

/// What becomes of requests for a host of no tenant.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum UnknownHosts {
    /// They are refused: a forged `host` must not go round a tenant's rules.
    #[default]
    Refuse,
    /// They pass, except at the endpoints that are this product's own.
    Pass,
}

impl Config {
    /// Reads the configuration. The error is one line: the path in the JSON, what was wrong, what is expected.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let config: Self = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let path = if path == "." { "(top level)" } else { &path };
            format!("{path}: {}", error.inner())
        })?;
        reader.end().map_err(|error| format!("(top level): {error}"))?;
        Ok(config)
    }
}

/// Every proxy knows the others, so naming them would say nothing.
fn signal_sources<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SignalSet, D::Error> {
    let named: SignalSet = Vec::<Signal>::deserialize(deserializer)?.into_iter().collect();
    match named.intersection(SignalSet::BUILT_IN).iter().next() {
        None => Ok(named),
        Some(signal) => {
            Err(serde::de::Error::custom(format_args!("{} is always there, leave it out", signal.as_str())))
        }
    }
}

/// Each rule is read like those of the store, without a path: that keeps a second reader of rules out of the filter.
fn network_acls<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Rule>, D::Error> {
    let read = |(place, json): (usize, Box<RawValue>)| {
        serde_json::from_slice(json.get().as_bytes())
            .map_err(|error| serde::de::Error::custom(format_args!("[{place}]: {error} of this rule")))
    };
    let acls: Result<Vec<NetworkAcl>, D::Error> =
        Vec::<Box<RawValue>>::deserialize(deserializer)?.into_iter().enumerate().map(read).collect();
    active_rules(acls?).map_err(serde::de::Error::custom)
}

fn default_max_body_bytes() -> usize {
    DEFAULT_MAX_BODY_BYTES
}

fn default_authority() -> String {
    "dcr-store".to_owned()
}

fn default_timeout() -> Duration {
    Duration::from_secs(2)
}

fn default_poll_interval() -> Duration {
    Duration::from_millis(500)
}

/// A whole number within bounds. Envoy reads a time-out of 0 as none, and buffers no more than its own limit.
fn bounded<'de, D: serde::Deserializer<'de>>(deserializer: D, least: u64, most: u64) -> Result<u64, D::Error> {
    let expected = || serde::de::Error::custom(format_args!("expected a whole number from {least} to {most}"));
    let number = u64::deserialize(deserializer).map_err(|_| expected())?;
    if (least..=most).contains(&number) { Ok(number) } else { Err(expected()) }
}

fn max_body_bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    bounded(deserializer, 1_024, 1_048_576).map(|bytes| usize::try_from(bytes).unwrap_or(DEFAULT_MAX_BODY_BYTES))
}

fn timeout_ms<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(deserializer, 1, 60_000).map(Duration::from_millis)
}

fn poll_interval_ms<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(deserializer, 20, 60_000).map(Duration::from_millis)
}

/// Text that can stand in a header.
fn non_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if !text.is_empty() && text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text)
    } else {
        Err(serde::de::Error::custom("expected 1 to 255 printable ASCII characters without blanks"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cluster_is_required() {
        let config = Config::parse(br#"{"store": {"cluster": "dcr_store"}}"#).unwrap();
        assert_eq!(config.max_body_bytes, 65_536);
        assert_eq!(config.store.timeout, Duration::from_secs(2));
        assert_eq!(config.unknown_hosts, UnknownHosts::Refuse);
    }

    #[test]
    fn an_error_is_one_line_that_names_the_path_and_what_is_expected() {
        for (json, start) in [
            ("", "(top level): "),
            ("[]", "(top level): "),
            ("{}", "(top level): missing field `store`"),
            (r#"{"store": {}}"#, "store: missing field `cluster`"),
            (r#"{"store": {"cluster": ""}}"#, "store.cluster: expected 1 to 255"),
            (r#"{"store": {"cluster": "a"}, "x": 1}"#, "x: unknown field `x`, expected one of"),
            (r#"{"store": {"cluster": "a", "timeout_ms": 0}}"#, "store.timeout_ms: expected a whole number from 1 to"),
            (r#"{"store": {"cluster": "a", "poll_interval_ms": "1s"}}"#, "store.poll_interval_ms: expected a whole"),
            (r#"{"store": {"cluster": "a"}, "unknown_hosts": "allow"}"#, "unknown_hosts: unknown variant `allow`"),
            (r#"{"store": {"cluster": "a"}, "max_body_bytes": 10}"#, "max_body_bytes: expected a whole number from"),
            (r#"{"store": {"cluster": "a"}} x"#, "(top level): trailing characters"),
            (r#"{"store": {"cluster": "a"}, "signal_sources": ["ja5"]}"#, "signal_sources[0]: unknown variant `ja5`"),
            (r#"{"store": {"cluster": "a"}, "signal_sources": ["host"]}"#, "signal_sources: host is always there"),
            (
                r#"{"store": {"cluster": "a"}, "network_acls": [{"description": "d", "active": true, "rule": {"action": {}}}]}"#,
                "network_acls: [0]: expected an action: block, allow, redirect or log, with the value true at line 1 column 59 of",
            ),
        ] {
            let error = Config::parse(json.as_bytes()).unwrap_err();
            assert!(error.starts_with(start), "{json}: {error}");
            assert!(!error.contains('\n'));
        }
    }
}
