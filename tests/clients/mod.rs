//! Public clients of the product's interfaces, as their users run them.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use crate::envoy::refusals;
use crate::support::gateway::{AuthorizationServer, Gateway, Options, node_authorization_server, tool};
use crate::support::{http1, output_of, root};

/// Runs a script with the SDK against a gateway's HTTPS listener, as its users do.
fn by_auth0(script: &str) {
    by_auth0_after(script, |_| {});
}

/// The same, after `prepare` has done something with the gateway.
fn by_auth0_after(script: &str, prepare: impl FnOnce(&mut Gateway)) {
    let Some(home) = tool("DCR_TEST_AUTH0") else { return };
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

/// Lets a real client log a user in at a gateway as `make run` makes it. Without what it needs it does nothing.
fn logs_in(script: &str, more: &[&OsStr]) {
    logs_in_at(AuthorizationServer::Program, script, more);
}

/// The same with the server in another role.
fn logs_in_at(role: fn(PathBuf) -> AuthorizationServer, script: &str, more: &[&OsStr]) {
    let (Some(server), Some(home)) = (node_authorization_server(), tool("DCR_TEST_LOGIN_CLIENTS")) else { return };
    let gateway = Gateway::start(Options { authorization_server: role(server), ..Options::default() });
    let mut node = Command::new("node");
    node.arg(home.join(script))
        .arg(format!("https://localhost:{}", gateway.https_address().port()))
        .arg(gateway.management_token())
        .args(more)
        .env("NODE_EXTRA_CA_CERTS", gateway.ca());
    output_of(&mut node);
}

#[test]
fn openid_client_registers_logs_in_refreshes_and_revokes_and_gets_nothing_else() {
    logs_in("openid_client.mjs", &[]);
}

#[test]
fn openid_client_does_the_same_with_a_client_that_the_server_registered_itself() {
    logs_in_at(AuthorizationServer::Registrar, "openid_client.mjs", &[OsStr::new("forward")]);
}

#[test]
fn the_mcp_sdk_authorizes_itself_at_a_server_that_names_the_gateway_and_registers_anew_when_it_is_gone() {
    logs_in("mcp.mjs", &[]);
}

#[test]
fn a_person_logs_in_and_decides_with_a_browser_and_what_is_forbidden_ends_in_a_page() {
    let Some(chromium) = tool("DCR_TEST_CHROMIUM") else { return };
    logs_in("browser.mjs", &[chromium.as_os_str()]);
}

#[test]
fn an_owner_gets_from_nothing_to_a_registered_client_and_does_the_rest_in_the_consoles_pages() {
    let (Some(chromium), Some(home)) = (tool("DCR_TEST_CHROMIUM"), tool("DCR_TEST_LOGIN_CLIENTS")) else { return };
    let gateway = Gateway::start(Options::default());
    let console = format!("http://{}", gateway.store_address());
    let link = gateway.store_command(&["console-link", "--tenant", "default", "--url", &console]);
    let few = gateway.store_command(&["token", "--tenant", "default", "--scope", "read:clients"]);
    let mut node = Command::new("node");
    node.arg(home.join("console.mjs"))
        .arg(format!("https://localhost:{}", gateway.https_address().port()))
        .arg(chromium)
        .args([console, link.trim().to_owned(), few.trim().to_owned()])
        .env("NODE_EXTRA_CA_CERTS", gateway.ca());
    output_of(&mut node);
}
