//! Micro-benchmarks of the rooms that decide: `cargo bench --profile release --bench rooms`.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)]

#[path = "../support/hot.rs"]
mod hot;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// The hot functions as they are.
fn functions(criterion: &mut Criterion) {
    for function in hot::all() {
        criterion.bench_function(function.name, |bencher| bencher.iter(&function.call));
    }
}

/// How the time of an access decision grows with the ranges of a rule.
fn ranges(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("acl_evaluate");
    for ranges in [10, 1_000, 100_000] {
        let call = hot::evaluate(ranges);
        group.bench_function(BenchmarkId::from_parameter(ranges), |bencher| bencher.iter(&call));
    }
    group.finish();
}

criterion_group!(rooms, functions, ranges);
criterion_main!(rooms);
