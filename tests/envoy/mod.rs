//! The filter in a real Envoy, in front of a real store.

mod access;
mod bodies;
mod configuration;
mod controls;
mod cors;
mod differential;
mod discovery;
mod failures;
mod forward;
mod limits;
mod paths;
mod recorded;
pub mod refusals;
mod registration;
mod secrets;
mod settings;
mod signals;
mod stand_in;
mod store_tls;
mod stores;
mod telemetry;
mod upstream;
mod versions;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Options};
use crate::support::http1;
use crate::support::response::Response;

/// A registration that breaks no rule.
const CLIENT: &[u8] = br#"{"redirect_uris":["https://app.example/cb"],"client_name":"Test"}"#;

/// Header by which the stub authorization server shows that a request has reached it.
const ECHO: &str = "x-stub-authorization-server";

/// A gateway whose tenant has registration switched on and a limit that is in nobody's way.
fn open_gateway() -> Gateway {
    open(Options::default(), json!({}))
}

/// A gateway whose tenant has registration switched on, with more of this product's own settings.
fn open(options: Options, dcr_edge: Value) -> Gateway {
    let gateway = Gateway::start(options);
    let mut settings = json!({"rate_limit": {"burst": 100_000, "per_second": 100_000}});
    settings.as_object_mut().unwrap().extend(dcr_edge.as_object().unwrap().clone());
    gateway.patch_settings(&json!({"flags": {"enable_dynamic_client_registration": true}, "dcr_edge": settings}));
    gateway
}

fn register(address: SocketAddr) -> Response {
    http1::post_json(address, "/oidc/register", CLIENT)
}

/// Status and error code.
fn outcome(response: &Response) -> (u16, String) {
    let error = response.json()["error"].as_str().unwrap_or_default().to_owned();
    (response.status, error)
}
