//! The store is asked to stop in the middle of load: whoever was heard gets an answer.

use std::time::{Duration, Instant};

use super::load::{Load, Outcome};
use super::{LIMITED, Stored, from_environment, gateway};
use crate::support::gateway::Options;
use crate::support::process::eventually;

/// After this time supervisors kill.
const LONGEST_STOP: Duration = Duration::from_secs(10);

#[test]
fn a_store_that_stops_under_load_answers_all_that_it_registered() {
    let mut gateway = gateway(Options::default());
    let rounds: u32 = from_environment("DCR_TEST_KILL_ROUNDS", 3);
    let least: usize = from_environment("DCR_TEST_KILL_REGISTRATIONS", 200);
    let mut all = Outcome::default();
    for _ in 0..rounds {
        let load = Load::start(gateway.http_address());
        eventually("many have registered", || (load.acknowledged() >= least).then_some(()));
        let asked = Instant::now();
        assert_eq!(gateway.stop_store().code(), Some(0));
        assert!(asked.elapsed() < LONGEST_STOP, "it took {:?} to stop", asked.elapsed());
        let before = load.acknowledged();
        gateway.start_store();
        eventually("registrations work again", || (load.acknowledged() > before).then_some(()));
        all.add(load.stop());
        let stored = Stored::of(&gateway);
        stored.assert_has_all(&all);
        // Nor is there a client that nobody was told of: no answer was lost on its way.
        let (told, there) =
            (all.acknowledged.len() + all.limited.len(), stored.count("default") + stored.count(LIMITED));
        assert_eq!(there, told, "{told} clients were acknowledged, and {there} are there");
    }
    println!(
        "the store was stopped {rounds} times: {} acknowledged, as many there; {:?}, {} without an answer",
        all.acknowledged.len() + all.limited.len(),
        all.statuses,
        all.unanswered
    );
    assert_eq!(all.unanswered, 0, "Envoy answers for the store");
}
