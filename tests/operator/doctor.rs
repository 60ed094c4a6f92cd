//! `dcr-store doctor`, `schema` and `completions`.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Options};
use crate::support::process::{self, eventually};
use crate::support::store::Folder;
use crate::support::{output_of, root, store_binary};

fn url(address: std::net::SocketAddr) -> String {
    format!("http://{address}")
}

/// The doctor's findings about a gateway, by check, and how it ended.
fn examine(gateway: &Gateway, more: &[&str]) -> (Vec<(String, String, String)>, bool) {
    let (store, edge, admin) =
        (url(gateway.store_address()), url(gateway.http_address()), url(gateway.admin_address()));
    let mut arguments =
        vec!["doctor", "--format", "json", "--store", &store, "--gateway", &edge, "--envoy-admin", &admin];
    arguments.extend(more);
    let output = gateway.folder().run(&arguments);
    (findings(&output), output.status.success())
}

fn findings(output: &Output) -> Vec<(String, String, String)> {
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let all = findings.as_array().unwrap().iter();
    all.map(|one| (text(one, "check"), text(one, "level"), text(one, "found") + " → " + &text(one, "advice"))).collect()
}

fn level<'f>(findings: &'f [(String, String, String)], check: &str) -> &'f str {
    let found = findings.iter().find(|(name, ..)| name == check);
    &found.unwrap_or_else(|| panic!("no {check} in {findings:#?}")).1
}

#[test]
fn a_fresh_gateway_works_and_what_its_tenant_lacks_is_told_once_registration_is_on() {
    let gateway = Gateway::start(Options::default());
    let (found, is_well) = examine(&gateway, &[]);
    assert!(is_well, "{found:#?}");
    for check in [
        "store.reachable",
        "store.clock",
        "store.edge_protocol",
        "store.ready",
        "store.release",
        "gateway.reachable",
        "gateway.filter",
        "gateway.clock",
        "envoy.reachable",
        "envoy.release",
        "envoy.plugin",
        "envoy.flag",
        "envoy.failure_policy",
        "envoy.settings",
        "tenant.default.registration",
    ] {
        assert_eq!(level(&found, check), "ok", "{check}: {found:#?}");
    }
    gateway.patch_settings(&json!({"flags": {"enable_dynamic_client_registration": true}}));
    eventually("discovery with registration", || {
        let (found, is_well) = examine(&gateway, &[]);
        assert!(is_well, "warnings are no failures");
        for check in ["permissions", "connections", "per_source", "client_quota"] {
            assert_eq!(level(&found, &format!("tenant.default.{check}")), "warning");
        }
        (level(&found, "gateway.discovery") == "ok").then_some(())
    });
    let text = output_of(&mut gateway.folder().command(&["doctor", "--store", &url(gateway.store_address())]));
    assert!(text.contains("WARNING  tenant.default.permissions: no API has default permissions"), "{text}");
    assert!(text.contains("         → choose an API in the console"), "{text}");
    assert!(text.contains("skipped  gateway: not looked at"), "{text}");
}

#[test]
fn what_does_not_work_is_told_with_what_to_do() {
    let edit = Box::new(|configuration: String| configuration.replace("allow_on_headers_stop_iteration: true", ""));
    let mut gateway = Gateway::start(Options { edit, ..Options::default() });
    let (found, is_well) = examine(&gateway, &[]);
    assert!(!is_well);
    assert_eq!(level(&found, "envoy.flag"), "failure");
    assert!(found.iter().any(|(.., text)| text.contains("beside vm_config: without it the filter sees no body")));

    // A host of no tenant, and a place where there is none of ours.
    let other = format!("http://localhost:{}", gateway.http_address().port());
    gateway.store_command(&["tenant", "update", "default", "--remove-domain", "localhost"]);
    eventually("a host of no tenant", || {
        let output = gateway.folder().run(&["doctor", "--format", "json", "--gateway", &other]);
        let found = findings(&output);
        let told = found.iter().any(|(check, level, text)| {
            check == "gateway.filter" && level == "failure" && text.contains("no tenant answers for the host")
        });
        told.then_some(())
    });
    let store = url(gateway.store_address());
    let output = gateway.folder().run(&["doctor", "--format", "json", "--gateway", &store, "--envoy-admin", &store]);
    let found = findings(&output);
    assert_eq!((level(&found, "gateway.filter"), level(&found, "envoy.reachable")), ("failure", "failure"));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("dcr-store: something does not work"), "{error}");

    gateway.kill_store();
    let (found, is_well) = examine(&gateway, &[]);
    assert!(!is_well && level(&found, "store.reachable") == "failure", "{found:#?}");
}

#[test]
fn without_a_place_to_look_at_nothing_is_looked_at() {
    let mut doctor = Command::new(store_binary());
    doctor.args(["doctor", "--format", "json"]).env_remove("DATABASE_URL");
    let output = process::output(&mut doctor);
    assert!(output.status.success());
    assert!(findings(&output).iter().all(|(_, level, text)| level == "skipped" && text.contains("--")));
    let nothing = Folder::empty();
    assert!(nothing.fail(&["doctor"]).contains("there is no database"));
}

#[test]
fn the_published_schemas_are_those_of_the_types() {
    for of in ["filter", "settings"] {
        let path = format!("envoy/docs/{of}.schema.json");
        let published = std::fs::read_to_string(root().join(&path)).unwrap();
        let schema = output_of(Command::new(store_binary()).args(["schema", of]));
        assert!(published.trim_end() == schema, "{path} is not up to date: dcr-store schema {of} > {path}");
        // Each field says what it is.
        fn undescribed(schema: &Value, path: &str, found: &mut Vec<String>) {
            if let Some(properties) = schema["properties"].as_object() {
                for (name, property) in properties {
                    let path = format!("{path}.{name}");
                    undescribed(property, &path, found);
                    if property.get("description").is_none() {
                        found.push(path);
                    }
                }
            }
        }
        let schema: Value = serde_json::from_str(&schema).unwrap();
        let mut found = Vec::new();
        undescribed(&schema, "", &mut found);
        for (name, definition) in schema["$defs"].as_object().unwrap() {
            undescribed(definition, name, &mut found);
        }
        assert_eq!(found, Vec::<String>::new());
    }
}

#[test]
fn shells_are_told_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let completions = output_of(Command::new(store_binary()).args(["completions", shell]));
        for command in ["serve", "tenant", "token", "console-link", "doctor", "backup"] {
            assert!(completions.contains(command), "{shell}: {command}");
        }
    }
    let script = format!("{} && complete -p dcr-store", "source <(\"$0\" completions bash)");
    let complete = output_of(Command::new("bash").args(["-c", &script]).arg(store_binary()));
    assert!(complete.contains("dcr-store"), "{complete}");
    let help = output_of(Command::new(store_binary()).arg("--help"));
    for taught in ["First steps", "dcr-store tenant create acme", "console-link", "DATABASE_URL"] {
        assert!(help.contains(taught), "{help}");
    }
}
