//! What a tenant's owner controls, in the shape in which the Management API shows it.

use std::num::NonZeroU32;

use fluent_uri::Uri;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::server::{ParameterNames, Paths, Registrar, UnknownClients};
use crate::cidr::Cidr;

/// Most entries in any list of the settings.
const MAX_ENTRIES: usize = 1_000;

/// The settings of one tenant.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Switches, in the hosted API's words.
    pub flags: Flags,
    /// Which guard rails new registrations get.
    pub dynamic_client_registration_security_mode: SecurityMode,
    /// The API of authorization requests that name none, in the hosted API's words.
    #[serde(deserialize_with = "default_audience", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(max = MAX_AUDIENCE)))]
    pub default_audience: Option<String>,
    /// This product's own settings.
    pub dcr_edge: DcrEdge,
}

impl Settings {
    /// Whether anyone may register a client.
    pub fn registers_clients(&self) -> bool {
        self.flags.enable_dynamic_client_registration && self.dcr_edge.registrar != Registrar::Off
    }
}

/// Switches, in the hosted API's words.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Flags {
    /// Whether anyone may register a client. Off unless the owner switches it on.
    pub enable_dynamic_client_registration: bool,
}

/// Which guard rails a registration gets. A client keeps the mode that it was made under.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SecurityMode {
    /// Third-party clients with all controls.
    #[default]
    Strict,
    /// Clients without those controls, for tenants that the operator marked as eligible.
    Permissive,
}

impl SecurityMode {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Permissive => "permissive",
        }
    }

    /// The mode with this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Strict, Self::Permissive].into_iter().find(|mode| mode.as_str() == name)
    }
}

/// This product's own settings.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DcrEdge {
    /// How many registration requests pass.
    pub rate_limit: RateLimit,
    /// How many of them one source may send; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_source: Option<PerSource>,
    /// Most registered clients; absent: no bound.
    #[serde(deserialize_with = "quota", skip_serializing_if = "Option::is_none")]
    pub client_quota: Option<NonZeroU32>,
    /// How many seconds a client lives that registered itself and that no authorization server ever asked for;
    /// absent: such clients are kept.
    #[serde(deserialize_with = "unused_client_ttl", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(range(min = MIN_UNUSED_CLIENT_TTL)))]
    pub unused_client_ttl: Option<NonZeroU32>,
    /// Hosts that `https` redirect URIs may have; empty: any.
    #[serde(deserialize_with = "short_list")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(max = MAX_ENTRIES)))]
    pub allowed_redirect_hosts: Vec<HostPattern>,
    /// Which private-use schemes (RFC 8252 §7.1) redirect URIs may have.
    pub custom_schemes: CustomSchemes,
    /// What a redirect URI that breaks a rule does to its registration.
    pub invalid_redirect_uris: InvalidRedirectUris,
    /// Whether a public client that registers the same metadata again gets the same `client_id`.
    pub deduplicate_public_clients: bool,
    /// Web origins whose pages may register clients, ask for tokens and read the server's metadata; empty: none.
    #[serde(deserialize_with = "short_list")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(max = MAX_ENTRIES)))]
    pub cors_origins: Vec<CorsOrigin>,
    /// Who registers clients.
    pub registrar: Registrar,
    /// What becomes of requests of clients that the store does not know.
    pub unknown_clients: UnknownClients,
    /// Whether third-party clients may have OpenID Connect's own scopes.
    pub third_party_oidc_scopes: bool,
    /// Whether third-party clients may send users to an organization.
    pub allow_organization: bool,
    /// How many clients that an edge does not know it may look up.
    pub client_lookups: RateLimit,
    /// How many seconds an edge goes by what it knows of a client while the store is away.
    #[serde(deserialize_with = "grace")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(range(max = MAX_CLIENT_GRACE)))]
    pub client_grace: u32,
    /// Where the authorization server has its endpoints.
    pub paths: Paths,
    /// What the authorization server calls parameters that no standard names.
    #[serde(deserialize_with = "super::server::distinct")]
    pub parameters: ParameterNames,
    /// How long the tenant's log is kept.
    pub log_retention: LogRetention,
}

impl Default for DcrEdge {
    fn default() -> Self {
        Self {
            rate_limit: RateLimit::default(),
            per_source: None,
            client_quota: None,
            unused_client_ttl: None,
            allowed_redirect_hosts: Vec::new(),
            custom_schemes: CustomSchemes::default(),
            invalid_redirect_uris: InvalidRedirectUris::default(),
            deduplicate_public_clients: false,
            cors_origins: Vec::new(),
            registrar: Registrar::default(),
            unknown_clients: UnknownClients::default(),
            third_party_oidc_scopes: false,
            allow_organization: false,
            client_lookups: client_lookups(),
            client_grace: DEFAULT_CLIENT_GRACE,
            paths: Paths::default(),
            parameters: ParameterNames::default(),
            log_retention: LogRetention::default(),
        }
    }
}

/// Longest identifier of an API, in characters.
const MAX_AUDIENCE: usize = 600;

fn default_audience<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    // The hosted API writes the empty text for none.
    let audience = Option::<String>::deserialize(deserializer)?.filter(|audience| !audience.is_empty());
    if audience.as_ref().is_some_and(|audience| audience.chars().count() > MAX_AUDIENCE) {
        return Err(serde::de::Error::custom(format!("expected at most {MAX_AUDIENCE} characters")));
    }
    Ok(audience)
}

/// How many clients that an edge does not know it may look up, unless the owner says otherwise.
fn client_lookups() -> RateLimit {
    const FIFTY: NonZeroU32 = NonZeroU32::new(50).unwrap();
    RateLimit { burst: FIFTY, per_second: FIFTY }
}

/// Seconds for which an edge goes by what it knows of a client, unless the owner says otherwise.
const DEFAULT_CLIENT_GRACE: u32 = 300;

/// Most seconds for which an edge goes by what it knows: a day.
const MAX_CLIENT_GRACE: u32 = 86_400;

fn grace<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let seconds = u32::deserialize(deserializer).ok().filter(|seconds| *seconds <= MAX_CLIENT_GRACE);
    let expected = || format!("expected a whole number of seconds from 0 to {MAX_CLIENT_GRACE}");
    seconds.ok_or_else(|| serde::de::Error::custom(expected()))
}

/// How long a tenant's log is kept: whichever ends first.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LogRetention {
    /// Days.
    #[serde(deserialize_with = "rate")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(range(min = 1, max = RateLimit::MAX)))]
    pub days: NonZeroU32,
    /// The newest so many events.
    #[serde(deserialize_with = "rate")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(range(min = 1, max = RateLimit::MAX)))]
    pub events: NonZeroU32,
}

impl Default for LogRetention {
    fn default() -> Self {
        const DAYS: NonZeroU32 = NonZeroU32::new(30).unwrap();
        const EVENTS: NonZeroU32 = NonZeroU32::new(100_000).unwrap();
        Self { days: DAYS, events: EVENTS }
    }
}

/// A token bucket for registration requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests that may come at once.
    #[serde(deserialize_with = "rate")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(range(min = 1, max = RateLimit::MAX)))]
    pub burst: NonZeroU32,
    /// Requests that come back each second.
    #[serde(deserialize_with = "rate")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(range(min = 1, max = RateLimit::MAX)))]
    pub per_second: NonZeroU32,
}

impl RateLimit {
    /// Largest burst and largest refill: one million.
    pub const MAX: u32 = 1_000_000;
}

impl Default for RateLimit {
    fn default() -> Self {
        const FIVE: NonZeroU32 = NonZeroU32::new(5).unwrap();
        Self { burst: FIVE, per_second: FIVE }
    }
}

/// A token bucket for the registration requests of each source: an IPv4 address, or an IPv6 network of 64 bits.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PerSource {
    /// Requests that may come at once.
    #[serde(deserialize_with = "rate")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(range(min = 1, max = RateLimit::MAX)))]
    pub burst: NonZeroU32,
    /// Requests that come back each second.
    #[serde(deserialize_with = "rate")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(range(min = 1, max = RateLimit::MAX)))]
    pub per_second: NonZeroU32,
    /// Addresses that many users share, and that are not limited one by one.
    #[serde(default, deserialize_with = "short_list", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(max = MAX_ENTRIES)))]
    pub exempt: Vec<Cidr>,
}

impl PerSource {
    /// The bucket's limit.
    pub fn limit(&self) -> RateLimit {
        RateLimit { burst: self.burst, per_second: self.per_second }
    }
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
    let expected = || not_from_1_to(RateLimit::MAX);
    let number = NonZeroU32::deserialize(deserializer).map_err(|_| expected())?;
    if number.get() <= RateLimit::MAX { Ok(number) } else { Err(expected()) }
}

fn quota<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    Option::deserialize(deserializer).map_err(|_| not_from_1_to(u32::MAX))
}

/// Shortest life of an unused client, in seconds.
const MIN_UNUSED_CLIENT_TTL: u32 = 3_600;

fn unused_client_ttl<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    let expected = || {
        serde::de::Error::custom(format!(
            "expected a whole number of seconds from {MIN_UNUSED_CLIENT_TTL} to {}",
            u32::MAX
        ))
    };
    let seconds: Option<NonZeroU32> = Option::deserialize(deserializer).map_err(|_| expected())?;
    if seconds.is_some_and(|seconds| seconds.get() < MIN_UNUSED_CLIENT_TTL) { Err(expected()) } else { Ok(seconds) }
}

fn not_from_1_to<E: serde::de::Error>(max: u32) -> E {
    E::custom(format!("expected a whole number from 1 to {max}"))
}

/// What a redirect URI that breaks a rule does to its registration.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum InvalidRedirectUris {
    /// The registration is refused.
    #[default]
    Reject,
    /// The URI is left out. A registration of which none is left is refused all the same.
    Skip,
}

/// Which private-use schemes (RFC 8252 §7.1) redirect URIs may have.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum CustomSchemes {
    /// Any that is not known to be dangerous.
    #[default]
    Any,
    /// Those with a dot (RFC 8252 §8.4): a reversed domain name of the application's maker.
    ReverseDns,
    /// These; an empty list forbids them all.
    List(Vec<Scheme>),
}

impl Serialize for CustomSchemes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("any"),
            Self::ReverseDns => serializer.serialize_str("reverse_dns"),
            Self::List(schemes) => schemes.serialize(serializer),
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl schemars::JsonSchema for CustomSchemes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CustomSchemes".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let mut schemes = generator.subschema_for::<Vec<Scheme>>();
        schemes.insert("maxItems".to_owned(), MAX_ENTRIES.into());
        schemars::json_schema!({
            "description": "Which private-use schemes (RFC 8252 §7.1) redirect URIs may have.",
            "anyOf": [{"type": "string", "enum": ["any", "reverse_dns"]}, schemes]
        })
    }
}

impl<'de> Deserialize<'de> for CustomSchemes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Word(String),
            List(Vec<String>),
        }
        let expected =
            || serde::de::Error::custom("expected \"any\", \"reverse_dns\" or a list of schemes such as [\"cursor\"]");
        match Form::deserialize(deserializer).map_err(|_| expected())? {
            Form::Word(word) => match word.as_str() {
                "any" => Ok(Self::Any),
                "reverse_dns" => Ok(Self::ReverseDns),
                _ => Err(expected()),
            },
            Form::List(list) if list.len() > MAX_ENTRIES => Err(too_long()),
            Form::List(list) => list
                .into_iter()
                .map(Scheme::try_from)
                .collect::<Result<_, _>>()
                .map(Self::List)
                .map_err(serde::de::Error::custom),
        }
    }
}

/// Longest URI scheme, in bytes.
const MAX_SCHEME: usize = 100;

/// A URI scheme (RFC 3986 §3.1), lower case.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schemars(extend("maxLength" = MAX_SCHEME), extend("pattern" = "^[A-Za-z][0-9A-Za-z+.-]*$")))]
#[serde(try_from = "String", into = "String")]
pub struct Scheme(String);

impl Scheme {
    /// The scheme as text, lower case, without the colon.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Scheme {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let starts = lower.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        let rest = lower.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        if starts && rest && lower.len() <= MAX_SCHEME {
            Ok(Self(lower))
        } else {
            Err("a scheme begins with a letter and has letters, digits, +, - and . only, such as cursor".to_owned())
        }
    }
}

impl From<Scheme> for String {
    fn from(scheme: Scheme) -> Self {
        scheme.0
    }
}

/// A host, or with a leading dot every host below it; lower case. `.example.com` has `a.example.com`,
/// not `example.com` and not `badexample.com`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schemars(extend("pattern" = r"^\.?([0-9A-Za-z_-]+\.?)*$|^\[[0-9A-Fa-f:.]+\]$")))]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern(String);

impl HostPattern {
    /// Whether `host` (no port, any case) is covered.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        if self.0.starts_with('.') { host.len() > self.0.len() && host.ends_with(&self.0) } else { host == self.0 }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let host = lower.strip_prefix('.').unwrap_or(&lower);
        let is_suffix = host.len() < lower.len();
        let valid =
            if is_suffix { super::domain::is_dns_name(host) } else { super::Domain::try_from(lower.clone()).is_ok() };
        if valid {
            Ok(Self(lower))
        } else {
            Err("expected a host such as app.example.com, or .example.com for every host below it".to_owned())
        }
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.0
    }
}

/// A web origin (RFC 6454): scheme, host and perhaps a port, as a browser sends it in `origin`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schemars(extend("pattern" = "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#]+$")))]
#[serde(try_from = "String", into = "String")]
pub struct Origin(String);

impl Origin {
    /// The origin as a browser sends it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Origin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let is_origin = Uri::parse(lower.as_str()).is_ok_and(|uri| {
            matches!(uri.scheme().as_str(), "http" | "https")
                && uri.path().is_empty()
                && uri.query().is_none()
                && uri.fragment().is_none()
                && uri.authority().is_some_and(|a| {
                    // Browsers leave the default port out and write names in ASCII.
                    let default = if uri.scheme().as_str() == "https" { "443" } else { "80" };
                    a.userinfo().is_none()
                        && !a.host().is_empty()
                        && super::authority_host(a.host().as_bytes()).is_some()
                        && a.port().is_none_or(|port| !port.is_empty() && port.as_str() != default)
                })
        });
        if is_origin {
            Ok(Self(lower))
        } else {
            Err("an origin is a scheme, a host and no default port, such as https://app.example.com".to_owned())
        }
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.0
    }
}

/// Whose pages may read an endpoint's answers.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schemars(extend("pattern" = r"^[Hh][Tt][Tt][Pp][Ss]?://[^/?#]+$|^\*$")))]
#[serde(try_from = "String", into = "String")]
pub enum CorsOrigin {
    /// `*`: everybody's, of answers that no credentials led to: of registration and of the server's metadata.
    Any,
    /// Those of this origin.
    One(Origin),
}

impl TryFrom<String> for CorsOrigin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "*" { Ok(Self::Any) } else { Origin::try_from(text).map(Self::One) }
    }
}

impl From<CorsOrigin> for String {
    fn from(origin: CorsOrigin) -> Self {
        match origin {
            CorsOrigin::Any => "*".to_owned(),
            CorsOrigin::One(origin) => origin.0,
        }
    }
}

fn too_long<E: serde::de::Error>() -> E {
    E::custom(format!("expected at most {MAX_ENTRIES} entries"))
}

fn short_list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let list = Vec::deserialize(deserializer)?;
    if list.len() > MAX_ENTRIES { Err(too_long()) } else { Ok(list) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: serde_json::Value) -> Result<Settings, String> {
        serde_path_to_error::deserialize(value).map_err(|e| e.to_string())
    }

    #[test]
    fn registration_is_off_and_limited_to_five_and_five_unless_the_owner_says_otherwise() {
        let settings = parse(json!({})).unwrap();
        assert!(!settings.flags.enable_dynamic_client_registration);
        assert_eq!((settings.dcr_edge.rate_limit.burst.get(), settings.dcr_edge.rate_limit.per_second.get()), (5, 5));
        assert_eq!(settings.dcr_edge.custom_schemes, CustomSchemes::Any);
    }

    #[test]
    fn settings_survive_the_way_to_the_edge() {
        let settings = parse(json!({
            "flags": {"enable_dynamic_client_registration": true},
            "dcr_edge": {
                "rate_limit": {"burst": 7, "per_second": 9}, "client_quota": 10, "unused_client_ttl": 3600,
                "per_source": {"burst": 1, "per_second": 2, "exempt": ["198.51.100.7", "2001:db8::/32"]},
                "allowed_redirect_hosts": [".example.com", "A.test"], "custom_schemes": ["Cursor"],
                "invalid_redirect_uris": "skip", "deduplicate_public_clients": true,
                "cors_origins": ["https://app.example.com", "http://localhost:3000"]
            }
        }))
        .unwrap();
        assert_eq!(parse(serde_json::to_value(&settings).unwrap()).unwrap(), settings);
    }

    #[test]
    fn a_mode_has_the_same_name_everywhere_and_an_unknown_one_is_an_error() {
        for mode in [SecurityMode::Strict, SecurityMode::Permissive] {
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
            assert_eq!(SecurityMode::named(mode.as_str()), Some(mode));
        }
        assert_eq!(SecurityMode::named("lax"), None);
        assert!(parse(json!({"dynamic_client_registration_security_mode": "lax"})).is_err());
    }

    #[test]
    fn an_error_names_the_member() {
        for (value, path) in [
            (json!({"dcr_edge": {"rate_limit": {"burst": 0, "per_second": 1}}}), "dcr_edge.rate_limit.burst"),
            (json!({"dcr_edge": {"cors_origins": ["https://a/", "b"]}}), "dcr_edge.cors_origins[0]"),
            (json!({"dcr_edge": {"client_quota": -1}}), "dcr_edge.client_quota"),
            (json!({"dcr_edge": {"per_source": {"burst": 1}}}), "dcr_edge.per_source"),
            (
                json!({"dcr_edge": {"per_source": {"burst": 1, "per_second": 1, "exempt": ["x"]}}}),
                "dcr_edge.per_source.exempt[0]",
            ),
            (json!({"dcr_edge": {"typo": 1}}), "dcr_edge.typo"),
            (
                json!({"flags": {"enable_dynamic_client_registration": "yes"}}),
                "flags.enable_dynamic_client_registration",
            ),
            (json!({"dcr_edge": {"custom_schemes": "none"}}), "dcr_edge.custom_schemes"),
            (json!({"dcr_edge": {"parameters": {"connection": "audience"}}}), "dcr_edge.parameters"),
            (json!({"dcr_edge": {"parameters": {"connection": "x", "organization": "X"}}}), "dcr_edge.parameters"),
            (json!({"dcr_edge": {"parameters": {"connection": "resource"}}}), "dcr_edge.parameters"),
            (json!({"dcr_edge": {"parameters": {"audience": "scope"}}}), "dcr_edge.parameters.audience"),
            (json!({"dcr_edge": {"paths": {"token": ["/t", "x"]}}}), "dcr_edge.paths.token[1]"),
            (json!({"dcr_edge": {"client_grace": 86_401}}), "dcr_edge.client_grace"),
            (json!({"dcr_edge": {"cors_origins": ["*", "**"]}}), "dcr_edge.cors_origins[1]"),
            (json!({"dcr_edge": {"allowed_redirect_hosts": ["*.example.com"]}}), "dcr_edge.allowed_redirect_hosts[0]"),
        ] {
            let error = parse(value).unwrap_err();
            assert!(error.starts_with(path), "{error}");
        }
    }

    #[test]
    fn a_number_that_is_none_is_told_its_range() {
        for bad in [json!(0), json!(-1), json!(1.5), json!("7"), json!(4_294_967_296_u64), json!([])] {
            let error = parse(json!({"dcr_edge": {"client_quota": bad}})).unwrap_err();
            assert_eq!(error, "dcr_edge.client_quota: expected a whole number from 1 to 4294967295");
            let error = parse(json!({"dcr_edge": {"rate_limit": {"burst": bad, "per_second": 1}}})).unwrap_err();
            assert_eq!(error, "dcr_edge.rate_limit.burst: expected a whole number from 1 to 1000000");
        }
        for bad in [json!(3_599), json!(0), json!(-1), json!(3_600.5), json!("1h"), json!(4_294_967_296_u64)] {
            let error = parse(json!({"dcr_edge": {"unused_client_ttl": bad}})).unwrap_err();
            let expected = "expected a whole number of seconds from 3600 to 4294967295";
            assert_eq!(error, format!("dcr_edge.unused_client_ttl: {expected}"));
        }
        assert_eq!(
            parse(json!({"dcr_edge": {"client_quota": null, "unused_client_ttl": null}})).unwrap(),
            Settings::default()
        );
    }

    #[test]
    fn a_host_pattern_is_anchored() {
        let pattern = |text: &str| HostPattern::try_from(text.to_owned()).unwrap();
        assert!(pattern(".example.com").matches("a.Example.com"));
        assert!(!pattern(".example.com").matches("example.com"));
        assert!(!pattern(".example.com").matches("badexample.com"));
        assert!(pattern("app.example.com").matches("APP.example.com"));
        assert!(!pattern("app.example.com").matches("app.example.com.evil.test"));
    }

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for good in ["https://a.example", "http://localhost:3000", "http://[::1]:8080"] {
            assert!(Origin::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in [
            "",
            "*",
            "null",
            "https://a/",
            "https://a:443",
            "http://a:80",
            "ftp://a",
            "https://u@a",
            "https://",
            "a.example",
        ] {
            assert!(Origin::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
