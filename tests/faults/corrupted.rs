//! The database file is damaged while no store runs: none starts on it, and none writes to it.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::store::{Folder, client_id, public};

/// SQLite's pages.
const PAGE: usize = 4_096;

/// The file's header, the first bytes of which say that it is one of SQLite.
const HEADER: usize = 100;

/// What becomes of a file.
type Damage = fn(&mut Vec<u8>);

/// A database that a store has stopped using, with some hundreds of clients in it.
fn full() -> Folder {
    const CLIENTS: usize = 300;
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let edge = store.edge();
    for number in 0..CLIENTS {
        assert_eq!(edge.put_client("default", &client_id(number), &public()).status, 201);
    }
    assert_eq!(store.process.terminate().code(), Some(0));
    folder
}

/// No store starts on the file, each says `line` and leaves the file as it is; with the sound file all is there.
fn keeps_stores_away(folder: &Folder, damages: &[(&str, Damage, &str)]) {
    let sound = fs::read(folder.database()).unwrap();
    let clients = folder.client_ids();
    for (what, damage, line) in damages {
        let mut damaged = sound.clone();
        damage(&mut damaged);
        fs::write(folder.database(), &damaged).unwrap();
        for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["migrate"]] {
            let said = folder.fail(command);
            assert!(said.contains(line) && said.contains("dcr.db"), "{what}: {said}");
            assert!(fs::read(folder.database()).unwrap() == damaged, "{what}: {command:?} wrote to the file");
        }
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(names, ["dcr.db"], "{what}: something is beside it");
        println!("{what}: {}", folder.fail(&["migrate"]).trim_end());
    }
    fs::write(folder.database(), &sound).unwrap();
    assert_eq!(folder.serve().anyone().get("/readyz").status, 200);
    assert_eq!(folder.client_ids(), clients);
}

#[test]
fn a_file_with_a_damaged_beginning_or_end_starts_no_store_and_stays_as_it_is() {
    const NO_DATABASE: &str = "the file is not a SQLite database; choose another path";
    const DAMAGED: &str = "the file is damaged; restore it from a backup";
    keeps_stores_away(
        &full(),
        &[
            ("a header of zeros", |file| file[..HEADER].fill(0), NO_DATABASE),
            ("a header of something else", |file| file[..HEADER].fill(b'x'), NO_DATABASE),
            ("a first page of zeros behind the header", |file| file[HEADER..PAGE].fill(0), DAMAGED),
            ("half of the file", |file| file.truncate(file.len() / 2), DAMAGED),
            ("all but a page", |file| file.truncate(file.len() - PAGE), DAMAGED),
            ("a beginning only", |file| file.truncate(HEADER / 2), DAMAGED),
            ("another file", |file| *file = b"a letter to a friend. ".repeat(10_000), NO_DATABASE),
        ],
    );
}

#[test]
fn a_file_with_a_damaged_page_in_the_middle_starts_no_store_and_stays_as_it_is() {
    const DAMAGED: &str = "the file is damaged; restore it from a backup";
    fn page(file: &mut [u8]) -> &mut [u8] {
        let at = file.len() / PAGE / 2 * PAGE;
        &mut file[at..at + PAGE]
    }
    keeps_stores_away(
        &full(),
        &[
            ("a page of zeros", |file| page(file).fill(0), DAMAGED),
            ("a page of ones", |file| page(file).fill(0xff), DAMAGED),
        ],
    );
}

#[test]
fn the_look_at_all_pages_delays_the_start_of_a_large_store_by_little() {
    const CLIENTS: u32 = 200_000;
    let folder = Folder::with_default_tenant();
    folder.fill_with_clients(CLIENTS);
    let began = Instant::now();
    let store = folder.serve();
    assert_eq!(store.anyone().get("/readyz").status, 200);
    let took = began.elapsed();
    println!(
        "{CLIENTS} clients, {} MB: started in {took:.0?}",
        fs::metadata(folder.database()).unwrap().len() / 1_000_000
    );
    assert!(took < Duration::from_secs(10), "{took:?}");
}
