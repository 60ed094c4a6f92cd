//! Copies of the database, and databases of older versions.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::process::{Process, eventually};
use crate::support::root;
use crate::support::store::{Folder, client_id, confidential};
use sqlx::SqlitePool;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;

fn files(folder: &Path) -> HashSet<String> {
    fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

fn text(folder: &Folder, statement: &'static str) -> String {
    folder.with_tables(async |pool| sqlx::query_scalar(statement).fetch_one(pool).await.unwrap())
}

#[test]
fn a_copy_made_under_load_is_sound_and_has_every_client_that_was_answered_before() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let copy = Folder::empty();
    let (edge, stop, answered) = (store.edge(), AtomicBool::new(false), Mutex::new(HashSet::new()));
    let (before, after) = std::thread::scope(|scope| {
        for worker in 0..4 {
            let (edge, stop, answered) = (edge.clone(), &stop, &answered);
            scope.spawn(move || {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let id = client_id(worker * 1_000_000 + number);
                    assert_eq!(edge.put_client("default", &id, &confidential()).status, 201);
                    answered.lock().unwrap().insert(id);
                }
            });
        }
        eventually("clients are registered", || (answered.lock().unwrap().len() > 100).then_some(()));
        let before = answered.lock().unwrap().clone();
        let said = folder.succeed(&["backup", copy.database().to_str().unwrap()]);
        assert_eq!(said, format!("copied the database to {}\n", copy.database().display()));
        let after = answered.lock().unwrap().len();
        eventually("registrations go on", || (answered.lock().unwrap().len() > after).then_some(()));
        stop.store(true, Ordering::Relaxed);
        (before, after)
    });
    assert!(after > before.len(), "nothing was registered meanwhile");
    assert_eq!(files(copy.path()), HashSet::from(["dcr.db".to_owned()]));
    assert_eq!(fs::metadata(copy.database()).unwrap().permissions().mode() & 0o777, 0o600);

    assert_eq!(text(&copy, "SELECT group_concat(integrity_check) FROM pragma_integrity_check"), "ok");
    let copied = copy.client_ids();
    assert!(copied.is_superset(&before));
    assert!(copied.is_subset(&answered.into_inner().unwrap()));
    // Tokens of the original open it, and an edge of the original has to read everything.
    let instance = "SELECT instance FROM store";
    assert_ne!(text(&copy, instance), text(&folder, instance));
    let served = copy.serve();
    let path = format!("/edge/v1/changes?after=1&instance={}", text(&folder, instance));
    assert_eq!(served.anyone().get(&path).status, 401);
    assert_eq!(served.edge().get(&path).json()["full"], true);
    assert_eq!(served.edge().put_client("default", &client_id(9_999_999), &confidential()).status, 201);
    let page = served.owner("default").get("/api/v2/clients?include_totals=true&per_page=1").json();
    assert_eq!(page["total"], copied.len() + 1);
}

#[test]
fn a_copy_replaces_no_file_and_leaves_nothing_when_it_fails() {
    let folder = Folder::with_default_tenant();
    let _store = folder.serve();
    let other = folder.path().join("other");
    fs::write(&other, "theirs").unwrap();
    for beside in ["a-wal", "b-shm", "c-journal"] {
        fs::write(folder.path().join(beside), "of another database").unwrap();
    }
    std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
    let before = files(folder.path());
    for (name, text) in [
        ("other", "there is such a file already"),
        ("link", "there is such a file already"),
        ("dcr.db", "the database itself or one of its files"),
        ("dcr.db-wal", "the database itself or one of its files"),
        ("dcr.db-journal", "the database itself or one of its files"),
        ("missing/copy.db", "create the folder first"),
        ("a", "a-wal of another database"),
        ("b", "b-shm of another database"),
        ("c", "c-journal of another database"),
    ] {
        let path = folder.path().join(name);
        let error = folder.fail(&["backup", path.to_str().unwrap()]);
        assert!(error.contains(text) && error.contains(path.to_str().unwrap()), "{error}");
    }
    assert_eq!(files(folder.path()), before);
    assert_eq!(fs::read_to_string(other).unwrap(), "theirs");
}

#[test]
fn a_copy_that_is_stopped_leaves_nothing() {
    let folder = Folder::with_default_tenant();
    folder.with_tables(async |pool| {
        let fill = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 100) \
             INSERT INTO tenant_log (tenant, date, type, data) SELECT 1, 0, 'x', hex(zeroblob(1000000)) FROM numbers";
        sqlx::query(fill).execute(pool).await.unwrap()
    });
    for signal in ["INT", "TERM"] {
        let target = Folder::empty();
        let mut command = folder.command(&["backup", target.database().to_str().unwrap()]);
        let mut backup = Process::spawn("backup", folder.path(), &mut command);
        backup.wait_until("the copy begins", |_| (!files(target.path()).is_empty()).then_some(()));
        backup.signal(signal);
        assert_eq!(backup.wait().code(), Some(1));
        assert_eq!(files(target.path()), HashSet::new());
    }
    let log = fs::read_to_string(folder.path().join("backup.log")).unwrap();
    assert_eq!(log, "dcr-store: stopped; nothing was made\n".repeat(2));

    // What is killed leaves something, which the next one removes; but not what another one writes just now.
    let target = Folder::empty();
    let mut command = folder.command(&["backup", target.database().to_str().unwrap()]);
    let begin = |command: &mut std::process::Command| {
        let before = files(target.path());
        let mut backup = Process::spawn("backup", folder.path(), command);
        backup.wait_until("the copy begins", |_| {
            let new = files(target.path()).difference(&before).next().cloned();
            new.filter(|name| fs::metadata(target.path().join(name)).is_ok_and(|file| file.len() > 0))
        });
        backup
    };
    begin(&mut command).kill();
    let left = files(target.path());
    assert!(left.iter().all(|name| name.starts_with(".dcr.db.partial-")) && !left.is_empty(), "{left:?}");
    let running = begin(&mut command);
    running.signal("STOP");
    let written = files(target.path());
    assert!(written.is_disjoint(&left), "{written:?}");
    folder.succeed(&["backup", target.database().to_str().unwrap()]);
    assert!(files(target.path()).is_superset(&written));
    running.kill();
    fs::remove_file(target.database()).unwrap();
    folder.succeed(&["backup", target.database().to_str().unwrap()]);
    assert_eq!(files(target.path()), HashSet::from(["dcr.db".to_owned()]));
}

#[test]
fn the_wal_that_grew_beside_a_copy_shrinks_again() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let wal = folder.path().join("dcr.db-wal");
    let bytes = || fs::metadata(&wal).unwrap().len();
    folder.with_tables(async |pool| {
        // A copy is one read transaction.
        let mut copy = pool.begin().await.unwrap();
        sqlx::query("SELECT count(*) FROM tenants").fetch_one(&mut *copy).await.unwrap();
        let write = "INSERT INTO tenant_log (tenant, date, type, data) \
             VALUES (1, 0, 'x', CAST(zeroblob(70000000) AS TEXT))";
        sqlx::query(write).execute(pool).await.unwrap();
        assert!(bytes() > 70_000_000);
        copy.rollback().await.unwrap();
    });
    // The next ones carry it over, and begin it anew.
    let mut numbers = 1..;
    eventually("the WAL is short", || {
        let id = client_id(numbers.next()?);
        assert_eq!(store.edge().put_client("default", &id, &confidential()).status, 201);
        (bytes() <= 64 * 1024 * 1024).then_some(())
    });
}

/// A folder with a database of the first version, in which nothing is.
fn of_the_first_version() -> Folder {
    let folder = Folder::empty();
    let first = tempfile::tempdir().unwrap();
    let name = "0001_tenants_and_clients.sql";
    fs::copy(root().join("src/store/db/migrations/sqlite").join(name), first.path().join(name)).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let options = SqliteConnectOptions::new().filename(folder.database()).create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        Migrator::new(first.path()).await.unwrap().run(&pool).await.unwrap();
        pool.close().await;
    });
    folder
}

#[test]
fn only_serve_and_migrate_bring_a_database_up_to_date() {
    let folder = of_the_first_version();
    let before = fs::read(folder.database()).unwrap();
    for command in [
        &["tenant", "create", "a", "--domain", "a.example"][..],
        &["tenant", "list"],
        &["tenant", "delete", "a"],
        &["key", "rotate"],
        &["token", "--kind", "edge"],
        &["export", "--output", folder.path().join("export.jsonl").to_str().unwrap()],
        &["import", "/dev/null"],
    ] {
        let error = folder.fail(command);
        assert!(error.contains("is of an older version of dcr-store: start this version's"), "{error}");
        assert_eq!(files(folder.path()), HashSet::from(["dcr.db".to_owned()]), "{command:?}");
        assert!(fs::read(folder.database()).unwrap() == before, "{command:?}");
    }
    // A copy is wanted before that.
    let copy = Folder::empty();
    folder.succeed(&["backup", copy.database().to_str().unwrap()]);
    assert!(fs::read(folder.database()).unwrap() == before);
    for folder in [&copy, &folder, &folder] {
        assert_eq!(folder.succeed(&["migrate"]), "the database is up to date\n");
    }
    folder.succeed(&["tenant", "create", "a", "--domain", "a.example"]);

    let folder = of_the_first_version();
    let _store = folder.serve();
    folder.succeed(&["tenant", "create", "a", "--domain", "a.example"]);

    // One that fails leaves the file as it was.
    let folder = of_the_first_version();
    folder.with_tables(async |pool| {
        sqlx::query("CREATE TABLE network_acls (mine INTEGER)").execute(pool).await.unwrap();
    });
    let before = fs::read(folder.database()).unwrap();
    let error = folder.fail(&["migrate"]);
    assert!(error.contains("the file is as before: start the older version again, or report this"), "{error}");
    assert!(text(&folder, "SELECT group_concat(version) FROM _sqlx_migrations") == "1");
    assert_eq!(before.len(), fs::read(folder.database()).unwrap().len());

    let error = Folder::empty().fail(&["migrate"]);
    assert!(error.contains("there is no database at "), "{error}");
}
