//! Every property of the fuzz targets over their seeds, among which is everything that they found.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::support::root;

mod properties;

fn holds_for_all_seeds(target: &str, property: fn(&[u8])) {
    let folder = root().join("tests/fuzz/corpus").join(target);
    let seeds: Vec<_> = fs::read_dir(folder).unwrap().map(|seed| seed.unwrap().path()).collect();
    assert!(seeds.len() >= 3, "{target} has {} seeds", seeds.len());
    for seed in seeds {
        let bytes = fs::read(&seed).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| property(&bytes))).is_ok(), "{}", seed.display());
    }
}

macro_rules! targets {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            holds_for_all_seeds(stringify!($target), properties::$target);
        })*
    };
}

targets! { registration_body redirect_uri authorize_query access_rule snapshot edge_protocol }
