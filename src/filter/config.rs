//! The filter's configuration: the JSON in the plugin's `configuration`.

use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::acl::rule::active_rules;
use crate::acl::{Rule, Signal, SignalSet};
use crate::registration::DEFAULT_MAX_BODY_BYTES;

/// The filter's configuration. Unknown members are errors.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the store is.
    #[serde(deserialize_with = "store")]
    pub store: Store,
    /// What becomes of requests for a host of no tenant.
    #[serde(default, deserialize_with = "unknown_hosts")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(extend("default" = "refuse")))]
    pub unknown_hosts: UnknownHosts,
    /// Longest registration request, in bytes.
    #[serde(default = "default_max_body_bytes", deserialize_with = "max_body_bytes")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(range(min = 1_024, max = 1_048_576)))]
    pub max_body_bytes: usize,
    /// The signals for which this proxy has a source, beyond those that every proxy has. What is not named here is
    /// never read, so that nobody can forge it where the proxy does not set it.
    #[serde(default, deserialize_with = "signal_sources")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(with = "Vec<Signal>", extend("default" = [])))]
    pub signal_sources: SignalSet,
    /// Access rules for all tenants, before those of the tenant itself.
    #[serde(default, deserialize_with = "network_acls")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(with = "Vec<crate::acl::NetworkAcl>", default))]
    pub network_acls: Vec<Rule>,
}

/// Where the store is and how it is asked.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The Envoy cluster of the store.
    #[serde(deserialize_with = "cluster")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = 255), regex(pattern = "^[!-~]+$")))]
    pub cluster: String,
    /// The `:authority` of calls to it.
    #[serde(default = "default_authority", deserialize_with = "authority")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = 255), regex(pattern = "^[!-~]+$")))]
    pub authority: String,
    /// How long a call may take, in milliseconds.
    #[serde(default = "default_timeout", deserialize_with = "timeout_ms", rename = "timeout_ms")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(with = "u32", range(min = 1, max = 60_000), extend("default" = 2_000)))]
    pub timeout: Duration,
    /// Time between two looks for changed settings, in milliseconds.
    #[serde(default = "default_poll_interval", deserialize_with = "poll_interval_ms", rename = "poll_interval_ms")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(with = "u32", range(min = 20, max = 60_000), extend("default" = 500)))]
    pub poll_interval: Duration,
}

/// What becomes of requests for a host of no tenant.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UnknownHosts {
    /// They are refused: a forged `host` must not go round a tenant's rules.
    #[default]
    Refuse,
    /// They pass, except at the endpoints that are this product's own.
    Pass,
}

impl Config {
    /// Reads the configuration. The error is one line: which member, what was wrong or is expected, and where it stands.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let config: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        config.check_sources()?;
        Ok(config)
    }

    /// Whoever writes rules here writes the sources too: a rule that would never do anything is a mistake.
    fn check_sources(&self) -> Result<(), String> {
        let sources = self.signal_sources.union(SignalSet::BUILT_IN);
        if sources.has(Signal::Subdivision) && !sources.has(Signal::Country) {
            return Err("signal_sources: a subdivision is one of a country: name country too".to_owned());
        }
        let named = self.network_acls.iter().map(Rule::named_signals).fold(SignalSet::default(), SignalSet::union);
        let missing = named.without(sources);
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.names();
        Err(format!("network_acls: rules name signals that signal_sources does not: {missing}"))
    }
}

/// What was read of a member, or an error that names it, or a member of it by its path.
fn member<T, E: Error>(name: &str, read: Result<T, E>) -> Result<T, E> {
    read.map_err(|error| {
        let text = error.to_string();
        let is_named = text.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', '[']));
        E::custom(if is_named { text } else { format!("{name}: {text}") })
    })
}

fn store<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Store, D::Error> {
    member("store", Store::deserialize(deserializer))
}

fn unknown_hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnknownHosts, D::Error> {
    member("unknown_hosts", UnknownHosts::deserialize(deserializer))
}

/// Every proxy knows the others, so naming them would say nothing.
fn signal_sources<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SignalSet, D::Error> {
    let named = Vec::<Signal>::deserialize(deserializer).and_then(|named| {
        let named: SignalSet = named.into_iter().collect();
        let needless = named.intersection(SignalSet::BUILT_IN);
        if needless.is_empty() {
            Ok(named)
        } else {
            Err(D::Error::custom(format_args!("{} is always there, leave it out", needless.names())))
        }
    });
    member("signal_sources", named)
}

/// Each rule is read like those of the store, without a path: that keeps a second reader of rules out of the filter.
fn network_acls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Rule>, D::Error> {
    let read = |(place, json): (usize, Box<RawValue>)| {
        serde_json::from_slice(json.get().as_bytes())
            .map_err(|error| D::Error::custom(format_args!("network_acls[{place}]: {error} of this rule")))
    };
    let rules = Vec::<Box<RawValue>>::deserialize(deserializer)
        .and_then(|acls| acls.into_iter().enumerate().map(read).collect())
        .and_then(|acls| active_rules(acls).map_err(D::Error::custom));
    member("network_acls", rules)
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
fn bounded<'de, D: Deserializer<'de>>(deserializer: D, name: &str, least: u32, most: u32) -> Result<u32, D::Error> {
    let number = u32::deserialize(deserializer).ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| D::Error::custom(format_args!("{name}: expected a whole number from {least} to {most}")))
}

fn max_body_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    bounded(deserializer, "max_body_bytes", 1_024, 1_048_576)
        .map(|bytes| usize::try_from(bytes).unwrap_or(DEFAULT_MAX_BODY_BYTES))
}

fn timeout_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(deserializer, "store.timeout_ms", 1, 60_000).map(|millis| Duration::from_millis(millis.into()))
}

fn poll_interval_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(deserializer, "store.poll_interval_ms", 20, 60_000).map(|millis| Duration::from_millis(millis.into()))
}

fn cluster<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    non_empty(deserializer, "store.cluster")
}

fn authority<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    non_empty(deserializer, "store.authority")
}

/// Text that can stand in a header.
fn non_empty<'de, D: Deserializer<'de>>(deserializer: D, name: &str) -> Result<String, D::Error> {
    let is_fit = |text: &String| (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let text = String::deserialize(deserializer).ok().filter(is_fit);
    text.ok_or_else(|| {
        D::Error::custom(format_args!("{name}: expected 1 to 255 printable ASCII characters without blanks"))
    })
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
    fn an_error_is_one_line_that_names_the_member_and_what_is_expected() {
        for (json, start) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("[]", "invalid "),
            ("{}", "missing field `store` at line 1 column 2"),
            (r#"{"store": {}}"#, "store: missing field `cluster`"),
            (r#"{"store": {"cluster": ""}}"#, "store.cluster: expected 1 to 255"),
            (r#"{"store": {"cluster": "a"}, "x": 1}"#, "unknown field `x`, expected one of"),
            (r#"{"store": {"cluster": "a", "timeout_ms": 0}}"#, "store.timeout_ms: expected a whole number from 1 to"),
            (r#"{"store": {"cluster": "a", "poll_interval_ms": "1s"}}"#, "store.poll_interval_ms: expected a whole"),
            (r#"{"store": {"cluster": "a"}, "unknown_hosts": "allow"}"#, "unknown_hosts: unknown variant `allow`"),
            (r#"{"store": {"cluster": "a"}, "max_body_bytes": 10}"#, "max_body_bytes: expected a whole number from"),
            (r#"{"store": {"cluster": "a"}} x"#, "trailing characters"),
            (r#"{"store": {"cluster": "a"}, "signal_sources": ["ja5"]}"#, "signal_sources: unknown variant `ja5`"),
            (r#"{"store": {"cluster": "a"}, "signal_sources": ["host"]}"#, "signal_sources: host is always there"),
            (
                r#"{"store": {"cluster": "a"}, "signal_sources": ["subdivision"]}"#,
                "signal_sources: a subdivision is one of a country",
            ),
            (
                r#"{"store": {"cluster": "a"}, "network_acls": [{"description": "d", "active": true, "rule":
                    {"action": {"block": true}, "match": {"ja4_fingerprints": ["t13d1516h2_8daaf6152771_02713d6af862"], "asns": [1]}, "scope": "tenant"}}]}"#,
                "network_acls: rules name signals that signal_sources does not: asn,ja4",
            ),
            (
                r#"{"store": {"cluster": "a"}, "network_acls": [{"description": "d", "active": true, "rule": {"action": {}}}]}"#,
                "network_acls[0]: expected an action: block, allow, redirect or log, with the value true at line 1 column 59 of",
            ),
        ] {
            let error = Config::parse(json.as_bytes()).unwrap_err();
            assert!(error.starts_with(start), "{json}: {error}");
            assert!(!error.contains('\n'));
        }
    }
}
