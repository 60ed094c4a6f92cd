//! The store, as a gateway finds it.

use super::Finding;
use super::http::{Answer, get};
use crate::edge_api::{PROTOCOL_HEADER, READY_PATH, SPOKEN_VERSIONS};

/// Seconds that two clocks may be apart: tokens are judged with a minute's grace.
const CLOCKS: u64 = 5;

/// Looks at the store at this URL.
pub fn examine(url: &str) -> Vec<Finding> {
    let live = match get(url, "/livez") {
        Ok(answer) if answer.status == 200 && answer.text == "live\n" => answer,
        Ok(answer) => {
            let found = format!("what answers at {url} is no dcr-store: /livez is answered with {}", answer.status);
            return vec![Finding::failure("store.reachable", found, "look at --store: it is the store's own port")];
        }
        Err(error) => {
            let found = format!("{url} does not answer: {error}");
            let advice = "start it with `dcr-store serve`; look at --listen, at firewalls and network policies";
            return vec![Finding::failure("store.reachable", found, advice)];
        }
    };
    let mut findings = vec![Finding::ok("store.reachable", url), clock("store.clock", &live)];
    findings.push(match get(url, READY_PATH) {
        Ok(answer) if answer.status == 200 => protocol(&answer),
        Ok(answer) => Finding::failure(
            "store.ready",
            format!("it is not ready: {}", answer.text.trim()),
            "its log says why: the database is away, or it is shutting down",
        ),
        Err(error) => Finding::failure("store.ready", error, "ask again; its log says what it does"),
    });
    findings.push(match get(url, "/readyz") {
        Ok(answer) if answer.status == 200 => Finding::ok("store.ready", "it answers, and the database behind it"),
        Ok(answer) => Finding::warning(
            "store.ready",
            format!("/readyz is answered with {}: {}", answer.status, answer.text.trim()),
            "with --ready-after-edge it waits for a gateway that has the settings: is there one, with its token?",
        ),
        Err(error) => Finding::failure("store.ready", error, "ask again; its log says what it does"),
    });
    findings.push(release(url));
    findings
}

/// Whether the clock of whoever answered is near this one.
pub fn clock(check: &str, answer: &Answer) -> Finding {
    match answer.clock_offset() {
        Some(apart) if apart > CLOCKS => Finding::warning(
            check,
            format!("its clock and this machine's are {apart} seconds apart"),
            "let both machines follow a time server: tokens end and begin by these clocks",
        ),
        Some(_) => Finding::ok(check, format!("within {CLOCKS} seconds of this machine's")),
        None => Finding::warning(check, "the answer has no date", "something in between takes it away"),
    }
}

fn protocol(answer: &Answer) -> Finding {
    let (check, [oldest, newest]) = ("store.edge_protocol", SPOKEN_VERSIONS);
    match answer.header(PROTOCOL_HEADER) {
        Some(version) if SPOKEN_VERSIONS.contains(&version) => {
            Finding::ok(check, format!("version {version}; this release speaks {oldest} and {newest}"))
        }
        Some(version) => Finding::failure(
            check,
            format!("it speaks version {version}; this release speaks {oldest} and {newest}"),
            "bring store and filter to the same release, or to two that follow each other",
        ),
        None => Finding::failure(check, "the answer has no version", "something in between is no store"),
    }
}

fn release(url: &str) -> Finding {
    let check = "store.release";
    let metrics = get(url, "/metrics").map(|answer| answer.text).unwrap_or_default();
    let version =
        metrics.lines().find_map(|line| line.strip_prefix("dcr_store_build_info{version=\"")?.split('"').next());
    match version {
        Some(version) if version == env!("CARGO_PKG_VERSION") => Finding::ok(check, version),
        Some(version) => Finding::warning(
            check,
            format!("the store is {version}, this dcr-store is {}", env!("CARGO_PKG_VERSION")),
            "ask with the dcr-store of the same release, or finish the upgrade",
        ),
        None => Finding::warning(check, "it does not say", "it is older than 0.1.0, or /metrics is kept from here"),
    }
}
