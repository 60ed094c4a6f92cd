//! The integration tests: one binary, one folder a subject.

// Failing loudly is what tests are for.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod budget;
mod clients;
mod envoy;
mod faults;
mod fuzz;
mod operator;
mod store;
mod support;
