//! The command line.

use serde_json::Value;

use crate::support::store::{Folder, client_id, confidential};

#[test]
fn tenants_are_created_listed_shown_updated_and_deleted() {
    let folder = Folder::empty();
    let created = folder.succeed(&["tenant", "create", "default", "--domain", "LocalHost", "--domain", "127.0.0.1"]);
    assert_eq!(created, "created tenant default for localhost, 127.0.0.1\n");
    folder.succeed(&["tenant", "create", "a-tenant", "--domain", "a.example", "--burst", "10", "--per-second", "2"]);
    assert_eq!(
        folder.succeed(&["tenant", "list"]),
        "NAME      REGISTRATION  BURST  PER SECOND  DOMAINS\n\
         a-tenant  disabled      10     2           a.example\n\
         default   disabled      5      5           localhost, 127.0.0.1\n"
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
        (is_folder.as_str(), "cannot open the database"),
        ("postgres://user:password@localhost/dcr", "not supported yet"),
        ("mysql://localhost/dcr", "unknown kind of database"),
        ("sqlite::memory:", "the path of a file"),
    ] {
        for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["tenant", "list"]] {
            let error = folder.fail(&[command, &["--database-url", url]].concat());
            assert!(error.contains(text) && !error.contains("password"), "{error}");
        }
    }
    let mut unnamed = folder.command(&["tenant", "list"]);
    let output = unnamed.env_remove("DATABASE_URL").output().unwrap();
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
