//! The SQLite file: who may read it, and what is left alone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::store::Folder;

/// Every file of the folder, byte for byte.
fn contents(folder: &Folder) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let files = fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
    files.map(|file| (file.file_name(), fs::read(file.path()).unwrap())).collect()
}

fn execute(folder: &Folder, statement: &'static str) {
    folder.with_tables(async |pool| _ = sqlx::query(statement).execute(pool).await.unwrap());
}

fn refused_and_untouched(folder: &Folder, text: &str) {
    let before = contents(folder);
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["tenant", "list"], &["token", "--kind", "edge"]] {
        let error = folder.fail(command);
        assert!(error.contains(text), "{error}");
        assert!(contents(folder) == before, "{command:?} touched the folder");
    }
}

#[test]
fn only_its_owner_may_read_the_database() {
    let folder = Folder::with_default_tenant();
    let _store = folder.serve();
    let mut files = 0;
    for file in fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        files += 1;
    }
    assert_eq!(files, 3, "the database, its WAL and the WAL's index");
}

#[test]
fn a_store_whose_database_others_may_read_says_so_and_what_to_do() {
    let folder = Folder::with_default_tenant();
    // The log goes on from one to the next.
    for (mode, warnings) in [(0o600, 0), (0o640, 1), (0o604, 2)] {
        fs::set_permissions(folder.database(), fs::Permissions::from_mode(mode)).unwrap();
        let store = folder.serve();
        let log = store.process.log();
        let said = log.lines().filter(|line| line.contains(" WARN ") && line.contains("run: chmod go-rwx /")).count();
        assert_eq!(said, warnings, "{mode:o}: {log}");
    }
}

#[test]
fn a_database_of_a_newer_version_is_left_alone() {
    let folder = Folder::with_default_tenant();
    execute(
        &folder,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', TRUE, x'00', 0)",
    );
    refused_and_untouched(&folder, "newer version of dcr-store");
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    let folder = Folder::empty();
    fs::write(folder.database(), "").unwrap();
    execute(&folder, "CREATE TABLE theirs (x)");
    refused_and_untouched(&folder, "another program");
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let folder = Folder::empty();
    fs::write(folder.database(), "a letter to a friend, longer than a header. ".repeat(100)).unwrap();
    refused_and_untouched(&folder, "not a SQLite database");
}

#[test]
fn a_damaged_database_is_left_alone() {
    let folder = Folder::with_default_tenant();
    let mut bytes = fs::read(folder.database()).unwrap();
    bytes[100..4096].fill(0xff);
    fs::write(folder.database(), bytes).unwrap();
    refused_and_untouched(&folder, "damaged");
}

#[test]
fn a_client_takes_at_most_a_kibibyte_of_the_file() {
    const CLIENTS: u32 = 50_000;
    let folder = Folder::with_default_tenant();
    folder.fill_with_clients(CLIENTS);
    let bytes = fs::metadata(folder.database()).unwrap().len();
    assert!(bytes <= u64::from(CLIENTS) * 1_024, "{} bytes for each client", bytes / u64::from(CLIENTS));
    let page = folder.serve().owner("default").get("/api/v2/clients?include_totals=true&page=499&per_page=100").json();
    assert_eq!((&page["total"], page["clients"].as_array().unwrap().len()), (&CLIENTS.into(), 100));
}
