//! How settings come from the store: one worker at a time asks for what changed.
//!
//! Every worker ticks. The key `poll` holds the time at which the next look is due; whoever moves it forward by
//! compare-and-swap has claimed the look, and moves it again when it is done. A worker that never comes back loses
//! its claim when the time has passed. The key `cursor` holds how far the telling has come, so that any worker can
//! go on with it.

use std::cell::Cell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::board::{self, Published, Stamp, State};
use super::callout::{self, Answer, Failure};
use super::client_changes;
use super::environment::{CallAnswer, Environment, Level, Metric};
use super::limiter::Seed;
use super::reason::Reason;
use super::worker::Worker;
use crate::acl::SignalSet;
use crate::edge_api::{CHANGES_PATH, Changes, EDGE_PROTOCOL_HEADER, PROTOCOL_VERSION, TenantChange};
use crate::tenant::{ActiveRule, Domain, Snapshot};

/// What a claim lasts beyond the call's own time-out, in nanoseconds.
const CLAIM_MARGIN: u64 = 1_000_000_000;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// Most tenants. It bounds the work of a sweep.
const MAX_SLOTS: u32 = 1 << 20;

/// How far the telling has come.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
struct Cursor {
    /// How many times everything has been told, the telling under way included.
    epoch: u32,
    /// The database that tells.
    instance: String,
    /// The last change told.
    after: u64,
    /// Whether everything is being told, and has not been told to its end.
    telling: bool,
    /// No slot as high as this has ever been told.
    slots: u32,
}

/// Who a tenant is and where it answers, whatever else stands there.
#[derive(Deserialize)]
struct Identity<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow)]
    domains: &'a RawValue,
}

impl Identity<'_> {
    fn domains(&self) -> Option<Vec<Domain>> {
        serde_json::from_slice(self.domains.get().as_bytes()).ok()
    }
}

/// The members of a tenant, as they are written.
#[derive(Deserialize, Serialize)]
struct Members<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow)]
    domains: &'a RawValue,
    #[serde(borrow)]
    settings: &'a RawValue,
    #[serde(borrow, default = "no_rules")]
    network_acls: &'a RawValue,
}

fn no_rules<'a>() -> &'a RawValue {
    serde_json::from_slice(b"[]").unwrap_or(RawValue::NULL)
}

/// One worker's part in the polling.
#[derive(Debug)]
pub struct Feed {
    worker: Rc<Worker>,
    poll_key: String,
    cursor_key: String,
    /// The claim under which this worker's call is under way: the value that it wrote to `poll`.
    claim: Cell<Option<u64>>,
    /// What the last look came to, so that the log has a line when it changes and not at each look.
    last: Cell<Option<Failure>>,
    /// When the age of the settings is shown next, in nanoseconds of the monotonic clock.
    age_due: Cell<u64>,
}

impl Feed {
    /// A worker's part in the polling.
    pub fn new(worker: Rc<Worker>) -> Self {
        let (poll_key, cursor_key) = (worker.keys.key("poll"), worker.keys.key("cursor"));
        Self { worker, poll_key, cursor_key, claim: Cell::new(None), last: Cell::new(None), age_due: Cell::new(0) }
    }

    /// Makes the shared keys. The proxy configures one instance before any worker starts, so this never races.
    pub fn prepare<E: Environment>(&self, environment: &E) {
        let mut seed = Seed::default();
        let seed_key = self.worker.keys.seed();
        if environment.shared(&seed_key).is_none() && environment.fill_random(&mut seed).is_ok() {
            let _ = environment.set_shared(&seed_key, &seed, None);
        }
        for (key, value) in [(&self.poll_key, &0u64.to_le_bytes()[..]), (&self.cursor_key, b"{}")] {
            if environment.shared(key).is_none() {
                let _ = environment.set_shared(key, value, None);
            }
        }
        client_changes::prepare(environment, &self.worker.keys);
    }

    /// Looks whether a look is due, and takes it if nobody else does.
    pub fn tick<E: Environment>(&self, environment: &E) {
        self.show_age(environment);
        let Some(poll) = environment.shared(&self.poll_key) else { return };
        let due = <[u8; 8]>::try_from(poll.value.as_slice()).map(u64::from_le_bytes).unwrap_or(0);
        if environment.monotonic_nanos() >= due {
            self.ask(environment, poll.cas);
        }
    }

    /// Shows for how long nothing was heard of the store. Each worker does, so that the number grows whoever should look.
    fn show_age<E: Environment>(&self, environment: &E) {
        let now = environment.monotonic_nanos();
        if now < self.age_due.get() {
            return;
        }
        self.age_due.set(now.saturating_add(SECOND));
        let heard_at = client_changes::last_word(environment, &self.worker.keys).heard_at;
        // Nothing was heard yet: then no settings are in force that could be old.
        if heard_at > 0 {
            environment.record(Metric::SettingsAge, now.saturating_sub(heard_at) / SECOND);
        }
    }

    /// Takes the answer to this worker's look.
    pub fn answered<E: Environment>(&self, environment: &E, answer: CallAnswer) {
        let Some(claim) = self.claim.take() else { return };
        let Some(poll) = environment.shared(&self.poll_key) else { return };
        if poll.value != claim.to_le_bytes() {
            // The claim has run out and another worker has taken over.
            return;
        }
        match self.apply(environment, answer) {
            Ok(true) => self.ask(environment, poll.cas),
            Ok(false) => {
                self.note(environment, None);
                self.rest(environment, poll.cas);
            }
            Err(failure) => {
                self.note(environment, Some(failure));
                self.rest(environment, poll.cas);
            }
        }
    }

    fn ask<E: Environment>(&self, environment: &E, cas: u32) {
        let store = &self.worker.config.store;
        let claim = later(environment, store.timeout).saturating_add(CLAIM_MARGIN);
        if environment.set_shared(&self.poll_key, &claim.to_le_bytes(), Some(cas)).is_err() {
            return;
        }
        let cursor = self.cursor(environment).0;
        // An instance is hexadecimal digits, and a signal a word: nothing to escape.
        let (Cursor { after, instance, .. }, signals) = (&cursor, self.worker.config.signal_sources.names());
        let path = format!("{CHANGES_PATH}?after={after}&instance={instance}&signals={signals}");
        let headers = [
            (":method", "GET"),
            (":path", &path),
            (":authority", &store.authority),
            ("authorization", &self.worker.authorization),
            (EDGE_PROTOCOL_HEADER, PROTOCOL_VERSION),
        ];
        match environment.call(&store.cluster, &headers, &[], store.timeout) {
            Ok(_) => self.claim.set(Some(claim)),
            Err(error) => {
                self.note(environment, Some(error.into()));
                if let Some(poll) = environment.shared(&self.poll_key) {
                    self.rest(environment, poll.cas);
                }
            }
        }
    }

    /// Sets when the next look is due. If another worker got in between, it sets it.
    fn rest<E: Environment>(&self, environment: &E, cas: u32) {
        let due = later(environment, self.worker.config.store.poll_interval);
        let _ = environment.set_shared(&self.poll_key, &due.to_le_bytes(), Some(cas));
    }

    fn cursor<E: Environment>(&self, environment: &E) -> (Cursor, Option<u32>) {
        let shared = environment.shared(&self.cursor_key);
        let cursor = shared.as_ref().and_then(|shared| serde_json::from_slice(&shared.value).ok());
        (cursor.unwrap_or_default(), shared.map(|shared| shared.cas))
    }

    /// Puts a page in force. True if another one follows.
    fn apply<E: Environment>(&self, environment: &E, answer: CallAnswer) -> Result<bool, Failure> {
        let Answer::Success(body) = callout::understand(Ok(answer), callout::MAX_CHANGES_ANSWER)? else {
            return Err(Failure::StoreError);
        };
        let page: Changes = callout::parse(&body)?;
        if page.instance.is_empty() || !page.instance.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Failure::StoreError);
        }
        let (mut cursor, cas) = self.cursor(environment);
        if page.full {
            cursor.epoch = cursor.epoch.saturating_add(1);
            cursor.instance = page.instance;
            cursor.telling = true;
        }
        for change in &page.tenants {
            if change.slot >= MAX_SLOTS {
                self.unreadable(environment, change, "it is not served", &format!("slots end at {MAX_SLOTS}"));
                continue;
            }
            cursor.slots = cursor.slots.max(change.slot.saturating_add(1));
            if self.change(environment, &cursor, change) == Published::Lost {
                self.tell_everything_again(environment, cursor.epoch);
                return Ok(false);
            }
        }
        let changes: Vec<_> =
            page.clients.iter().map(|change| client_changes::hash(change.slot, change.client_id.as_deref())).collect();
        // While everything is told, a slot may become another tenant's.
        let is_any = cursor.telling || page.all_clients;
        if !client_changes::tell(environment, &self.worker.keys, (!is_any).then_some(&changes)) {
            self.tell_everything_again(environment, cursor.epoch);
            return Ok(false);
        }
        cursor.after = page.head;
        if !page.more {
            if cursor.telling {
                board::sweep(environment, &self.worker.keys, cursor.epoch, cursor.slots);
                cursor.telling = false;
            }
            board::set_loaded(environment, &self.worker.keys);
            client_changes::set_heard(environment, &self.worker.keys);
            environment.record(Metric::SettingsVersion, page.head);
        }
        let value = serde_json::to_vec(&cursor).map_err(|_| Failure::StoreError)?;
        if environment.set_shared(&self.cursor_key, &value, cas).is_ok() {
            return Ok(page.more);
        }
        // Our claim is gone, and somebody else has told something meanwhile.
        self.tell_everything_again(environment, cursor.epoch);
        Ok(false)
    }

    /// Two have published at once, one of them late: it may have written over what the other has put in force. Only what
    /// is told again, everything and in an epoch after all that was put in force until now, is surely whole.
    fn tell_everything_again<E: Environment>(&self, environment: &E, epoch: u32) {
        // The other one moves the cursor at most once for each of its pages.
        for _ in 0..8 {
            let (cursor, cas) = self.cursor(environment);
            let epoch = epoch.max(cursor.epoch);
            let forgotten = Cursor { epoch, instance: String::new(), ..cursor };
            let Ok(value) = serde_json::to_vec(&forgotten) else { return };
            if environment.set_shared(&self.cursor_key, &value, cas).is_ok() {
                return;
            }
        }
    }

    fn change<E: Environment>(&self, environment: &E, cursor: &Cursor, change: &TenantChange) -> Published {
        let stamp = Stamp { epoch: cursor.epoch, version: change.version };
        let publish = |state: Option<&State>| board::publish(environment, &self.worker.keys, change.slot, stamp, state);
        let Some(json) = change.tenant.as_ref().map(|json| json.get().as_bytes()) else { return publish(None) };
        match serde_json::from_slice::<Snapshot>(json) {
            Ok(snapshot) => {
                self.note_missing_sources(environment, &snapshot);
                publish(Some(&state(&snapshot, json)))
            }
            Err(error) => {
                let last = board::json_in_force(environment, &self.worker.keys, change.slot, cursor.epoch);
                if let Some(kept) = last.and_then(|last| keep(&last, json))
                    && let Ok(snapshot) = serde_json::from_slice::<Snapshot>(&kept)
                {
                    self.unreadable(environment, change, "its last settings stay in force", &error.to_string());
                    return publish(Some(&state(&snapshot, &kept)));
                }
                self.unreadable(environment, change, "its hosts are refused", &error.to_string());
                let identity: Option<Identity> = serde_json::from_slice(json).ok();
                let domains = identity.and_then(|identity| identity.domains()).unwrap_or_default();
                publish(Some(&State { domains: &domains, limits_sources: false, json }))
            }
        }
    }

    fn unreadable<E: Environment>(&self, environment: &E, change: &TenantChange, so: &str, error: &str) {
        environment.count(Reason::SettingsUnreadable, 1);
        let (slot, version) = (change.slot, change.version);
        let line = format!("tenant in slot {slot}: change {version} cannot be read, and {so}: {error}");
        environment.log(Level::Error, &line);
    }

    /// A rule that blocks by a signal which never comes blocks nobody: the operator has to see that.
    fn note_missing_sources<E: Environment>(&self, environment: &E, snapshot: &Snapshot) {
        let sources = self.worker.config.signal_sources.union(SignalSet::BUILT_IN);
        let (mut rules, mut first, mut missing) = (0_u32, "", SignalSet::default());
        for ActiveRule { id, rule } in &snapshot.network_acls {
            let unknown = rule.named_signals().without(sources);
            if !unknown.is_empty() {
                first = if rules == 0 { id } else { first };
                rules = rules.saturating_add(1);
                missing = missing.union(unknown);
            }
        }
        if rules > 0 {
            environment.count(Reason::AclWithoutSource, rules);
            let (tenant, missing) = (&snapshot.name, missing.names());
            let line = format!(
                "tenant {tenant}: {rules} rules, {first} first, name signals without a source here: {missing}; \
                 signal_sources says which there are"
            );
            environment.log(Level::Warn, &line);
        }
    }

    fn note<E: Environment>(&self, environment: &E, failure: Option<Failure>) {
        environment.count(failure.map_or(Reason::SettingsPolled, Failure::reason), 1);
        if self.last.replace(failure) == failure {
            return;
        }
        match failure {
            Some(failure) => {
                let (reason, advice) = (failure.reason().as_str(), failure.advice());
                environment.log(
                    Level::Error,
                    &format!("settings cannot be loaded, any loaded before stay in force: {reason}: {advice}"),
                );
            }
            None => environment.log(Level::Info, "settings are loaded again"),
        }
    }
}

fn state<'a>(snapshot: &'a Snapshot, json: &'a [u8]) -> State<'a> {
    let limits_sources = snapshot.settings.dcr_edge.per_source.is_some();
    State { domains: &snapshot.domains, limits_sources, json }
}

/// What stays in force of a tenant whose newest state cannot be read: its last settings, under the hosts that it has
/// now. Nothing if it has another name by now.
fn keep(last: &[u8], newest: &[u8]) -> Option<Vec<u8>> {
    let last: Members = serde_json::from_slice(last).ok()?;
    let newest: Identity = serde_json::from_slice(newest).ok()?;
    let domains = if newest.domains().is_some() { newest.domains } else { last.domains };
    let is_same = last.name.get() == newest.name.get();
    is_same.then(|| serde_json::to_vec(&Members { domains, ..last }).ok()).flatten()
}

fn later<E: Environment>(environment: &E, span: std::time::Duration) -> u64 {
    environment.monotonic_nanos().saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge_api::PROTOCOL_HEADER;
    use crate::filter::board::{Copies, Lookup};
    use crate::filter::config::Config;
    use crate::filter::environment::CallResponse;
    use crate::filter::fake::Fake;
    use serde_json::{Value, json};
    use std::sync::atomic::Ordering;

    fn feed(fake: &Fake) -> Feed {
        let config = Config::parse(br#"{"store": {"cluster": "c"}}"#).unwrap();
        let feed = Feed::new(Rc::new(Worker::new(config, "token").unwrap()));
        feed.prepare(fake);
        feed
    }

    fn tenant(slot: u32, version: u64, host: &str) -> Value {
        json!({"slot": slot, "version": version, "tenant": {"name": "t", "domains": [host], "settings": {}}})
    }

    fn page(instance: &str, full: bool, head: u64, more: bool, tenants: Value) -> CallAnswer {
        answer(&json!({"instance": instance, "full": full, "head": head, "more": more, "tenants": tenants}))
    }

    fn answer(page: &Value) -> CallAnswer {
        let headers = vec![
            (":status".to_owned(), b"200".to_vec()),
            (PROTOCOL_HEADER.to_owned(), PROTOCOL_VERSION.as_bytes().to_vec()),
        ];
        Some(CallResponse { headers, body: serde_json::to_vec(page).unwrap() })
    }

    fn asked(fake: &Fake) -> Vec<String> {
        let calls = std::mem::take(&mut *fake.calls.lock().unwrap());
        let path =
            |call: super::super::fake::Call| call.headers.iter().find(|(name, _)| name == ":path").unwrap().1.clone();
        calls.into_iter().map(path).collect()
    }

    fn finds(fake: &Fake, feed: &Feed, host: &str) -> bool {
        matches!(feed.worker.copies.look_up(fake, &feed.worker.keys, host), Lookup::Tenant(_))
    }

    #[test]
    fn one_worker_asks_and_the_others_wait_until_the_next_look_is_due() {
        let fake = Fake::default();
        let workers = [feed(&fake), feed(&fake)];
        workers.iter().for_each(|worker| worker.tick(&fake));
        assert_eq!(asked(&fake), ["/edge/v1/changes?after=0&instance=&signals="]);
        workers[0].answered(&fake, page("ab", true, 3, false, json!([tenant(1, 3, "a.test")])));
        workers.iter().for_each(|worker| worker.tick(&fake));
        assert!(asked(&fake).is_empty());
        fake.now.fetch_add(500_000_000, Ordering::Relaxed);
        workers[1].tick(&fake);
        assert_eq!(asked(&fake), ["/edge/v1/changes?after=3&instance=ab&signals="]);
        assert!(finds(&fake, &workers[1], "a.test"));
    }

    #[test]
    fn nothing_is_in_force_before_the_last_page() {
        let fake = Fake::default();
        let feed = feed(&fake);
        feed.tick(&fake);
        feed.answered(&fake, page("ab", true, 1, true, json!([tenant(1, 1, "a.test")])));
        assert!(!finds(&fake, &feed, "a.test"));
        assert_eq!(asked(&fake).last().unwrap(), "/edge/v1/changes?after=1&instance=ab&signals=");
        feed.answered(&fake, page("ab", false, 2, false, json!([tenant(2, 2, "b.test")])));
        assert!(finds(&fake, &feed, "a.test") && finds(&fake, &feed, "b.test"));
    }

    #[test]
    fn a_store_outage_keeps_the_last_settings_and_is_logged_once() {
        let fake = Fake::default();
        let feed = feed(&fake);
        feed.tick(&fake);
        feed.answered(&fake, page("ab", true, 1, false, json!([tenant(1, 1, "a.test")])));
        for _ in 0..3 {
            fake.now.fetch_add(1_000_000_000, Ordering::Relaxed);
            feed.tick(&fake);
            feed.answered(&fake, None);
        }
        assert!(finds(&fake, &feed, "a.test"));
        assert_eq!(fake.lines.lock().unwrap().len(), 1);
        assert_eq!(fake.counted.lock().unwrap().iter().filter(|reason| **reason == Reason::Reset).count(), 3);
    }

    #[test]
    fn another_database_replaces_everything_only_when_it_has_told_everything() {
        let fake = Fake::default();
        let feed = feed(&fake);
        feed.tick(&fake);
        let all = json!([tenant(1, 8, "a.test"), tenant(2, 9, "b.test")]);
        feed.answered(&fake, page("ab", true, 9, false, all));
        fake.now.fetch_add(500_000_000, Ordering::Relaxed);
        feed.tick(&fake);
        feed.answered(&fake, page("cd", true, 1, true, json!([tenant(1, 1, "c.test")])));
        assert!(finds(&fake, &feed, "b.test"));
        feed.answered(&fake, page("cd", false, 2, false, json!([])));
        assert!(finds(&fake, &feed, "c.test") && !finds(&fake, &feed, "b.test") && !finds(&fake, &feed, "a.test"));
    }

    #[test]
    fn settings_that_cannot_be_read_keep_the_last_good_ones_and_are_logged_and_counted_once_a_version() {
        let fake = Fake::default();
        let feed = feed(&fake);
        feed.tick(&fake);
        let good = json!({"name": "t", "domains": ["a.test"], "settings": {"dcr_edge": {"client_quota": 7}}});
        feed.answered(&fake, page("ab", true, 1, false, json!([{"slot": 1, "version": 1, "tenant": good}])));
        let quota = |host: &str| match feed.worker.copies.look_up(&fake, &feed.worker.keys, host) {
            Lookup::Tenant(tenant) => tenant.tenant.settings.dcr_edge.client_quota.map(|quota| quota.get()),
            _ => None,
        };
        for (version, domains) in [(2, json!(["a.test"])), (3, json!(["moved.test"])), (4, json!(7))] {
            fake.now.fetch_add(500_000_000, Ordering::Relaxed);
            feed.tick(&fake);
            let unreadable = json!({"name": "t", "domains": domains, "settings": {}, "newer": 1});
            let other = tenant(2, version, "b.test");
            let page = page(
                "ab",
                false,
                version,
                false,
                json!([
                    {"slot": 1, "version": version, "tenant": unreadable}, other
                ]),
            );
            feed.answered(&fake, page);
            assert!(finds(&fake, &feed, "b.test"));
            assert_eq!(fake.lines.lock().unwrap().len() as u64, version - 1);
        }
        // The hosts that it has now lead to it, and those that it left do not.
        assert_eq!((quota("moved.test"), quota("a.test")), (Some(7), None));
        let counted = fake.counted.lock().unwrap();
        assert_eq!(counted.iter().filter(|reason| **reason == Reason::SettingsUnreadable).count(), 3);
    }

    #[test]
    fn another_databases_tenant_never_gets_the_last_settings_of_this_ones() {
        let fake = Fake::default();
        let feed = feed(&fake);
        feed.tick(&fake);
        feed.answered(&fake, page("ab", true, 1, false, json!([tenant(1, 1, "a.test")])));
        fake.now.fetch_add(500_000_000, Ordering::Relaxed);
        feed.tick(&fake);
        let unreadable = json!({"slot": 1, "version": 1, "tenant": {"name": "t", "domains": ["a.test"], "newer": 1}});
        feed.answered(&fake, page("cd", true, 1, false, json!([unreadable])));
        assert!(matches!(feed.worker.copies.look_up(&fake, &feed.worker.keys, "a.test"), Lookup::Unreadable));
    }

    #[test]
    fn a_rule_that_names_a_signal_without_a_source_is_counted_and_logged() {
        let fake = Fake::default();
        let config = br#"{"store": {"cluster": "c"}, "signal_sources": ["ja4", "asn"]}"#;
        let feed = Feed::new(Rc::new(Worker::new(Config::parse(config).unwrap(), "token").unwrap()));
        feed.prepare(&fake);
        feed.tick(&fake);
        assert_eq!(asked(&fake), ["/edge/v1/changes?after=0&instance=&signals=asn,ja4"]);
        let rule = |id: &str, signals: Value| {
            json!({"id": id, "rule": {
                "action": {"block": true}, "match": signals, "scope": "tenant"
            }})
        };
        let acls = [
            rule("acl_1", json!({"asns": [1]})),
            rule("acl_2", json!({"geo_country_codes": ["CH"], "user_agents": ["x"]})),
        ];
        let tenant = json!({"name": "t", "domains": ["a.test"], "settings": {}, "network_acls": acls});
        feed.answered(&fake, page("ab", true, 1, false, json!([{"slot": 1, "version": 1, "tenant": tenant}])));
        let counted = fake.counted.lock().unwrap();
        assert_eq!(counted.iter().filter(|reason| **reason == Reason::AclWithoutSource).count(), 1);
        assert!(
            fake.lines.lock().unwrap()[0]
                .contains("1 rules, acl_2 first, name signals without a source here: country;")
        );
    }

    #[test]
    fn a_tenant_that_was_never_readable_is_refused_and_not_unknown() {
        let fake = Fake::default();
        let feed = feed(&fake);
        feed.tick(&fake);
        let unreadable = json!({"slot": 1, "version": 1, "tenant": {"name": "t", "domains": ["a.test"], "newer": 1}});
        let beyond = tenant(MAX_SLOTS, 2, "c.test");
        feed.answered(&fake, page("ab", true, 3, false, json!([unreadable, beyond, tenant(2, 3, "b.test")])));
        let look_up = |host: &str| feed.worker.copies.look_up(&fake, &feed.worker.keys, host);
        assert!(matches!(look_up("a.test"), Lookup::Unreadable));
        assert!(matches!(look_up("b.test"), Lookup::Tenant(_)));
        assert!(matches!(look_up("c.test"), Lookup::Unknown));
        assert_eq!(fake.lines.lock().unwrap().len(), 2);
    }

    #[test]
    fn an_answer_that_comes_after_its_claim_was_lost_is_dropped() {
        let fake = Fake::default();
        let (slow, quick) = (feed(&fake), feed(&fake));
        slow.tick(&fake);
        fake.now.fetch_add(3_000_000_001, Ordering::Relaxed);
        quick.tick(&fake);
        quick.answered(&fake, page("ab", true, 2, false, json!([tenant(1, 2, "new.test")])));
        slow.answered(&fake, page("ab", true, 1, false, json!([tenant(1, 1, "old.test")])));
        assert!(finds(&fake, &slow, "new.test") && !finds(&fake, &slow, "old.test"));
    }

    /// Lets another worker put `json` in force in slot 1 just before this one writes `key`.
    fn overtake(fake: &Fake, feed: &Feed, key: String, stamp: Stamp, host: &str) {
        let (keys, domains) = (feed.worker.keys.clone(), [host.parse().unwrap()]);
        let json = json!({"name": "t", "domains": [host], "settings": {}}).to_string();
        fake.before_write(key, move |fake| {
            let state = State { domains: &domains, limits_sources: false, json: json.as_bytes() };
            assert_eq!(board::publish(fake, &keys, 1, stamp, Some(&state)), Published::InForce);
        });
    }

    fn next_asks_for_everything(fake: &Fake, feed: &Feed) {
        asked(fake);
        fake.now.fetch_add(500_000_000, Ordering::Relaxed);
        feed.tick(fake);
        assert!(asked(fake)[0].contains("&instance=&"));
    }

    #[test]
    fn what_a_late_publisher_writes_over_is_told_again() {
        let fake = Fake::default();
        let feed = feed(&fake);
        feed.tick(&fake);
        feed.answered(&fake, page("ab", true, 1, false, json!([tenant(1, 1, "a.test")])));
        // Late with a change, then late with everything.
        for (full, epoch, version) in [(false, 1, 5), (true, 3, 7)] {
            fake.now.fetch_add(500_000_000, Ordering::Relaxed);
            feed.tick(&fake);
            overtake(&fake, &feed, feed.worker.keys.key("tenant/1/1"), Stamp { epoch, version }, "b.test");
            let late = json!([tenant(1, version - 1, "late.test")]);
            feed.answered(&fake, page("ab", full, version - 1, false, late));
            let looks = Copies::default();
            assert!(matches!(looks.look_up(&fake, &feed.worker.keys, "b.test"), Lookup::Unreadable), "{full}");
            next_asks_for_everything(&fake, &feed);
            feed.answered(&fake, page("ab", true, version, false, json!([tenant(1, version, "b.test")])));
            assert!(finds(&fake, &feed, "b.test") && !finds(&fake, &feed, "late.test"), "{full}");
        }
    }

    #[test]
    fn whoever_loses_the_cursor_has_everything_told_again() {
        let fake = Fake::default();
        let feed = feed(&fake);
        feed.tick(&fake);
        // The first state of a slot has nothing to compare with: the older one may stand there last.
        let (cursor_key, other) = (feed.cursor_key.clone(), feed.worker.keys.key("cursor"));
        fake.before_write(cursor_key, move |fake| {
            fake.set_shared(&other, br#"{"epoch":1,"instance":"ab","after":2,"telling":false,"slots":2}"#, None)
                .unwrap();
        });
        feed.answered(&fake, page("ab", true, 1, false, json!([tenant(1, 1, "a.test")])));
        next_asks_for_everything(&fake, &feed);
        feed.answered(&fake, page("ab", true, 2, false, json!([tenant(1, 2, "b.test")])));
        assert!(finds(&fake, &feed, "b.test") && !finds(&fake, &feed, "a.test"));
    }

    /// Takes a page without tenants. What is told of clients since the last word; `None` if any may have changed.
    fn told(fake: &Fake, feed: &Feed, page: Value) -> Option<Vec<client_changes::ChangeHash>> {
        let keys = &feed.worker.keys;
        let before = client_changes::last_word(fake, keys);
        fake.now.fetch_add(1_000_000_000, Ordering::Relaxed);
        feed.tick(fake);
        feed.answered(fake, answer(&page));
        let after = client_changes::last_word(fake, keys);
        // The last page, and no other, says that there are no other changes.
        let heard_at = if page["more"] == true { before.heard_at } else { fake.now.load(Ordering::Relaxed) };
        assert_eq!(after.heard_at, heard_at, "{page}");
        let changes = client_changes::between(fake, keys, before.number, after.number)?;
        let mut changes: Vec<_> = changes.into_iter().collect();
        changes.sort_unstable();
        Some(changes)
    }

    #[test]
    fn clients_that_changed_are_told_to_all_workers() {
        let fake = Fake::default();
        let feed = feed(&fake);
        let all = json!({"instance": "ab", "full": true, "head": 3, "more": false, "tenants": []});
        assert_eq!(told(&fake, &feed, all), None);
        // An older store names none.
        let nothing = json!({"instance": "ab", "full": false, "head": 3, "more": false, "tenants": []});
        assert_eq!(told(&fake, &feed, nothing), Some(vec![]));
        let clients = json!([{"slot": 1, "client_id": "tpc_a"}, {"slot": 2, "client_id": null}]);
        let some = json!({
            "instance": "ab", "full": false, "head": 5, "more": false, "tenants": [],
            "clients": clients, "all_clients": false,
        });
        let mut expected = vec![client_changes::hash(1, Some("tpc_a")), client_changes::hash(2, None)];
        expected.sort_unstable();
        assert_eq!(told(&fake, &feed, some), Some(expected));
        let forgotten = json!({
            "instance": "ab", "full": false, "head": 9, "more": false, "tenants": [],
            "clients": [], "all_clients": true,
        });
        assert_eq!(told(&fake, &feed, forgotten), None);
        assert!(asked(&fake).last().unwrap().contains("?after=5&"));
    }

    #[test]
    fn more_changes_than_workers_can_look_up_are_any_client() {
        let fake = Fake::default();
        let feed = feed(&fake);
        told(&fake, &feed, json!({"instance": "ab", "full": true, "head": 0, "more": false, "tenants": []}));
        let clients: Vec<_> = (0..1_025).map(|n| json!({"slot": 1, "client_id": format!("tpc_{n}")})).collect();
        let page =
            json!({"instance": "ab", "full": false, "head": 9, "more": false, "tenants": [], "clients": clients});
        assert_eq!(told(&fake, &feed, page), None);
    }

    #[test]
    fn until_everything_is_told_each_page_is_any_client_and_the_store_was_not_heard() {
        let fake = Fake::default();
        let feed = feed(&fake);
        let page =
            |full: bool, more: bool| json!({"instance": "ab", "full": full, "head": 1, "more": more, "tenants": []});
        assert_eq!(told(&fake, &feed, page(true, true)), None);
        assert_eq!(told(&fake, &feed, page(false, true)), None);
        assert_eq!(told(&fake, &feed, page(false, false)), None);
        assert_eq!(told(&fake, &feed, page(false, true)), Some(vec![]));
        assert_eq!(told(&fake, &feed, page(false, false)), Some(vec![]));
    }

    #[test]
    fn a_store_that_fails_was_not_heard() {
        let fake = Fake::default();
        let feed = feed(&fake);
        told(&fake, &feed, json!({"instance": "ab", "full": true, "head": 0, "more": false, "tenants": []}));
        let before = client_changes::last_word(&fake, &feed.worker.keys);
        for failure in [None, page("x y", false, 1, false, json!([]))] {
            fake.now.fetch_add(1_000_000_000, Ordering::Relaxed);
            feed.tick(&fake);
            feed.answered(&fake, failure);
        }
        assert_eq!(client_changes::last_word(&fake, &feed.worker.keys), before);
    }

    #[test]
    fn clients_that_could_not_be_told_are_told_again() {
        fn overtake(fake: &Fake, keys: board::Keys, times: u32) {
            fake.before_write(keys.key("clients/ring"), move |fake| {
                assert!(client_changes::tell(fake, &keys, Some(&[[1; 8]])));
                if times > 1 {
                    overtake(fake, keys, times - 1);
                }
            });
        }
        let fake = Fake::default();
        let feed = feed(&fake);
        told(&fake, &feed, json!({"instance": "ab", "full": true, "head": 1, "more": false, "tenants": []}));
        let before = client_changes::last_word(&fake, &feed.worker.keys).heard_at;
        fake.now.fetch_add(1_000_000_000, Ordering::Relaxed);
        feed.tick(&fake);
        overtake(&fake, feed.worker.keys.clone(), 8);
        let clients = json!([{"slot": 1, "client_id": "tpc_a"}]);
        let page =
            json!({"instance": "ab", "full": false, "head": 2, "more": false, "tenants": [], "clients": clients});
        feed.answered(&fake, answer(&page));
        assert_eq!(client_changes::last_word(&fake, &feed.worker.keys).heard_at, before);
        next_asks_for_everything(&fake, &feed);
    }

    #[test]
    fn nonsense_changes_nothing() {
        let fake = Fake::default();
        let feed = feed(&fake);
        for answer in [
            page("", true, 1, false, json!([])),
            page("x y", true, 1, false, json!([])),
            page("ab", true, 1, false, json!({})),
        ] {
            fake.now.fetch_add(1_000_000_000, Ordering::Relaxed);
            feed.tick(&fake);
            feed.answered(&fake, answer);
            assert_eq!(fake.counted.lock().unwrap().last(), Some(&Reason::StoreError));
        }
        assert!(matches!(feed.worker.copies.look_up(&fake, &feed.worker.keys, "a.test"), Lookup::NotLoaded));
    }
}
