//! The authorization endpoint (RFC 6749 §3.1): which requests of a third-party client go on, and in which form.

use super::access::{Ask, WithoutScope, audience_name, is_for_pkce, use_word};
use super::parameters::{Parameters, percent_encode};
use super::{Denial, OAuthError};
use crate::edge_api::{ClientRecord, Permissions};
use crate::management::{RedirectionPolicy, SubjectType};
use crate::registration::is_loopback;
use crate::tenant::{DcrEdge, ParameterNames, Settings};

/// What clients may send, beside the words of the server, `organization` and extensions.
const ALLOWED: [&str; 20] = [
    "acr_values",
    "audience",
    "authorization_details",
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "connection",
    "correlation_id",
    "display",
    "dpop_jkt",
    "login_hint",
    "max_age",
    "nonce",
    "prompt",
    "redirect_uri",
    "resource",
    "response_type",
    "scope",
    "state",
    "ui_locales",
];

/// What clients send that goes by other rules than those of third parties, for a sentence that names it.
const KNOWN: [&str; 10] = [
    "claims",
    "id_token_hint",
    "invitation",
    "login_ticket",
    "organization",
    "registration",
    "request",
    "request_uri",
    "response_mode",
    "screen_hint",
];

/// What the names of a tenant's own parameters begin with.
const EXTENSION: &str = "ext-";

/// A request that goes on to the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Authorization {
    /// Its parameters: all of them.
    pub parameters: Parameters,
    /// The names of the connections that the user may log in with, comma-separated and percent-encoded, for the header
    /// `x-dcr-connections`; empty if there are none. `None` if the request names one.
    pub connections: Option<String>,
}

/// A request that goes no further.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuthorizationRefusal {
    /// Why.
    pub denial: Denial,
    /// Where the browser goes with the error (RFC 6749 §4.1.2.1): the client's registered callback, if the client's
    /// [`RedirectionPolicy`] is for that. `None`: the user sees a page.
    pub location: Option<String>,
}

/// Holds an authorization request of a third-party client to what the client may ask for. The parameters are those of the
/// query or of the form; the client is the one that they name.
///
/// # Errors
/// The request breaks a rule.
pub fn authorize(
    mut sent: Parameters,
    client: &ClientRecord,
    permissions: &Permissions,
    settings: &Settings,
) -> Result<Authorization, AuthorizationRefusal> {
    let unlocated = |denial| AuthorizationRefusal { denial, location: None };
    // Also one without a value.
    let foreign = foreign(&sent, settings);
    sent.drop_valueless();
    if sent.get("client_id") != Some(&client.client_id) {
        return Err(unlocated(invalid("client_id must name one client")));
    }
    let callback = callback(&sent, client).map_err(unlocated)?.to_owned();
    let state = sent.get("state").map(str::to_owned);
    let ask =
        Ask { client, permissions, settings, subject_type: SubjectType::User, without_scope: WithoutScope::Defaults };
    foreign.map_or_else(|| held(sent, ask), Err).map_err(|denial| {
        let redirects = client.redirection_policy == RedirectionPolicy::AllowAlways;
        let location = redirects.then(|| error_location(&callback, &denial, state.as_deref())).flatten();
        AuthorizationRefusal { denial, location }
    })
}

/// The registered redirect URI that `uri` is, byte for byte; of a loopback `http` URI the port may be another or none,
/// since an application takes one that is free (RFC 8252 §7.3).
fn registered_redirect_uri<'c>(client: &'c ClientRecord, uri: &str) -> Option<&'c str> {
    let mut registered = client.redirect_uris.iter().map(|registered| &**registered);
    registered.find(|registered| is_same_redirect_uri(registered, uri))
}

/// Whether two redirect URIs are one, as far as a client's callback is meant.
pub(super) fn is_same_redirect_uri(registered: &str, uri: &str) -> bool {
    registered == uri
        || without_loopback_port(uri).is_some_and(|loopback| without_loopback_port(registered) == Some(loopback))
}

/// What is before and after the port of a loopback `http` URI, whether it has one or not.
fn without_loopback_port(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once("://").filter(|(scheme, _)| scheme.eq_ignore_ascii_case("http"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    // The last colon of an address in brackets is within them.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_port =
        |port: &str| !port.starts_with('0') && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if !is_loopback(host) || !port.is_none_or(is_port) {
        return None;
    }
    let end = scheme.len().checked_add("://".len())?.checked_add(host.len())?;
    Some((uri.get(..end)?, rest.get(authority.len()..)?))
}

/// Where the user comes back to.
fn callback<'a>(sent: &'a Parameters, client: &'a ClientRecord) -> Result<&'a str, Denial> {
    match (sent.get("redirect_uri"), &*client.redirect_uris) {
        (Some(uri), _) if registered_redirect_uri(client, uri).is_some() => Ok(uri),
        (Some(_), _) => Err(invalid("redirect_uri is not one that the client registered")),
        (None, [only]) => Ok(only),
        (None, _) => Err(invalid("redirect_uri is missing: the client did not register exactly one")),
    }
}

/// The denial of a request with a parameter that is not for third-party clients.
fn foreign(sent: &Parameters, settings: &Settings) -> Option<Denial> {
    let DcrEdge { parameters: words, allow_organization, .. } = &settings.dcr_edge;
    let name = sent.names().find(|name| !is_allowed(name, words, *allow_organization))?;
    Some(invalid(match KNOWN.iter().find(|known| **known == name) {
        Some(known) => format!("{known} is not for third-party clients: leave it out"),
        None => "the request has a parameter that is not for third-party clients: leave it out".to_owned(),
    }))
}

/// What goes on of a request that may be answered at the callback.
fn held(mut parameters: Parameters, ask: Ask<'_>) -> Result<Authorization, Denial> {
    let words = &ask.settings.dcr_edge.parameters;
    if !ask.client.grant_types.iter().any(|grant| &**grant == "authorization_code") {
        return Err(Denial::new(OAuthError::UnauthorizedClient, "the client did not register authorization_code"));
    }
    match parameters.get("response_type") {
        Some("code") => {}
        Some(_) => return Err(Denial::new(OAuthError::UnsupportedResponseType, "response_type must be code")),
        None => return Err(invalid("response_type is missing: it must be code")),
    }
    if !parameters.get("code_challenge").is_some_and(is_for_pkce) {
        return Err(invalid("code_challenge must be there, of 43 to 128 unreserved characters (RFC 7636)"));
    }
    if parameters.get("code_challenge_method") != Some("S256") {
        return Err(invalid("code_challenge_method must be S256"));
    }
    use_word(&mut parameters, "audience", audience_name(words.audience.as_str()))?;
    use_word(&mut parameters, "connection", words.connection.as_str())?;
    use_word(&mut parameters, "organization", words.organization.as_str())?;
    let connections = connections(&mut parameters, ask)?;
    ask.hold(&mut parameters)?;
    Ok(Authorization { parameters, connections })
}

fn is_allowed(name: &str, words: &ParameterNames, allow_organization: bool) -> bool {
    // First, since the server's word for it may be one of the others.
    if name == "organization" || name == words.organization.as_str() {
        return allow_organization;
    }
    let is_extension = name.strip_prefix(EXTENSION).is_some_and(|rest| !rest.is_empty());
    is_extension || ALLOWED.contains(&name) || name == words.audience.as_str() || name == words.connection.as_str()
}

/// Checks the connection, or writes the only one. Otherwise what the server is told of those that are allowed.
fn connections(parameters: &mut Parameters, ask: Ask<'_>) -> Result<Option<String>, Denial> {
    let word = ask.settings.dcr_edge.parameters.connection.as_str();
    let allowed = &ask.permissions.connections;
    match (parameters.get(word), &**allowed) {
        (Some(sent), _) if allowed.iter().any(|allowed| &**allowed == sent) => Ok(None),
        (Some(_), _) => Err(invalid(format!("{word} must name a connection that is at domain level"))),
        (None, [only]) => {
            parameters.set(word, only);
            Ok(None)
        }
        (None, allowed) => {
            let encoded: Vec<String> = allowed.iter().map(|name| percent_encoded(name)).collect();
            Ok(Some(encoded.join(",")))
        }
    }
}

/// The callback with the error in its query (RFC 6749 §4.1.2.1).
fn error_location(callback: &str, denial: &Denial, state: Option<&str>) -> Option<String> {
    // There would be no query behind a fragment.
    if callback.contains('#') {
        return None;
    }
    let separator = match callback.split_once('?') {
        None => "?",
        Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
        Some(_) => "&",
    };
    let error = denial.error.as_str();
    let description = percent_encoded(&denial.description);
    let mut location = format!("{callback}{separator}error={error}&error_description={description}");
    if let Some(state) = state {
        location.push_str("&state=");
        location.push_str(&percent_encoded(state));
    }
    Some(location)
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    percent_encode(text, &mut encoded);
    encoded
}

fn invalid(description: impl Into<String>) -> Denial {
    Denial::new(OAuthError::InvalidRequest, description)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{client, grant, pairs, parameters, permissions};
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};
    use proptest::string::string_regex;
    use serde_json::json;

    const API: &str = "https://api.example";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    /// A good request with these changes; `None` takes a parameter away.
    fn request(changes: &[(&str, Option<&str>)]) -> Parameters {
        let good = [
            ("response_type", Some("code")),
            ("client_id", Some("tpc_a")),
            ("redirect_uri", Some("https://app.example/cb")),
            ("code_challenge", Some(CHALLENGE)),
            ("code_challenge_method", Some("S256")),
            ("audience", Some(API)),
            ("scope", Some("read")),
            ("state", Some("s")),
        ];
        parameters(&[good.as_slice(), changes].concat())
    }

    fn granted() -> Permissions {
        permissions([grant(API, "read write")])
    }

    fn tenant(edge: serde_json::Value) -> Settings {
        serde_json::from_value(json!({"dcr_edge": edge})).unwrap()
    }

    fn go_on(changes: &[(&str, Option<&str>)]) -> Authorization {
        authorize(request(changes), &client(), &granted(), &Settings::default()).unwrap()
    }

    fn error(changes: &[(&str, Option<&str>)]) -> &'static str {
        error_of(changes, &client(), &granted(), &Settings::default())
    }

    fn error_of(
        changes: &[(&str, Option<&str>)],
        client: &ClientRecord,
        permissions: &Permissions,
        settings: &Settings,
    ) -> &'static str {
        authorize(request(changes), client, permissions, settings).unwrap_err().denial.error.as_str()
    }

    #[test]
    fn a_good_request_goes_on_as_it_is() {
        let going = go_on(&[]);
        assert_eq!(going.parameters, request(&[]));
    }

    #[test]
    fn every_allowed_parameter_passes_as_it_is_sent() {
        let others = [
            "acr_values",
            "authorization_details",
            "correlation_id",
            "display",
            "dpop_jkt",
            "ext-a",
            "ext-any_thing",
            "login_hint",
            "max_age",
            "nonce",
            "prompt",
            "ui_locales",
        ];
        let changes: Vec<_> = others.map(|name| (name, Some("a b&c=%"))).to_vec();
        assert_eq!(go_on(&changes).parameters, request(&changes));
        // Those that have a meaning here have tests of their own.
        let named: Vec<_> = others.iter().filter(|name| !name.starts_with("ext-")).collect();
        assert_eq!(
            named.len() + request(&[("connection", Some("c")), ("resource", Some("r"))]).names().count(),
            ALLOWED.len()
        );
    }

    #[test]
    fn other_parameters_are_an_invalid_request_also_without_a_value() {
        for name in [
            "claims",
            "id_token_hint",
            "invitation",
            "login_ticket",
            "request",
            "request_uri",
            "screen_hint",
            "response_mode",
            "registration",
            "organization",
            "client_secret",
            "web_message_target",
            "Scope",
            "ext-",
            "ext",
            "scope[]",
            "",
        ] {
            assert_eq!(error(&[(name, Some("x"))]), "invalid_request", "{name}");
            assert_eq!(error(&[(name, Some(""))]), "invalid_request", "{name}");
        }
    }

    #[test]
    fn a_sentence_names_a_parameter_that_is_known_and_no_other() {
        let description = |name: &str| {
            let refused = authorize(request(&[(name, Some("x"))]), &client(), &granted(), &Settings::default());
            refused.unwrap_err().denial.description
        };
        assert_eq!(description("request_uri"), "request_uri is not for third-party clients: leave it out");
        assert!(!description("evil").contains("evil"));
    }

    #[test]
    fn organization_passes_only_where_the_tenant_opted_in() {
        let changes = [("organization", Some("org_1"))];
        assert_eq!(error(&changes), "invalid_request");
        let open = tenant(json!({"allow_organization": true}));
        let going = authorize(request(&changes), &client(), &granted(), &open).unwrap();
        assert_eq!(going.parameters.get("organization"), Some("org_1"));
        // Not under the server's word either, whatever that looks like.
        let closed = tenant(json!({"parameters": {"organization": "ext-org"}}));
        assert_eq!(error_of(&[("ext-org", Some("o"))], &client(), &granted(), &closed), "invalid_request");
    }

    #[test]
    fn what_the_server_calls_otherwise_goes_on_under_its_word() {
        let settings = tenant(json!({
            "allow_organization": true,
            "parameters": {"audience": "api", "connection": "kc_idp_hint", "organization": "org"}
        }));
        let with_connection = Permissions { connections: Box::new(["a".into(), "b".into()]), ..granted() };
        let standard = [("connection", Some("a")), ("organization", Some("o"))];
        let own = [("audience", None), ("api", Some(API)), ("kc_idp_hint", Some("a")), ("org", Some("o"))];
        for changes in [standard.as_slice(), &own] {
            let going = authorize(request(changes), &client(), &with_connection, &settings).unwrap().parameters;
            for (name, value) in [
                ("api", Some(API)),
                ("kc_idp_hint", Some("a")),
                ("org", Some("o")),
                ("audience", None),
                ("connection", None),
                ("organization", None),
            ] {
                assert_eq!(going.get(name), value, "{name} of {changes:?}");
            }
        }
        for (standard, own, value) in
            [("audience", "api", API), ("connection", "kc_idp_hint", "a"), ("organization", "org", "o")]
        {
            let both = [(standard, Some(value)), (own, Some(value))];
            assert_eq!(error_of(&both, &client(), &with_connection, &settings), "invalid_request", "{standard}");
        }
    }

    #[test]
    fn a_parameter_without_a_value_counts_as_omitted_and_does_not_go_on() {
        assert_eq!(go_on(&[("nonce", Some("")), ("prompt", Some(""))]).parameters, request(&[]));
        assert_eq!(error(&[("code_challenge", Some(""))]), "invalid_request");
        assert_eq!(go_on(&[("audience", Some(""))]).parameters.get("audience"), Some(API));
    }

    #[test]
    fn response_type_must_be_code() {
        for other in ["token", "id_token", "code id_token", "none", "Code", "code "] {
            assert_eq!(error(&[("response_type", Some(other))]), "unsupported_response_type", "{other}");
        }
        assert_eq!(error(&[("response_type", None)]), "invalid_request");
    }

    #[test]
    fn pkce_is_required_with_s256() {
        assert_eq!(error(&[("code_challenge", None)]), "invalid_request");
        assert_eq!(error(&[("code_challenge", None), ("code_challenge_method", None)]), "invalid_request");
        assert_eq!(error(&[("code_challenge_method", None)]), "invalid_request");
        for method in ["plain", "s256", "S512", "S256 "] {
            assert_eq!(error(&[("code_challenge_method", Some(method))]), "invalid_request", "{method}");
        }
    }

    #[test]
    fn a_code_challenge_has_43_to_128_unreserved_characters() {
        for good in ["a".repeat(43), "a".repeat(128), format!("{}-._~Z9", "a".repeat(37))] {
            assert_eq!(go_on(&[("code_challenge", Some(&good))]).parameters.get("code_challenge"), Some(&*good));
        }
        let start = "a".repeat(42);
        for bad in [start.clone(), "a".repeat(129), format!("{start}+"), format!("{start}="), format!("{start}é")] {
            assert_eq!(error(&[("code_challenge", Some(&bad))]), "invalid_request", "{bad}");
        }
    }

    #[test]
    fn a_redirect_uri_equals_a_registered_one_byte_for_byte() {
        for other in [
            "https://app.example/cb/",
            "https://app.example/cb?x",
            "https://app.example/CB",
            "https://App.example/cb",
            "https://app.example:443/cb",
            "https://app.example/%63b",
            "https://app.example/cb#",
            "https://app.example",
            "https://evil.example/cb",
            "http://app.example/cb",
        ] {
            assert_eq!(registered_redirect_uri(&client(), other), None, "{other}");
            assert_eq!(error(&[("redirect_uri", Some(other))]), "invalid_request", "{other}");
        }
        assert_eq!(registered_redirect_uri(&client(), "https://app.example/cb"), Some("https://app.example/cb"));
    }

    fn with_callbacks(uris: &[&str]) -> ClientRecord {
        ClientRecord { redirect_uris: uris.iter().map(|uri| (*uri).into()).collect(), ..client() }
    }

    #[test]
    fn loopback_http_uris_may_differ_in_port_only() {
        for (registered, sent) in [
            ("http://127.0.0.1:33418/cb", "http://127.0.0.1:5000/cb"),
            ("http://127.0.0.1:33418/cb", "http://127.0.0.1/cb"),
            ("http://127.0.0.1/cb?a=b:1", "http://127.0.0.1:65535/cb?a=b:1"),
            ("http://127.0.0.1", "http://127.0.0.1:1"),
            ("http://[::1]/cb", "http://[::1]:5000/cb"),
            ("http://[::1]:1/cb", "http://[::1]/cb"),
            ("http://localhost:3334/oauth/callback", "http://localhost:1/oauth/callback"),
        ] {
            assert_eq!(registered_redirect_uri(&with_callbacks(&[registered]), sent), Some(registered), "{sent}");
        }
        for (registered, sent) in [
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:2/cb2"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:2/cb?a"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:2/cb#a"),
            ("http://127.0.0.1:1/cb", "https://127.0.0.1:2/cb"),
            ("http://127.0.0.1:1/cb", "HTTP://127.0.0.1:2/cb"),
            ("http://127.0.0.1:1/cb", "http://localhost:2/cb"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.2:2/cb"),
            ("http://127.0.0.1:1/cb", "http://[::1]:2/cb"),
            ("http://localhost:1/cb", "http://LocalHost:2/cb"),
            ("http://localhost:1/cb", "http://127.0.0.1:2/cb"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:/cb"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:0/cb"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:01/cb"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:+2/cb"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:65536/cb"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:2@evil.example/cb"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:2\\@evil.example/cb"),
            ("http://127.0.0.1:1/cb", "http://u@127.0.0.1:2/cb"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1.evil.example:2/cb"),
            ("https://app.example:1/cb", "https://app.example:2/cb"),
            ("https://localhost:1/cb", "https://localhost:2/cb"),
            ("cursor://localhost:1/cb", "cursor://localhost:2/cb"),
        ] {
            assert_eq!(registered_redirect_uri(&with_callbacks(&[registered]), sent), None, "{sent}");
        }
    }

    #[test]
    fn a_redirect_uri_may_be_left_out_only_if_exactly_one_is_registered() {
        let left_out = [("redirect_uri", None)];
        // Written, it would have to be sent to the token endpoint too (RFC 6749 §4.1.3).
        assert_eq!(go_on(&left_out).parameters.get("redirect_uri"), None);
        for callbacks in [[].as_slice(), &["https://app.example/cb", "https://app.example/cb2"]] {
            let client = with_callbacks(callbacks);
            assert_eq!(error_of(&left_out, &client, &granted(), &Settings::default()), "invalid_request");
        }
    }

    #[test]
    fn a_client_without_the_grant_of_codes_is_unauthorized() {
        let client = ClientRecord { grant_types: Box::new(["refresh_token".into()]), ..client() };
        assert_eq!(error_of(&[], &client, &granted(), &Settings::default()), "unauthorized_client");
    }

    #[test]
    fn a_client_id_that_is_missing_or_another_is_refused_with_a_page() {
        let client = ClientRecord { redirection_policy: RedirectionPolicy::AllowAlways, ..client() };
        for id in [None, Some("tpc_b")] {
            let refused = authorize(request(&[("client_id", id)]), &client, &granted(), &Settings::default());
            let AuthorizationRefusal { denial, location } = refused.unwrap_err();
            assert_eq!((denial.error, location), (OAuthError::InvalidRequest, None));
        }
    }

    #[test]
    fn a_connection_must_be_a_domain_level_one() {
        let two =
            Permissions { connections: Box::new(["google-oauth2".into(), "Username, Pässword".into()]), ..granted() };
        let of = |connection: Option<&str>, permissions: &Permissions| {
            authorize(request(&[("connection", connection)]), &client(), permissions, &Settings::default())
        };
        let going = of(Some("google-oauth2"), &two).unwrap();
        assert_eq!((going.parameters.get("connection"), going.connections), (Some("google-oauth2"), None));
        for other in ["github", "Google-oauth2", "google-oauth2,github"] {
            let refused = of(Some(other), &two).unwrap_err();
            assert_eq!(refused.denial.error, OAuthError::InvalidRequest, "{other}");
        }
        assert!(of(Some("google-oauth2"), &granted()).is_err());
    }

    #[test]
    fn without_a_connection_the_server_is_told_which_are_allowed() {
        let with = |names: &[&str]| {
            let connections = names.iter().map(|name| (*name).into()).collect();
            let permissions = Permissions { connections, ..granted() };
            authorize(request(&[]), &client(), &permissions, &Settings::default()).unwrap()
        };
        let two = with(&["google-oauth2", "a_B, %é\n"]);
        assert_eq!(two.connections.as_deref(), Some("google-oauth2,a_B%2C%20%25%C3%A9%0A"));
        assert_eq!(two.parameters.get("connection"), None);
        assert_eq!(with(&[]).connections.as_deref(), Some(""));
        let one = with(&["a, b"]);
        assert_eq!((one.parameters.get("connection"), one.connections), (Some("a, b"), None));
    }

    #[test]
    fn no_error_redirects_to_the_callback_by_default() {
        let refused = authorize(request(&[("scope", Some("admin"))]), &client(), &granted(), &Settings::default());
        assert_eq!(refused.unwrap_err().location, None);
    }

    #[test]
    fn with_allow_always_errors_redirect_with_error_and_state() {
        let client = |uri: &str| ClientRecord {
            redirection_policy: RedirectionPolicy::AllowAlways,
            redirect_uris: Box::new([uri.into()]),
            ..client()
        };
        let location = |changes: &[(&str, Option<&str>)], uri: &str, sent: Option<&str>| {
            let changes = [changes, &[("redirect_uri", sent)]].concat();
            authorize(request(&changes), &client(uri), &granted(), &Settings::default()).unwrap_err().location
        };
        let app = "https://app.example/cb";
        let plain = location(&[("response_type", Some("token"))], app, Some(app)).unwrap();
        let description = "error_description=response_type%20must%20be%20code";
        assert_eq!(plain, format!("{app}?error=unsupported_response_type&{description}&state=s"));
        for (uri, start) in [
            ("https://app.example/cb?a=b", "https://app.example/cb?a=b&error="),
            ("https://app.example/cb?", "https://app.example/cb?error="),
            ("https://app.example/cb?a&", "https://app.example/cb?a&error="),
            ("com.example.app:/cb", "com.example.app:/cb?error="),
        ] {
            assert!(location(&[("scope", Some("x"))], uri, Some(uri)).unwrap().starts_with(start), "{uri}");
            // Left out it is the only one.
            assert!(location(&[("scope", Some("x"))], uri, None).unwrap().starts_with(start), "{uri}");
        }
        let of_port = location(&[("claims", Some("{}"))], "http://127.0.0.1:1/cb", Some("http://127.0.0.1:77/cb"));
        assert!(of_port.unwrap().starts_with("http://127.0.0.1:77/cb?error=invalid_request&"));
        let of_state = location(&[("scope", Some("x")), ("state", Some("a b&c=é\r\n"))], app, Some(app)).unwrap();
        assert!(of_state.ends_with("&state=a%20b%26c%3D%C3%A9%0D%0A"), "{of_state}");
        let stateless = location(&[("scope", Some("x")), ("state", None)], app, Some(app)).unwrap();
        assert!(!stateless.contains("state"), "{stateless}");
    }

    #[test]
    fn with_allow_always_nothing_redirects_to_a_uri_that_is_not_registered() {
        let client = ClientRecord { redirection_policy: RedirectionPolicy::AllowAlways, ..client() };
        for changes in [
            [("redirect_uri", Some("https://evil.example/")), ("response_type", None)],
            [("redirect_uri", Some("https://app.example/cb#")), ("claims", Some("x"))],
        ] {
            let refused = authorize(request(&changes), &client, &granted(), &Settings::default()).unwrap_err();
            assert_eq!((refused.denial.error, refused.location), (OAuthError::InvalidRequest, None));
        }
    }

    proptest! {
        #[test]
        fn only_loopback_uris_match_others_and_only_but_for_the_port(
            registered in "(https?|HTTP|app)://(localhost|127.0.0.1|127.1|\\[::1\\]|a.example)(:[0-9]{1,5})?(/[a:@?#]{0,3})?",
            sent in "(https?|HTTP|app)://(localhost|127.0.0.1|127.1|\\[::1\\]|a.example)(:[0-9@+]{0,6})?(/[a:@?#]{0,3})?",
            port in any::<u16>(),
        ) {
            let client = with_callbacks(&[&registered]);
            prop_assert_eq!(registered_redirect_uri(&client, &registered), Some(&*registered));
            // An independent reading of the rule: without their ports they are the same text.
            let without_port = |uri: &str| {
                let uri = fluent_uri::Uri::parse(uri).ok()?;
                let authority = uri.authority()?;
                let digits = authority.port().map_or("1", |port| port.as_str());
                let is_port = !digits.is_empty() && !digits.starts_with('0') && digits.parse::<u16>().is_ok();
                let is_loopback = ["localhost", "127.0.0.1", "[::1]"].contains(&authority.host());
                let is_http = uri.scheme().as_str().eq_ignore_ascii_case("http");
                (is_loopback && is_http && is_port && !authority.has_userinfo()).then(|| {
                    let tail = format!("{:?}{:?}{:?}", uri.path(), uri.query(), uri.fragment());
                    format!("{:?} {} {tail}", uri.scheme(), authority.host())
                })
            };
            let same = sent == registered || without_port(&sent).is_some() && without_port(&sent) == without_port(&registered);
            prop_assert_eq!(registered_redirect_uri(&client, &sent).is_some(), same, "{} {}", registered, sent);
            let with_port = format!("http://127.0.0.1:{port}/cb");
            prop_assert_eq!(registered_redirect_uri(&with_callbacks(&["http://127.0.0.1/cb"]), &with_port).is_some(), port > 0);
        }

        #[test]
        fn whatever_is_sent_only_allowed_parameters_within_the_grant_go_on(
            names in subsequence(vec![
                "audience", "resource", "scope", "connection", "prompt", "ext-a", "nonce", "claims", "request",
                "api", "organization",
            ], 0..6),
            values in proptest::collection::vec(select(vec![
                "", API, "https://api.example/", "https://b.example", "read", "read admin openid offline_access",
                "openid", "write  read", "write read write", "c", "x#y",
            ]), 6),
            noise in string_regex("[a-z_]{1,8}").unwrap(),
            send_noise in any::<bool>(),
            oidc in any::<bool>(),
            word in select(vec!["audience", "resource", "api"]),
        ) {
            let mut changes: Vec<(&str, Option<&str>)> = names.into_iter().zip(values.into_iter().map(Some)).collect();
            if send_noise {
                changes.push((&noise, Some("x")));
            }
            let settings = tenant(json!({"third_party_oidc_scopes": oidc, "parameters": {"audience": word}}));
            let mut second = grant("https://b.example", "write");
            second.allow_offline_access = true;
            let permissions = permissions([grant(API, "read write openid"), second]);
            let permissions = Permissions { connections: Box::new(["c".into(), "d".into()]), ..permissions };
            if let Ok(going) = authorize(request(&changes), &client(), &permissions, &settings) {
                for (name, value) in pairs(&going.parameters) {
                    prop_assert!(ALLOWED.contains(&name) || name.starts_with("ext-") || name == word, "{}", name);
                    prop_assert!(!value.is_empty());
                }
                prop_assert!(going.parameters.get(word).is_some());
                let apis: Vec<_> = ["audience", "resource", "api"].iter().filter_map(|name| going.parameters.get(name)).collect();
                for scope in going.parameters.get("scope").unwrap().split(' ') {
                    let is_oidc = ["openid", "profile", "email", "address", "phone"].contains(&scope);
                    for api in &apis {
                        let grant = permissions.grants.iter().find(|grant| grant.audience == *api).unwrap();
                        let is_granted = match scope {
                            "offline_access" => grant.allow_offline_access,
                            _ if is_oidc => oidc,
                            _ => grant.scope.iter().any(|granted| granted == scope),
                        };
                        prop_assert!(is_granted, "{} at {}", scope, api);
                    }
                }
            }
        }
    }
}
