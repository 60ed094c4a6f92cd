//! What access rules did and which registrations were refused, told to the store now and then by each worker.
//!
//! A worker counts in its own memory and sends what has gathered; what could not be sent is sent with the next report.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::callout::{self, Receipt};
use super::environment::{CallAnswer, CallId, Environment, Level};
use super::tally::Count;
use super::worker::Worker;
use crate::edge_api::{EDGE_PROTOCOL_HEADER, MAX_COUNTS, PROTOCOL_VERSION, REPORT_PATH, Report};

/// Looks for settings that pass between two reports.
const INTERVALS: u32 = 20;

/// Nanoseconds of a minute.
const MINUTE: u64 = 60_000_000_000;

/// One worker's reports.
#[derive(Debug)]
pub struct Reporter {
    worker: Rc<Worker>,
    /// When the next one is due, in nanoseconds of the monotonic clock.
    due: Cell<u64>,
    waiting: RefCell<Vec<Count>>,
    /// Whether it was said that some are dropped, since what waits began to.
    said_dropped: Cell<bool>,
    under_way: RefCell<Option<(CallId, Vec<Count>)>>,
}

impl Reporter {
    /// A worker's reports.
    pub fn new(worker: Rc<Worker>) -> Self {
        Self {
            worker,
            due: Cell::new(0),
            waiting: RefCell::default(),
            said_dropped: Cell::new(false),
            under_way: RefCell::new(None),
        }
    }

    /// Sends a report if one is due.
    pub fn tick<E: Environment>(&self, environment: &E) {
        let (now, refusals) = (environment.monotonic_nanos(), &self.worker.refusals);
        // The store waits for what belongs to a minute that is over.
        if refusals.begin(environment.unix_nanos() / MINUTE) {
            self.due.set(0);
        }
        if (refusals.take_dropped() | self.worker.copies.take_dropped()) && !self.said_dropped.replace(true) {
            let line = "too many counts of access rules and refusals wait for the store: those to come are lost";
            environment.log(Level::Warn, line);
        }
        if now < self.due.get() || self.under_way.borrow().is_some() {
            return;
        }
        let store = &self.worker.config.store;
        let interval = store.poll_interval.saturating_mul(INTERVALS);
        // Also while the store is away: then the next one is no more urgent than this one.
        self.due.set(now.saturating_add(u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX)));
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            self.said_dropped.set(false);
            *waiting = self.worker.copies.take_counts();
            waiting.append(&mut refusals.take());
        }
        let rest = waiting.len().saturating_sub(MAX_COUNTS);
        let counts = waiting.split_off(rest);
        if counts.is_empty() {
            return;
        }
        let report = Report { counts };
        let body = serde_json::to_vec(&report).unwrap_or_default();
        let headers = [
            (":method", "POST"),
            (":path", REPORT_PATH),
            (":authority", &store.authority),
            ("authorization", &self.worker.authorization),
            (EDGE_PROTOCOL_HEADER, PROTOCOL_VERSION),
            ("content-type", "application/json"),
        ];
        match environment.call(&store.cluster, &headers, &body, store.timeout) {
            Ok(call) => *self.under_way.borrow_mut() = Some((call, report.counts)),
            Err(_) => waiting.extend(report.counts),
        }
    }

    /// Takes the answer to a report; gives it back if it is to another call.
    pub fn answered<E: Environment>(&self, environment: &E, call: CallId, answer: CallAnswer) -> Option<CallAnswer> {
        let mut under_way = self.under_way.borrow_mut();
        match under_way.take() {
            Some((sent, counts)) if sent == call => {
                match callout::receipt(&answer) {
                    // What else waits need not wait longer.
                    Receipt::Accepted if !self.waiting.borrow().is_empty() => self.due.set(0),
                    Receipt::Accepted => {}
                    // It would be refused each time, and nothing behind it would ever arrive.
                    Receipt::Refused(status) => {
                        let line = format!(
                            "the store refused counts of access rules and refusals with {status}: they are lost"
                        );
                        environment.log(Level::Warn, &line);
                    }
                    Receipt::Failed => self.waiting.borrow_mut().extend(counts),
                }
                None
            }
            other => {
                *under_way = other;
                Some(answer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge_api::PROTOCOL_HEADER;
    use crate::filter::board::{self, Lookup, Stamp, State};
    use crate::filter::config::Config;
    use crate::filter::environment::CallResponse;
    use crate::filter::fake::Fake;
    use crate::filter::reason::Reason;
    use crate::filter::tally::MAX_WAITING;
    use serde_json::{Value, json};
    use std::sync::atomic::Ordering;

    const INTERVAL: u64 = 10_000_000_000;

    fn bench(rules: usize) -> (Fake, Rc<Worker>, Reporter) {
        let fake = Fake::default();
        let worker = Rc::new(Worker::new(Config::parse(br#"{"store":{"cluster":"c"}}"#).unwrap(), "t").unwrap());
        put(&fake, &worker, 1, rules);
        board::set_loaded(&fake, &worker.keys);
        let reporter = Reporter::new(Rc::clone(&worker));
        (fake, worker, reporter)
    }

    fn put(fake: &Fake, worker: &Worker, version: u64, rules: usize) {
        let rule = json!({"action": {"block": true}, "match": {"asns": [1]}, "scope": "tenant"});
        let acls: Vec<_> = (0..rules).map(|n| json!({"id": format!("acl_{n}"), "rule": rule})).collect();
        let tenant = json!({"name": "t", "domains": ["a.test"], "settings": {}, "network_acls": acls});
        let (json, domains) = (tenant.to_string(), ["a.test".parse().unwrap()]);
        let state = State { domains: &domains, limits_sources: false, json: json.as_bytes() };
        board::publish(fake, &worker.keys, 3, Stamp { epoch: 1, version }, Some(&state));
    }

    fn count(fake: &Fake, worker: &Worker, place: usize, matched: bool) {
        let Lookup::Tenant(tenant) = worker.copies.look_up(fake, &worker.keys, "a.test") else { panic!() };
        tenant.tally.count(place, matched);
    }

    fn sent(fake: &Fake) -> Vec<Value> {
        let calls = fake.calls.lock().unwrap();
        calls.iter().map(|call| serde_json::from_slice::<Value>(&call.body).unwrap()["counts"].clone()).collect()
    }

    fn answer(status: &str) -> CallAnswer {
        let headers = [(":status", status), (PROTOCOL_HEADER, PROTOCOL_VERSION)];
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        Some(CallResponse { headers, body: Vec::new() })
    }

    fn next(fake: &Fake, reporter: &Reporter) {
        fake.now.fetch_add(INTERVAL, Ordering::Relaxed);
        reporter.tick(fake);
    }

    #[test]
    fn what_rules_did_is_told_once_and_not_before_it_is_due() {
        let (fake, worker, reporter) = bench(2);
        reporter.tick(&fake);
        assert_eq!(sent(&fake).len(), 0);
        count(&fake, &worker, 0, true);
        count(&fake, &worker, 0, false);
        reporter.tick(&fake);
        assert_eq!(sent(&fake).len(), 0);
        next(&fake, &reporter);
        assert_eq!(sent(&fake), [json!([{"slot": 3, "acl_id": "acl_0", "evaluated": 2, "matched": 1}])]);
        assert_eq!(reporter.answered(&fake, CallId(1), answer("204")), None);
        next(&fake, &reporter);
        assert_eq!(sent(&fake).len(), 1);
    }

    #[test]
    fn a_report_that_failed_is_sent_again_and_a_change_of_the_rules_loses_nothing() {
        let (fake, worker, reporter) = bench(2);
        count(&fake, &worker, 1, true);
        put(&fake, &worker, 2, 1);
        count(&fake, &worker, 0, true);
        for failed in [answer("503"), None] {
            next(&fake, &reporter);
            let call = CallId(sent(&fake).len() as u32);
            assert_eq!(reporter.answered(&fake, call, failed), None);
        }
        next(&fake, &reporter);
        let all = sent(&fake);
        assert_eq!((all.len(), all[2].as_array().unwrap().len()), (3, 2));
        assert!(all.iter().all(|report| report == &all[0]));
    }

    #[test]
    fn while_the_store_is_away_a_long_report_is_not_tried_more_often_than_a_short_one() {
        let (fake, worker, reporter) = bench(1_000);
        (0..1_000).for_each(|place| count(&fake, &worker, place, true));
        put(&fake, &worker, 2, 1_000);
        (0..500).for_each(|place| count(&fake, &worker, place, true));
        for tries in 1..4 {
            next(&fake, &reporter);
            reporter.answered(&fake, CallId(tries), None);
            reporter.tick(&fake);
            assert_eq!(sent(&fake).len() as u32, tries);
        }
    }

    #[test]
    fn a_report_that_the_store_refuses_for_good_is_said_lost_and_holds_up_no_other() {
        let (fake, worker, reporter) = bench(2);
        for (status, kept) in [("400", false), ("404", false), ("401", true), ("429", true)] {
            count(&fake, &worker, 0, true);
            next(&fake, &reporter);
            let lines = fake.lines.lock().unwrap().len();
            let call = CallId(sent(&fake).len() as u32);
            reporter.answered(&fake, call, answer(status));
            assert_eq!(fake.lines.lock().unwrap().len() - lines, usize::from(!kept), "{status}");
            next(&fake, &reporter);
            assert_eq!(sent(&fake).len() as u32 - call.0, u32::from(kept), "{status}");
            reporter.answered(&fake, CallId(sent(&fake).len() as u32), answer("204"));
        }
    }

    const MINUTES: u64 = 1_800_000_000 / 60;

    fn refused(slot: u32, minute: u64, reason: &str, count: u32) -> Value {
        json!({"slot": slot, "minute": MINUTES + minute, "reason": reason, "count": count})
    }

    #[test]
    fn what_was_refused_is_told_with_its_minute_and_beside_what_rules_did() {
        let (fake, worker, reporter) = bench(1);
        reporter.tick(&fake);
        count(&fake, &worker, 0, true);
        for reason in [Reason::RateLimited, Reason::AclBlocked, Reason::RateLimited] {
            worker.refusals.count(3, reason);
        }
        next(&fake, &reporter);
        let mut counts = sent(&fake).remove(0).as_array().unwrap().clone();
        assert_eq!(counts.remove(0), json!({"slot": 3, "acl_id": "acl_0", "evaluated": 1, "matched": 1}));
        counts.sort_by_key(|count| count["count"].as_u64());
        assert_eq!(counts, [refused(3, 0, "acl_blocked", 1), refused(3, 0, "rate_limited", 2)]);
        assert_eq!(reporter.answered(&fake, CallId(1), answer("204")), None);
        next(&fake, &reporter);
        assert_eq!(sent(&fake).len(), 1);
    }

    #[test]
    fn what_was_refused_in_a_minute_is_told_as_soon_as_it_is_over() {
        let (fake, worker, reporter) = bench(0);
        reporter.tick(&fake);
        worker.refusals.count(3, Reason::Method);
        reporter.tick(&fake);
        assert_eq!(sent(&fake).len(), 0);
        fake.wall_step.store(MINUTE, Ordering::Relaxed);
        reporter.tick(&fake);
        worker.refusals.count(3, Reason::Method);
        reporter.tick(&fake);
        assert_eq!(sent(&fake), [json!([refused(3, 0, "method", 1)])]);
    }

    #[test]
    fn refusals_of_an_outage_keep_their_minutes_and_are_told_once() {
        let (fake, worker, reporter) = bench(0);
        worker.refusals.count(3, Reason::ConnectError);
        for minute in 0..3 {
            fake.wall_step.store(minute * MINUTE, Ordering::Relaxed);
            next(&fake, &reporter);
            worker.refusals.count(4, Reason::ConnectError);
            reporter.answered(&fake, CallId(sent(&fake).len() as u32), None);
        }
        let tried = sent(&fake).len();
        next(&fake, &reporter);
        reporter.answered(&fake, CallId(tried as u32 + 1), answer("204"));
        next(&fake, &reporter);
        let told: Vec<_> = sent(&fake)[tried..].iter().flat_map(|report| report.as_array().unwrap()).cloned().collect();
        let of = |slot, minute| refused(slot, minute, "store_connect_error", 1);
        assert_eq!(told, [of(3, 0), of(4, 0), of(4, 1), of(4, 2)]);
    }

    #[test]
    fn counts_that_find_no_room_while_others_wait_are_said_lost_once() {
        let (fake, worker, reporter) = bench(0);
        let lines = || fake.lines.lock().unwrap().len();
        let flood = |minute: u64, slots: u32| {
            (0..slots).for_each(|slot| worker.refusals.count(slot, Reason::Method));
            fake.wall_step.store(minute * MINUTE, Ordering::Relaxed);
            reporter.tick(&fake);
        };
        reporter.tick(&fake);
        // The first report is never answered, so all others wait.
        flood(1, 1);
        assert_eq!((lines(), sent(&fake).len()), (0, 1));
        let most = MAX_WAITING as u32;
        flood(2, most);
        assert_eq!(lines(), 0);
        for minute in 3..6 {
            flood(minute, 2);
            assert_eq!(lines(), 1);
        }
        assert_eq!(worker.refusals.take().len(), MAX_WAITING);
    }

    #[test]
    fn the_answer_to_another_call_is_given_back() {
        let (fake, worker, reporter) = bench(1);
        count(&fake, &worker, 0, true);
        next(&fake, &reporter);
        assert_eq!(reporter.answered(&fake, CallId(7), answer("200")), Some(answer("200")));
        assert_eq!(reporter.answered(&fake, CallId(1), answer("204")), None);
        assert_eq!(reporter.answered(&fake, CallId(1), answer("200")), Some(answer("200")));
    }

    #[test]
    fn a_long_report_goes_in_pieces_one_after_the_other() {
        let (fake, worker, reporter) = bench(1_000);
        (0..1_000).for_each(|place| count(&fake, &worker, place, true));
        put(&fake, &worker, 2, 1_000);
        (0..500).for_each(|place| count(&fake, &worker, place, true));
        next(&fake, &reporter);
        reporter.answered(&fake, CallId(1), answer("204"));
        reporter.tick(&fake);
        let lengths: Vec<_> = sent(&fake).iter().map(|report| report.as_array().unwrap().len()).collect();
        assert_eq!(lengths, [1_000, 500]);
    }
}
