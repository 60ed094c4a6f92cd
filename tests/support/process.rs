//! A child process with its log, gone when its owner is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long anything may take that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Calls `probe` until it gives something; panics with `what` after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs a command to its end, and panics if that takes longer than [`PATIENCE`].
pub fn output(command: &mut Command) -> Output {
    output_within(command, PATIENCE)
}

/// Runs a command to its end, and panics if that takes longer than `patience`.
pub fn output_within(command: &mut Command, patience: Duration) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let id = child.id();
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    ended.recv_timeout(patience).map(Result::unwrap).unwrap_or_else(|_| {
        send_signal("KILL", id);
        panic!("{command:?} does not end")
    })
}

fn send_signal(name: &str, process: u32) {
    let status = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status();
    assert!(status.unwrap().success(), "kill -{name} {process}");
}

/// The memory of a process that is in use, in MiB: `VmRSS` of proc_pid_status(5).
pub fn rss_mib(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<f64>().unwrap() / 1024.0
}

/// A running program that writes its output to a file. It is killed and reaped when this is dropped, so also when a
/// test panics.
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command`; its output goes to `NAME.log` in `dir`, behind what is there.
    pub fn spawn(name: &str, dir: &Path, command: &mut Command) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { name: name.to_owned(), log, child }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it and its predecessors of the same name and folder have printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Like [`eventually`], but panics with the log as soon as the process has ended.
    pub fn wait_until<T>(&mut self, what: &str, mut probe: impl FnMut(&Self) -> Option<T>) -> T {
        eventually(&format!("{}: {what}", self.name), || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended with {status} before: {what}\n{}", self.name, self.log());
            }
            probe(self)
        })
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        send_signal(name, self.id());
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        eventually(&format!("{} stops on SIGTERM", self.name), || self.child.try_wait().unwrap())
    }

    /// Ends it without a warning (SIGKILL).
    pub fn kill(self) {
        drop(self);
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> ExitStatus {
        eventually(&format!("{} ends", self.name), || self.child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
