//! Edges and stores of releases that follow each other work together: what those of protocol version 1 said to each other
//! was recorded between a real Envoy and a real store, and is played to those of this release.
//!
//! `recorded/1/NAME.request` and `NAME.response` are the bytes on the wire, but for the token.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::stand_in::{Behaviour, StandIn};
use super::{outcome, register};
use crate::support::gateway::{Gateway, Options};
use crate::support::process::eventually;
use crate::support::response::Response;
use crate::support::store::{Folder, Store};
use crate::support::{http1, root};

/// The client that the recording is about.
const CLIENT_ID: &str = "tpc_vQqBCZN3PWWQQ27NOjZueT4lXP9VFVQs";

fn recorded(name: &str) -> Vec<u8> {
    let path = root().join("tests/envoy/recorded/1").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn recorded_answer(name: &str) -> Vec<u8> {
    recorded(&format!("{name}.response"))
}

fn parse(bytes: &[u8]) -> Response {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let length = head.parse(bytes).unwrap().unwrap();
    let headers = head.headers.iter().map(|header| (header.name.to_ascii_lowercase(), header.value.to_vec()));
    Response { status: head.code.unwrap(), headers: headers.collect(), body: bytes[length..].to_vec() }
}

/// What an edge reads of an answer, without what is another each time.
fn essence(response: &Response) -> (u16, Vec<Option<String>>, Value) {
    let names = ["content-type", "x-dcr-store-protocol", "x-dcr-outcome", "cache-control", "retry-after"];
    let headers = names.map(|name| response.header(name).map(str::to_owned)).to_vec();
    let mut body = if response.body.is_empty() { Value::Null } else { response.json() };
    mask(&mut body);
    (response.status, headers, body)
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let is_rule = name == "id" && value.as_str().is_some_and(|id| id.starts_with("acl_"));
                if is_rule || matches!(&**name, "instance" | "client_id_issued_at" | "next_token_in_ms") {
                    *value = json!("another each time");
                } else {
                    mask(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        _ => {}
    }
}

/// A store to which an edge of version 1 speaks.
struct Play<'a> {
    store: &'a Store,
    token: String,
    instance: String,
}

impl Play<'_> {
    /// Plays a request, and holds the answer to the recorded one.
    fn play(&self, name: &str) -> Response {
        let request = String::from_utf8(recorded(&format!("{name}.request"))).unwrap();
        let request = request.replace("{token}", &self.token);
        let request = request.replace("e56382fdf84f8f2dfc327a7e0913d43c", &self.instance);
        let response = http1::exchange(self.store.address(), request.as_bytes());
        assert_eq!(essence(&response), essence(&parse(&recorded_answer(name))), "{name}: {response:?}");
        response
    }
}

#[test]
fn an_edge_of_version_1_gets_the_answers_that_a_store_of_its_time_gave() {
    let folder = Folder::empty();
    folder.succeed(&["tenant", "create", "default", "--domain", "localhost"]);
    let store = folder.serve();
    let owner = store.owner("default");
    let patch = |settings: Value| assert_eq!(owner.patch_settings(&settings).status, 200);
    let token = folder.succeed(&["token", "--kind", "edge"]).trim().to_owned();
    let mut play = Play { store: &store, token, instance: String::new() };
    play.instance = play.play("changes-all").json()["instance"].as_str().unwrap().to_owned();
    let rule = json!({
        "action": {"log": true, "block": true}, "scope": "tenant", "match": {"ipv4_cidrs": ["127.0.0.0/8"]}
    });
    let acl = json!({"description": "d", "active": true, "priority": 1, "rule": rule});
    assert_eq!(owner.send("POST", "/api/v2/network-acls", &acl).status, 201);
    patch(json!({
        "flags": {"enable_dynamic_client_registration": true},
        "dcr_edge": {"rate_limit": {"burst": 100, "per_second": 100}}
    }));
    for name in ["changes-some", "changes-none", "register-confidential", "register-public", "register-again"] {
        play.play(name);
    }
    for name in ["controls", "controls-unknown", "report", "report-mixed", "unknown-tenant", "invalid", "conflict"] {
        play.play(name);
    }
    folder.succeed(&["tenant", "create", "off", "--domain", "off.example"]);
    play.play("disabled");
    patch(json!({"dcr_edge": {"client_quota": 1}}));
    play.play("quota");
    patch(json!({"dcr_edge": {"client_quota": null, "rate_limit": {"burst": 1, "per_second": 1}}}));
    // Others take the token.
    let edge = store.edge();
    for number in 0..3 {
        edge.put_client("default", &crate::support::store::client_id(number), &crate::support::store::public());
    }
    play.play("limited");
    patch(json!({"dcr_edge": {"registrar": "forward"}}));
    play.play("other-registrar");
    let refused = http1::exchange(store.address(), &recorded("unauthorized.request"));
    assert_eq!(essence(&refused).0, essence(&parse(&recorded_answer("unauthorized"))).0);
    assert_eq!(store.metric("dcr_store_refusals_total"), 3.0, "{}", store.anyone().get("/metrics").text);
}

/// A gateway before a store of version 1, whose answers to registrations are the test's.
fn before_version_1() -> (StandIn, Gateway) {
    let stand_in = StandIn::answering(Arc::new(|head: &str| {
        let name = match head {
            _ if head.starts_with("GET /edge/v1/changes?after=0&") => "changes-all",
            _ if head.starts_with("GET /edge/v1/changes?after=1&") => "changes-some",
            _ if head.starts_with("GET /edge/v1/changes?") => "changes-none",
            _ if head.starts_with("POST /edge/v1/acl-counts ") => "report",
            _ if head.contains(&format!("{CLIENT_ID}/controls ")) => "controls",
            _ if head.contains("/controls ") => "controls-unknown",
            _ => return None,
        };
        Some(recorded_answer(name))
    }));
    let gateway = Gateway::start(Options { store: Some(stand_in.address()), ..Options::default() });
    gateway.wait_for_settings();
    (stand_in, gateway)
}

#[test]
fn a_store_of_version_1_is_understood_in_each_of_its_answers() {
    let (stand_in, gateway) = before_version_1();
    for (name, status, error, reason) in [
        ("register-confidential", 201, "", "registered"),
        ("register-again", 201, "", "registered"),
        ("unauthorized", 503, "temporarily_unavailable", "store_unauthorized"),
        ("disabled", 403, "access_denied", "registration_disabled"),
        ("unknown-tenant", 503, "temporarily_unavailable", "store_error"),
        ("invalid", 400, "invalid_redirect_uri", "invalid_redirect_uri"),
        ("conflict", 503, "temporarily_unavailable", "store_conflict"),
        ("quota", 403, "access_denied", "quota_used_up"),
        ("limited", 429, "too_many_requests", "fleet_limited"),
        ("other-registrar", 503, "temporarily_unavailable", "store_error"),
    ] {
        stand_in.set(Behaviour::Answer(recorded_answer(name)));
        let before = gateway.decisions(reason);
        let response = register(gateway.http_address());
        assert_eq!(outcome(&response), (status, error.to_owned()), "{name}: {response:?}");
        assert_eq!(gateway.decisions(reason) - before, 1, "{name}");
        if status == 201 {
            assert_eq!(response.json()["client_id"], CLIENT_ID);
        }
    }
    let authorize = |id: &str| {
        let response = http1::get(gateway.http_address(), &format!("/authorize?response_type=code&client_id={id}"));
        outcome(&response)
    };
    assert_eq!(authorize(CLIENT_ID), (400, "invalid_request".to_owned()));
    assert_eq!(authorize(&format!("tpc_{}", "0".repeat(32))), (400, "invalid_client".to_owned()));
    assert!(gateway.decisions("acl_monitored") > 0, "the rule of the recording is in force");
    assert!(!gateway.envoy_log().contains("cannot be read"), "{}", gateway.envoy_log());
}

/// The recorded answer in another version.
fn in_version(version: &str, name: &str) -> Vec<u8> {
    let answer = String::from_utf8(recorded_answer(name)).unwrap();
    answer.replace("x-dcr-store-protocol: 1", &format!("x-dcr-store-protocol: {version}")).into_bytes()
}

#[test]
fn an_edge_takes_nothing_from_a_store_that_is_too_old_or_too_new_and_says_so_once() {
    for version in ["0", "3"] {
        let stand_in = StandIn::answering(Arc::new(move |head: &str| {
            head.starts_with("GET /edge/v1/changes?").then(|| in_version(version, "changes-all"))
        }));
        let gateway = Gateway::start(Options { store: Some(stand_in.address()), ..Options::default() });
        eventually("many looks", || (gateway.decisions("store_wrong_version") >= 10).then_some(()));
        let response = register(gateway.http_address());
        assert_eq!(outcome(&response), (503, "temporarily_unavailable".to_owned()));
        assert_eq!(gateway.decisions("settings_not_loaded"), 1);
        let log = gateway.envoy_log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("store_wrong_version")).collect();
        // One of each thread that looks for settings: two workers, and the one that configures them.
        assert!((1..=3).contains(&lines.len()), "{lines:?}");
        let advice =
            "the store speaks another version: bring filter and dcr-store to the same release, or to two that follow";
        assert!(lines[0].contains(advice), "{lines:?}");
    }
    // Nor a registration, from a store that was of another release before.
    let (stand_in, gateway) = before_version_1();
    for version in ["0", "3"] {
        stand_in.set(Behaviour::Answer(in_version(version, "register-confidential")));
        assert_eq!(outcome(&register(gateway.http_address())), (503, "temporarily_unavailable".to_owned()));
    }
    assert_eq!(gateway.decisions("store_wrong_version"), 2);
}

#[test]
fn a_store_answers_each_edge_in_the_newest_version_that_both_speak() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let edge = store.edge();
    let ask = |headers: &[(&str, &str)]| edge.call("GET", "/edge/v1/changes", headers, None);
    for (said, status, answered) in [
        (&[][..], 200, "1"),
        (&["1"], 200, "1"),
        (&["2"], 200, "2"),
        (&["3"], 200, "2"),
        (&["4"], 400, "2"),
        (&["4"], 400, "2"),
        (&["0"], 400, "2"),
        (&["two"], 400, "2"),
        (&["2", "2"], 400, "2"),
    ] {
        let headers: Vec<_> = said.iter().map(|version| ("x-dcr-edge-protocol", *version)).collect();
        let answer = ask(&headers);
        assert_eq!((answer.status, answer.header("x-dcr-store-protocol")), (status, answered), "{said:?}");
        if status == 400 {
            assert_eq!(answer.json()["error"], "unsupported_protocol");
        }
    }
    let log = store.process.log();
    let lines = log.lines().filter(|line| line.contains("an edge speaks another version"));
    let of_four = lines.filter(|line| line.contains("\"4\"")).count();
    assert_eq!(of_four, 1, "{log}");
}

#[test]
fn this_release_says_its_version_in_each_of_its_calls() {
    let (sender, heads) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let stand_in = StandIn::answering(Arc::new(move |head: &str| {
        let _ = sender.lock().unwrap().send(head.to_owned());
        let name = match head {
            _ if head.starts_with("GET /edge/v1/changes?after=0&") => "changes-all",
            _ if head.starts_with("GET /edge/v1/changes?after=1&") => "changes-some",
            _ if head.starts_with("GET /edge/v1/changes?") => "changes-none",
            _ if head.starts_with("POST /edge/v1/acl-counts ") => "report",
            _ if head.starts_with("PUT ") => "register-confidential",
            _ if head.contains("/controls ") => "controls-unknown",
            _ => return None,
        };
        Some(recorded_answer(name))
    }));
    let address: SocketAddr = stand_in.address();
    let gateway = Gateway::start(Options { store: Some(address), ..Options::default() });
    gateway.wait_for_settings();
    assert_eq!(register(gateway.http_address()).status, 201);
    http1::get(gateway.http_address(), &format!("/authorize?client_id={CLIENT_ID}"));
    let mut missing = vec!["GET /edge/v1/changes?", "PUT ", "GET /edge/v1/tenants/", "POST /edge/v1/acl-counts "];
    while !missing.is_empty() {
        let head = heads.recv_timeout(crate::support::process::PATIENCE).unwrap();
        if let Some(place) = missing.iter().position(|start| head.starts_with(start)) {
            missing.remove(place);
            assert!(head.contains("\r\nx-dcr-edge-protocol: 2\r\n"), "{head}");
        }
    }
}
