//! The disk is full.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::load::Load;
use super::{LIMITED, Stored, gateway, owner};
use crate::support::gateway::Options;
use crate::support::output_of;
use crate::support::process::{self, Process, eventually};

/// A small disk: a file system in memory, in a mount namespace of its own, which ends with the process that holds it.
/// So nothing stays mounted, however the test ends; and where users may make namespaces, it needs no root.
struct SmallDisk {
    holder: Process,
    is_root: bool,
    place: TempDir,
    _logs: TempDir,
}

impl SmallDisk {
    /// One of so many MiB. `None` where namespaces are forbidden, save in CI.
    fn of_mib(mib: u32) -> Option<Self> {
        let is_root = output_of(Command::new("id").arg("-u")) == "0";
        let unshare = || {
            let mut command = Command::new("unshare");
            command.args(if is_root { &["--mount"][..] } else { &["--user", "--map-root-user", "--mount"] });
            command
        };
        if !process::output(unshare().args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"])).status.success() {
            assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: no disk can be mounted");
            eprintln!("skipped: no disk can be mounted");
            return None;
        }
        let (place, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let script = "mount -t tmpfs -o size=$1m tmpfs \"$2\" && echo mounted && exec sleep infinity";
        let mut command = unshare();
        command.args(["sh", "-euc", script, "sh", &mib.to_string()]).arg(place.path());
        let mut holder = Process::spawn("disk", logs.path(), &mut command);
        holder.wait_until("the disk", |holder| holder.log().contains("mounted").then_some(()));
        Some(Self { holder, is_root, place, _logs: logs })
    }

    /// What starts a program that sees the disk.
    fn launcher(&self) -> Vec<OsString> {
        let id = self.holder.id().to_string();
        let user: &[&str] = if self.is_root { &[] } else { &["--user", "--preserve-credentials"] };
        let words = ["nsenter", "--target", &id, "--mount"].into_iter().chain(user.iter().copied());
        words.map(OsString::from).collect()
    }

    /// A file on it.
    fn file(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Runs a program that sees it.
    fn run(&self, words: &[&str]) -> String {
        let launcher = self.launcher();
        output_of(Command::new(&launcher[0]).args(&launcher[1..]).args(words))
    }
}

#[test]
fn a_full_disk_refuses_registrations_loses_none_and_needs_no_restart() {
    let Some(disk) = SmallDisk::of_mib(24) else { return };
    let mut gateway = gateway(Options {
        store_launcher: disk.launcher(),
        database_url: Some(format!("sqlite://{}", disk.file("dcr.db").display())),
        ..Options::default()
    });
    let letters = disk.file("letters");
    let letters = letters.to_str().unwrap();
    disk.run(&["dd", "if=/dev/zero", "bs=1M", "count=20", &format!("of={letters}")]);
    let load = Load::start(gateway.http_address());
    eventually("the disk is full", || (load.unavailable() >= 50).then_some(()));
    let registered = load.acknowledged();
    assert!(gateway.decisions("store_error") > 0, "the store says that it cannot do it");
    // What needs no room goes on.
    assert_eq!(owner(&gateway, "default").get("/api/v2/clients?per_page=1").status, 200);

    disk.run(&["rm", letters]);
    eventually("registrations work again", || (load.acknowledged() >= registered + 100).then_some(()));
    let outcome = load.stop();
    let stored = Stored::of(&gateway);
    stored.assert_has_all(&outcome);
    gateway.kill_store();
    gateway.start_store();
    Stored::of(&gateway).assert_has_all(&outcome);
    let there = stored.count("default") + stored.count(LIMITED);
    let told = outcome.acknowledged.len() + outcome.limited.len();
    println!("full disk: {told} acknowledged clients, {there} are there; {:?}", outcome.statuses);
}
