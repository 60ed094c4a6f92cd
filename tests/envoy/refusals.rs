//! What the edge refuses, in the tenant's log.

use std::thread;

use serde_json::{Value, json};

use super::{CLIENT, open};
use crate::support::gateway::{Gateway, Options};
use crate::support::http1;
use crate::support::process::eventually;
use crate::support::store::Caller;

/// Waits until so many refusals have been reported, and starts the store anew, because a stop writes those of the
/// minute that is not over.
pub fn have_written(gateway: &mut Gateway, refusals: u32) {
    let store = Caller::new(gateway.store_address());
    let reported = || {
        let text = store.get("/metrics").text;
        text.lines().find_map(|line| line.strip_prefix("dcr_store_refusals_total ")?.parse::<f64>().ok())
    };
    eventually("the refusals are reported", || (reported()? == f64::from(refusals)).then_some(()));
    assert!(gateway.stop_store().success());
    gateway.start_store();
}

#[test]
fn each_refusal_by_each_worker_is_in_the_log_once_and_a_flood_is_a_handful_of_events() {
    const FLOOD: u32 = 5_000;
    let mut gateway = open(Options { concurrency: 3, ..Options::default() }, json!({}));
    let address = gateway.http_address();
    let post = |content_type: &str, body: &[u8]| {
        let headers = [("content-type", content_type.as_bytes())];
        http1::exchange(address, &http1::request("POST", "/oidc/register", &headers, body)).status
    };
    for _ in 0..20 {
        assert_eq!(post("application/json", CLIENT), 201);
        assert_eq!(post("text/plain", CLIENT), 415);
        assert_eq!(post("application/json", b"{}"), 400);
        assert_eq!(http1::get(address, "/oidc/register").status, 405);
    }
    gateway.patch_settings(&json!({"dcr_edge": {"rate_limit": {"burst": 1, "per_second": 1}}}));
    let flood = |requests: u32| (0..requests).filter(|_| post("application/json", b"") == 429).count() as u32;
    let limited: u32 = thread::scope(|scope| {
        let floods: Vec<_> = (0..8).map(|_| scope.spawn(|| flood(FLOOD / 8))).collect();
        floods.into_iter().map(|flood| flood.join().unwrap()).sum()
    });
    // What was admitted is an empty body, which is no JSON.
    let empty = FLOOD - limited;
    assert!(limited > FLOOD / 2, "{limited}");
    have_written(&mut gateway, 60 + FLOOD);

    let owner = Caller::new(gateway.store_address()).with_token(gateway.management_token());
    let mut sums = json!({});
    for event_type in ["fapi", "api_limit"] {
        let events = owner.get(&format!("/api/v2/logs?q=type:{event_type}")).json();
        let events = events.as_array().unwrap();
        assert!((1..=3).contains(&events.len()), "{events:?}");
        for (reason, count) in events.iter().flat_map(|event| event["details"]["reasons"].as_object().unwrap()) {
            let sum = sums[event_type][reason].as_u64().unwrap_or_default() + count.as_u64().unwrap();
            sums[event_type][reason] = Value::from(sum);
        }
    }
    let by_limiter: u64 = sums["api_limit"].as_object().unwrap().values().map(|sum| sum.as_u64().unwrap()).sum();
    assert_eq!(by_limiter, u64::from(limited));
    let expected = json!({
        "content_type": 20, "method": 20, "invalid_redirect_uri": 20, "invalid_client_metadata": empty
    });
    assert_eq!(sums["fapi"], expected);
}
