//! One Envoy.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use super::process::{self, Process};
use super::{http1, root};

/// The Envoy that tests use unless they say otherwise: `$DCR_TEST_ENVOY`, which `make test` sets, else the newest
/// that an earlier `make` fetched.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("DCR_TEST_ENVOY") {
        return path.into();
    }
    let installed = std::fs::read_dir(root().join(".tools")).into_iter().flatten().flatten();
    let homes = installed.map(|entry| entry.path().join("lib")).filter(|lib| lib.is_dir());
    let mut binaries: Vec<_> = homes
        .flat_map(|lib| std::fs::read_dir(lib).unwrap().flatten())
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .filter(|binary| binary.is_file())
        .collect();
    binaries.sort();
    binaries.pop().expect("an Envoy: run the tests with `make test`, which fetches it")
}

/// The Envoys of every version that the filter is tested with, from `$DCR_TEST_ENVOY_MATRIX`; only [`binary`] where
/// that is not set.
pub fn matrix() -> Vec<PathBuf> {
    match std::env::var_os("DCR_TEST_ENVOY_MATRIX") {
        Some(paths) => std::env::split_paths(&paths).collect(),
        None => vec![binary()],
    }
}

/// Whether Envoy accepts a configuration, and what it says about it. It loads the filter and configures it too.
pub fn validate(binary: &Path, configuration: &Path, token: &str) -> (ExitStatus, String) {
    let mut command = Command::new(binary);
    command.args(["--mode", "validate", "-c"]).arg(configuration).env("DCR_EDGE_TOKEN", token);
    let output = process::output(&mut command);
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A running Envoy whose listeners accept.
pub struct Envoy {
    process: Process,
    admin: SocketAddr,
    http: SocketAddr,
    https: SocketAddr,
}

impl Envoy {
    /// Starts `binary` on `configuration`, a file in `dir`, with so many workers, and `token` for the filter.
    pub fn start(binary: &Path, configuration: &Path, dir: &Path, concurrency: u32, token: &str) -> Self {
        let address_file = dir.join("admin-address");
        let _ = std::fs::remove_file(&address_file);
        let mut command = Command::new(binary);
        command
            .arg("-c")
            .arg(configuration)
            .args(["--disable-hot-restart", "--concurrency", &concurrency.to_string(), "--admin-address-path"])
            .arg(&address_file)
            .env("DCR_EDGE_TOKEN", token);
        let mut process = Process::spawn("envoy", dir, &mut command);
        let admin = process.wait_until("the admin port", |_| std::fs::read_to_string(&address_file).ok()?.parse().ok());
        process.wait_until("all workers", |_| (http1::get(admin, "/ready").status == 200).then_some(()));
        let listeners = http1::get(admin, "/listeners?format=json").json();
        let address_of = |name: &str| {
            let all = listeners["listener_statuses"].as_array().unwrap();
            let address = &all.iter().find(|listener| listener["name"] == name).unwrap()["local_address"];
            let address = &address["socket_address"];
            let text = format!("{}:{}", address["address"].as_str().unwrap(), address["port_value"]);
            text.parse().unwrap()
        };
        Self { admin, http: address_of("http"), https: address_of("https"), process }
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends it without a warning (SIGKILL).
    pub fn kill(self) {
        self.process.kill();
    }

    /// Stops it (SIGTERM).
    pub fn terminate(self) -> ExitStatus {
        self.process.terminate()
    }

    /// Where the admin port is.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Where the listener in clear text is.
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// Where the listener with TLS is.
    pub fn https_address(&self) -> SocketAddr {
        self.https
    }

    /// The counters and gauges whose names begin with `prefix`, with those that are 0.
    pub fn stats(&self, prefix: &str) -> Vec<(String, u64)> {
        let text = http1::get(self.admin, "/stats?type=All");
        let lines = text.text().lines().filter(|line| line.starts_with(prefix));
        lines
            .filter_map(|line| line.split_once(": "))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }
}
