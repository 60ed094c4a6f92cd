//! What has to be true of whatever bytes come in. Each function takes any bytes and panics if it is not.
//!
//! They are run by cargo-fuzz (`make fuzz`), and by the suite over the seeds in `corpus/`, to which every finding goes.

#![allow(dead_code, reason = "each fuzz target needs one of them")]

use std::net::IpAddr;

use dcr_edge::acl::rule::{NetworkAcl, Rule};
use dcr_edge::acl::{Facts, Index, RequestKind};
use dcr_edge::edge_api::{
    AuthenticateClient, Changes, ClientControls, ClientInformation, ClientRecord, Count, ErrorBody, Permissions,
    RateLimited, RegisterClient, RegisteredClient, Report,
};
use dcr_edge::registration::{check, check_redirect_uri, is_unambiguous_object};
use dcr_edge::tenant::{DcrEdge, SecurityMode, Settings, Snapshot};
use dcr_edge::third_party::{Parameters, authorize};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// A registration that is accepted is written down as it was sent, and is accepted as it was written down.
pub fn registration_body(body: &[u8]) {
    for mode in [SecurityMode::Strict, SecurityMode::Permissive] {
        let rules = DcrEdge::default();
        let Ok(metadata) = check(body, mode, &rules) else { continue };
        assert!(is_unambiguous_object(body), "an ambiguous object was accepted");
        let written = serde_json::to_vec(&metadata).unwrap();
        assert_eq!(check(&written, mode, &rules), Ok(metadata.clone()), "{}", written.escape_ascii());
        let sent: Value = serde_json::from_slice(body).unwrap();
        for uri in metadata.redirect_uris() {
            assert!(sent["redirect_uris"].as_array().unwrap().contains(&json!(uri)), "{uri} was not sent");
            assert_eq!(check_redirect_uri(uri, &rules), Ok(()), "{uri} is accepted in a list only");
        }
    }
}

/// A redirect URI that is accepted leads, for everybody who reads it, to the host that it names, and is no script.
pub fn redirect_uri(uri: &[u8]) {
    let Ok(uri) = std::str::from_utf8(uri) else { return };
    if check_redirect_uri(uri, &DcrEdge::default()).is_err() {
        return;
    }
    let (scheme, rest) = uri.split_once(':').unwrap();
    assert!(
        !["javascript", "data", "vbscript", "file", "blob"].contains(&scheme.to_ascii_lowercase().as_str()),
        "{uri}"
    );
    assert!(!uri.contains(['#', '\\', '\n', '\r', ' ', '<', '>', '"']), "{uri}");
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return;
    }
    // The reader of browsers and of many servers.
    let read = url::Url::parse(uri).unwrap_or_else(|error| panic!("{uri}: {error}"));
    let authority = rest.strip_prefix("//").unwrap().split(['/', '?']).next().unwrap();
    let host = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(authority, |(host, _)| host);
    // An IPv6 address has many spellings.
    if host.starts_with('[') {
        let address = |host: &str| host.trim_matches(['[', ']']).parse::<IpAddr>().unwrap();
        assert_eq!(address(read.host_str().unwrap()), address(host), "{uri}");
    } else {
        assert_eq!(read.host_str(), Some(host.to_ascii_lowercase().as_str()), "{uri}");
    }
    assert!(read.username().is_empty() && read.password().is_none(), "{uri}");
    assert!(scheme.eq_ignore_ascii_case("https") || is_loopback(host), "{uri} is http and leaves the machine");
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Parameters are read as others read them, and what goes on of an authorization request is what the client may ask for.
pub fn authorize_query(query: &[u8]) {
    let Ok(parameters) = Parameters::parse(query) else { return };
    let own = |parameters: &Parameters| -> Vec<(String, String)> {
        parameters.names().map(|name| (name.to_owned(), parameters.get(name).unwrap().to_owned())).collect()
    };
    let mut names: Vec<_> = parameters.names().map(str::to_ascii_lowercase).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), parameters.names().count(), "a name is there twice");
    let theirs: Vec<(String, String)> = form_urlencoded::parse(query).into_owned().collect();
    assert_eq!(own(&parameters), theirs, "{}", query.escape_ascii());
    let encoded = parameters.encode();
    assert_eq!(Parameters::parse(encoded.as_bytes()).as_ref(), Ok(&parameters), "{encoded}");

    let client: ClientRecord = serde_json::from_value(json!({
        "client_id": "tpc_a", "security_mode": "strict", "self_registered": true,
        "redirect_uris": ["https://app.example/cb", "http://127.0.0.1/cb"],
        "grant_types": ["authorization_code", "refresh_token"], "token_endpoint_auth_method": "none",
        "redirection_policy": "allow_always",
    }))
    .unwrap();
    let permissions: Permissions = serde_json::from_value(json!({
        "grants": [{"audience": "https://api.example/", "scope": ["read"], "subject_type": "user",
            "allow_offline_access": false}],
        "connections": ["corporate"],
    }))
    .unwrap();
    match authorize(parameters, &client, &permissions, &Settings::default()) {
        Ok(authorization) => {
            let goes_on = &authorization.parameters;
            let callback = goes_on.get("redirect_uri").unwrap_or("https://app.example/cb");
            assert!(is_callback(callback), "{callback}");
            assert_eq!(goes_on.get("code_challenge_method"), Some("S256"));
            assert!(goes_on.get("code_challenge").is_some_and(|challenge| (43..=128).contains(&challenge.len())));
            assert_eq!(goes_on.get("response_type"), Some("code"));
            let scopes = goes_on.get("scope").unwrap_or_default().split(' ').filter(|scope| !scope.is_empty());
            for scope in scopes {
                assert!(["read", "openid", "profile", "email"].contains(&scope), "the scope {scope} goes on");
            }
        }
        Err(refusal) => {
            assert!(refusal.location.as_deref().is_none_or(is_callback), "{:?}", refusal.location);
        }
    }
}

/// Whether a URI, apart from its query, is a callback of the client: what is http may have any port.
fn is_callback(uri: &str) -> bool {
    let read = url::Url::parse(uri).unwrap_or_else(|error| panic!("{uri}: {error}"));
    let is_named = match read.scheme() {
        "https" => read.host_str() == Some("app.example") && read.port().is_none(),
        _ => read.scheme() == "http" && read.host_str() == Some("127.0.0.1"),
    };
    is_named && read.path() == "/cb" && read.username().is_empty() && read.password().is_none()
}

/// An access rule says the same after it was written down.
pub fn access_rule(acl: &[u8]) {
    let Ok(acl) = serde_json::from_slice::<NetworkAcl>(acl) else { return };
    let written = serde_json::to_vec(&acl).unwrap();
    let read: NetworkAcl = serde_json::from_slice(&written).unwrap_or_else(|error| panic!("{error}: {written:?}"));
    assert_eq!(read, acl);
    decides_alike(&acl.rule, &read.rule);
}

fn decides_alike(one: &Rule, other: &Rule) {
    let addresses = ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "127.0.0.1"];
    let (one, other) = (Index::new([one]), Index::new([other]));
    for kind in RequestKind::ALL {
        assert_eq!(one.needs(kind), other.needs(kind));
        for address in addresses.iter().map(|text| text.parse().ok()).chain([None]) {
            let known = Facts {
                address,
                connecting_address: address,
                asn: Some(64_496),
                country: Some("DE"),
                subdivision: Some("BE"),
                ja3: Some("0123456789abcdef0123456789abcdef"),
                ja4: Some("t13d1516h2_8daaf6152771_b186095e22b6"),
                user_agent: Some(b"curl/8.5.0"),
                authority: Some("login.example"),
                server_name: Some("login.example"),
            };
            for facts in [known, Facts { address, ..Facts::default() }] {
                let (mut seen, mut seen_by_other) = (Vec::new(), Vec::new());
                let verdict = one.evaluate(kind, &facts, |place, matched| seen.push((place, matched)));
                let of_other = other.evaluate(kind, &facts, |place, matched| seen_by_other.push((place, matched)));
                assert_eq!((verdict, seen), (of_other, seen_by_other));
            }
        }
    }
}

/// A tenant that an edge can read has settings and rules that say the same after they were written down.
pub fn snapshot(snapshot: &[u8]) {
    let Ok(snapshot) = serde_json::from_slice::<Snapshot>(snapshot) else { return };
    let written = serde_json::to_vec(&snapshot.settings).unwrap();
    let read: Settings = serde_json::from_slice(&written).unwrap_or_else(|error| panic!("{error}: {written:?}"));
    assert_eq!(read, snapshot.settings);
    for active in &snapshot.network_acls {
        let read: Rule = serde_json::from_value(serde_json::to_value(&active.rule).unwrap()).unwrap();
        assert_eq!(read, active.rule);
    }
    let index = Index::new(snapshot.network_acls.iter().map(|active| &active.rule));
    assert!(index.len() <= snapshot.network_acls.len());
    for kind in RequestKind::ALL {
        index.evaluate(kind, &Facts::default(), |_, _| {});
    }
}

/// What edge and store say to each other means the same to both.
pub fn edge_protocol(message: &[u8]) {
    says_the_same::<Changes>(message);
    says_the_same::<ClientControls>(message);
    says_the_same::<ClientInformation>(message);
    says_the_same::<RegisterClient<Box<RawValue>>>(message);
    says_the_same::<RegisteredClient>(message);
    says_the_same::<Report<Box<RawValue>>>(message);
    says_the_same::<Count<String>>(message);
    says_the_same::<RateLimited>(message);
    says_the_same::<ErrorBody>(message);
    if let Some(AuthenticateClient { client_secret }) = AuthenticateClient::parse(message) {
        assert_eq!(serde_json::from_slice::<Value>(message).unwrap()["client_secret"], client_secret);
    }
}

fn says_the_same<M: DeserializeOwned + Serialize>(message: &[u8]) {
    let Ok(read) = serde_json::from_slice::<M>(message) else { return };
    let written = serde_json::to_string(&read).unwrap();
    let again: M = serde_json::from_str(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(serde_json::to_string(&again).unwrap(), written);
}
