//! What a tenant's owner says of the authorization server behind the gateway, and of what third-party clients may do
//! there.

use serde::{Deserialize, Deserializer, Serialize};

/// Longest path or pattern, in bytes.
const MAX_PATH: usize = 200;

/// Most patterns for one kind of endpoint.
const MAX_PATTERNS: usize = 50;

/// Longest name of a parameter, in bytes.
const MAX_PARAMETER: usize = 64;

/// Who registers clients.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Registrar {
    /// This product's store, which the authorization server asks.
    #[default]
    Store,
    /// The registration endpoint of the authorization server; the store records its clients.
    Forward,
    /// Nobody.
    Off,
}

/// What becomes of a request of a client that the store does not know.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UnknownClients {
    /// It passes untouched: the authorization server has clients of its own.
    #[default]
    Pass,
    /// It is refused.
    Refuse,
}

/// Where the authorization server has its endpoints.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// Authorization endpoints (RFC 6749 §3.1).
    #[serde(deserialize_with = "patterns")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(max = MAX_PATTERNS)))]
    pub authorization: Vec<PathPattern>,
    /// Token endpoints (RFC 6749 §3.2).
    #[serde(deserialize_with = "patterns")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(max = MAX_PATTERNS)))]
    pub token: Vec<PathPattern>,
    /// UserInfo endpoints, closed to third-party clients unless they may have OpenID Connect's scopes.
    #[serde(deserialize_with = "patterns")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(max = MAX_PATTERNS)))]
    pub userinfo: Vec<PathPattern>,
    /// Endpoints that are closed to third-party clients.
    #[serde(deserialize_with = "patterns")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(max = MAX_PATTERNS)))]
    pub closed: Vec<PathPattern>,
    /// Where the server publishes its metadata (RFC 8414 §3).
    #[serde(deserialize_with = "patterns")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(max = MAX_PATTERNS)))]
    pub discovery: Vec<PathPattern>,
    /// The server's own registration endpoints, closed to everybody outside. That of `forward_registration` is always
    /// one of them.
    #[serde(deserialize_with = "patterns")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(max = MAX_PATTERNS)))]
    pub server_registration: Vec<PathPattern>,
    /// Where the server registers clients, if it is the registrar.
    pub forward_registration: PlainPath,
}

impl Default for Paths {
    fn default() -> Self {
        let list = |paths: &[&str]| paths.iter().map(|path| PathPattern((*path).to_owned())).collect();
        Self {
            authorization: list(&["/authorize"]),
            token: list(&["/oauth/token"]),
            userinfo: list(&["/userinfo"]),
            closed: list(&[
                "/oauth/par",
                "/bc-authorize",
                "/oauth/device/code",
                "/dbconnections/*",
                "/passwordless/*",
                "/delegation",
                "/oauth/ro",
                "/v2/logout",
                "/oidc/logout",
                "/samlp/*",
                "/wsfed/*",
            ]),
            discovery: list(&["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"]),
            server_registration: list(&[
                "/reg/*",
                "/oauth2/register/*",
                "/connect/register/*",
                "/connect/dcr/*",
                "/oauth2/v1/clients/*",
                "/realms/*/clients-registrations/*",
            ]),
            forward_registration: PlainPath("/reg".to_owned()),
        }
    }
}

fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathPattern>, D::Error> {
    let list = Vec::deserialize(deserializer)?;
    if list.len() <= MAX_PATTERNS {
        Ok(list)
    } else {
        Err(serde::de::Error::custom(format!("expected at most {MAX_PATTERNS} entries")))
    }
}

/// Paths: segments as they are, `*` for any one segment, and a last `/*` for the path before it and everything below.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schemars(extend("maxLength" = MAX_PATH), extend("pattern" = r"^/\.?[0-9A-Za-z_~-][0-9A-Za-z._~-]*(/(\*|\.?[0-9A-Za-z_~-][0-9A-Za-z._~-]*))*$")))]
#[serde(try_from = "String", into = "String")]
pub struct PathPattern(String);

impl PathPattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PathPattern {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let first_is_literal = text.split('/').nth(1).is_some_and(|segment| segment != "*");
        if first_is_literal && is_path(&text, |segment| segment == "*" || is_segment(segment)) {
            Ok(Self(text))
        } else {
            Err("expected a path such as /authorize, with * for one segment, or /samlp/* for all below too; \
                 the first segment is none")
        }
    }
}

impl From<PathPattern> for String {
    fn from(pattern: PathPattern) -> Self {
        pattern.0
    }
}

/// A path without anything that would need escaping.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schemars(extend("maxLength" = MAX_PATH), extend("pattern" = r"^(/\.?[0-9A-Za-z_~-][0-9A-Za-z._~-]*)+$")))]
#[serde(try_from = "String", into = "String")]
pub struct PlainPath(String);

impl PlainPath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PlainPath {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_path(&text, is_segment) { Ok(Self(text)) } else { Err("expected a path such as /oauth2/register") }
    }
}

impl From<PlainPath> for String {
    fn from(path: PlainPath) -> Self {
        path.0
    }
}

fn is_path(text: &str, is_fit: impl Fn(&str) -> bool) -> bool {
    text.len() <= MAX_PATH && text.strip_prefix('/').is_some_and(|path| path.split('/').all(is_fit))
}

/// Whether a segment means itself, for every reader (RFC 3986 §2.3).
fn is_segment(segment: &str) -> bool {
    let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    !segment.is_empty() && !segment.starts_with("..") && segment != "." && segment.bytes().all(is_unreserved)
}

/// The names that the authorization server has for parameters that no standard names. No two are one.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ParameterNames {
    /// What it calls the API that a token is for: `audience`, or `resource` (RFC 8707).
    pub audience: ParameterName,
    /// What it calls the connection that the user logs in with.
    pub connection: ParameterName,
    /// What it calls the organization that the user logs in to.
    pub organization: ParameterName,
}

/// Names of which no two are one, nor one the standard word of another.
pub(super) fn distinct<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ParameterNames, D::Error> {
    let names = ParameterNames::deserialize(deserializer)?;
    let ParameterNames { audience, connection, organization } = &names;
    let words = [(audience, "audience"), (connection, "connection"), (organization, "organization")];
    let is_of_another = |(name, own): &(&ParameterName, &str)| {
        let is = |word: &str| name.0.eq_ignore_ascii_case(word);
        let is_standard = ["audience", "connection", "organization"].iter().any(|word| word != own && is(word));
        let is_taken = words.iter().any(|(other, word)| word != own && is(&other.0));
        is_standard || is_taken || (*own != "audience" && is("resource"))
    };
    if words.iter().any(is_of_another) {
        return Err(serde::de::Error::custom("each parameter needs a name of its own"));
    }
    Ok(names)
}

impl Default for ParameterNames {
    fn default() -> Self {
        let name = |name: &str| ParameterName(name.to_owned());
        Self { audience: name("audience"), connection: name("connection"), organization: name("organization") }
    }
}

/// The name of a parameter.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schemars(extend("pattern" = "^[0-9A-Za-z_-]{1,64}$")))]
#[serde(try_from = "String", into = "String")]
pub struct ParameterName(String);

/// Parameters that mean something else already.
const TAKEN: [&str; 30] = [
    "acr_values",
    "authorization_details",
    "claims",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "code",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "correlation_id",
    "display",
    "dpop_jkt",
    "grant_type",
    "id_token_hint",
    "login_hint",
    "max_age",
    "nonce",
    "prompt",
    "redirect_uri",
    "refresh_token",
    "response_mode",
    "response_type",
    "request",
    "request_uri",
    "scope",
    "screen_hint",
    "state",
    "ui_locales",
];

impl ParameterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ParameterName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if TAKEN.iter().any(|taken| text.eq_ignore_ascii_case(taken)) {
            Err("the parameter of this name means something else")
        } else if (1..=MAX_PARAMETER).contains(&text.len()) && text.bytes().all(is_fit) {
            Ok(Self(text))
        } else {
            Err("expected 1 to 64 letters, digits, - and _")
        }
    }
}

impl From<ParameterName> for String {
    fn from(name: ParameterName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_path_of_plain_segments_and_stars() {
        for good in ["/authorize", "/a/*", "/realms/*/clients-registrations/*", "/.well-known/x", "/a.b/~c_d-e"] {
            assert!(PathPattern::try_from(good.to_owned()).is_ok(), "{good}");
        }
        let long = format!("/{}", "a".repeat(MAX_PATH));
        for bad in ["", "/", "authorize", "/*", "/*/a", "/a/", "//a", "/a*", "/a/..", "/a/./b", "/a%20", "/a?b", &long]
        {
            assert!(PathPattern::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        assert!(PlainPath::try_from("/oauth2/register".to_owned()).is_ok());
        assert!(PlainPath::try_from("/oauth2/*".to_owned()).is_err());
    }

    #[test]
    fn every_default_path_is_a_valid_one() {
        let written = serde_json::to_value(Paths::default()).unwrap();
        assert_eq!(serde_json::from_value::<Paths>(written).unwrap(), Paths::default());
    }

    #[test]
    fn a_parameter_cannot_get_the_name_of_another() {
        for good in ["resource", "audience", "kc_idp_hint", "domain_hint", "ext-org"] {
            assert!(ParameterName::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "client_id", "Client_ID", "scope", "a b", "a[]", "ä"] {
            assert!(ParameterName::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
