//! What a worker knows of clients: those that it asked the store for, and ids that the store does not know.
//!
//! The store's word is good until the store says that the client changed: the leader among the workers puts changes on
//! the board ([`super::client_changes`]), and every worker looks there at each tick. Known clients and unknown ids
//! have a room each, of fixed size, so that whatever ids strangers invent, no known client is forgotten for them.
//!
//! While the store is away nobody hears of changes. What is known then stays good for the tenant's grace, counted from
//! the last time that the leader heard from the store.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, hash_map};
use std::num::NonZeroUsize;
use std::rc::Rc;

use lru::LruCache;

use super::board::Keys;
use super::client_changes::{self, ChangeHash, Word};
use super::config::Store;
use super::environment::{Environment, Metric};
use crate::edge_api::{ClientControls, ClientRecord, EffectiveGrant, Permissions};

/// Most clients that a worker knows.
const MAX_CLIENTS: usize = 10_000;

/// Most bytes that they take up, as far as that can be counted.
const MAX_BYTES: usize = 14 * 1024 * 1024;

/// Most ids that a worker remembers as unknown.
const MAX_UNKNOWN: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// How long an id counts as unknown, in nanoseconds. A client whose id somebody asked for before it existed is told
/// as a change, so this bounds only what else may go wrong.
const UNKNOWN_FOR: u64 = 60_000_000_000;

/// Bytes that a place in a map takes up: two pointers and a byte, and the places that are free.
const PLACE_BYTES: usize = 32;

/// Bytes that an entry takes up beside its texts: the place in the map, the one in the list, and the client.
const ENTRY_BYTES: usize = PLACE_BYTES
    .saturating_add(allocated(size_of::<(Key, Entry, [usize; 2])>()))
    .saturating_add(allocated(size_of::<(Client, [usize; 2])>()));

/// A client of a tenant.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    slot: u32,
    client_id: Box<str>,
}

/// A client as the store told it.
#[derive(Debug)]
pub struct Client {
    /// The client.
    pub record: ClientRecord,
    permissions: Rc<Permissions>,
}

impl Client {
    /// What it may ask for.
    pub fn permissions(&self) -> &Permissions {
        &self.permissions
    }
}

#[derive(Debug)]
struct Entry {
    client: Rc<Client>,
    bytes: usize,
    /// By these it is recognised among what changed.
    hashes: [ChangeHash; 2],
    /// False once it may have changed.
    is_current: bool,
}

/// What a worker knows of an id.
#[derive(Clone, Debug)]
pub enum Known {
    /// The client.
    Client(Rc<Client>),
    /// The store has no such client.
    Nobody,
    /// It changed, or nobody has heard of the store for too long: to be asked for again.
    Outdated,
    /// Nothing.
    Nothing,
}

/// What the store was asked, so that its answer can be judged by what was heard meanwhile.
#[derive(Clone, Debug)]
pub struct Question {
    key: Key,
    /// The word at that time.
    word: u64,
}

/// The known clients.
#[derive(Debug)]
struct Room {
    entries: LruCache<Key, Entry>,
    /// What clients may ask for, in one place for all that may ask for the same, and how many those are.
    permissions: HashMap<Rc<Permissions>, usize>,
    /// Bytes that all of it takes up.
    bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { entries: LruCache::unbounded(), permissions: HashMap::new(), bytes: 0 }
    }
}

impl Room {
    fn put(&mut self, key: Key, controls: ClientControls, hashes: [ChangeHash; 2], is_current: bool) -> Rc<Client> {
        let ClientControls { client: record, permissions } = controls;
        let permissions = self.share(permissions);
        self.remove(&key);
        let bytes = record_bytes(&record, &key);
        self.bytes = self.bytes.saturating_add(bytes);
        let client = Rc::new(Client { record, permissions });
        self.entries.put(key, Entry { client: Rc::clone(&client), bytes, hashes, is_current });
        while self.entries.len() > MAX_CLIENTS || self.bytes > MAX_BYTES {
            let Some((_, evicted)) = self.entries.pop_lru() else { break };
            self.release(evicted);
        }
        client
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.pop(key) {
            self.release(entry);
        }
    }

    fn share(&mut self, permissions: Permissions) -> Rc<Permissions> {
        match self.permissions.entry(Rc::new(permissions)) {
            hash_map::Entry::Occupied(mut known) => {
                *known.get_mut() = known.get().saturating_add(1);
                Rc::clone(known.key())
            }
            hash_map::Entry::Vacant(place) => {
                let permissions = Rc::clone(place.key());
                self.bytes = self.bytes.saturating_add(permission_bytes(&permissions));
                place.insert(1);
                permissions
            }
        }
    }

    /// An entry is gone, and what it alone could ask for.
    fn release(&mut self, entry: Entry) {
        let Entry { client, bytes, .. } = entry;
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(others) = self.permissions.get_mut(&client.permissions) {
            *others = others.saturating_sub(1);
            if *others == 0 {
                self.permissions.remove(&client.permissions);
                self.bytes = self.bytes.saturating_sub(permission_bytes(&client.permissions));
            }
        }
    }
}

/// What a worker knows of clients.
#[derive(Debug)]
pub struct Clients {
    known: RefCell<Room>,
    unknown: RefCell<LruCache<Key, Unknown>>,
    word: Cell<Word>,
    /// What the gauges were told.
    told: Cell<(usize, usize)>,
    /// Silence of the store that is none: the time between two looks for changes, in nanoseconds.
    pause: u64,
}

#[derive(Debug)]
struct Unknown {
    until: u64,
    hashes: [ChangeHash; 2],
}

impl Clients {
    /// Nothing, of a store that is looked at for changes as the configuration says.
    pub fn new(store: &Store) -> Self {
        // A look that is late is no silence yet.
        let pause = store.poll_interval.saturating_add(store.timeout).saturating_mul(2);
        Self {
            known: RefCell::default(),
            unknown: RefCell::new(LruCache::new(MAX_UNKNOWN)),
            word: Cell::default(),
            told: Cell::default(),
            pause: u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// Looks what changed.
    pub fn tick<E: Environment>(&self, environment: &E, keys: &Keys) {
        let before = self.word.get();
        let word = client_changes::last_word(environment, keys);
        self.word.set(word);
        if word.number != before.number {
            match client_changes::between(environment, keys, before.number, word.number) {
                Some(changes) => self.forget(|hashes| hashes.iter().any(|hash| changes.contains(hash))),
                None => self.forget(|_| true),
            }
        }
        self.tell(environment);
    }

    fn forget(&self, is_changed: impl Fn(&[ChangeHash; 2]) -> bool) {
        for (_, entry) in self.known.borrow_mut().entries.iter_mut() {
            entry.is_current &= !is_changed(&entry.hashes);
        }
        for (_, unknown) in self.unknown.borrow_mut().iter_mut() {
            if is_changed(&unknown.hashes) {
                unknown.until = 0;
            }
        }
    }

    /// What is known of the client of the tenant in `slot` at `now`, in nanoseconds of the monotonic clock, whose grace
    /// is so many seconds.
    pub fn look_up(&self, slot: u32, client_id: &str, now: u64, grace: u32) -> Known {
        let key = Key { slot, client_id: client_id.into() };
        let silence = now.saturating_sub(self.word.get().heard_at);
        let is_trusted = silence <= u64::from(grace).saturating_mul(1_000_000_000).max(self.pause);
        if let Some(entry) = self.known.borrow_mut().entries.get(&key) {
            let is_good = entry.is_current && is_trusted;
            return if is_good { Known::Client(Rc::clone(&entry.client)) } else { Known::Outdated };
        }
        match self.unknown.borrow_mut().get(&key) {
            Some(unknown) if now < unknown.until => Known::Nobody,
            _ => Known::Nothing,
        }
    }

    /// What the store is about to be asked for.
    pub fn ask(&self, slot: u32, client_id: &str) -> Question {
        Question { key: Key { slot, client_id: client_id.into() }, word: self.word.get().number }
    }

    /// Takes the store's answer: the client, or that there is none. `now` is that of the monotonic clock.
    pub fn learn(&self, question: Question, answer: Option<ClientControls>, now: u64) -> Option<Rc<Client>> {
        let Question { key, word } = question;
        let hashes = [client_changes::hash(key.slot, None), client_changes::hash(key.slot, Some(&key.client_id))];
        // What was told meanwhile may be newer than the answer.
        let is_current = word == self.word.get().number;
        let mut known = self.known.borrow_mut();
        // Of two answers the one that no change has overtaken counts.
        if !is_current && let Some(entry) = known.entries.get(&key).filter(|entry| entry.is_current) {
            return Some(Rc::clone(&entry.client));
        }
        let Some(controls) = answer else {
            known.remove(&key);
            if is_current {
                self.unknown.borrow_mut().put(key, Unknown { until: now.saturating_add(UNKNOWN_FOR), hashes });
            }
            return None;
        };
        self.unknown.borrow_mut().pop(&key);
        Some(known.put(key, controls, hashes, is_current))
    }

    /// Tells the gauges, which all workers have together, what became more or less.
    fn tell<E: Environment>(&self, environment: &E) {
        let known = self.known.borrow();
        let (entries, bytes) = (known.entries.len(), known.bytes);
        let told = self.told.replace((entries, bytes));
        environment.measure(Metric::CachedClients, difference(entries, told.0));
        environment.measure(Metric::CachedClientBytes, difference(bytes, told.1));
    }

    /// Forgets everything, and tells the gauges so: the worker ends.
    pub fn end<E: Environment>(&self, environment: &E) {
        self.known.take();
        self.unknown.borrow_mut().clear();
        self.tell(environment);
    }
}

fn difference(now: usize, before: usize) -> i64 {
    let signed = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
    signed(now).saturating_sub(signed(before))
}

/// Bytes that the allocator of the wasm sets aside for so many: 4 of its own, and all in pieces of 16.
const fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        _ => bytes.saturating_add(4).div_ceil(16).saturating_mul(16),
    }
}

fn text_bytes(texts: &[Box<str>]) -> usize {
    let places = allocated(size_of_val(texts));
    texts.iter().map(|text| allocated(text.len())).fold(places, usize::saturating_add)
}

fn record_bytes(record: &ClientRecord, key: &Key) -> usize {
    let lists = text_bytes(&record.redirect_uris).saturating_add(text_bytes(&record.grant_types));
    let texts = [&key.client_id, &record.client_id, &record.token_endpoint_auth_method].into_iter();
    let texts = texts.chain(&record.client_secret_sha256).map(|text| allocated(text.len()));
    texts.fold(ENTRY_BYTES.saturating_add(lists), usize::saturating_add)
}

fn permission_bytes(permissions: &Permissions) -> usize {
    let Permissions { grants, connections } = permissions;
    let of_grant = |EffectiveGrant { audience, scope, .. }: &EffectiveGrant| {
        let places = allocated(scope.capacity().saturating_mul(size_of::<String>()));
        let texts = scope.iter().chain([audience]).map(|text| allocated(text.capacity()));
        texts.fold(places, usize::saturating_add)
    };
    let of_all = PLACE_BYTES
        .saturating_add(allocated(size_of::<(Permissions, [usize; 2])>()))
        .saturating_add(allocated(size_of_val(&**grants)))
        .saturating_add(text_bytes(connections));
    grants.iter().map(of_grant).fold(of_all, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::config::Config;
    use crate::filter::fake::Fake;
    use crate::management::{RedirectionPolicy, SubjectType};
    use crate::tenant::SecurityMode;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;
    const GRACE: u32 = 300;

    struct Bench {
        fake: Fake,
        keys: Keys,
        clients: Clients,
    }

    impl Bench {
        fn new() -> Self {
            let config = Config::parse(br#"{"store": {"cluster": "c"}}"#).unwrap();
            let bench = Self { fake: Fake::default(), keys: Keys::new("c", "a"), clients: Clients::new(&config.store) };
            client_changes::prepare(&bench.fake, &bench.keys);
            client_changes::set_heard(&bench.fake, &bench.keys);
            bench.tick();
            bench
        }

        fn tick(&self) {
            self.clients.tick(&self.fake, &self.keys);
        }

        /// Another worker tells that these changed: the tenant of the slot, or one client of its.
        fn change(&self, changes: &[(u32, Option<&str>)]) {
            let changes: Vec<_> = changes.iter().map(|(slot, id)| client_changes::hash(*slot, *id)).collect();
            assert!(client_changes::tell(&self.fake, &self.keys, Some(&changes)));
        }

        fn learn(&self, slot: u32, id: &str) {
            let question = self.clients.ask(slot, id);
            self.clients.learn(question, Some(controls(id, &["read"], 1)), 0).unwrap();
        }

        fn at(&self, slot: u32, id: &str, now: u64) -> &'static str {
            match self.clients.look_up(slot, id, now, GRACE) {
                Known::Client(client) if &*client.record.client_id == id => "client",
                Known::Client(_) => "another",
                Known::Nobody => "nobody",
                Known::Outdated => "outdated",
                Known::Nothing => "nothing",
            }
        }

        fn bytes(&self) -> usize {
            self.clients.known.borrow().bytes
        }
    }

    fn controls(id: &str, scopes: &[&str], uris: usize) -> ClientControls {
        let grant = EffectiveGrant {
            audience: "https://api.example".to_owned(),
            scope: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            subject_type: SubjectType::User,
            allow_offline_access: true,
        };
        let client = ClientRecord {
            client_id: id.into(),
            security_mode: SecurityMode::Strict,
            self_registered: true,
            redirect_uris: (0..uris).map(|n| format!("https://{n}.example/{}", "a".repeat(40)).into()).collect(),
            grant_types: ["authorization_code".into(), "refresh_token".into()].into(),
            token_endpoint_auth_method: "client_secret_post".into(),
            client_secret_sha256: Some("ab".repeat(32).into()),
            redirection_policy: RedirectionPolicy::OpenRedirectProtection,
        };
        let permissions = Permissions { grants: Box::new([grant]), connections: Box::new(["staff".into()]) };
        ClientControls { client, permissions }
    }

    #[test]
    fn a_client_is_known_until_it_its_tenant_or_any_client_changes() {
        for (change, states) in [
            (&[(1, Some("a"))][..], ["outdated", "client", "client"]),
            (&[(1, None)], ["outdated", "outdated", "client"]),
            (&[(3, Some("a"))], ["client", "client", "client"]),
        ] {
            let bench = Bench::new();
            [(1, "a"), (1, "b"), (2, "a")].into_iter().for_each(|(slot, id)| bench.learn(slot, id));
            bench.change(change);
            assert_eq!(bench.at(1, "a", 0), "client", "nobody has looked yet");
            bench.tick();
            assert_eq!([bench.at(1, "a", 0), bench.at(1, "b", 0), bench.at(2, "a", 0)], states, "{change:?}");
        }
        let bench = Bench::new();
        bench.learn(1, "a");
        assert!(client_changes::tell(&bench.fake, &bench.keys, None));
        bench.tick();
        assert_eq!(bench.at(1, "a", 0), "outdated");
        bench.learn(1, "a");
        assert_eq!(bench.at(1, "a", 0), "client");
    }

    #[test]
    fn an_answer_that_a_change_may_have_overtaken_is_used_once() {
        let bench = Bench::new();
        let question = bench.clients.ask(1, "a");
        bench.change(&[(1, Some("a"))]);
        bench.tick();
        assert!(bench.clients.learn(question, Some(controls("a", &[], 1)), 0).is_some());
        assert_eq!(bench.at(1, "a", 0), "outdated");
        // Nor does it take the place of one that came before it and is newer.
        let late = bench.clients.ask(1, "a");
        bench.change(&[(1, Some("a"))]);
        bench.tick();
        bench.learn(1, "a");
        assert!(bench.clients.learn(late, None, 0).is_some());
        assert_eq!(bench.at(1, "a", 0), "client");
        let question = bench.clients.ask(1, "b");
        bench.change(&[(9, None)]);
        bench.tick();
        assert!(bench.clients.learn(question, None, 0).is_none());
        assert_eq!(bench.at(1, "b", 0), "nothing");
    }

    #[test]
    fn a_known_client_is_good_for_its_grace_after_the_store_was_heard_last() {
        let bench = Bench::new();
        bench.learn(1, "a");
        let grace = u64::from(GRACE) * SECOND;
        assert_eq!([bench.at(1, "a", grace), bench.at(1, "a", grace + 1)], ["client", "outdated"]);
        // A look that is late is no silence, whatever the grace.
        let without = |now| matches!(bench.clients.look_up(1, "a", now, 0), Known::Client(_));
        assert!(without(5 * SECOND) && !without(5 * SECOND + 1));
        bench.fake.now.store(grace, std::sync::atomic::Ordering::Relaxed);
        client_changes::set_heard(&bench.fake, &bench.keys);
        bench.tick();
        assert_eq!(bench.at(1, "a", grace + 1), "client");
    }

    #[test]
    fn an_id_is_unknown_for_a_short_time_or_until_it_is_told() {
        let bench = Bench::new();
        let unknown = |id: &str| bench.clients.learn(bench.clients.ask(1, id), None, 0).is_none();
        assert!(unknown("a") && unknown("b"));
        assert_eq!([bench.at(1, "a", UNKNOWN_FOR - 1), bench.at(1, "a", UNKNOWN_FOR)], ["nobody", "nothing"]);
        bench.change(&[(1, Some("a"))]);
        bench.tick();
        assert_eq!([bench.at(1, "a", 0), bench.at(1, "b", 0)], ["nothing", "nobody"]);
        bench.learn(1, "b");
        assert_eq!(bench.at(1, "b", 0), "client");
        assert!(unknown("b"));
        assert_eq!(bench.at(1, "b", 0), "nobody");
    }

    #[test]
    fn invented_ids_make_no_client_be_forgotten() {
        let bench = Bench::new();
        bench.learn(1, "a");
        for number in 0..20_000 {
            let question = bench.clients.ask(1, &format!("x{number}"));
            assert!(bench.clients.learn(question, None, 0).is_none());
        }
        assert_eq!(bench.at(1, "a", 0), "client");
        assert_eq!(bench.clients.unknown.borrow().len(), MAX_UNKNOWN.get());
    }

    #[test]
    fn ten_thousand_clients_are_known_and_the_one_unused_longest_gives_way() {
        let bench = Bench::new();
        (0..MAX_CLIENTS).for_each(|number| bench.learn(1, &format!("tpc_{number:032}")));
        let id = |number: usize| format!("tpc_{number:032}");
        assert!(bench.bytes() < 12 * 1024 * 1024, "{}", bench.bytes());
        assert_eq!(bench.at(1, &id(0), 0), "client");
        bench.learn(1, "new");
        assert_eq!(
            [bench.at(1, &id(0), 0), bench.at(1, &id(1), 0), bench.at(1, "new", 0)],
            ["client", "nothing", "client"]
        );
        bench.tick();
        assert_eq!(bench.fake.measured.lock().unwrap()["dcr_edge.cached_clients"], MAX_CLIENTS as i64);
        bench.clients.end(&bench.fake);
        assert!(bench.fake.measured.lock().unwrap().values().all(|measured| *measured == 0));
    }

    #[test]
    fn however_large_clients_are_their_bytes_are_bounded() {
        let bench = Bench::new();
        for number in 0..2_000 {
            let id = format!("c{number}");
            let question = bench.clients.ask(1, &id);
            assert!(bench.clients.learn(question, Some(controls(&id, &["read"], 400)), 0).is_some());
            assert!(bench.bytes() <= MAX_BYTES);
        }
        assert_eq!([bench.at(1, "c0", 0), bench.at(1, "c1999", 0)], ["nothing", "client"]);
        let question = bench.clients.ask(1, "huge");
        assert!(bench.clients.learn(question, Some(controls("huge", &["read"], 400_000)), 0).is_some());
        assert_eq!((bench.bytes(), bench.at(1, "huge", 0)), (0, "nothing"));
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_no_byte_is_counted_twice_or_left(
            steps in prop::collection::vec((0_u32..3, 0..8_usize, prop::option::of((0..3_usize, 1..4_usize))), 0..200),
        ) {
            let bench = Bench::new();
            for (slot, id, answer) in steps {
                let id = format!("c{id}");
                let scopes = [&["a"][..], &["a", "b"], &[]];
                let answer = answer.map(|(scope, uris)| controls(&id, scopes[scope], uris));
                bench.clients.learn(bench.clients.ask(slot, &id), answer, 0);
            }
            for slot in 0..3 {
                for id in 0..8 {
                    bench.clients.learn(bench.clients.ask(slot, &format!("c{id}")), None, 0);
                }
            }
            prop_assert_eq!((bench.bytes(), bench.clients.known.borrow().permissions.len()), (0, 0));
        }
    }
}
