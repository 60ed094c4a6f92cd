//! Which clients changed, in the data that all workers share.
//!
//! | key | value |
//! |---|---|
//! | `clients` | [`Word`]: how many changes have been told, and when the store was last heard; 16 bytes |
//! | `clients/ring` | the number of changes told, then the [`ChangeHash`]es of the last [`RING`] of them |
//!
//! One worker at a time tells (see [`super::feed`]); every worker looks at the word at each tick, and at the ring if the
//! word has changed.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use super::board::Keys;
use super::environment::Environment;

/// Names a client, or all clients of a tenant, among what changed. Two that have the same are both read again.
pub type ChangeHash = [u8; 8];

const WORD_KEY: &str = "clients";

const RING_KEY: &str = "clients/ring";

/// How many changes are remembered. A worker that hears of more at once takes all clients for changed.
const RING: usize = 1_024;

/// The last word on clients.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Word {
    /// How many changes have been told.
    pub number: u64,
    /// When the store last said that there are no others, in nanoseconds of the monotonic clock.
    pub heard_at: u64,
}

/// What stands for a client of the tenant in `slot` among what changed; for all of them without `client_id`.
pub fn hash(slot: u32, client_id: Option<&str>) -> ChangeHash {
    let hash = Sha256::new_with_prefix(slot.to_le_bytes()).chain_update(client_id.unwrap_or_default());
    hash.finalize().first_chunk().copied().unwrap_or_default()
}

/// The ring: how many changes have been told, and the last of them, each at the place of its number.
struct Ring<'a> {
    number: u64,
    hashes: &'a [ChangeHash],
}

impl<'a> Ring<'a> {
    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk::<8>()?;
        match rest.as_chunks() {
            (hashes, []) if hashes.len() == RING => Some(Self { number: u64::from_le_bytes(*number), hashes }),
            _ => None,
        }
    }
}

/// The place of the change with this number.
fn place(number: u64) -> usize {
    usize::try_from(number % RING as u64).unwrap_or_default()
}

/// Tells all workers what changed; `None` if any client may have.
pub fn tell<E: Environment>(environment: &E, keys: &Keys, changes: Option<&[ChangeHash]>) {
    if changes.is_some_and(<[ChangeHash]>::is_empty) {
        return;
    }
    let key = keys.key(RING_KEY);
    for tries_left in (0..8).rev() {
        let before = environment.shared(&key);
        let ring = before.as_ref().and_then(|shared| Ring::decode(&shared.value));
        let mut number = ring.as_ref().map_or(0, |ring| ring.number);
        let mut hashes = ring.map_or_else(|| vec![ChangeHash::default(); RING], |ring| ring.hashes.to_vec());
        // Whoever tells at the same time is not written over, unless there is no end to it: then everything may have
        // changed.
        let cas = before.as_ref().map(|shared| shared.cas).filter(|_| tries_left > 0);
        match changes.filter(|changes| changes.len() <= RING && tries_left > 0) {
            Some(changes) => {
                for change in changes {
                    number = number.saturating_add(1);
                    if let Some(hash) = hashes.get_mut(place(number)) {
                        *hash = *change;
                    }
                }
            }
            // More than anybody can look up.
            None => number = number.saturating_add(RING as u64).saturating_add(1),
        }
        let value = [&number.to_le_bytes()[..], hashes.as_flattened()].concat();
        if environment.set_shared(&key, &value, cas).is_ok() {
            return set_word(environment, keys, |word| word.number = number);
        }
    }
}

/// Says that at this moment the store has no other changes.
pub fn set_heard<E: Environment>(environment: &E, keys: &Keys) {
    set_word(environment, keys, |word| word.heard_at = environment.monotonic_nanos());
}

fn set_word<E: Environment>(environment: &E, keys: &Keys, change: impl Fn(&mut Word)) {
    let key = keys.key(WORD_KEY);
    for _ in 0..8 {
        let before = environment.shared(&key);
        let known = before.as_ref().and_then(|shared| decode_word(&shared.value)).unwrap_or_default();
        let mut word = known;
        change(&mut word);
        // Never back: of two that tell at once, the later number counts.
        word.number = word.number.max(known.number);
        let value = [word.number.to_le_bytes(), word.heard_at.to_le_bytes()].concat();
        if environment.set_shared(&key, &value, before.map(|shared| shared.cas)).is_ok() {
            return;
        }
    }
}

fn decode_word(bytes: &[u8]) -> Option<Word> {
    match bytes.as_chunks() {
        ([number, heard_at], []) => {
            Some(Word { number: u64::from_le_bytes(*number), heard_at: u64::from_le_bytes(*heard_at) })
        }
        _ => None,
    }
}

/// The last word on clients.
pub fn last_word<E: Environment>(environment: &E, keys: &Keys) -> Word {
    environment.shared(&keys.key(WORD_KEY)).and_then(|shared| decode_word(&shared.value)).unwrap_or_default()
}

/// The changes after the one with the number `after`, up to and with the one numbered `last`; `None` if they are no
/// longer known, so that any client may have changed.
pub fn between<E: Environment>(environment: &E, keys: &Keys, after: u64, last: u64) -> Option<HashSet<ChangeHash>> {
    let shared = environment.shared(&keys.key(RING_KEY))?;
    let ring = Ring::decode(&shared.value)?;
    let is_there = after <= last && last <= ring.number && ring.number.saturating_sub(after) <= RING as u64;
    is_there.then(|| {
        let numbers = after.saturating_add(1)..=last;
        numbers.filter_map(|number| ring.hashes.get(place(number))).copied().collect()
    })
}
