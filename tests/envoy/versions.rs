//! Every Envoy that the README names runs the filter.

use serde_json::json;

use super::{CLIENT, ECHO, open, outcome, register};
use crate::support::envoy;
use crate::support::gateway::Options;
use crate::support::http1;
use crate::support::http2::{self, Ending};

#[test]
fn every_supported_envoy_registers_a_client_and_refuses_what_it_must() {
    let matrix = envoy::matrix();
    assert!(!matrix.is_empty());
    for envoy in matrix {
        let version = envoy.display().to_string();
        let gateway = open(Options { envoy, ..Options::default() }, json!({}));
        let address = gateway.http_address();
        assert_eq!(register(address).status, 201, "{version}");
        let trailers = http2::Request {
            method: "POST",
            path: "/oidc/register",
            headers: &[("content-type", b"application/json")],
            body: &[CLIENT],
            ending: Ending::Trailers,
            ..Default::default()
        };
        assert_eq!(http2::exchange(address, &trailers).unwrap().status, 201, "{version}");
        assert_eq!(http1::post_json(address, "/oidc/register", &[b' '; 65_537]).status, 413, "{version}");
        assert_eq!(outcome(&http1::post_json(address, "/oidc/register", b"{}")).0, 400, "{version}");
        let disguised = http1::post_json(address, "/OIDC/register", CLIENT);
        assert_eq!((disguised.status, disguised.header(ECHO)), (404, None), "{version}");
        assert_eq!(http1::get(address, "/anything").header(ECHO), Some("echo"), "{version}");
    }
}
