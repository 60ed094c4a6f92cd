//! What a worker knows of clients: those that it asked the store for, and ids that the store does not know.
//!
//! The store's word is good until the store says that the client changed: the leader among the workers puts changes on
//! the board ([`super::client_changes`]), and every worker looks there at each tick. Known clients and unknown ids
//! have a room each, of fixed size, so that whatever ids strangers invent, no known client is forgotten for them.
//!
//! While the store is away nobody hears of changes. What is known then stays good for the tenant's grace, counted from
//! the last time that the leader heard from the store.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::rc::{Rc, Weak};

use lru::LruCache;

use super::board::Keys;
use super::client_changes::{self, ChangeHash, Word};
use super::config::Store;
use super::environment::{Environment, Metric};
use crate::edge_api::{ClientControls, ClientRecord, EffectiveGrant, Permissions};

/// Most clients that a worker knows.
const MAX_CLIENTS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// Most bytes that they take up, as far as that can be counted.
const MAX_BYTES: usize = 14 * 1024 * 1024;

/// Most ids that a worker remembers as unknown.
const MAX_UNKNOWN: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// How long an id counts as unknown, in nanoseconds. A client whose id somebody asked for before it existed is told
/// as a change, so this bounds only what else may go wrong.
const UNKNOWN_FOR: u64 = 10_000_000_000;

/// Bytes that an entry takes up beside its texts: the map's and the list's places, the record itself, and what the
/// allocator keeps for each.
const ENTRY_BYTES: usize = 400;

/// Bytes that one text takes up beside its own.
const TEXT_BYTES: usize = 16;

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
    shared: Rc<Shared>,
}

impl Client {
    /// What it may ask for.
    pub fn permissions(&self) -> &Permissions {
        &self.shared.permissions
    }
}

/// What the clients of a tenant that may ask for the same have together.
#[derive(Debug)]
struct Shared {
    permissions: Permissions,
    bytes: usize,
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

/// What a worker knows of clients.
#[derive(Debug)]
pub struct Clients {
    known: RefCell<LruCache<Key, Entry>>,
    unknown: RefCell<LruCache<Key, Unknown>>,
    shared: RefCell<HashMap<u32, Weak<Shared>>>,
    bytes: Cell<usize>,
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
            known: RefCell::new(LruCache::unbounded()),
            unknown: RefCell::new(LruCache::new(MAX_UNKNOWN)),
            shared: RefCell::default(),
            bytes: Cell::new(0),
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
        for (_, entry) in self.known.borrow_mut().iter_mut() {
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
        if let Some(entry) = self.known.borrow_mut().get(&key) {
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
        let before = known.pop(&key);
        let Some(ClientControls { client: record, permissions }) = answer else {
            self.release(before);
            if is_current {
                self.unknown.borrow_mut().put(key, Unknown { until: now.saturating_add(UNKNOWN_FOR), hashes });
            }
            return None;
        };
        self.unknown.borrow_mut().pop(&key);
        let shared = self.share(key.slot, permissions);
        self.release(before);
        let bytes = record_bytes(&record, &key);
        self.bytes.set(self.bytes.get().saturating_add(bytes));
        let client = Rc::new(Client { record, shared });
        known.put(key, Entry { client: Rc::clone(&client), bytes, hashes, is_current });
        while known.len() > MAX_CLIENTS.get() || (self.bytes.get() > MAX_BYTES && known.len() > 1) {
            let (_, evicted) = known.pop_lru().unzip();
            self.release(evicted);
        }
        Some(client)
    }

    /// The permissions, in one place with those of other clients of the tenant if they are the same.
    fn share(&self, slot: u32, permissions: Permissions) -> Rc<Shared> {
        let mut table = self.shared.borrow_mut();
        if let Some(shared) = table.get(&slot).and_then(Weak::upgrade).filter(|s| s.permissions == permissions) {
            return shared;
        }
        let bytes = permission_bytes(&permissions);
        self.bytes.set(self.bytes.get().saturating_add(bytes));
        let shared = Rc::new(Shared { permissions, bytes });
        table.insert(slot, Rc::downgrade(&shared));
        shared
    }

    fn release(&self, entry: Option<Entry>) {
        let Some(Entry { client, bytes, .. }) = entry else { return };
        let last = if Rc::strong_count(&client.shared) == 1 { client.shared.bytes } else { 0 };
        self.bytes.set(self.bytes.get().saturating_sub(bytes).saturating_sub(last));
    }

    /// Tells the gauges, which all workers have together, what became more or less.
    fn tell<E: Environment>(&self, environment: &E) {
        let (entries, bytes) = (self.known.borrow().len(), self.bytes.get());
        let told = self.told.replace((entries, bytes));
        environment.measure(Metric::CachedClients, difference(entries, told.0));
        environment.measure(Metric::CachedClientBytes, difference(bytes, told.1));
    }

    /// Forgets everything, and tells the gauges so: the worker ends.
    pub fn end<E: Environment>(&self, environment: &E) {
        self.known.borrow_mut().clear();
        self.unknown.borrow_mut().clear();
        self.bytes.set(0);
        self.tell(environment);
    }
}

fn difference(now: usize, before: usize) -> i64 {
    let signed = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
    signed(now).saturating_sub(signed(before))
}

fn text_bytes(text: &str) -> usize {
    text.len().saturating_add(TEXT_BYTES)
}

fn record_bytes(record: &ClientRecord, key: &Key) -> usize {
    let texts = record.redirect_uris.iter().chain(&record.grant_types).chain(&record.client_secret_sha256);
    let texts = texts.chain([&record.client_id, &record.token_endpoint_auth_method, &key.client_id]);
    texts.map(|text| text_bytes(text)).fold(ENTRY_BYTES, usize::saturating_add)
}

fn permission_bytes(permissions: &Permissions) -> usize {
    let of_grant = |grant: &EffectiveGrant| {
        let texts = grant.scope.iter().chain([&grant.audience]);
        texts.map(|text| text_bytes(text).saturating_add(TEXT_BYTES)).fold(ENTRY_BYTES, usize::saturating_add)
    };
    let grants = permissions.grants.iter().map(of_grant);
    let connections = permissions.connections.iter().map(|name| text_bytes(name));
    grants.chain(connections).fold(ENTRY_BYTES, usize::saturating_add)
}
