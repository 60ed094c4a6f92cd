//! What the gateway tells of itself: metrics and the access log; and the dashboard and alerts that are made of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{CLIENT, open, register};
use crate::support::gateway::{Gateway, Options};
use crate::support::http1;
use crate::support::process::eventually;
use crate::support::root;

/// What Prometheus reads of an Envoy.
fn edge_metrics(gateway: &Gateway) -> String {
    http1::get(gateway.admin_address(), "/stats/prometheus").text().to_owned()
}

fn store_metrics(gateway: &Gateway) -> String {
    http1::get(gateway.store_address(), "/metrics").text().to_owned()
}

/// The value of a metric, by its name with its labels.
fn value(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn names(metrics: &str) -> BTreeSet<String> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// A gateway at which something of everything has happened.
fn busy_gateway() -> Gateway {
    let gateway = open(Options::default(), json!({}));
    let address = gateway.http_address();
    let client = register(address);
    assert_eq!(client.status, 201);
    assert_eq!(http1::post_json(address, "/oidc/register", b"{}").status, 400);
    let id = client.json()["client_id"].as_str().unwrap().to_owned();
    http1::get(address, &format!("/authorize?client_id={id}&response_type=code"));
    gateway.patch_settings(&json!({"dcr_edge": {"rate_limit": {"burst": 1, "per_second": 1}}}));
    eventually("a limit", || (register(address).status == 429).then_some(()));
    gateway
}

#[test]
fn what_became_of_registrations_is_counted_and_how_long_the_store_took() {
    let gateway = busy_gateway();
    let metrics = eventually("the metrics", || {
        let metrics = edge_metrics(&gateway);
        // Envoy adds to histograms each time it flushes its stats, which is every five seconds.
        let is_flushed = value(&metrics, "dcr_edge_store_call_ms_count{}").is_some_and(|count| count > 0.0);
        is_flushed.then_some(metrics)
    });
    let at_least = |name: &str, least: f64| {
        let found = value(&metrics, name).unwrap_or(-1.0);
        assert!(found >= least, "{name}: {found} in\n{metrics}");
    };
    for result in ["registered", "refused", "limited"] {
        at_least(&format!("dcr_edge_registrations{{result=\"{result}\"}}"), 1.0);
    }
    assert_eq!(value(&metrics, "dcr_edge_registrations{result=\"failed\"}"), Some(0.0), "{metrics}");
    at_least("dcr_edge_limiter_admissions{}", 2.0);
    at_least("dcr_edge_store_calls{result=\"answered\"}", 1.0);
    at_least("dcr_edge_store_call_ms_count{}", 1.0);
    at_least("dcr_edge_store_call_ms_bucket{le=\"1000\"}", 1.0);
    // The tenant was made and changed.
    at_least("dcr_edge_settings_version{}", 3.0);
    assert!(value(&metrics, "dcr_edge_settings_age_seconds{}").unwrap() <= 10.0);
    let is_of_a_tenant = |line: &&str| line.contains("default") || line.contains("tpc_");
    let ours = metrics.lines().filter(|line| line.starts_with("dcr_edge"));
    assert_eq!(ours.filter(is_of_a_tenant).collect::<Vec<_>>(), Vec::<&str>::new(), "their number has no bound");
}

#[test]
fn the_age_of_the_settings_grows_while_the_store_is_away() {
    let mut gateway = open(Options::default(), json!({}));
    gateway.kill_store();
    eventually("an age", || {
        value(&edge_metrics(&gateway), "dcr_edge_settings_age_seconds{}").is_some_and(|age| age >= 2.0).then_some(())
    });
    assert_eq!(register(gateway.http_address()).status, 503);
    let metrics = edge_metrics(&gateway);
    assert_eq!(value(&metrics, "dcr_edge_registrations{result=\"failed\"}"), Some(1.0), "{metrics}");
}

#[test]
fn the_access_log_says_what_was_decided_for_which_tenant_and_client() {
    let gateway = open(Options::default(), json!({}));
    let address = gateway.http_address();
    let id = register(address).json()["client_id"].as_str().unwrap().to_owned();
    http1::post_json(address, "/oidc/register", b"{}");
    http1::get(address, "/untouched");
    http1::get(address, &format!("/authorize?client_id={id}&response_type=token"));
    http1::exchange(address, &http1::request("GET", "/oidc/register", &[("host", b"nobody.example")], b""));
    let lines = eventually("five lines", || {
        let log = gateway.envoy_log();
        let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.iter().filter(|line| line["path"] != "/api/v2/tenants/settings").count() >= 5).then_some(lines)
    });
    let seen = |path: &str, host: &str| {
        let lines =
            lines.iter().filter(|line| line["path"] == path && line["host"].as_str().unwrap().starts_with(host));
        let fields = |line: &Value| ["decision", "tenant", "client_id", "reason"].map(|name| line[name].clone());
        lines.map(fields).collect::<Vec<_>>()
    };
    let (none, tenant) = (Value::Null, json!("default"));
    let registrations = seen("/oidc/register", "localhost");
    let registered = [json!("registered"), tenant.clone(), json!(id), json!("registered")];
    let refused = [json!("refused"), tenant.clone(), none.clone(), json!("invalid_redirect_uri")];
    assert!(registrations.contains(&registered) && registrations.contains(&refused), "{registrations:#?}");
    assert_eq!(seen("/untouched", "localhost"), [[none.clone(), none.clone(), none.clone(), none.clone()]]);
    let at_server = seen("/authorize", "localhost");
    assert_eq!(at_server[0][..3], [json!("refused"), tenant, json!(id)], "{at_server:?}");
    assert_eq!(seen("/oidc/register", "nobody"), [[json!("refused"), none.clone(), none, json!("unknown_host")]]);
}

#[test]
fn a_trace_goes_on_in_the_stores_log() {
    let launcher = vec!["env".into(), "DCR_LOG_FORMAT=json".into()];
    let gateway = open(Options { store_launcher: launcher, ..Options::default() }, json!({"client_quota": 1}));
    let send = |trace: Option<&[u8]>| {
        let mut headers: Vec<(&str, &[u8])> = vec![("content-type", b"application/json")];
        headers.extend(trace.map(|trace| ("traceparent", trace)));
        http1::exchange(gateway.http_address(), &http1::request("POST", "/oidc/register", &headers, CLIENT))
    };
    eventually("a full quota", || (send(None).status == 403).then_some(()));
    let trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(send(Some(trace)).status, 403);
    let line_of = |trace_id: &str| {
        eventually("a line of the trace", || {
            let log = gateway.store_log();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.rev().find(|line| line["span"]["trace_id"] == trace_id)
        })
    };
    let line = line_of("4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!((&line["span"]["parent_id"], &line["level"]), (&json!("00f067aa0ba902b7"), &json!("INFO")), "{line}");
    assert_eq!(line["span"]["span_id"].as_str().unwrap().len(), 16);
    // Without one the trace has the id of the request, which is in the answer and in the access log.
    let refused = send(None);
    let id = refused.header("x-request-id").unwrap().to_owned();
    assert_eq!(line_of(&id.replace('-', ""))["span"]["request_id"], id);
}

/// The expressions of the dashboard and the alerts, each with what it is for.
fn expressions() -> Vec<(String, String)> {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let dashboard: Value = serde_json::from_str(&read("envoy/grafana/dcr-edge.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{}", panel["title"]);
        expressions.extend(targets.iter().map(|target| (text(&panel["title"]), text(&target["expr"]))));
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            expressions.push((text(&variable["name"]), text(&variable["query"]["query"])));
        }
    }
    let alerts = read("envoy/prometheus/alerts.yaml");
    let mut alert = "";
    for line in alerts.lines() {
        alert = line.trim().strip_prefix("- alert: ").unwrap_or(alert);
        if let Some(expression) = line.trim().strip_prefix("expr: ") {
            expressions.push((alert.to_owned(), expression.to_owned()));
        }
    }
    expressions
}

/// The metrics that an expression names: the words that are neither functions nor labels.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let words = expression.split(|character| !is_word(character));
    words.filter(|word| word.starts_with("dcr_") || word.starts_with("envoy_")).map(str::to_owned).collect()
}

#[test]
fn every_query_of_the_dashboard_and_every_alert_names_metrics_that_there_are() {
    let gateway = busy_gateway();
    eventually("all metrics", || {
        let there = &names(&edge_metrics(&gateway)) | &names(&store_metrics(&gateway));
        let missing: Vec<_> = expressions()
            .into_iter()
            .filter(|(_, expression)| metrics_of(expression).difference(&there).next().is_some())
            .collect();
        missing.is_empty().then_some(())
    });
    let expressions = expressions();
    assert!(expressions.len() > 20);
    for (what, expression) in &expressions {
        assert!(!metrics_of(expression).is_empty(), "{what}: {expression}");
        for (open, close) in [('(', ')'), ('{', '}'), ('[', ']')] {
            assert_eq!(expression.matches(open).count(), expression.matches(close).count(), "{what}: {expression}");
        }
    }
    // A name that is not there would be noticed.
    assert!(!names(&edge_metrics(&gateway)).contains("dcr_edge_registration"));
}

#[test]
fn every_metric_and_every_reason_is_in_the_operators_page_and_no_other() {
    use dcr_edge::filter::environment::Metric;
    use dcr_edge::filter::reason::Reason;
    let page = std::fs::read_to_string(root().join("envoy/docs/metrics.md")).unwrap();
    let documented: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter_map(|name| name.strip_prefix("dcr_edge_"))
        .collect();
    let shown = |name: &'static str| {
        let name = name.strip_prefix("dcr_edge.").unwrap();
        match name.split_once(".result=") {
            Some((name, result)) => format!("{name}{{result=\"{result}\"}}"),
            None => name.to_owned(),
        }
    };
    let mut expected: BTreeSet<String> = Metric::ALL.iter().map(|metric| shown(metric.name())).collect();
    expected.extend(Reason::ALL.iter().map(|reason| format!("decisions{{reason=\"{}\"}}", reason.as_str())));
    assert_eq!(documented, expected.iter().map(String::as_str).collect::<BTreeSet<_>>());
    let gateway = busy_gateway();
    let of_store: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
        .filter(|name| name.starts_with("dcr_store_"))
        .map(str::to_owned)
        .collect();
    // Of a histogram the page has the name alone.
    let family = |name: String| {
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        stem.map_or(name.clone(), str::to_owned)
    };
    let there: BTreeSet<String> = names(&store_metrics(&gateway)).into_iter().map(family).collect();
    assert_eq!(there, of_store);
}
