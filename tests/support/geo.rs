//! The databases that tell where the tests' clients are, in MaxMind's format. `geo.py` has what is in them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{output_of, root};

const SCRIPT: &str = include_str!("geo.py");

/// The databases of cities and of autonomous systems. They are made where no earlier run of the tests has made them.
pub fn databases() -> [PathBuf; 2] {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        SCRIPT.hash(&mut hasher);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("geo-{:x}", hasher.finish()));
        if !folder.is_dir() {
            make(&folder);
        }
        folder
    });
    ["city.mmdb", "asn.mmdb"].map(|name| folder.join(name))
}

/// Makes the databases in `folder`, both or none.
fn make(folder: &Path) {
    let parent = folder.parent().unwrap();
    std::fs::create_dir_all(parent).unwrap();
    let scratch = tempfile::tempdir_in(parent).unwrap();
    output_of(Command::new(python()).args(["-c", SCRIPT]).arg(scratch.path()));
    // Another run of the tests may have been faster, and its databases are as good.
    let renamed = std::fs::rename(scratch.path(), folder);
    assert!(renamed.is_ok() || folder.is_dir(), "{renamed:?}");
}

/// A Python with `mmdb_writer`: `$DCR_TEST_MMDB_PYTHON`, which `make test` sets, else the newest that an earlier
/// `make test` fetched.
fn python() -> PathBuf {
    if let Some(path) = std::env::var_os("DCR_TEST_MMDB_PYTHON") {
        return path.into();
    }
    let installed = std::fs::read_dir(root().join(".tools")).into_iter().flatten().flatten().map(|entry| entry.path());
    let ours = installed.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("mmdb-writer-"));
    ours.max().expect("mmdb_writer: run the tests with `make test`, which fetches it").join("bin/python3")
}
