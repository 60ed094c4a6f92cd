//! The settings of all tenants in the data that all workers share.
//!
//! One worker at a time publishes (see [`super::feed`]); every worker looks up. Keys, below a prefix that names the
//! product, this layout's version and the store:
//!
//! | key | value |
//! |---|---|
//! | `tenant/{slot}` | [`Pointer`]: which version is in force and on which of two sides it lies; 14 bytes |
//! | `tenant/{slot}/0`, `/1` | the [`Stamp`], then the tenant as JSON |
//! | `host/{host}` | the slot of the tenant that had this host last |
//! | `bucket/{slot}` | the tenant's token bucket |
//! | `source/{slot}/{n}` | the buckets of its sources, if it limits those |
//! | `seed` | keys the hash that gives sources their places |
//! | `loaded` | there once everything has been told |
//! | `lookup/{slot}` | the bucket of the tenant's look-ups of clients |
//! | `clients`, `clients/ring` | which clients changed (see [`super::client_changes`]) |
//!
//! A new version is written on the side not in use; then the pointer flips. Whoever looks up reads the pointer first,
//! for every request: as soon as one worker has seen a version, every worker does. The number of keys is bounded by
//! what the store knows, whatever hosts clients name.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::environment::{CasMismatch, Environment};
use super::limiter::{self, Seed};
use super::tally::{Count, Tally};
use crate::acl::Index;
use crate::cidr::CidrSet;
use crate::rate_limit::Bucket;
use crate::request_path::Routes;
use crate::tenant::{Domain, Snapshot, Tenant};

/// Names one state of one tenant. The epoch tells two databases apart that number their changes alike.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stamp {
    /// How many times everything has been told.
    pub epoch: u32,
    /// The store's number of the change.
    pub version: u64,
}

impl Stamp {
    const BYTES: usize = 12;

    fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (epoch, version) = bytes.split_at_mut(4);
        epoch.copy_from_slice(&self.epoch.to_le_bytes());
        version.copy_from_slice(&self.version.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (epoch, rest) = bytes.split_first_chunk::<4>()?;
        let (version, rest) = rest.split_first_chunk::<8>()?;
        Some((Self { epoch: u32::from_le_bytes(*epoch), version: u64::from_le_bytes(*version) }, rest))
    }
}

/// What is in force for one tenant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pointer {
    /// Which state.
    pub stamp: Stamp,
    /// Which side has it.
    side: bool,
    /// False once the tenant was deleted.
    live: bool,
}

impl Pointer {
    fn encode(self) -> Vec<u8> {
        let mut bytes = self.stamp.encode().to_vec();
        bytes.extend([u8::from(self.side), u8::from(self.live)]);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (stamp, rest) = Stamp::decode(bytes)?;
        match rest {
            [side, live] => Some(Self { stamp, side: *side != 0, live: *live != 0 }),
            _ => None,
        }
    }
}

/// The names of the keys.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Keys for the store at `cluster` and `authority`; two filters with different stores never share one.
    pub fn new(cluster: &str, authority: &str) -> Self {
        // Neither has a blank in it.
        Self { prefix: format!("dcr-edge/v1/{cluster} {authority}/") }
    }

    /// The key `name` below the prefix.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn pointer(&self, slot: u32) -> String {
        format!("{}tenant/{slot}", self.prefix)
    }

    fn side(&self, slot: u32, side: bool) -> String {
        format!("{}tenant/{slot}/{}", self.prefix, u8::from(side))
    }

    fn host(&self, host: &str) -> String {
        format!("{}host/{host}", self.prefix)
    }

    fn bucket(&self, slot: u32) -> String {
        format!("{}bucket/{slot}", self.prefix)
    }

    /// The key with this number of the table of sources.
    pub fn source(&self, slot: u32, number: u8) -> String {
        format!("{}source/{slot}/{number}", self.prefix)
    }

    /// The key of the sources' seed.
    pub fn seed(&self) -> String {
        self.key("seed")
    }

    fn loaded(&self) -> String {
        self.key("loaded")
    }

    /// The key of the bucket of look-ups of clients.
    pub fn look_ups(&self, slot: u32) -> String {
        format!("{}lookup/{slot}", self.prefix)
    }
}

// ---- publish ----

/// What became of a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Published {
    /// It is in force.
    InForce,
    /// What is in force is as new or newer.
    Outdated,
    /// Somebody else published at the same time.
    Lost,
}

/// One tenant's new state.
#[derive(Debug)]
pub struct State<'a> {
    /// The hosts that lead to it.
    pub domains: &'a [Domain],
    /// Whether it limits each source.
    pub limits_sources: bool,
    /// The [`Snapshot`] as JSON.
    pub json: &'a [u8],
}

/// Puts one tenant's new state in force; `None` if it was deleted.
pub fn publish<E: Environment>(
    environment: &E,
    keys: &Keys,
    slot: u32,
    stamp: Stamp,
    state: Option<&State>,
) -> Published {
    let key = keys.pointer(slot);
    let before = environment.shared(&key);
    let in_force = before.as_ref().and_then(|shared| Pointer::decode(&shared.value));
    let is_newer = |pointer: Pointer| (pointer.stamp.epoch, pointer.stamp.version) < (stamp.epoch, stamp.version);
    if in_force.is_some_and(|pointer| !is_newer(pointer)) {
        return Published::Outdated;
    }
    let side = in_force.is_some_and(|pointer| !pointer.side);
    if let Some(State { domains, limits_sources, json }) = state {
        // Buckets are there before anybody can look for them, and are never made twice.
        let prepare = |key: String, fresh: &[u8]| {
            if environment.shared(&key).is_none() {
                let _ = environment.set_shared(&key, fresh, None);
            }
        };
        prepare(keys.bucket(slot), &Bucket::default().encode());
        prepare(keys.look_ups(slot), &Bucket::default().encode());
        if *limits_sources {
            let fresh = limiter::fresh_source_buckets();
            (0..limiter::SOURCE_KEYS).for_each(|number| prepare(keys.source(slot, number), &fresh));
        }
        let _ = environment.set_shared(&keys.side(slot, side), &[&stamp.encode(), *json].concat(), None);
        let host_value = slot.to_le_bytes();
        for domain in *domains {
            let key = keys.host(domain.as_str());
            if environment.shared(&key).is_none_or(|known| known.value != host_value) {
                let _ = environment.set_shared(&key, &host_value, None);
            }
        }
    }
    let pointer = Pointer { stamp, side, live: state.is_some() };
    match environment.set_shared(&key, &pointer.encode(), before.map(|shared| shared.cas)) {
        Ok(()) => Published::InForce,
        Err(CasMismatch) => Published::Lost,
    }
}

/// Puts every tenant out of force that was not told in this epoch. `slots` bounds the slots ever told.
pub fn sweep<E: Environment>(environment: &E, keys: &Keys, epoch: u32, slots: u32) {
    for slot in 0..slots {
        let in_force = environment.shared(&keys.pointer(slot)).and_then(|shared| Pointer::decode(&shared.value));
        if in_force.is_some_and(|pointer| pointer.live && pointer.stamp.epoch != epoch) {
            publish(environment, keys, slot, Stamp { epoch, version: 0 }, None);
        }
    }
}

/// The state that is in force in `slot`, as JSON, if it was told in this epoch: another one may be another tenant's.
pub fn json_in_force<E: Environment>(environment: &E, keys: &Keys, slot: u32, epoch: u32) -> Option<Vec<u8>> {
    let pointer = Pointer::decode(&environment.shared(&keys.pointer(slot))?.value)?;
    let shared = environment.shared(&keys.side(slot, pointer.side))?;
    let (stamp, json) = Stamp::decode(&shared.value)?;
    (pointer.live && pointer.stamp == stamp && stamp.epoch == epoch).then(|| json.to_vec())
}

/// Says that everything has been told.
pub fn set_loaded<E: Environment>(environment: &E, keys: &Keys) {
    let key = keys.loaded();
    if environment.shared(&key).is_none() {
        let _ = environment.set_shared(&key, &[1], None);
    }
}

// ---- look up ----

/// A tenant as it is in force.
#[derive(Debug)]
pub struct InForce {
    /// The tenant.
    pub tenant: Tenant,
    /// Its access rules.
    pub acl: Index,
    /// What they did since that was reported last.
    pub tally: Tally,
    /// Which endpoints its paths lead to.
    pub routes: Routes,
    /// The addresses that are not limited one by one.
    pub exempt: CidrSet,
    /// Its number in the store.
    pub slot: u32,
    /// The key of its bucket.
    pub bucket: String,
    /// The key of the bucket of its look-ups of clients.
    pub look_ups: String,
    stamp: Stamp,
}

impl InForce {
    fn new(snapshot: Snapshot, keys: &Keys, slot: u32, stamp: Stamp) -> Self {
        let Snapshot { name, domains, settings, network_acls } = snapshot;
        let acl = Index::new(network_acls.iter().map(|acl| &acl.rule));
        let exempt = settings.dcr_edge.per_source.iter().flat_map(|limit| &limit.exempt).collect();
        let tally = Tally::new(network_acls.into_iter().map(|acl| acl.id));
        let routes = Routes::new(&settings.dcr_edge.paths);
        // Who may choose a mode is the store's business.
        let tenant = Tenant { name, domains, settings, permissive_eligible: false };
        Self {
            tenant,
            acl,
            tally,
            routes,
            exempt,
            slot,
            bucket: keys.bucket(slot),
            look_ups: keys.look_ups(slot),
            stamp,
        }
    }
}

/// What a host leads to.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// A tenant.
    Tenant(Rc<InForce>),
    /// No tenant.
    Unknown,
    /// Nothing has been loaded yet.
    NotLoaded,
    /// The tenant's settings cannot be read.
    Unreadable,
}

/// One worker's copy of a tenant.
#[derive(Clone, Debug)]
enum Known {
    Readable(Rc<InForce>),
    /// It cannot be read, which is not tried again for each request.
    Unreadable(Stamp),
}

impl Known {
    fn stamp(&self) -> Stamp {
        match self {
            Self::Readable(tenant) => tenant.stamp,
            Self::Unreadable(stamp) => *stamp,
        }
    }

    fn look_up(self) -> Lookup {
        match self {
            Self::Readable(tenant) => Lookup::Tenant(tenant),
            Self::Unreadable(_) => Lookup::Unreadable,
        }
    }
}

/// One worker's copy of what it looked up. Bounded by the tenants and hosts of the store.
#[derive(Debug, Default)]
pub struct Copies {
    loaded: Cell<bool>,
    tenants: RefCell<HashMap<u32, Known>>,
    seed: Cell<Option<Seed>>,
    /// What the rules of replaced copies did.
    left: RefCell<Vec<Count>>,
    /// Whether some of that found no room.
    dropped: Cell<bool>,
    places: RefCell<HashMap<String, Place>>,
}

/// Where a host's tenant is.
#[derive(Clone, Debug)]
struct Place {
    slot: u32,
    /// The key of the slot's pointer: every request reads it.
    pointer: Rc<str>,
}

impl Copies {
    /// The tenant that answers for `host` (see [`crate::tenant::authority_host`]).
    pub fn look_up<E: Environment>(&self, environment: &E, keys: &Keys, host: &str) -> Lookup {
        if !self.loaded.get() {
            if environment.shared(&keys.loaded()).is_none() {
                return Lookup::NotLoaded;
            }
            self.loaded.set(true);
        }
        let copied = self.places.borrow().get(host).cloned();
        if let Some(place) = copied {
            if let found @ Lookup::Tenant(_) = self.in_place(environment, keys, &place, host) {
                return found;
            }
            // It may have moved.
            self.places.borrow_mut().remove(host);
        }
        let Some(shared) = environment.shared(&keys.host(host)) else { return Lookup::Unknown };
        let Ok(slot) = <[u8; 4]>::try_from(shared.value.as_slice()).map(u32::from_le_bytes) else {
            return Lookup::Unreadable;
        };
        let place = Place { slot, pointer: keys.pointer(slot).into() };
        let found = self.in_place(environment, keys, &place, host);
        if matches!(found, Lookup::Tenant(_)) {
            self.places.borrow_mut().insert(host.to_owned(), place);
        }
        found
    }

    /// What is in force there, if it answers for `host`.
    fn in_place<E: Environment>(&self, environment: &E, keys: &Keys, place: &Place, host: &str) -> Lookup {
        match self.in_force(environment, keys, place) {
            Lookup::Tenant(found) if !answers_for(&found.tenant, host) => Lookup::Unknown,
            other => other,
        }
    }

    fn in_force<E: Environment>(&self, environment: &E, keys: &Keys, place: &Place) -> Lookup {
        let slot = place.slot;
        // The publisher may flip the side between two reads; it would have to do so each time.
        for _ in 0..8 {
            let Some(shared) = environment.shared(&place.pointer) else { return Lookup::Unknown };
            let Some(pointer) = Pointer::decode(&shared.value) else { return Lookup::Unreadable };
            if !pointer.live {
                self.replace(slot, None);
                return Lookup::Unknown;
            }
            if let Some(copy) = self.tenants.borrow().get(&slot).filter(|copy| copy.stamp() == pointer.stamp) {
                return copy.clone().look_up();
            }
            let data = environment.shared(&keys.side(slot, pointer.side));
            let Some((stamp, json)) = data.as_ref().and_then(|shared| Stamp::decode(&shared.value)) else {
                return Lookup::Unreadable;
            };
            if stamp != pointer.stamp {
                continue;
            }
            // The publisher has logged why, once.
            let copy = serde_json::from_slice(json).map_or(Known::Unreadable(stamp), |snapshot| {
                Known::Readable(Rc::new(InForce::new(snapshot, keys, slot, stamp)))
            });
            self.replace(slot, Some(copy.clone()));
            return copy.look_up();
        }
        Lookup::Unreadable
    }

    fn replace(&self, slot: u32, copy: Option<Known>) {
        let mut tenants = self.tenants.borrow_mut();
        let before = match copy {
            Some(copy) => tenants.insert(slot, copy),
            None => tenants.remove(&slot),
        };
        if let Some(Known::Readable(before)) = before
            && !before.tally.take(slot, &mut self.left.borrow_mut())
        {
            self.dropped.set(true);
        }
    }

    /// What keys the hash that gives sources their places.
    pub fn seed<E: Environment>(&self, environment: &E, keys: &Keys) -> Option<Seed> {
        if self.seed.get().is_none() {
            self.seed.set(environment.shared(&keys.seed()).and_then(|shared| shared.value.try_into().ok()));
        }
        self.seed.get()
    }

    /// Whether since the last time counts of rules were dropped, because too many wait.
    pub fn take_dropped(&self) -> bool {
        self.dropped.take()
    }

    /// Takes out what access rules did since the last time.
    pub fn take_counts(&self) -> Vec<Count> {
        let mut counts = self.left.take();
        for (slot, copy) in self.tenants.borrow().iter() {
            if let Known::Readable(tenant) = copy {
                tenant.tally.take(*slot, &mut counts);
            }
        }
        counts
    }
}

#[cfg(test)]
impl Copies {
    /// How many hosts are remembered.
    pub fn hosts(&self) -> usize {
        self.places.borrow().len()
    }
}

fn answers_for(tenant: &Tenant, host: &str) -> bool {
    tenant.domains.iter().any(|domain| domain.as_str() == host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fake::Fake;

    fn tenant(name: &str, domain: &str) -> (Tenant, Vec<u8>) {
        let tenant = Tenant {
            name: name.parse().unwrap(),
            domains: vec![domain.parse().unwrap()],
            settings: Default::default(),
            permissive_eligible: false,
        };
        let json = serde_json::to_vec(&tenant).unwrap();
        (tenant, json)
    }

    fn name(lookup: Lookup) -> Option<String> {
        match lookup {
            Lookup::Tenant(found) => Some(found.tenant.name.to_string()),
            _ => None,
        }
    }

    fn put(fake: &Fake, keys: &Keys, slot: u32, stamp: Stamp, name: &str, domain: &str) -> bool {
        let (tenant, json) = tenant(name, domain);
        let state = State { domains: &tenant.domains, limits_sources: false, json: &json };
        publish(fake, keys, slot, stamp, Some(&state)) == Published::InForce
    }

    const fn at(epoch: u32, version: u64) -> Stamp {
        Stamp { epoch, version }
    }

    #[test]
    fn what_cannot_be_read_is_not_read_again_for_each_request() {
        let (fake, keys, copies) = (Fake::default(), Keys::new("c", "a"), Copies::default());
        let (tenant, good) = tenant("t", "a.test");
        let state = State { domains: &tenant.domains, limits_sources: false, json: b"{}" };
        publish(&fake, &keys, 1, at(1, 1), Some(&state));
        set_loaded(&fake, &keys);
        assert!(matches!(copies.look_up(&fake, &keys, "a.test"), Lookup::Unreadable));
        // Were it read again, it would be found good now.
        fake.set_shared(&keys.side(1, false), &[&at(1, 1).encode(), good.as_slice()].concat(), None).unwrap();
        assert!(matches!(copies.look_up(&fake, &keys, "a.test"), Lookup::Unreadable));
        assert!(put(&fake, &keys, 1, at(1, 2), "t", "a.test"));
        assert!(matches!(copies.look_up(&fake, &keys, "a.test"), Lookup::Tenant(_)));
    }

    #[test]
    fn nothing_is_found_before_everything_was_told() {
        let (fake, keys, copies) = (Fake::default(), Keys::new("c", "a"), Copies::default());
        put(&fake, &keys, 0, at(1, 1), "one", "one.test");
        assert!(matches!(copies.look_up(&fake, &keys, "one.test"), Lookup::NotLoaded));
        set_loaded(&fake, &keys);
        assert_eq!(name(copies.look_up(&fake, &keys, "one.test")).as_deref(), Some("one"));
        assert!(matches!(copies.look_up(&fake, &keys, "two.test"), Lookup::Unknown));
    }

    #[test]
    fn a_flip_is_seen_by_every_worker_at_its_next_look() {
        let (fake, keys) = (Fake::default(), Keys::new("c", "a"));
        let workers = [Copies::default(), Copies::default()];
        set_loaded(&fake, &keys);
        for version in 1..6 {
            let expected = format!("v{version}");
            assert!(put(&fake, &keys, 0, at(1, version), &expected, "one.test"));
            for worker in &workers {
                assert_eq!(name(worker.look_up(&fake, &keys, "one.test")), Some(expected.clone()));
            }
        }
    }

    #[test]
    fn an_older_state_never_replaces_a_newer_one() {
        let (fake, keys, copies) = (Fake::default(), Keys::new("c", "a"), Copies::default());
        set_loaded(&fake, &keys);
        assert!(put(&fake, &keys, 0, at(1, 5), "new", "one.test"));
        assert!(!put(&fake, &keys, 0, at(1, 4), "old", "one.test"));
        assert!(!put(&fake, &keys, 0, at(1, 5), "same", "one.test"));
        assert_eq!(name(copies.look_up(&fake, &keys, "one.test")).as_deref(), Some("new"));
    }

    #[test]
    fn a_host_that_moves_to_another_tenant_is_followed() {
        let (fake, keys, copies) = (Fake::default(), Keys::new("c", "a"), Copies::default());
        set_loaded(&fake, &keys);
        put(&fake, &keys, 0, at(1, 1), "one", "moving.test");
        assert_eq!(name(copies.look_up(&fake, &keys, "moving.test")).as_deref(), Some("one"));
        put(&fake, &keys, 0, at(1, 2), "one", "other.test");
        assert!(matches!(copies.look_up(&fake, &keys, "moving.test"), Lookup::Unknown));
        put(&fake, &keys, 1, at(1, 3), "two", "moving.test");
        assert_eq!(name(copies.look_up(&fake, &keys, "moving.test")).as_deref(), Some("two"));
    }

    #[test]
    fn a_host_that_left_an_unreadable_tenant_is_followed_by_every_worker() {
        let (fake, keys) = (Fake::default(), Keys::new("c", "a"));
        let (knows_it, never_asked) = (Copies::default(), Copies::default());
        set_loaded(&fake, &keys);
        put(&fake, &keys, 0, at(1, 1), "one", "moving.test");
        assert_eq!(name(knows_it.look_up(&fake, &keys, "moving.test")).as_deref(), Some("one"));
        let unreadable = State { domains: &[], limits_sources: false, json: b"{}" };
        publish(&fake, &keys, 0, at(1, 2), Some(&unreadable));
        assert!(matches!(knows_it.look_up(&fake, &keys, "moving.test"), Lookup::Unreadable));
        put(&fake, &keys, 1, at(1, 3), "two", "moving.test");
        for worker in [&knows_it, &never_asked] {
            assert_eq!(name(worker.look_up(&fake, &keys, "moving.test")).as_deref(), Some("two"));
        }
    }

    #[test]
    fn a_deleted_tenant_and_one_of_another_database_are_gone() {
        let (fake, keys, copies) = (Fake::default(), Keys::new("c", "a"), Copies::default());
        set_loaded(&fake, &keys);
        put(&fake, &keys, 0, at(1, 10), "one", "one.test");
        put(&fake, &keys, 1, at(1, 11), "two", "two.test");
        assert_eq!(publish(&fake, &keys, 0, at(1, 12), None), Published::InForce);
        assert!(matches!(copies.look_up(&fake, &keys, "one.test"), Lookup::Unknown));
        // Another database tells everything: its numbers begin anew, and `two` is not in it.
        assert!(put(&fake, &keys, 0, at(2, 1), "one", "one.test"));
        sweep(&fake, &keys, 2, 2);
        assert_eq!(name(copies.look_up(&fake, &keys, "one.test")).as_deref(), Some("one"));
        assert!(matches!(copies.look_up(&fake, &keys, "two.test"), Lookup::Unknown));
    }

    #[test]
    fn an_older_state_takes_no_host_away() {
        let (fake, keys, copies) = (Fake::default(), Keys::new("c", "a"), Copies::default());
        set_loaded(&fake, &keys);
        put(&fake, &keys, 0, at(1, 5), "one", "other.test");
        put(&fake, &keys, 1, at(1, 6), "two", "moving.test");
        assert!(!put(&fake, &keys, 0, at(1, 1), "one", "moving.test"));
        assert_eq!(name(copies.look_up(&fake, &keys, "moving.test")).as_deref(), Some("two"));
    }

    #[test]
    fn a_publisher_that_lost_a_race_says_so_and_the_next_telling_heals() {
        let (fake, keys, copies) = (Fake::default(), Keys::new("c", "a"), Copies::default());
        set_loaded(&fake, &keys);
        put(&fake, &keys, 0, at(1, 1), "one", "one.test");
        fake.lose_every_cas(true);
        let (tenant, json) = tenant("two", "one.test");
        let state = State { domains: &tenant.domains, limits_sources: false, json: &json };
        assert_eq!(publish(&fake, &keys, 0, at(1, 2), Some(&state)), Published::Lost);
        fake.lose_every_cas(false);
        assert!(put(&fake, &keys, 0, at(1, 2), "two", "one.test"));
        assert_eq!(name(copies.look_up(&fake, &keys, "one.test")).as_deref(), Some("two"));
    }

    #[test]
    fn a_new_state_keeps_the_tokens_that_were_spent() {
        let (fake, keys) = (Fake::default(), Keys::new("c", "a"));
        put(&fake, &keys, 0, at(1, 1), "one", "one.test");
        fake.set_shared(&keys.bucket(0), &[7; 8], None).unwrap();
        put(&fake, &keys, 0, at(1, 2), "one", "one.test");
        assert_eq!(fake.shared(&keys.bucket(0)).unwrap().value, [7; 8]);
    }

    #[test]
    fn broken_shared_data_is_no_tenant_and_no_trap() {
        let (fake, keys, copies) = (Fake::default(), Keys::new("c", "a"), Copies::default());
        set_loaded(&fake, &keys);
        fake.set_shared(&keys.host("a"), b"1", None).unwrap();
        assert!(matches!(copies.look_up(&fake, &keys, "a"), Lookup::Unreadable));
        fake.set_shared(&keys.host("a"), &0u32.to_le_bytes(), None).unwrap();
        fake.set_shared(&keys.pointer(0), b"zz", None).unwrap();
        assert!(matches!(copies.look_up(&fake, &keys, "a"), Lookup::Unreadable));
        let pointer = Pointer { stamp: at(1, 1), side: false, live: true };
        fake.set_shared(&keys.pointer(0), &pointer.encode(), None).unwrap();
        assert!(matches!(copies.look_up(&fake, &keys, "a"), Lookup::Unreadable));
        fake.set_shared(&keys.side(0, false), &[&at(1, 1).encode()[..], b"{}"].concat(), None).unwrap();
        assert!(matches!(copies.look_up(&fake, &keys, "a"), Lookup::Unreadable));
    }
}
