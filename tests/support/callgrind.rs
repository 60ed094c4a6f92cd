//! What Valgrind's callgrind counted.

use std::path::Path;

/// All instructions in a file of its counts.
pub fn total(counts: &Path) -> f64 {
    let counts = std::fs::read_to_string(counts).unwrap();
    counts.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap().parse().unwrap()
}
