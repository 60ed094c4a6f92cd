//! The command line.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::process;
use crate::support::store::{Folder, client_id, confidential};

#[test]
fn tenants_are_created_listed_shown_updated_and_deleted() {
    let folder = Folder::empty();
    let created = folder.succeed(&["tenant", "create", "default", "--domain", "LocalHost", "--domain", "127.0.0.1"]);
    assert_eq!(created, "created tenant default for localhost, 127.0.0.1\n");
    folder.succeed(&["tenant", "create", "a-tenant", "--domain", "a.example", "--burst", "10", "--per-second", "2"]);
    assert_eq!(
        folder.succeed(&["tenant", "list"]),
        "NAME      REGISTRATION  PERMISSIVE  BURST  PER SECOND  DOMAINS\n\
         a-tenant  disabled      no          10     2           a.example\n\
         default   disabled      no          5      5           localhost, 127.0.0.1\n"
    );
    let update = |arguments: &[&str]| folder.succeed(&[&["tenant", "update", "default"], arguments].concat());
    let show = || -> Value { serde_json::from_str(&folder.succeed(&["tenant", "show", "default"])).unwrap() };
    assert_eq!(
        update(&["--add-domain", "b.example", "--remove-domain", "127.0.0.1", "--burst", "8"]),
        "updated tenant default for localhost, b.example\n"
    );
    assert_eq!(show()["settings"]["dcr_edge"]["rate_limit"], serde_json::json!({"burst": 8, "per_second": 5}));
    assert_eq!(update(&["--burst", "8"]), "nothing changed: tenant default for localhost, b.example\n");
    assert_eq!(update(&["--domain", "c.example"]), "updated tenant default for c.example\n");
    assert_eq!(show()["domains"], serde_json::json!(["c.example"]));
    assert_eq!(
        folder.succeed(&["tenant", "delete", "default"]),
        "deleted tenant default (clients deleted with it: 0)\n"
    );
    assert!(folder.fail(&["tenant", "show", "default"]).contains("there is no tenant default"));
    folder.succeed(&["tenant", "create", "default", "--domain", "localhost"]);
}

#[test]
fn a_deleted_tenants_clients_go_with_it() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    store.edge().put_client("default", &client_id(1), &confidential());
    assert_eq!(
        folder.succeed(&["tenant", "delete", "default"]),
        "deleted tenant default (clients deleted with it: 1)\n"
    );
    assert!(folder.client_ids().is_empty());
}

/// Adds clients to the tenant in this slot.
fn add_clients(folder: &Folder, slot: u32, number: u32) {
    let inserted = folder.with_tables(async |pool| {
        sqlx::query(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?) \
             INSERT INTO clients (client_id, tenant, metadata, issued_at, app_type) \
             SELECT 'tpc_' || lower(hex(randomblob(16))), ?, '{}', 0, 'native' FROM numbers",
        )
        .bind(number)
        .bind(slot)
        .execute(pool)
        .await
    });
    assert_eq!(inserted.unwrap().rows_affected(), u64::from(number));
}

#[test]
fn nobody_waits_long_while_a_tenant_with_many_clients_is_deleted() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("large", json!({}));
    add_clients(&folder, 2, 20_000);
    let store = folder.serve();
    let edge = store.edge();
    let (deleted, mut registered, mut longest) = (AtomicBool::new(false), 0, Duration::ZERO);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let said = folder.succeed(&["tenant", "delete", "large"]);
            deleted.store(true, Ordering::Relaxed);
            assert_eq!(said, "deleted tenant large (clients deleted with it: 20000)\n");
        });
        while !deleted.load(Ordering::Relaxed) {
            let start = Instant::now();
            registered += 1;
            assert_eq!(edge.put_client("default", &client_id(registered), &confidential()).status, 201);
            longest = longest.max(start.elapsed());
        }
    });
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    assert_eq!(folder.client_ids(), (1..=registered).map(client_id).collect());
}

#[test]
fn a_deletion_that_was_cut_off_is_finished_by_the_next() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("large", json!({}));
    folder.create_enabled_tenant("small", json!({}));
    add_clients(&folder, 1, 1);
    add_clients(&folder, 2, 20_000);
    add_clients(&folder, 3, 2);
    let count = async |pool: &sqlx::SqlitePool| -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM clients").fetch_one(pool).await.unwrap()
    };
    let mut command = folder.command(&["tenant", "delete", "large"]);
    let command = process::Process::spawn("delete", folder.path(), &mut command);
    process::eventually("a part is deleted", || (folder.with_tables(count) < 20_003).then_some(()));
    command.kill();
    assert!(folder.with_tables(count) > 3, "it was not cut off");
    assert_eq!(folder.succeed(&["tenant", "delete", "small"]), "deleted tenant small (clients deleted with it: 2)\n");
    assert_eq!(folder.with_tables(count), 1);
}

#[test]
fn a_command_that_needs_a_database_makes_none() {
    let folder = Folder::empty();
    for empty in [false, true] {
        if empty {
            fs::write(folder.database(), "").unwrap();
        }
        for command in [
            &["tenant", "list"][..],
            &["tenant", "show", "a"],
            &["tenant", "update", "a", "--burst", "1"],
            &["tenant", "delete", "a"],
            &["token", "--kind", "edge"],
        ] {
            let error = folder.fail(command);
            let expected = format!("there is no database at {}; ", folder.database().display());
            assert!(error.contains(&expected), "{error}");
            let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
            assert_eq!(left.len(), usize::from(empty), "{left:?}");
        }
    }
    assert_eq!(fs::metadata(folder.database()).unwrap().len(), 0);
}

#[test]
fn the_database_is_named_before_or_after_the_subcommands() {
    let folder = Folder::with_default_tenant();
    let url = folder.url();
    for arguments in [
        ["--database-url", &url, "tenant", "list"],
        ["tenant", "--database-url", &url, "list"],
        ["tenant", "list", "--database-url", &url],
    ] {
        let output = process::output(folder.command(&arguments).env_remove("DATABASE_URL"));
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn a_number_that_is_none_is_told_its_range() {
    let folder = Folder::with_default_tenant();
    for option in ["--burst", "--per-second"] {
        for value in ["0", "x", "1.5", "4294967296"] {
            let output = folder.run(&["tenant", "update", "default", option, value]);
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2));
            assert!(text.contains("expected a whole number from 1 to 1000000"), "{text}");
        }
    }
}

#[test]
fn commands_that_start_at_the_same_time_on_a_new_database_all_succeed() {
    let folder = Folder::empty();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let folder = &folder;
            scope.spawn(move || {
                let (name, host) = (format!("t{number}"), format!("t{number}.example"));
                folder.succeed(&["tenant", "create", &name, "--domain", &host]);
            });
        }
    });
    assert_eq!(folder.succeed(&["tenant", "list"]).lines().count(), 7);
}

#[test]
fn a_command_that_cannot_be_done_says_why_in_one_line_and_exits_with_1() {
    let folder = Folder::empty();
    folder.succeed(&["tenant", "create", "one", "--domain", "one.example", "--domain", "shared.example"]);
    for (arguments, text) in [
        (&["create", "two", "--domain", "shared.example"][..], "the host shared.example belongs to the tenant one"),
        (&["create", "one", "--domain", "two.example"], "the tenant one exists already"),
        (&["create", "two", "--domain", "two.example", "--burst", "1000001"], "1 to 1000000"),
        (&["update", "nobody", "--burst", "1"], "there is no tenant nobody"),
        (&["update", "one", "--remove-domain", "two.example"], "no domain two.example"),
        (&["update", "one", "--domain", "one.example", "--remove-domain", "one.example"], "at least one domain"),
        (&["delete", "nobody"], "there is no tenant nobody"),
    ] {
        let error = folder.fail(&[&["tenant"], arguments].concat());
        assert!(error.contains(text), "{error}");
    }
    assert_eq!(folder.succeed(&["tenant", "list"]).lines().count(), 2);
}

#[test]
fn a_database_that_cannot_be_used_is_named_in_one_line() {
    let folder = Folder::empty();
    let in_missing_folder = format!("sqlite://{}/missing/dcr.db", folder.path().display());
    let is_folder = format!("sqlite://{}", folder.path().display());
    for (url, text) in [
        (in_missing_folder.as_str(), "create the folder first"),
        (is_folder.as_str(), "it is a folder; name a file in it, such as sqlite:///"),
        ("postgres://user:password@127.0.0.1:1/dcr", "Connection refused"),
        ("mysql://localhost/dcr", "unknown kind of database"),
        ("sqlite::memory:", "the path of a file"),
    ] {
        for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["tenant", "create", "a", "--domain", "a.example"]]
        {
            let error = folder.fail(&[command, &["--database-url", url]].concat());
            assert!(error.contains(text) && !error.contains("password"), "{error}");
        }
    }
    let output = process::output(folder.command(&["tenant", "list"]).env_remove("DATABASE_URL"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--database-url"));
}

#[test]
fn a_port_in_use_is_named_in_one_line() {
    let folder = Folder::empty();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for command in ["serve", "stub-authorization-server"] {
        let error = folder.fail(&[command, "--listen", &address]);
        assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
    }
}

#[test]
fn the_binary_says_its_version() {
    let text = Folder::empty().succeed(&["--version"]);
    assert_eq!(text, format!("dcr-store {}\n", env!("CARGO_PKG_VERSION")));
}
