//! What breaks, on real processes: each test counts what was acknowledged, and what is there afterwards.
//!
//! | file | what breaks |
//! |---|---|
//! | [`kill`] | store and Envoy are killed in the middle of load |
//! | [`stop`] | the store is asked to stop in the middle of load |
//! | [`full_disk`] | the disk is full |
//! | [`locked`] | another process keeps the database locked |
//! | [`corrupted`] | the database file is damaged |
//! | [`clock`] | the clock is set by an hour |
//! | [`misbehaving`] | the store gives slow, endless and senseless answers |
//! | [`flood`] | more requests come than anybody wants |
//!
//! `make test` runs all of it for some seconds each; `make soak` for long, by these variables:
//!
//! | variable | without it |
//! |---|---|
//! | `DCR_TEST_KILL_ROUNDS` | 3 rounds of each kind |
//! | `DCR_TEST_KILL_REGISTRATIONS` | 200 registrations at least before something is killed |
//! | `DCR_TEST_FLOOD_SECONDS` | 10 seconds of each flood |

mod clock;
mod corrupted;
mod flood;
mod full_disk;
mod kill;
mod load;
mod locked;
mod misbehaving;
mod stop;

use std::collections::HashMap;
use std::str::FromStr;

use load::Outcome;
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Options};
use crate::support::store::Caller;

/// An address from which nobody may register.
const BLOCKED: &str = "192.0.2.66";

/// The tenant with a limit that is in its way: so many at once, and each second after.
const LIMITED: &str = "limited";
const LIMIT: u32 = 2;

/// A number from the environment.
fn from_environment<N: FromStr<Err: std::fmt::Debug>>(variable: &str, otherwise: N) -> N {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// A gateway behind one proxy whose tenant `default` has no limit that a test would meet and does not take
/// [`BLOCKED`], and whose tenant [`LIMITED`] has one.
fn gateway(options: Options) -> Gateway {
    let gateway = Gateway::start(Options { trusted_hops: 1, ..options });
    let limit = LIMIT.to_string();
    let domain = format!("{LIMITED}.example");
    let limits = ["--burst", &limit, "--per-second", &limit];
    gateway.store_command(&[&["tenant", "create", LIMITED, "--domain", &domain], &limits[..]].concat());
    let free = json!({"burst": 1_000_000, "per_second": 1_000_000});
    for (tenant, dcr_edge) in [("default", json!({"rate_limit": free})), (LIMITED, json!({}))] {
        let settings = json!({"flags": {"enable_dynamic_client_registration": true}, "dcr_edge": dcr_edge});
        assert_eq!(owner(&gateway, tenant).patch_settings(&settings).status, 200);
    }
    let rule = json!({"scope": "dcr", "action": {"block": true}, "match": {"ipv4_cidrs": [BLOCKED]}});
    let acl = json!({"description": "blocked", "active": true, "rule": rule});
    assert_eq!(owner(&gateway, "default").send("POST", "/api/v2/network-acls", &acl).status, 201);
    gateway.wait_for_settings();
    gateway
}

/// A tenant's owner, on the store's own port.
fn owner(gateway: &Gateway, tenant: &str) -> Caller {
    let token = gateway.store_command(&["token", "--tenant", tenant]);
    Caller::new(gateway.store_address()).with_token(token.trim())
}

/// No filter has failed, so that no VM was loaded in its place.
fn assert_no_vm_failed(gateway: &Gateway) {
    let failed: Vec<_> =
        gateway.stats("wasm.").into_iter().filter(|(name, count)| name.contains("reload") && *count > 0).collect();
    assert!(failed.is_empty(), "a VM was loaded anew: {failed:?}");
}

/// What is in a database: the ids of its clients by their tenants and names, each of which was asked for once.
struct Stored(HashMap<String, HashMap<String, Vec<String>>>);

impl Stored {
    /// All of the gateway's.
    fn of(gateway: &Gateway) -> Self {
        Self::read(&gateway.store_command(&["export"]))
    }

    /// What an export has.
    fn read(export: &str) -> Self {
        let (mut stored, mut tenant) = (HashMap::new(), String::new());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        for line in export.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            match line["type"].as_str().unwrap() {
                "tenant" => tenant = text(&line["name"]),
                "client" => {
                    let clients: &mut HashMap<_, Vec<_>> = stored.entry(tenant.clone()).or_default();
                    clients.entry(text(&line["metadata"]["client_name"])).or_default().push(text(&line["client_id"]));
                }
                _ => {}
            }
        }
        Self(stored)
    }

    /// How many clients a tenant has.
    fn count(&self, tenant: &str) -> usize {
        self.0.get(tenant).map_or(0, |clients| clients.values().map(Vec::len).sum())
    }

    /// Panics unless all that was acknowledged is there.
    fn assert_has_all(&self, outcome: &Outcome) {
        self.assert_has("default", &outcome.acknowledged);
        self.assert_has(LIMITED, &outcome.limited);
    }

    /// Panics unless every client that `acknowledged` has, by its name, is there under its id, and nobody has two of
    /// one request.
    fn assert_has(&self, tenant: &str, acknowledged: &HashMap<String, String>) {
        let none = HashMap::new();
        let clients = self.0.get(tenant).unwrap_or(&none);
        let is_there = |(name, id): &(&String, &String)| clients.get(*name).is_some_and(|ids| ids.contains(id));
        let there = acknowledged.iter().filter(is_there).count();
        let twice = clients.values().filter(|ids| ids.len() > 1).count();
        assert!(
            there == acknowledged.len() && twice == 0,
            "{} clients were acknowledged, and {there} of them are there; {} are there in all, {twice} of them twice",
            acknowledged.len(),
            self.count(tenant)
        );
    }
}
