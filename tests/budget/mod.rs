//! How many instructions the hot functions may take. Times differ from run to run; what callgrind counts does not, so a
//! change that makes one of them dearer fails here, whatever else the machine does.

use std::collections::BTreeMap;
use std::process::Command;

use crate::support::gateway::tool;
use crate::support::process::output;
use crate::support::{callgrind, hot};

/// What each may take, by name: instructions of one call, on x86-64, in a release build.
const BUDGET: &str = include_str!("instructions.json");

/// The function that [`calls`] calls, and how often, with a blank between.
const VARIABLE: &str = "DCR_BUDGET_CALLS";

/// How far above its budget a function may be: the allocator and hashes with random keys are not quite the same each time.
const TOLERANCE: f64 = 1.03;

/// How far below; whoever makes one cheaper keeps it so by a smaller budget.
const SLACK: f64 = 0.9;

/// How far above where CI is not set, and anything below: another compiler than that of CI makes other code, which is no
/// fault of whoever has it.
const TOLERANCE_ELSEWHERE: f64 = 1.25;

/// Calls of a short run and of a long one: the difference is nothing but calls.
const CALLS: [u32; 2] = [100, 600];

/// Not a test by itself: [`each_hot_function_stays_within_its_budget_of_instructions`] runs it in Valgrind.
#[test]
fn calls() {
    let Ok(wanted) = std::env::var(VARIABLE) else { return };
    let (name, times) = wanted.split_once(' ').unwrap();
    let function = hot::all().into_iter().find(|function| function.name == name).unwrap();
    (0..times.parse().unwrap()).for_each(|_: u32| (function.call)());
}

#[test]
fn each_hot_function_stays_within_its_budget_of_instructions() {
    if cfg!(debug_assertions) || !cfg!(target_arch = "x86_64") {
        return eprintln!("skipped: the budget is that of a release build on x86-64");
    }
    let Some(valgrind) = tool("DCR_TEST_VALGRIND") else { return };
    let budget: BTreeMap<String, f64> = serde_json::from_str(BUDGET).unwrap();
    let count = |name: &str, calls: u32| {
        let folder = tempfile::tempdir().unwrap();
        let counts = folder.path().join("counts");
        let mut command = Command::new(&valgrind);
        command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", counts.display()));
        command.arg(std::env::current_exe().unwrap()).args(["--exact", "budget::calls", "--test-threads", "1"]);
        let output = output(command.env(VARIABLE, format!("{name} {calls}")));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        callgrind::total(&counts)
    };
    let measured: BTreeMap<String, f64> = std::thread::scope(|scope| {
        let measure = |name: &'static str| {
            let [few, many] = CALLS.map(|calls| count(name, calls));
            ((many - few) / f64::from(CALLS[1] - CALLS[0])).round()
        };
        let threads = hot::all().map(|function| function.name).map(|name| (name, scope.spawn(move || measure(name))));
        threads.into_iter().map(|(name, thread)| (name.to_owned(), thread.join().unwrap())).collect()
    });
    let names = |counts: &BTreeMap<String, f64>| counts.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&budget), names(&measured), "the budget has other functions: {measured:?}");
    let (tolerance, slack) =
        if std::env::var_os("CI").is_some() { (TOLERANCE, SLACK) } else { (TOLERANCE_ELSEWHERE, 0.0) };
    for (name, instructions) in &measured {
        let most = budget[name] * tolerance;
        assert!(*instructions <= most, "{name} takes {instructions} instructions, {most:.0} at most: {measured:?}");
        let least = budget[name] * slack;
        assert!(
            *instructions >= least,
            "{name} takes only {instructions} instructions, lower its budget: {measured:?}"
        );
    }
}
