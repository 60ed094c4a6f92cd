//! Public clients of the product's interfaces, as their users run them.

use std::path::PathBuf;
use std::process::Command;

use crate::envoy::refusals;
use crate::support::gateway::{Gateway, Options};
use crate::support::{http1, output_of, root};

/// Where the SDK's package is: `$DCR_TEST_AUTH0`, which `make test` sets. `None` where there is no Node.js.
fn auth0() -> Option<PathBuf> {
    let home = std::env::var_os("DCR_TEST_AUTH0").filter(|home| !home.is_empty());
    if home.is_none() {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: Node.js is missing");
        eprintln!("skipped: DCR_TEST_AUTH0 is not set");
    }
    home.map(PathBuf::from)
}

/// Runs a script with the SDK against a gateway's HTTPS listener, as its users do.
fn by_auth0(script: &str) {
    by_auth0_after(script, |_| {});
}

/// The same, after `prepare` has done something with the gateway.
fn by_auth0_after(script: &str, prepare: impl FnOnce(&mut Gateway)) {
    let Some(home) = auth0() else { return };
    let mut gateway = Gateway::start(Options::default());
    prepare(&mut gateway);
    let mut node = Command::new("node");
    node.arg(root().join("tests/clients").join(script))
        .arg(home)
        .arg(format!("localhost:{}", gateway.https_address().port()))
        .arg(gateway.management_token())
        .env("NODE_EXTRA_CA_CERTS", gateway.ca());
    output_of(&mut node);
}

#[test]
fn the_auth0_sdk_drives_network_acls_unchanged() {
    by_auth0("network_acls.mjs");
}

#[test]
fn the_auth0_sdk_drives_apis_connections_grants_and_settings_unchanged() {
    by_auth0("resources.mjs");
}

#[test]
fn the_auth0_sdk_reads_of_registrations_and_refusals_in_the_log_unchanged() {
    by_auth0_after("logs.mjs", |gateway| {
        // Of a burst of five, which registration that is switched off uses up, too.
        for _ in 0..20 {
            assert!(matches!(http1::post_json(gateway.http_address(), "/oidc/register", b"{}").status, 403 | 429));
        }
        refusals::have_written(gateway, 20);
    });
}

#[test]
fn the_auth0_sdk_drives_clients_unchanged() {
    by_auth0("clients.mjs");
}
