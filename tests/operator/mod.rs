//! What an operator runs and copies: the scripts in `envoy/` and the configuration.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, ExitStatus, Output};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::support::gateway::{Options, write_configuration};
use crate::support::process::{Process, eventually};
use crate::support::{envoy, output_of, root};

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

#[test]
fn private_keys_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
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
    let output = script("run.sh").env("RUN_DIR", &run_dir).env("ADMIN_PORT", port.to_string()).output().unwrap();
    let said = stderr(&output);
    // One of the defaults may be in use on this machine too.
    assert!(said.contains("is in use") && said.lines().count() == 1, "{said}");
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
        let mut command = script("run.sh");
        command.env("RUN_DIR", dir.path().join("run"));
        // Free ports, whatever runs on this machine.
        for name in ["HTTP_PORT", "HTTPS_PORT", "ADMIN_PORT", "STORE_PORT"] {
            command.env(name, free_port());
        }
        let output = command.env(name, value).output().unwrap();
        let said = stderr(&output);
        assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn an_envoy_that_is_none_or_too_old_is_refused() {
    let output = script("get-envoy.sh").arg("1.40.0").env("ENVOY", "/bin/true").output().unwrap();
    assert!(stderr(&output).contains("ENVOY=/bin/true is not an Envoy of 1.35 or later"), "{output:?}");
}

/// A free port, as text; another one each time. It lies below the range from which connections and port 0 take
/// theirs, so that nothing else in the tests gets hold of it.
fn free_port() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 100).unwrap() * 100;
    let mut ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed));
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap().to_string()
}

/// `run.sh` on free ports, ready. It is asked to stop when this is dropped, so that its children stop too.
struct Run {
    process: Option<Process>,
    ports: Vec<(&'static str, String)>,
}

impl Run {
    fn start(dir: &Path, run_dir: &Path) -> Self {
        let ports: Vec<_> =
            ["HTTP_PORT", "HTTPS_PORT", "ADMIN_PORT", "STORE_PORT"].map(|name| (name, free_port())).into();
        let mut command = script("run.sh");
        command.envs(ports.iter().cloned()).env("RUN_DIR", run_dir).env("ENVOY", envoy::binary());
        let mut process = Process::spawn("run", dir, command.env("ENVOY_VERSION", "1.40.0"));
        process.wait_until("ready", |process| process.log().contains("dcr-edge is ready").then_some(()));
        Self { process: Some(process), ports }
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
fn a_second_run_keeps_what_the_first_one_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let first = Run::start(dir.path(), &run_dir);
    assert_eq!(first_line_of(&printed_calls(&first.process().log())[0]), "HTTP/1.1 200 OK");
    assert!(first.terminate().success());
    let authority = std::fs::read(run_dir.join("ca.pem")).unwrap();

    let other = tempfile::tempdir().unwrap();
    let second = Run::start(other.path(), &run_dir);
    assert_eq!(first_line_of(&printed_calls(&second.process().log())[1]), "HTTP/1.1 201 Created");
    assert_eq!(std::fs::read(run_dir.join("ca.pem")).unwrap(), authority);
    assert!(second.terminate().success());
}

#[test]
fn everything_stops_when_one_of_the_programs_does() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let mut run = Run::start(dir.path(), &run_dir);
    let process = run.process.take().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.id())).unwrap();
    let is_store = |id: &&str| {
        let arguments = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap();
        arguments.contains("dcr-store\0serve")
    };
    let store = children.split_whitespace().find(is_store).unwrap();
    output_of(Command::new("kill").args(["-KILL", store]));
    let log = dir.path().join("run.log");
    assert_eq!(process.wait().code(), Some(1));
    assert!(std::fs::read_to_string(log).unwrap().contains("run: store has ended"));
    for (name, port) in &run.ports {
        TcpListener::bind(format!("127.0.0.1:{port}")).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
