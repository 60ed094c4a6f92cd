//! Store, authorization server and Envoy together, on the configuration that is shipped.

use std::collections::HashSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::LazyLock;

use serde_json::Value;

use super::envoy::{self, Envoy};
use super::process::{Process, eventually};
use super::response::Response;
use super::store::Folder;
use super::{geo, http1, output_of, root};

/// What a gateway is made of. The default is what is shipped, save that settings are looked for every 20 ms.
pub struct Options {
    /// The Envoy.
    pub envoy: PathBuf,
    /// Its workers.
    pub concurrency: u32,
    /// What stands in for the store: something at this address, instead of a `dcr-store` of the gateway's own.
    pub store: Option<SocketAddr>,
    /// More of what stands in for the store.
    pub more_stores: Vec<SocketAddr>,
    /// The token for what stands in for the store.
    pub edge_token: String,
    /// The folder in which `envoy/store-certificates.sh` made what the stores are called with; without it there is no TLS.
    pub store_certificates: Option<PathBuf>,
    /// The filter's configuration.
    pub filter_configuration: Value,
    /// Whether it knows where clients are: from the databases of [`geo`].
    pub geo: bool,
    /// How many proxies stand in front. With 1, a client's address is what it says last in `x-forwarded-for`.
    pub trusted_hops: u32,
    /// Changes the rendered configuration of Envoy.
    pub edit: Box<dyn Fn(String) -> String>,
    /// What is behind it.
    pub authorization_server: AuthorizationServer,
    /// Where the gateway makes its folder, which has the database in it.
    pub parent: PathBuf,
    /// What the store and its commands are started by, such as `env NAME=value`.
    pub store_launcher: Vec<OsString>,
    /// Its database, if that is not in the folder.
    pub database_url: Option<String>,
}

/// What is behind a gateway.
#[derive(Clone, Debug)]
#[allow(dead_code)]
pub enum AuthorizationServer {
    /// The stub.
    Stub,
    /// The program of a real one ([`node_authorization_server`]).
    Program(PathBuf),
    /// The same, which registers clients itself.
    Registrar(PathBuf),
    /// Something at this address.
    At(SocketAddr),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            envoy: envoy::binary(),
            concurrency: 2,
            store: None,
            more_stores: Vec::new(),
            store_certificates: None,
            edge_token: "of-a-stand-in".to_owned(),
            filter_configuration: serde_json::json!({"store": {"cluster": "dcr_store", "poll_interval_ms": 20}}),
            geo: false,
            trusted_hops: 0,
            authorization_server: AuthorizationServer::Stub,
            edit: Box::new(|configuration| configuration),
            parent: std::env::temp_dir(),
            store_launcher: Vec::new(),
            database_url: None,
        }
    }
}

/// A running gateway with one tenant, `default`, for `localhost` and `127.0.0.1`, as `make run` makes it.
pub struct Gateway {
    // Fields are dropped in this order: first Envoy, last the folder.
    envoy: Option<Envoy>,
    _authorization_server: Option<Process>,
    store: Option<Process>,
    store_address: SocketAddr,
    edge_token: String,
    options: Options,
    folder: Folder,
}

impl Gateway {
    /// Starts everything, and waits until the settings are in force if the store is the gateway's own.
    pub fn start(options: Options) -> Self {
        let folder = Folder::empty_in(&options.parent)
            .launched_by(options.store_launcher.clone())
            .with_database_at(options.database_url.clone());
        let (store, store_address, edge_token) = match options.store {
            Some(address) => (None, address, options.edge_token.clone()),
            None => {
                let (process, address) = start_store(&folder, "127.0.0.1:0");
                folder.succeed(&["tenant", "create", "default", "--domain", "localhost", "--domain", "127.0.0.1"]);
                let token = folder.succeed(&["token", "--kind", "edge", "--ttl", "24h"]).trim().to_owned();
                (Some(process), address, token)
            }
        };
        let start = |mut command| folder.start("authorization-server", &mut command);
        let (authorization_server, authorization_server_address) = match &options.authorization_server {
            AuthorizationServer::At(address) => (None, *address),
            AuthorizationServer::Stub => {
                let (process, address) =
                    start(folder.command(&["stub-authorization-server", "--listen", "127.0.0.1:0"]));
                (Some(process), address)
            }
            server @ (AuthorizationServer::Program(program) | AuthorizationServer::Registrar(program)) => {
                let token = folder.succeed(&["token", "--kind", "server", "--tenant", "default"]);
                let mut command = Command::new("node");
                command.arg(program).env("STORE_URL", format!("http://{store_address}"));
                command.env("SERVER_TOKEN", token.trim());
                if let AuthorizationServer::Registrar(_) = server {
                    command.env("REGISTRATION", "open");
                }
                let (process, address) = start(command);
                (Some(process), address)
            }
        };
        write_configuration(&options, folder.path(), store_address, authorization_server_address);
        let mut gateway = Self {
            envoy: None,
            _authorization_server: authorization_server,
            store,
            store_address,
            edge_token,
            options,
            folder,
        };
        gateway.start_envoy();
        if gateway.store.is_some() {
            gateway.wait_for_settings();
        }
        gateway
    }

    /// The listener in clear text.
    pub fn http_address(&self) -> SocketAddr {
        self.envoy().http_address()
    }

    /// The listener with TLS; [`Self::ca`] is its authority.
    pub fn https_address(&self) -> SocketAddr {
        self.envoy().https_address()
    }

    /// The PEM file of the authority that signed the gateway's certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What Envoy has logged, access log included.
    pub fn envoy_log(&self) -> String {
        self.envoy().process().log()
    }

    /// What the store has logged.
    pub fn store_log(&self) -> String {
        self.store.as_ref().expect("a running store").log()
    }

    /// Envoy's admin port.
    pub fn admin_address(&self) -> SocketAddr {
        self.envoy().admin_address()
    }

    /// The counters and gauges of Envoy whose names begin with `prefix`.
    pub fn stats(&self, prefix: &str) -> Vec<(String, u64)> {
        self.envoy().stats(prefix)
    }

    /// How often the filter has decided for `reason`.
    pub fn decisions(&self, reason: &str) -> u64 {
        let name = format!("wasmcustom.dcr_edge.decisions.reason={reason}");
        self.stats(&name).into_iter().find(|(n, _)| *n == name).map_or(0, |(_, count)| count)
    }

    /// What the filter has logged of calls to the store that came to nothing.
    pub fn failures(&self) -> String {
        let log = self.envoy_log();
        let lines: Vec<_> =
            log.lines().filter(|line| line.contains("registration ") && line.contains("failed: ")).collect();
        lines.join("\n")
    }

    /// The same with this token.
    pub fn restart_envoy_with(&mut self, edge_token: &str) {
        self.edge_token = edge_token.to_owned();
        self.restart_envoy();
    }

    /// How often the filter has sent a call to the store once more.
    pub fn store_repeats(&self) -> u64 {
        self.stats("wasmcustom.dcr_edge.store_repeats").first().map_or(0, |(_, count)| *count)
    }

    /// Stops Envoy and starts it anew, on other ports, without the settings that it had: see
    /// [`Self::wait_for_settings`].
    pub fn restart_envoy(&mut self) {
        if let Some(envoy) = self.envoy.take() {
            envoy.terminate();
        }
        self.start_envoy();
    }

    /// Ends Envoy without a warning (SIGKILL).
    pub fn kill_envoy(&mut self) {
        self.envoy.take().expect("a running Envoy").kill();
    }

    /// Starts Envoy again, on other ports, without any settings: see [`Self::wait_for_settings`].
    pub fn start_envoy(&mut self) {
        assert!(self.envoy.is_none(), "Envoy is running");
        self.envoy = Some(self.new_envoy(self.folder.path()));
    }

    /// Asks the store to stop (SIGTERM) and waits until it has.
    pub fn stop_store(&mut self) -> ExitStatus {
        self.store.take().expect("a running store").terminate()
    }

    /// Ends the store without a warning (SIGKILL).
    pub fn kill_store(&mut self) {
        self.store.take().expect("a running store").kill();
    }

    /// Starts the store again, on the port that it had.
    pub fn start_store(&mut self) {
        assert!(self.store.is_none(), "the store is running");
        let (process, _) = start_store(&self.folder, &self.store_address.to_string());
        self.store = Some(process);
    }

    /// Runs a `dcr-store` command on the gateway's database and gives what it prints.
    pub fn store_command(&self, arguments: &[&str]) -> String {
        self.folder.succeed(arguments)
    }

    /// Its folder, which has the database in it.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The ids of all clients in the database.
    pub fn client_ids(&self) -> HashSet<String> {
        self.folder.client_ids()
    }

    /// A token of the tenant `default` for the Management API, with every scope.
    pub fn management_token(&self) -> String {
        self.store_command(&["token", "--tenant", "default"]).trim().to_owned()
    }

    /// Changes settings of the tenant `default` through the gateway, and waits until they are in force.
    pub fn patch_settings(&self, settings: &Value) {
        let response = self.try_patch_settings(settings);
        assert_eq!(response.status, 200, "{response:?}");
        self.wait_for_settings();
    }

    /// Asks for a change of settings of the tenant `default` through the gateway.
    pub fn try_patch_settings(&self, settings: &Value) -> Response {
        let authorization = format!("Bearer {}", self.management_token());
        let headers: [(&str, &[u8]); 2] =
            [("authorization", authorization.as_bytes()), ("content-type", b"application/json")];
        let body = settings.to_string();
        let request = http1::request("PATCH", "/api/v2/tenants/settings", &headers, body.as_bytes());
        http1::exchange(self.http_address(), &request)
    }

    /// Waits until what the store says now is in force in every worker: until a look for settings that began after
    /// this call has succeeded.
    pub fn wait_for_settings(&self) {
        let polled = || self.decisions("settings_polled");
        // One may have been under way already.
        let enough = polled() + 2;
        eventually("the edge takes the store's settings", || (polled() >= enough).then_some(()));
    }

    /// Another Envoy of the same fleet: the same configuration, ports of its own.
    pub fn another_envoy(&self) -> Envoy {
        let dir = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        let envoy = self.new_envoy(&dir);
        eventually("it has settings", || (http1::get(envoy.http_address(), "/").status == 200).then_some(()));
        envoy
    }

    fn envoy(&self) -> &Envoy {
        self.envoy.as_ref().expect("a running Envoy")
    }

    fn new_envoy(&self, dir: &Path) -> Envoy {
        let Options { envoy, concurrency, .. } = &self.options;
        let configuration = self.folder.path().join(CONFIGURATION);
        Envoy::start(envoy, &configuration, dir, *concurrency, &self.edge_token)
    }
}

/// The program of the demonstration's authorization server: `$DCR_TEST_AUTHORIZATION_SERVER`, which `make test` sets.
/// `None` where there is no Node.js.
#[allow(dead_code)]
pub fn node_authorization_server() -> Option<PathBuf> {
    tool("DCR_TEST_AUTHORIZATION_SERVER")
}

/// The path in an environment variable that `make test` sets; `None` where what it names is missing, save in CI.
#[allow(dead_code)]
pub fn tool(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).filter(|path| !path.is_empty());
    if path.is_none() {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: {variable} is not set");
        eprintln!("skipped: {variable} is not set");
    }
    path.map(PathBuf::from)
}

/// What the benchmark asks for, and the suite only in part.
#[allow(dead_code)]
impl Gateway {
    /// The store, or what stands in for it.
    pub fn store_address(&self) -> SocketAddr {
        self.store_address
    }

    /// Envoy's process.
    pub fn envoy_id(&self) -> u32 {
        self.envoy().process().id()
    }

    /// The store's process.
    pub fn store_id(&self) -> u32 {
        self.store.as_ref().expect("a running store").id()
    }

    /// The token with which Envoy comes to the store.
    pub fn edge_token(&self) -> &str {
        &self.edge_token
    }
}

/// Name of the configuration's file.
const CONFIGURATION: &str = "envoy.yaml";

/// Writes the shipped configuration into `dir`, rendered and changed as `options` say, with certificates beside it;
/// gives its path. All of Envoy's ports are free ones.
pub fn write_configuration(
    options: &Options,
    dir: &Path,
    store: SocketAddr,
    authorization_server: SocketAddr,
) -> PathBuf {
    output_of(Command::new(root().join("envoy/certificates.sh")).arg(dir));
    let rendered = output_of(&mut render(options, dir, store, authorization_server));
    let configuration = with_filter_configuration(&rendered, &options.filter_configuration);
    let path = dir.join(CONFIGURATION);
    std::fs::write(&path, (options.edit)(configuration)).unwrap();
    path
}

/// The filter that is tested.
const WASM: &str = "target/wasm32-wasip1/release/dcr_edge.wasm";

/// What is wrong with the filter, if it is not built from `sources`: it is older than one of them. The store's are none
/// of the filter's.
fn fault(wasm: &Path, sources: &Path) -> Option<String> {
    let Some(built) = std::fs::metadata(wasm).ok().and_then(|metadata| metadata.modified().ok()) else {
        return Some(format!("{} is missing: run `make build`", wasm.display()));
    };
    let mut folders = vec![sources.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.extend((path != sources.join("store")).then_some(path));
            } else if std::fs::metadata(&path).unwrap().modified().unwrap() > built {
                let (wasm, path) = (wasm.display(), path.display());
                return Some(format!("{wasm} is older than {path}: run `make build`"));
            }
        }
    }
    None
}

#[test]
fn a_filter_that_is_older_than_its_sources_is_not_tested() {
    let folder = tempfile::tempdir().unwrap();
    let (wasm, sources) = (folder.path().join("f.wasm"), folder.path().join("src"));
    use std::time::{Duration, SystemTime};
    let write = |path: &Path, seconds: u64| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        std::fs::File::create(path).unwrap().set_modified(time).unwrap();
    };
    write(&sources.join("filter/mod.rs"), 5);
    write(&sources.join("store/mod.rs"), 9);
    let says = |what: &str| fault(&wasm, &sources).is_some_and(|fault| fault.contains(what));
    assert!(says("f.wasm is missing: run `make build`"));
    // A fresh clone has the same time everywhere.
    for built in [5, 6] {
        write(&wasm, built);
        assert_eq!(fault(&wasm, &sources), None);
    }
    write(&sources.join("filter/mod.rs"), 7);
    assert!(says("mod.rs: run `make build`"));
}

/// The command that prints the shipped configuration, rendered as `options` say, with the filter's as it is shipped.
pub fn render(options: &Options, dir: &Path, store: SocketAddr, authorization_server: SocketAddr) -> Command {
    let wasm = root().join(WASM);
    // All tests ask; the files are looked at once.
    static FAULT: LazyLock<Option<String>> = LazyLock::new(|| fault(&root().join(WASM), &root().join("src")));
    if let Some(fault) = &*FAULT {
        panic!("{fault}");
    }
    let mut render = Command::new(root().join("envoy/render.sh"));
    for name in ["LISTEN_HOST", "ADMIN_HOST"] {
        render.env(name, "127.0.0.1");
    }
    for name in ["HTTP_PORT", "HTTPS_PORT", "ADMIN_PORT"] {
        render.env(name, "0");
    }
    for (name, address) in [("STORE", store), ("AUTHORIZATION_SERVER", authorization_server)] {
        render.env(format!("{name}_HOST"), address.ip().to_string());
        render.env(format!("{name}_PORT"), address.port().to_string());
    }
    if let Some(certificates) = &options.store_certificates {
        for (name, file) in
            [("STORE_CA", "store-ca"), ("STORE_CLIENT_CERTIFICATE", "edge"), ("STORE_CLIENT_KEY", "edge-key")]
        {
            render.env(name, certificates.join(format!("{file}.pem")));
        }
    }
    if !options.more_stores.is_empty() {
        let endpoints: Vec<_> = [store].iter().chain(&options.more_stores).map(SocketAddr::to_string).collect();
        render.env("STORE_ENDPOINTS", endpoints.join(" "));
    }
    render.env("WASM", wasm);
    render.env("TLS_CERTIFICATE", dir.join("server.pem"));
    render.env("TLS_PRIVATE_KEY", dir.join("server-key.pem"));
    render.env("TRUSTED_HOPS", options.trusted_hops.to_string());
    let databases = if options.geo { geo::databases() } else { ["", ""].map(PathBuf::from) };
    for (name, database) in ["GEOIP_CITY_DATABASE", "GEOIP_ASN_DATABASE"].into_iter().zip(databases) {
        render.env(name, database);
    }
    render
}

/// Puts `filter` in the place of the one block of text that the configuration has: the filter's own.
fn with_filter_configuration(configuration: &str, filter: &Value) -> String {
    let (before, after) = configuration.split_once("value: |\n").expect("the filter's configuration");
    let indentation = after.len() - after.trim_start().len();
    let block = after.lines().take_while(|line| line.starts_with(&" ".repeat(indentation)));
    let rest: String = after.lines().skip(block.count()).flat_map(|line| [line, "\n"]).collect();
    format!("{before}value: |\n{}{filter}\n{rest}", " ".repeat(indentation))
}

fn start_store(folder: &Folder, listen: &str) -> (Process, SocketAddr) {
    folder.start("store", &mut folder.command(&["serve", "--listen", listen]))
}

/// Starts a program that says `listening on ADDRESS`.
pub fn listening(name: &str, dir: &Path, command: &mut Command) -> (Process, SocketAddr) {
    let says =
        |log: &str| log.lines().filter_map(|line| line.strip_prefix("listening on ")?.parse().ok()).collect::<Vec<_>>();
    let log = std::fs::read_to_string(dir.join(format!("{name}.log"))).unwrap_or_default();
    let said_before = says(&log).len();
    let mut process = Process::spawn(name, dir, command);
    let address = process.wait_until("listening", |process| says(&process.log()).get(said_before).copied());
    (process, address)
}
