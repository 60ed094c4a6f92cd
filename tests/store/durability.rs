//! A client that got a 201 exists, whatever happens next, and many of them cost few syncs.

use std::collections::HashSet;
use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::process::eventually;
use crate::support::store::{Folder, Store, client_id, confidential};
use crate::support::store_binary;

const CALLERS: usize = 32;

/// Registers clients from many threads at once until the store is gone or `most` are registered. `meanwhile` runs
/// beside them, and is told how many got a 201 so far. Gives the ids of those.
fn register_many(store: &Store, most: usize, meanwhile: impl FnOnce(&AtomicUsize)) -> HashSet<String> {
    let edge = store.edge();
    let (next, created, ids) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(HashSet::new()));
    let registration = confidential().to_string();
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= most {
                        return;
                    }
                    let id = client_id(number);
                    let path = format!("/edge/v1/tenants/default/clients/{id}");
                    let Ok(answer) = edge.try_call("PUT", &path, &[], Some(&registration)) else { return };
                    assert_eq!(answer.status, 201, "{answer:?}");
                    ids.lock().unwrap().insert(id);
                    created.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        meanwhile(&created);
    });
    ids.into_inner().unwrap()
}

#[test]
fn every_client_that_got_a_201_is_there_after_a_kill() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let answered = register_many(&store, usize::MAX, |created| {
        eventually("registrations", || (created.load(Ordering::Relaxed) > 300).then_some(()));
        store.process.signal("KILL");
    });
    drop(store);
    let store = folder.serve();
    assert_eq!(store.anyone().get("/readyz").status, 200);
    let stored = folder.client_ids();
    assert!(answered.is_subset(&stored), "{} are missing", answered.difference(&stored).count());
    let again = store.edge().put_client("default", answered.iter().next().unwrap(), &confidential());
    assert_eq!(again.status, 200);
}

#[test]
fn a_stop_finishes_what_was_accepted_and_exits_with_0() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let answered = register_many(&store, usize::MAX, |created| {
        eventually("registrations", || (created.load(Ordering::Relaxed) > 100).then_some(()));
        store.process.signal("TERM");
    });
    assert_eq!(store.process.wait().code(), Some(0));
    // The last connection carried the WAL over and removed it.
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["dcr.db"]);
    let stored = folder.client_ids();
    // No request was in flight without an answer, so there is no client that nobody was told of.
    assert_eq!(answered, stored);
}

#[test]
fn many_registrations_share_a_sync_and_none_goes_without() {
    const MOST: usize = 640;
    if Command::new("strace").arg("-V").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "strace is missing; install it to count syncs");
        eprintln!("skipped: strace is missing, so syncs cannot be counted");
        return;
    }
    let folder = Folder::with_default_tenant();
    let log = folder.path().join("strace");
    let mut command = Command::new("strace");
    // -D: the tracer is the child's child, so signals and the exit code are the store's own.
    command.args(["-D", "-f", "-e", "trace=fsync,fdatasync", "-o"]).arg(&log);
    command.arg(store_binary()).args(["serve", "--listen", "127.0.0.1:0", "--database-url", &folder.url()]);
    let store = folder.serve_as(&mut command);
    let answered = register_many(&store, MOST, |_| {});
    let flushes = store.metric("dcr_store_flushes_total") as usize;
    store.process.signal("TERM");
    assert_eq!(store.process.wait().code(), Some(0));
    let trace = eventually("the end of the trace", || {
        Some(fs::read_to_string(&log).unwrap()).filter(|trace| trace.contains("+++ exited with 0 +++"))
    });
    let syncs = trace.lines().filter(|line| line.contains("sync(")).count();

    assert_eq!(answered.len(), MOST);
    assert_eq!(folder.client_ids().len(), MOST);
    assert!(syncs >= flushes, "{syncs} syncs for {flushes} flushes");
    assert!(syncs * 4 < MOST, "{syncs} syncs for {MOST} registrations");
}
