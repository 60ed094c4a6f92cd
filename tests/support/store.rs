//! A real `dcr-store` in a folder of its own, on a port of its own.

use std::collections::HashSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Barrier};
use std::thread;

use dcr_edge::store::db::{Database, IfMissing};
use dcr_edge::store::token::{Claims, Keys};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, SqlitePool};
use tempfile::TempDir;

use super::gateway::listening;
use super::process::{self, PATIENCE, Process};
use super::{output_of, store_binary};

/// A folder with a database that nothing serves yet.
pub struct Folder {
    folder: TempDir,
    // Not beside the database: tests look at what is there.
    logs: TempDir,
    /// What the binary is started by.
    launcher: Vec<OsString>,
    /// The URL of the database, if that is not in the folder.
    elsewhere: Option<String>,
}

impl Folder {
    /// An empty folder.
    pub fn empty() -> Self {
        Self::empty_in(&std::env::temp_dir())
    }

    /// An empty folder in `parent`.
    pub fn empty_in(parent: &Path) -> Self {
        let (folder, logs) = (tempfile::tempdir_in(parent).unwrap(), tempfile::tempdir().unwrap());
        Self { folder, logs, launcher: Vec::new(), elsewhere: None }
    }

    /// An empty folder whose database is the one that the URL names.
    pub fn on(url: String) -> Self {
        Self::empty().with_database_at(Some(url))
    }

    /// The same with another way to start the binary, such as `env NAME=value`, which becomes the binary's process.
    pub fn launched_by(mut self, launcher: Vec<OsString>) -> Self {
        self.launcher = launcher;
        self
    }

    /// The same with the database at this URL, if there is one.
    pub fn with_database_at(mut self, url: Option<String>) -> Self {
        self.elsewhere = url;
        self
    }

    /// A folder with a database in which the tenant `default` has registration enabled, at `default.example`, and no
    /// limit that a test would meet.
    pub fn with_default_tenant() -> Self {
        let folder = Self::empty();
        folder.create_enabled_tenant("default", json!({}));
        folder
    }

    /// Adds a tenant at `NAME.example`, with registration enabled and these members of `dcr_edge`; without a
    /// `rate_limit` it has the highest.
    pub fn create_enabled_tenant(&self, name: &str, mut dcr_edge: Value) {
        if dcr_edge.get("rate_limit").is_none() {
            dcr_edge["rate_limit"] = json!({"burst": 1_000_000, "per_second": 1_000_000});
        }
        let tenant = json!({
            "name": name,
            "domains": [format!("{name}.example")],
            "settings": {"flags": {"enable_dynamic_client_registration": true}, "dcr_edge": dcr_edge}
        });
        let tenant = serde_json::from_value(tenant).unwrap();
        self.with_database(async |database| database.create_tenant(&tenant).await.unwrap());
    }

    /// Uses the database as the store's own code does.
    pub fn with_database<T>(&self, work: impl AsyncFnOnce(&dyn Database) -> T) -> T {
        runtime().block_on(async {
            let database = dcr_edge::store::open(&self.url(), IfMissing::Create).await.unwrap();
            let result = work(&*database).await;
            database.close().await;
            result
        })
    }

    /// The keys that sign the database's tokens.
    pub fn keys(&self) -> Keys {
        self.with_database(async |database| dcr_edge::store::keys(database).await.unwrap())
    }

    /// Uses the database's tables as they are.
    pub fn with_tables<T>(&self, work: impl AsyncFnOnce(&SqlitePool) -> T) -> T {
        runtime().block_on(async {
            let pool = SqlitePool::connect(&self.url()).await.unwrap();
            let result = work(&pool).await;
            pool.close().await;
            result
        })
    }

    /// The ids of all clients that are in the file.
    pub fn client_ids(&self) -> HashSet<String> {
        let ids: Vec<String> = self.with_tables(async |pool| {
            sqlx::query_scalar("SELECT client_id FROM clients").fetch_all(pool).await.unwrap()
        });
        ids.into_iter().collect()
    }

    /// Fills the database up to so many clients of the default tenant, which are like those that MCP clients register:
    /// one half is public.
    pub fn fill_with_clients(&self, clients: u32) {
        let store = self.serve();
        for (number, secret) in [(1, None), (2, Some("ab".repeat(32)))] {
            let mut registration = json!({"metadata": {
                "client_name": "Example Desktop",
                "client_uri": "https://desktop.example.com",
                "logo_uri": "https://desktop.example.com/logo.png",
                "redirect_uris": ["http://localhost:33418/callback", "https://desktop.example.com/oauth/callback"],
                "grant_types": ["authorization_code", "refresh_token"],
                "response_types": ["code"],
                "token_endpoint_auth_method": if secret.is_none() { "none" } else { "client_secret_post" },
                "scope": "openid profile email offline_access",
                "software_id": "f5b1b0a4-7c5e-4d0e-9d9b-6a0d3c2f1e11",
                "software_version": "1.24.0"
            }});
            if let Some(secret) = secret {
                registration["client_secret_sha256"] = secret.into();
            }
            let answer = store.edge().put_client("default", &client_id(number), &registration);
            assert_eq!(answer.status, 201, "{}", answer.text);
        }
        drop(store);
        match &self.elsewhere {
            None => self.copy_clients_in_file(clients),
            Some(url) => runtime().block_on(copy_clients_on_server(url, clients)),
        }
    }

    fn copy_clients_in_file(&self, clients: u32) {
        self.with_tables(async |pool| {
            let copies = "WITH RECURSIVE n (n) AS (SELECT 3 UNION ALL SELECT n + 1 FROM n WHERE n < ?) \
                 INSERT INTO clients \
                 (client_id, tenant, metadata, client_secret_sha256, fingerprint, issued_at, app_type) \
                 SELECT 'tpc_' || lower(hex(randomblob(16))), tenant, metadata, \
                 iif(client_secret_sha256 IS NULL, NULL, randomblob(32)), \
                 iif(fingerprint IS NULL, NULL, randomblob(32)), issued_at + n, app_type \
                 FROM n CROSS JOIN clients ON number = 1 + n % 2";
            sqlx::query(copies).bind(clients).execute(pool).await.unwrap();
            sqlx::query("DELETE FROM client_blocks").execute(pool).await.unwrap();
            sqlx::query(COUNT_BLOCKS).execute(pool).await.unwrap();
        });
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where the database is.
    pub fn database(&self) -> PathBuf {
        self.path().join("dcr.db")
    }

    /// The database's URL.
    pub fn url(&self) -> String {
        self.elsewhere.clone().unwrap_or_else(|| format!("sqlite://{}", self.database().display()))
    }

    /// A command of the binary on this database.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut words = self.launcher.iter().cloned().chain([store_binary().into()]);
        let mut command = Command::new(words.next().unwrap());
        let url = self.url();
        command.args(words).args(arguments).env("DATABASE_URL", url).env_remove("RUST_LOG");
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        process::output(&mut self.command(arguments))
    }

    /// Runs a command that must succeed, and gives what it printed.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail with the exit code 1 and one line on standard error, and gives that line.
    pub fn fail(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    }

    /// Starts the store.
    pub fn serve(&self) -> Store {
        self.serve_with(&[])
    }

    /// Starts the store with more arguments.
    pub fn serve_with(&self, arguments: &[&str]) -> Store {
        self.serve_as(&mut self.command(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat()))
    }

    /// Starts the store with this command.
    pub fn serve_as(&self, command: &mut Command) -> Store {
        let (process, address) = self.start("store", command);
        Store { process, address, keys: Arc::new(self.keys()), url: self.url() }
    }

    /// Starts a program that says where it listens.
    pub fn start(&self, name: &str, command: &mut Command) -> (Process, SocketAddr) {
        listening(name, self.logs.path(), command)
    }
}

const COUNT_BLOCKS: &str = "INSERT INTO client_blocks (tenant, block, app_type, clients) \
     SELECT tenant, number >> 11, app_type, count(*) FROM clients GROUP BY 1, 2, 3";

async fn copy_clients_on_server(url: &str, clients: u32) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let copies = "INSERT INTO clients \
         (number, client_id, tenant, metadata, client_secret_sha256, fingerprint, issued_at, app_type) \
         SELECT nextval('client_numbers'), 'tpc_' || replace(gen_random_uuid()::text, '-', ''), tenant, metadata, \
         CASE WHEN client_secret_sha256 IS NOT NULL THEN sha256(n::text::bytea) END, \
         CASE WHEN fingerprint IS NOT NULL THEN sha256(n::text::bytea) END, issued_at + n, app_type \
         FROM generate_series(3, $1) AS n JOIN clients ON number = 1 + n % 2";
    sqlx::query(copies).bind(i64::from(clients)).execute(&mut connection).await.unwrap();
    for statement in ["DELETE FROM client_blocks", COUNT_BLOCKS, "VACUUM ANALYZE"] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A store that runs.
pub struct Store {
    /// Its process.
    pub process: Process,
    address: SocketAddr,
    keys: Arc<Keys>,
    url: String,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub text: String,
}

impl Answer {
    /// A header's value, or the empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    /// The body, which must be JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A client of one address. Clones share connections.
#[derive(Clone)]
pub struct Caller {
    agent: ureq::Agent,
    address: SocketAddr,
    token: Option<String>,
}

impl Caller {
    /// A client without a token.
    pub fn new(address: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .max_idle_connections_per_host(64)
            // An answer is what the store said, not what it pointed to.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build();
        Self { agent: config.into(), address, token: None }
    }

    /// One that sends this token.
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sends a request; an error if there is no answer.
    pub fn try_call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Result<Answer, ureq::Error> {
        let mut request = http::Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = match body {
            Some(body) => self.agent.run(request.body(body.to_owned()).unwrap())?,
            None => self.agent.run(request.body(()).unwrap())?,
        };
        let text = response.body_mut().read_to_string()?;
        Ok(Answer { status: response.status().as_u16(), headers: response.headers().clone(), text })
    }

    /// Sends a request that must be answered.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        self.try_call(method, path, headers, body).unwrap()
    }

    /// `GET`
    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], None)
    }

    /// `PUT` of a client
    pub fn put_client(&self, tenant: &str, client_id: &str, registration: &Value) -> Answer {
        let path = format!("/edge/v1/tenants/{tenant}/clients/{client_id}");
        self.call("PUT", &path, &[], Some(&registration.to_string()))
    }

    /// A request with a body of JSON
    pub fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.call(method, path, &[("content-type", "application/json")], Some(&body.to_string()))
    }

    /// A `PATCH` of each of these, all at the same moment, each of which has to be answered with 200
    pub fn patch_at_once(&self, path: &str, patches: &[Value]) {
        let start = Barrier::new(patches.len());
        thread::scope(|scope| {
            for patch in patches {
                let (caller, start) = (self.clone(), &start);
                scope.spawn(move || {
                    start.wait();
                    assert_eq!(caller.send("PATCH", path, patch).status, 200);
                });
            }
        });
    }

    /// `PATCH` of the settings
    pub fn patch_settings(&self, patch: &Value) -> Answer {
        self.send("PATCH", "/api/v2/tenants/settings", patch)
    }
}

impl Store {
    /// A client without a token.
    pub fn anyone(&self) -> Caller {
        Caller::new(self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client with an edge's token.
    pub fn edge(&self) -> Caller {
        self.anyone().with_token(self.edge_token())
    }

    /// An edge's token.
    pub fn edge_token(&self) -> String {
        self.keys.mint(&Claims::edge(dcr_edge::store::unix_now(), 600)).unwrap()
    }

    /// A client with a Management API token of the tenant `name`, with every scope, from the command line.
    pub fn owner(&self, name: &str) -> Caller {
        let mut command = Command::new(store_binary());
        self.anyone().with_token(output_of(command.args(["token", "--tenant", name, "--database-url", &self.url])))
    }

    /// The value of a metric, 0 if it is not shown.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.anyone().get("/metrics").text;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}

/// A `client_id` for each number.
pub fn client_id(number: usize) -> String {
    format!("tpc_{number:0>32}")
}

/// A `client_id` of the permissive mode for each number.
pub fn permissive_id(number: usize) -> String {
    format!("{number:0>32}")
}

/// A confidential client's registration.
pub fn confidential() -> Value {
    json!({
        "client_secret_sha256": "ab".repeat(32),
        "metadata": {"redirect_uris": ["https://app.example/cb"], "client_name": "Test"}
    })
}

/// A public client's registration.
pub fn public() -> Value {
    json!({
        "metadata": {
            "redirect_uris": ["https://app.example/cb"],
            "client_name": "Test",
            "token_endpoint_auth_method": "none"
        }
    })
}
