//! The five functions that a request runs through, each with what it is called with: for the micro-benchmarks, and for the
//! budget of their instructions.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use dcr_edge::acl::{Facts, Index, RequestKind, Rule, Verdict};
use dcr_edge::edge_api::{ClientRecord, Permissions};
use dcr_edge::rate_limit::{Bucket, judge};
use dcr_edge::registration;
use dcr_edge::request_path::{Endpoint, Routes};
use dcr_edge::tenant::{DcrEdge, RateLimit, SecurityMode, Settings};
use dcr_edge::third_party::{Parameters, authorize};
use serde_json::{Value, json};

/// The id of the client that sends [`AUTHORIZATION_REQUEST`].
const CLIENT_ID: &str = "tpc_0123456789abcdefghijklmnopqrstuv";

/// The query of an authorization request that [`client`] may send.
pub const AUTHORIZATION_REQUEST: &str = "client_id=tpc_0123456789abcdefghijklmnopqrstuv&response_type=code\
    &redirect_uri=http%3A%2F%2F127.0.0.1%3A49152%2Fcb&scope=read%20write%20offline_access\
    &state=af0ifjsldkj9zX3kQ&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM\
    &code_challenge_method=S256&resource=https%3A%2F%2Fapi.example%2F";

/// The registration of the README.
pub fn registration() -> Value {
    json!({
        "client_name": "My Dynamic Application",
        "redirect_uris": ["https://application.example.com/callback"],
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    })
}

/// A public client.
pub fn client(client_id: &str) -> Value {
    json!({
        "client_id": client_id,
        "security_mode": "strict",
        "self_registered": true,
        "redirect_uris": ["https://app.example/cb", "http://127.0.0.1/cb"],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "none",
        "redirection_policy": "open_redirect_protection",
    })
}

/// What it may do: at one API, for users of one connection.
pub fn permissions() -> Value {
    let grant = json!({
        "audience": "https://api.example", "scope": ["read", "write"], "subject_type": "user", "allow_offline_access": true
    });
    json!({"grants": [grant], "connections": ["staff"]})
}

/// A function and what it is called with.
pub struct Hot {
    /// What it is called in results.
    pub name: &'static str,
    /// Calls it once.
    pub call: Box<dyn Fn()>,
}

/// All of them.
pub fn all() -> [Hot; 5] {
    [
        Hot { name: "acl_evaluate_100k_ranges", call: evaluate(100_000) },
        Hot { name: "limit_judge", call: limit() },
        Hot { name: "path_classify", call: classify() },
        Hot { name: "registration_check", call: check() },
        Hot { name: "authorize", call: hold() },
    ]
}

/// A block by one rule with so many ranges, of which one has the address.
pub fn evaluate(ranges: u32) -> Box<dyn Fn()> {
    let others = (1..ranges).map(|number| format!("{}/32", Ipv4Addr::from_bits(0x0a00_0000 + 2 * number)));
    let ranges: Vec<_> = others.chain(["198.51.100.7/32".to_owned()]).collect();
    let rule = json!({"action": {"block": true}, "match": {"ipv4_cidrs": ranges}, "scope": "tenant"});
    let rule: Rule = serde_json::from_value(rule).unwrap();
    let index = Index::new([&rule]);
    let address: IpAddr = "198.51.100.7".parse().unwrap();
    Box::new(move || {
        let facts = Facts { address: Some(black_box(address)), ..Facts::default() };
        assert!(matches!(index.evaluate(RequestKind::Other, &facts, |_, _| {}), Verdict::Block));
    })
}

/// A request that an empty bucket refuses, from the bytes that workers share.
fn limit() -> Box<dyn Fn()> {
    let limit: RateLimit = serde_json::from_value(json!({"burst": 5, "per_second": 5})).unwrap();
    let now = 1_000_000_000_000;
    let mut bucket = Bucket::default();
    while let Some(state) = judge(bucket, now, limit).state {
        bucket = state;
    }
    let bytes = bucket.encode();
    Box::new(move || {
        let bucket = Bucket::decode(black_box(&bytes)).unwrap();
        assert!(!black_box(judge(bucket, black_box(now + 1), limit)).admitted);
    })
}

/// A page that is no endpoint of anybody's.
fn classify() -> Box<dyn Fn()> {
    let routes = Routes::default();
    Box::new(move || {
        let endpoint = routes.classify(black_box(b"/u/login/identifier?state=hKFo2SBwZ0FZVW5nWjRJ"));
        assert_eq!(endpoint, Ok(Endpoint::Other));
    })
}

/// The registration of the README, checked.
fn check() -> Box<dyn Fn()> {
    let (body, rules) = (registration().to_string(), DcrEdge::default());
    Box::new(move || {
        black_box(registration::check(black_box(body.as_bytes()), SecurityMode::Strict, &rules).unwrap());
    })
}

/// An authorization request of a client, from its query to what goes on.
fn hold() -> Box<dyn Fn()> {
    let client: ClientRecord = serde_json::from_value(client(CLIENT_ID)).unwrap();
    let permissions: Permissions = serde_json::from_value(permissions()).unwrap();
    let settings = Settings::default();
    Box::new(move || {
        let sent = Parameters::parse(black_box(AUTHORIZATION_REQUEST.as_bytes())).unwrap();
        black_box(authorize(sent, &client, &permissions, &settings).unwrap().parameters.encode());
    })
}
