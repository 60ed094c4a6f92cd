//! What the integration tests and the benchmark stand on: the real programs, started and stopped, and clients that
//! send exactly what they are told to.
//!
//! | file | what is in it |
//! |---|---|
//! | [`gateway`] | store, authorization server and Envoy together, on the configuration that is shipped |
//! | [`envoy`] | one Envoy |
//! | [`postgres`] | PostgreSQL servers |
//! | [`process`] | a child process with its log, gone when its owner is |
//! | [`callgrind`] | what callgrind counted |
//! | [`geo`] | the databases that tell where the tests' clients are |
//! | [`hot`] | the functions that every request runs through |
//! | [`http1`], [`http2`] | clients that write raw HTTP/1.1, and HTTP/2 with any pieces and endings, also over TLS |
//! | [`issuer`] | somebody else who signs tokens |
//! | [`store`] | one `dcr-store` |
//! | [`relay`] | something between an edge and its store that misbehaves on demand |
//! | [`response`] | what they get |
//!
//! ```text
//! let gateway = Gateway::start(Options::default());
//! gateway.patch_settings(&json!({"flags": {"enable_dynamic_client_registration": true}}));
//! let response = http1::post_json(gateway.http_address(), "/oidc/register", br#"{"redirect_uris": ["https://a.example/cb"]}"#);
//! assert_eq!(response.status, 201, "{}", gateway.envoy_log());
//! ```
//!
//! A gateway takes a second to start. Keep it in a local variable of the test: values in a `static` are never
//! dropped, and their processes would outlive the tests.

pub mod callgrind;
pub mod envoy;
pub mod gateway;
pub mod geo;
pub mod hot;
pub mod http1;
pub mod http2;
pub mod issuer;
pub mod postgres;
pub mod process;
pub mod relay;
pub mod response;
pub mod store;
pub mod tls;
pub mod upstream;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The `dcr-store` of this build.
pub fn store_binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_dcr-store"))
}

/// Runs a command to its end and gives what it printed on stdout, without the last line's end.
pub fn output_of(command: &mut Command) -> String {
    let output = process::output(command);
    assert!(output.status.success(), "{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}
