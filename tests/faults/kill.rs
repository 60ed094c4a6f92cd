//! Something is killed in the middle of load, again and again: nothing acknowledged is lost, nothing is admitted that
//! may not be, and all is well again afterwards.

use std::time::{Duration, Instant};

use super::load::{Load, Outcome, Who};
use super::{LIMIT, LIMITED, Stored, from_environment, gateway};
use crate::support::gateway::{Gateway, Options};
use crate::support::http1;
use crate::support::postgres::Server;
use crate::support::process::eventually;

/// The longest that a client waits for an answer: the call to the store may take two seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What is killed.
trait Victim {
    /// Its name.
    const NAME: &str;

    /// Ends it without a warning (SIGKILL).
    fn kill(&mut self, gateway: &mut Gateway);

    /// Starts it again.
    fn start(&mut self, gateway: &mut Gateway);
}

/// The store.
struct Store;

impl Victim for Store {
    const NAME: &str = "the store";

    fn kill(&mut self, gateway: &mut Gateway) {
        gateway.kill_store();
        refuses_everybody(gateway);
    }

    fn start(&mut self, gateway: &mut Gateway) {
        gateway.start_store();
    }
}

/// Envoy.
struct Envoy;

impl Victim for Envoy {
    const NAME: &str = "Envoy";

    fn kill(&mut self, gateway: &mut Gateway) {
        gateway.kill_envoy();
    }

    fn start(&mut self, gateway: &mut Gateway) {
        gateway.start_envoy();
    }
}

/// Both, and Envoy is back before the store.
struct Both;

impl Victim for Both {
    const NAME: &str = "the store and Envoy";

    fn kill(&mut self, gateway: &mut Gateway) {
        gateway.kill_store();
        gateway.kill_envoy();
    }

    fn start(&mut self, gateway: &mut Gateway) {
        gateway.start_envoy();
        refuses_everybody(gateway);
        gateway.start_store();
    }
}

/// PostgreSQL, all processes of the server at once.
struct Postgres(Server);

impl Victim for Postgres {
    const NAME: &str = "PostgreSQL";

    fn kill(&mut self, gateway: &mut Gateway) {
        self.0.kill();
        refuses_everybody(gateway);
    }

    fn start(&mut self, _: &mut Gateway) {
        self.0.start_again();
    }
}

/// The store on PostgreSQL.
struct StoreOnPostgres;

impl Victim for StoreOnPostgres {
    const NAME: &str = "the store on PostgreSQL";

    fn kill(&mut self, gateway: &mut Gateway) {
        Store.kill(gateway);
    }

    fn start(&mut self, gateway: &mut Gateway) {
        Store.start(gateway);
    }
}

/// While nobody can write a client down, nobody gets one.
fn refuses_everybody(gateway: &Gateway) {
    for who in [Who::Anybody, Who::Blocked, Who::Limited, Who::Anybody] {
        let (_, request) = who.request();
        let asked = Instant::now();
        let response = http1::exchange(gateway.http_address(), &request);
        assert!(response.status != 201 && who.may_get(response.status), "{who:?}: {response:?}");
        assert!(asked.elapsed() < LONGEST_WAIT, "{who:?} waited {:?}", asked.elapsed());
    }
}

/// Kills a victim in the middle of load, in as many rounds as the environment says.
fn rounds<V: Victim>(gateway: &mut Gateway, mut victim: V) {
    let rounds: u32 = from_environment("DCR_TEST_KILL_ROUNDS", 3);
    let least: usize = from_environment("DCR_TEST_KILL_REGISTRATIONS", 200);
    let (began, mut all) = (Instant::now(), Outcome::default());
    for round in 0..rounds {
        let load = Load::start(gateway.http_address());
        eventually("many have registered", || (load.acknowledged() >= least).then_some(()));
        // Not always right after a batch.
        std::thread::sleep(Duration::from_millis(u64::from(round * 7 % 20)));
        victim.kill(gateway);
        victim.start(gateway);
        eventually("registrations work again", || {
            let (_, request) = Who::Anybody.request();
            (http1::exchange(gateway.http_address(), &request).status == 201).then_some(())
        });
        all.add(load.stop());
        assert!(all.slowest < LONGEST_WAIT, "a client waited {:?}", all.slowest);
        // By now, so that a later round cannot hide what this one lost.
        Stored::of(gateway).assert_has_all(&all);
    }
    let stored = Stored::of(gateway);
    // The fleet's limit is kept in the database, so nobody gains by the end of a process.
    let admitted = u128::from(LIMIT + 1) + u128::from(LIMIT) * began.elapsed().as_millis() / 1_000;
    let limited = stored.count(LIMITED);
    assert!(limited as u128 <= admitted, "{limited} clients where a limit allows {admitted}");
    println!(
        "{} was killed {rounds} times: 0 of {} acknowledged clients are lost, {} are there; {:?}, {} without an answer",
        V::NAME,
        all.acknowledged.len() + all.limited.len(),
        stored.count("default") + limited,
        all.statuses,
        all.unanswered
    );
}

#[test]
fn nothing_acknowledged_is_lost_with_the_store() {
    rounds(&mut gateway(Options::default()), Store);
}

#[test]
fn nothing_acknowledged_is_lost_with_envoy() {
    rounds(&mut gateway(Options::default()), Envoy);
}

#[test]
fn nothing_acknowledged_is_lost_with_both() {
    rounds(&mut gateway(Options::default()), Both);
}

#[test]
fn nothing_acknowledged_is_lost_with_postgresql() {
    let Some(server) = Server::start(&[]) else { return };
    let database_url = Some(server.create_database());
    rounds(&mut gateway(Options { database_url, ..Options::default() }), Postgres(server));
}

#[test]
fn nothing_acknowledged_is_lost_with_the_store_on_postgresql() {
    let Some(server) = Server::shared() else { return };
    let database_url = Some(server.create_database());
    rounds(&mut gateway(Options { database_url, ..Options::default() }), StoreOnPostgres);
}
