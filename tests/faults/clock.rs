//! Somebody sets the clock, an hour ahead and an hour back, under processes that run.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use dcr_edge::store::unix_now;
use serde_json::json;
use tempfile::TempDir;

use super::load::{Load, Who};
use super::{LIMIT, LIMITED, Stored, assert_no_vm_failed, gateway, owner};
use crate::support::envoy;
use crate::support::gateway::{Gateway, Options};
use crate::support::http1;
use crate::support::process::eventually;
use crate::support::response::Response;
use crate::support::store::{Caller, client_id, public};
use crate::support::{output_of, root};

const HOUR: i64 = 3_600;

/// How long the load goes on at each time.
const STAY: Duration = Duration::from_secs(2);

/// A wall clock that can be set, for all processes that are started with it. Their monotonic clock stays true, as it
/// does when a machine's wall clock is set.
struct Clock {
    folder: TempDir,
    offset: File,
}

impl Clock {
    /// One that is right.
    fn right() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let offset = File::create(folder.path().join("offset")).unwrap();
        let clock = Self { folder, offset };
        clock.set(0);
        // What linked the tests compiles this, too.
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]).arg(clock.library());
        output_of(compile.arg(root().join("tests/support/clock.c")));
        clock
    }

    /// Sets it so many seconds ahead of the right time.
    fn set(&self, seconds: i64) {
        self.offset.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("clock.so")
    }

    /// What starts a program that reads it.
    fn launcher(&self) -> Vec<OsString> {
        let variable = |name: &str, value: PathBuf| format!("{name}={}", value.display()).into();
        let offset = self.folder.path().join("offset");
        vec!["env".into(), variable("CLOCK_OFFSET", offset), variable("LD_PRELOAD", self.library())]
    }

    /// An Envoy that reads it.
    fn envoy(&self) -> PathBuf {
        let words: Vec<_> = self.launcher().into_iter().chain([envoy::binary().into()]).collect();
        let words = words.iter().map(|word| format!("'{}'", word.to_str().unwrap())).collect::<Vec<_>>().join(" ");
        let path = self.folder.path().join("envoy");
        std::fs::write(&path, format!("#!/bin/sh\nexec {words} \"$@\"\n")).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }
}

fn register(gateway: &Gateway, host: &str) -> Response {
    http1::exchange(gateway.http_address(), &Who::Anybody.request_at(host).1)
}

/// Whether a token opens the edge's interface, or else the Management API of the tenant `default`.
fn opens(gateway: &Gateway, token: &str, is_of_an_edge: bool) -> bool {
    let caller = Caller::new(gateway.store_address()).with_token(token.trim());
    let status = if is_of_an_edge {
        caller.put_client("default", &client_id(1), &public()).status
    } else {
        caller.get("/api/v2/tenants/settings").status
    };
    assert!(matches!(status, 200 | 201 | 401), "{status}");
    status != 401
}

/// Sets the clock of the store, or of Envoy too, again and again under load, and looks at all that has to do with time.
fn steps(clock: &Clock, mut gateway: Gateway, with_envoy: bool) {
    let began = Instant::now();
    let load = Load::start(gateway.http_address());
    let mint = |gateway: &Gateway| {
        let management = gateway.store_command(&["token", "--tenant", "default", "--ttl", "10m"]);
        (management, gateway.store_command(&["token", "--kind", "edge", "--ttl", "10m"]))
    };
    let at_first = mint(&gateway);
    for (step, hours) in [1, 0, -1, 0].into_iter().enumerate() {
        clock.set(hours * HOUR);
        let told = unix_now() as i64 + hours * HOUR;
        // Tokens end when the clock says so, not for good: and none is refused because it was issued in the future.
        for (token, is_of_an_edge) in [(&at_first.0, false), (&at_first.1, true)] {
            assert_eq!(opens(&gateway, token, is_of_an_edge), hours < 1, "at {hours} h, edge: {is_of_an_edge}");
        }
        let now = mint(&gateway);
        assert!(opens(&gateway, &now.0, false) && opens(&gateway, &now.1, true), "tokens of {hours} h");

        // Clients have the date that the clock shows.
        let response = register(&gateway, "localhost");
        assert_eq!(response.status, 201, "{response:?}");
        let issued_at = response.json()["client_id_issued_at"].as_i64().unwrap();
        assert!((told - 1..told + 30).contains(&issued_at), "issued at {issued_at}, asked at {told}");

        // What is changed reaches the edge.
        let (tenant, host) = (format!("step-{step}"), format!("step-{step}.example"));
        gateway.store_command(&["tenant", "create", &tenant, "--domain", &host]);
        let on = json!({"flags": {"enable_dynamic_client_registration": true}});
        assert_eq!(owner(&gateway, &tenant).patch_settings(&on).status, 200);
        gateway.wait_for_settings();
        assert_eq!(register(&gateway, &host).status, 201, "after the step to {hours} h");

        // Whoever is over the limit is told to come again soon.
        let until = Instant::now() + STAY;
        let refused = eventually("a limit holds", || {
            let response = register(&gateway, &format!("{LIMITED}.example"));
            (response.status == 429).then_some(response)
        });
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!(wait <= 2, "retry-after: {wait}");
        let reset: i64 = refused.header("x-ratelimit-reset").unwrap().parse().unwrap();
        let told = if with_envoy { told } else { told - hours * HOUR };
        assert!((told..told + 30).contains(&reset), "a token arrives at {reset}, asked at {told}");
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }
    let outcome = load.stop();
    let elapsed = began.elapsed();
    assert_eq!((outcome.unanswered, outcome.statuses.get(&503)), (0, None), "{:?}", outcome.statuses);
    let stored = Stored::of(&gateway);
    stored.assert_has_all(&outcome);
    // The limit neither opened nor closed.
    let most = usize::try_from(u128::from(LIMIT) * elapsed.as_millis() / 1_000).unwrap() + LIMIT as usize + 1;
    let limited = stored.count(LIMITED);
    assert!((most / 2..=most).contains(&limited), "{limited} clients where the limit allows {most}");
    assert_no_vm_failed(&gateway);
    let whose = if with_envoy { "store and Envoy" } else { "the store" };
    println!("clock set under {whose}: {:?}, and {limited} of at most {most} in the limited tenant", outcome.statuses);
    // Nor does it matter to a store that starts with another time than the database has.
    clock.set(-HOUR);
    gateway.kill_store();
    gateway.start_store();
    eventually("registrations work again", || (register(&gateway, "localhost").status == 201).then_some(()));
}

#[test]
fn a_clock_that_is_set_under_the_store_opens_and_closes_nothing() {
    let clock = Clock::right();
    let gateway = gateway(Options { store_launcher: clock.launcher(), ..Options::default() });
    steps(&clock, gateway, false);
}

#[test]
fn a_clock_that_is_set_under_store_and_envoy_opens_and_closes_nothing() {
    let clock = Clock::right();
    let options = Options { store_launcher: clock.launcher(), envoy: clock.envoy(), ..Options::default() };
    steps(&clock, gateway(options), true);
}
