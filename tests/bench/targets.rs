//! What was measured beside what is wanted: the table of the README.

use serde_json::{Value, json};

/// A line of the table: what, the target, what was measured, and whether that meets it.
type Line = (&'static str, &'static str, String, bool);

/// Prints the lines for which everything was measured, as Markdown; gives them as rows.
pub fn report(rows: &[Value], wasm_bytes: u64) -> Vec<Value> {
    let mut lines = vec![(
        "size of the filter",
        "at most 400 KiB",
        format!("{:.0} KiB", wasm_bytes as f64 / 1024.0),
        wasm_bytes <= 400 * 1024,
    )];
    lines.extend(
        [
            instructions(rows),
            untouched(rows),
            passed(rows),
            denial_of_many(rows),
            denial_beside(rows, "envoy-rbac", "acl_deny_10k", "denial among 10,000 ranges beside RBAC's principals"),
            denial_beside(rows, "envoy-rbac-trie", "acl_deny_100k", "denial among 100,000 ranges beside RBAC's trie"),
            limited(rows),
            bound(rows),
            fleet(rows),
            asked(rows),
        ]
        .into_iter()
        .flatten(),
    );
    lines.extend(registrations(rows));
    lines.extend([latency(rows), cold(rows), memory(rows)].into_iter().flatten());
    println!("\n| what | target | measured | |\n|---|---|---|---|");
    for (what, target, measured, is_met) in &lines {
        println!("| {what} | {target} | {measured} | {} |", if *is_met { "met" } else { "missed" });
    }
    let row = |(what, target, measured, is_met): Line| json!({"scenario": "target", "what": what, "target": target, "measured": measured, "met": is_met});
    lines.into_iter().map(row).collect()
}

/// A figure of a subject with one worker, and with as many connections as usual where it counts connections.
fn figure(rows: &[Value], scenario: &str, subject: &str, name: &str) -> Option<f64> {
    let is_it = |row: &&Value| {
        row["scenario"] == scenario && row["subject"] == subject && row["workers"].as_u64().is_none_or(|n| n == 1)
    };
    rows.iter().rfind(is_it)?[name].as_f64()
}

/// The least CPU time of a request, in microseconds.
fn cpu(rows: &[Value], scenario: &str, subject: &str) -> Option<f64> {
    figure(rows, scenario, subject, "cpu_us_per_request_min")
}

fn beside(ours: f64, theirs: f64) -> String {
    format!("{:.2}× ({ours:.1} µs beside {theirs:.1} µs)", ours / theirs)
}

fn instructions(rows: &[Value]) -> Option<Line> {
    let count = |subject| figure(rows, "untouched_instructions", subject, "instructions_per_request");
    let (ours, bare) = (count("dcr-edge")?, count("envoy-bare")?);
    let measured = format!("{:.3}× ({ours:.0} beside {bare:.0})", ours / bare);
    Some(("untouched route, instructions", "at most 1.03× bare Envoy", measured, ours <= 1.03 * bare))
}

fn untouched(rows: &[Value]) -> Option<Line> {
    let (ours, bare) = (cpu(rows, "untouched", "dcr-edge")?, cpu(rows, "untouched", "envoy-bare")?);
    Some(("untouched route, CPU", "at most 1.10× bare Envoy", beside(ours, bare), ours <= 1.1 * bare))
}

fn passed(rows: &[Value]) -> Option<Line> {
    let (ours, bare) = (cpu(rows, "passed", "dcr-edge")?, cpu(rows, "passed", "envoy-bare")?);
    let is_met = ours <= (1.7 * bare).max(bare + 12.0);
    Some(("looked at, passed", "at most 1.7× bare Envoy, or 12 µs more", beside(ours, bare), is_met))
}

fn denial_of_many(rows: &[Value]) -> Option<Line> {
    let (many, few) = (cpu(rows, "acl_deny_100k", "dcr-edge")?, cpu(rows, "acl_deny_10", "dcr-edge")?);
    Some(("denial among 100,000 ranges", "at most 1.1× that among 10", beside(many, few), many <= 1.1 * few))
}

fn denial_beside(rows: &[Value], peer: &str, scenario: &str, what: &'static str) -> Option<Line> {
    let (ours, theirs) = (cpu(rows, scenario, "dcr-edge")?, cpu(rows, scenario, peer)?);
    let (target, is_met) = match peer {
        "envoy-rbac" => ("less", ours < theirs),
        _ => ("at most 1.7×", ours <= 1.7 * theirs),
    };
    Some((what, target, beside(ours, theirs), is_met))
}

fn limited(rows: &[Value]) -> Option<Line> {
    let (ours, theirs) = (cpu(rows, "limit_deny", "dcr-edge")?, cpu(rows, "limit_deny", "envoy-local-ratelimit")?);
    let is_met = ours <= (1.6 * theirs).max(theirs + 12.0);
    Some(("over the limit", "at most 1.6× local_ratelimit, or 12 µs more", beside(ours, theirs), is_met))
}

fn bound(rows: &[Value]) -> Option<Line> {
    let row = rows.iter().find(|row| row["scenario"] == "limit_deny" && row["workers"] == 4)?;
    let (admitted, most) = (row["admitted_per_second"].as_f64()?, row["admitted_per_second_bound"].as_f64()?);
    let measured = format!("{admitted:.1} of {most:.1} in a second");
    Some(("limit at 4 workers", "never more than it says", measured, row["rounds_over_bound"] == 0))
}

fn fleet(rows: &[Value]) -> Option<Line> {
    let row = rows.iter().find(|row| row["scenario"] == "limit_fleet")?;
    let (admitted, most) = (row["admitted"].as_f64()?, row["bound"].as_f64()?);
    let measured = format!("{admitted:.0} of {most:.0}");
    Some(("limit over 3 Envoys", "never more than it says", measured, admitted <= most))
}

fn asked(rows: &[Value]) -> Option<Line> {
    let (ours, theirs) = (cpu(rows, "acl_deny_10", "dcr-edge")?, cpu(rows, "acl_deny_10", "envoy-ext-authz")?);
    Some(("denial beside ext_authz", "at most 0.5×", beside(ours, theirs), ours <= 0.5 * theirs))
}

fn registrations(rows: &[Value]) -> Vec<Line> {
    let peers = [
        ("oidc-provider", "durable registration beside oidc-provider in memory"),
        ("mcp-sdk", "durable registration beside the MCP SDK in memory"),
    ];
    let line = |(peer, what): (&'static str, &'static str)| -> Option<Line> {
        let of = |subject, name| figure(rows, "register_durable", subject, name);
        let name = "registrations_per_cpu_second";
        let (ours, theirs) = (of("dcr-edge", name)?, of(peer, name)?);
        let name = "requests_per_second";
        let (rate, their_rate) = (of("dcr-edge", name)?, of(peer, name)?);
        let measured = format!(
            "{:.2}× ({ours:.0} beside {theirs:.0}; {rate:.0} beside {their_rate:.0} in a second)",
            ours / theirs
        );
        Some((what, "at least 2× for each CPU-second", measured, ours >= 2.0 * theirs))
    };
    peers.into_iter().filter_map(line).collect()
}

fn latency(rows: &[Value]) -> Option<Line> {
    let of = |name| figure(rows, "register_durable", "dcr-edge", name);
    let (p99, rate) = (of("p99_us")?, of("p50_and_p99_at_requests_per_second")?);
    let sync = figure(rows, "sync", "disk", "p99_us")?;
    let measured = format!("{:.1} ms at {rate:.0} in a second, a sync {:.1} ms", p99 / 1e3, sync / 1e3);
    let target = "5 ms more than that of a sync at most";
    Some(("p99 of a registration at half of the most", target, measured, p99 <= 5_000.0 + sync))
}

fn cold(rows: &[Value]) -> Option<Line> {
    let least = |subject| figure(rows, "cold_start", subject, "ms_min");
    let millis = least("dcr-edge")? - least("envoy-bare")?;
    Some(("virtual machines ready", "in 300 ms at most", format!("{millis:.0} ms"), millis <= 300.0))
}

fn memory(rows: &[Value]) -> Option<Line> {
    let of = |name| figure(rows, "memory", "dcr-edge", name);
    let (once, worker) = (of("mib_with_one_worker")?, of("mib_for_each_more_worker")?);
    let measured = format!("{once:.1} MiB, and {worker:.1} MiB");
    let target = "32 MiB at most once, and 4 MiB for each more worker";
    Some(("memory with one tenant", target, measured, once <= 32.0 && worker <= 4.0))
}
