//! PostgreSQL servers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};

use tempfile::TempDir;

use super::gateway::tool;
use super::process::Process;
use super::{root, store};

/// A server, and its folder: gone when this is dropped, or when the tests end in whatever way.
pub struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    folder: PathBuf,
    port: u16,
}

/// The variable that names the folder of PostgreSQL's programs.
const PROGRAMS: &str = "DCR_TEST_POSTGRESQL";

impl Server {
    /// Starts one with these settings, where there is a PostgreSQL.
    pub fn start(settings: &[&str]) -> Option<Self> {
        let mut server = Self::prepare(settings)?;
        server.tell("start");
        Some(server)
    }

    /// Starts a standby of another one.
    pub fn standby_of(primary: &Self, settings: &[&str]) -> Option<Self> {
        let mut server = Self::prepare(settings)?;
        server.tell(&format!("copy {}", primary.folder.display()));
        Some(server)
    }

    fn prepare(settings: &[&str]) -> Option<Self> {
        let programs = tool(PROGRAMS)?;
        let mut command = Command::new(root().join("tests/support/postgres.sh"));
        command.arg(programs).args(settings).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Some(Self { child, input, output, folder: PathBuf::new(), port: 0 })
    }

    /// Tells the script something, and waits until it is done.
    fn tell(&mut self, what: &str) {
        writeln!(self.input.as_mut().unwrap(), "{what}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        match answer.split_whitespace().collect::<Vec<_>>()[..] {
            ["up", port, folder] => (self.port, self.folder) = (port.parse().unwrap(), folder.into()),
            ["down"] => {}
            _ => panic!("PostgreSQL did not {what}: {answer:?}"),
        }
    }

    /// Ends every process of it without a warning (SIGKILL).
    pub fn kill(&mut self) {
        self.tell("kill");
    }

    /// Starts it again, on the same port.
    pub fn start_again(&mut self) {
        self.tell("start");
    }

    /// Makes a standby the primary.
    pub fn promote(&mut self) {
        self.tell("promote");
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database of it.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://dcr:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database, and gives its URL.
    pub fn create_database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("dcr_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        store::runtime().block_on(execute(&self.url_of("postgres"), &format!("CREATE DATABASE {name}")));
        self.url_of(&name)
    }

    /// The server that tests share, each with a database of its own; `None` where there is no PostgreSQL.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[])).as_ref()
    }
}

/// The password in each URL. The servers let everybody in; it must show up nowhere all the same.
pub const PASSWORD: &str = "p4ss-of-the-database";

/// Executes a statement in the database that `url` names.
pub async fn execute(url: &str, statement: &str) {
    let mut connection = connect(url).await;
    connection.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    connection.close().await.unwrap();
}

/// A connection to the database that `url` names.
pub async fn connect(url: &str) -> PgConnection {
    try_connect(url).await.unwrap()
}

/// The same, where the server may refuse.
pub async fn try_connect(url: &str) -> sqlx::Result<PgConnection> {
    let options: PgConnectOptions = url.parse().unwrap();
    options.disable_statement_logging().connect().await
}

/// A way to a server, which can be led to another one, or grow silent.
pub struct Proxy {
    address: SocketAddr,
    target: Arc<AtomicU16>,
    /// Connections that were made before this one's number are silent.
    silent_before: Arc<AtomicU32>,
    made: Arc<AtomicU32>,
}

impl Proxy {
    /// A way to this port.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            target: Arc::new(port.into()),
            silent_before: Arc::default(),
            made: Arc::default(),
        };
        let (target, silent_before, made) =
            (proxy.target.clone(), proxy.silent_before.clone(), Arc::downgrade(&proxy.made));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Some(made)) = (client, made.upgrade()) else { return };
                let number = made.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", target.load(Ordering::SeqCst))) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let silent_before = silent_before.clone();
                    thread::spawn(move || forward(from, to, || number < silent_before.load(Ordering::SeqCst)));
                }
            }
        });
        proxy
    }

    /// Leads whoever comes from now on to this port.
    pub fn lead_to(&self, port: u16) {
        self.target.store(port, Ordering::SeqCst);
    }

    /// Swallows from now on what all connections say that there are, as a network does whose cable was cut.
    pub fn grow_silent(&self) {
        self.silent_before.store(self.made.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// The URL of a server's database, by this way.
    pub fn url(&self, url: &str) -> String {
        by_way_of(url, &self.address.to_string())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Its thread finds that it is gone.
        self.made = Arc::default();
        _ = TcpStream::connect(self.address);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, is_silent: impl Fn() -> bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if !is_silent() && to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    if !is_silent() {
        _ = to.shutdown(Shutdown::Both);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its input ends the script, and that the server.
        self.input = None;
        _ = self.child.wait();
    }
}

/// PgBouncer in front of a server, which gives each transaction another connection.
pub struct Pooler {
    _process: Process,
    _folder: TempDir,
    port: u16,
}

impl Pooler {
    /// Starts one with three connections to each database; `None` where there is no PgBouncer.
    pub fn start(server: &Server) -> Option<Self> {
        let program = tool("DCR_TEST_PGBOUNCER")?;
        let folder = tempfile::tempdir().unwrap();
        // It goes down from root by itself and reads its files after that.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let configuration = folder.path().join("pgbouncer.ini");
        let users = folder.path().join("users.txt");
        std::fs::write(&users, format!("\"dcr\" \"{PASSWORD}\"\n")).unwrap();
        let mut process = None;
        let port = (0..20)
            .find_map(|_| {
                let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
                let text = format!(
                    "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                     unix_socket_dir =\npool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 200\n\
                     auth_type = plain\nauth_file = {}\n",
                    server.port,
                    users.display()
                );
                std::fs::write(&configuration, text).unwrap();
                let mut command = Command::new(&program);
                command.arg(&configuration);
                if std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
                    command.args(["-u", "nobody"]);
                }
                let mut started = Process::spawn("pgbouncer", folder.path(), &mut command);
                let is_up = started.wait_until("it listens, or another has the port", |process| {
                    let log = process.log();
                    (log.contains("process up")).then_some(true).or(log.contains("in use").then_some(false))
                });
                process = Some(started);
                is_up.then_some(port)
            })
            .expect("a free port");
        Some(Self { _process: process.unwrap(), _folder: folder, port })
    }

    /// The URL of a server's database, by this way.
    pub fn url(&self, url: &str) -> String {
        by_way_of(url, &format!("127.0.0.1:{}", self.port))
    }
}

/// The URL of a database at another address.
fn by_way_of(url: &str, address: &str) -> String {
    let (before, rest) = url.split_once('@').unwrap();
    let (_, database) = rest.split_once('/').unwrap();
    format!("{before}@{address}/{database}")
}
