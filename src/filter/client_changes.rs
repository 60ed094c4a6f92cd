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

/// Bytes of the ring: the number, and the changes.
const RING_BYTES: usize = RING.saturating_add(1).saturating_mul(8);

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
    number.checked_rem(RING as u64).and_then(|place| usize::try_from(place).ok()).unwrap_or_default()
}

/// How often a write is tried again that others were quicker with.
const TRIES: usize = 8;

/// Makes the shared keys, so that of two that tell at once neither writes over the other.
pub fn prepare<E: Environment>(environment: &E, keys: &Keys) {
    for (key, bytes) in [(WORD_KEY, 16), (RING_KEY, RING_BYTES)] {
        let key = keys.key(key);
        if environment.shared(&key).is_none() {
            let _ = environment.set_shared(&key, &vec![0; bytes], None);
        }
    }
}

/// Tells all workers what changed; `None` if any client may have. False if others were quicker each time: then it has to
/// be told again.
#[must_use]
pub fn tell<E: Environment>(environment: &E, keys: &Keys, changes: Option<&[ChangeHash]>) -> bool {
    if changes.is_some_and(<[ChangeHash]>::is_empty) {
        return true;
    }
    let key = keys.key(RING_KEY);
    for _ in 0..TRIES {
        let before = environment.shared(&key);
        let ring = before.as_ref().and_then(|shared| Ring::decode(&shared.value));
        let mut number = ring.as_ref().map_or(0, |ring| ring.number);
        let mut hashes = ring.map_or_else(|| vec![ChangeHash::default(); RING], |ring| ring.hashes.to_vec());
        match changes.filter(|changes| changes.len() <= RING) {
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
        if environment.set_shared(&key, &value, before.map(|shared| shared.cas)).is_ok() {
            return set_word(environment, keys, |word| word.number = number);
        }
    }
    false
}

/// Says that at this moment the store has no other changes. If others write all the while, the next look says it.
pub fn set_heard<E: Environment>(environment: &E, keys: &Keys) {
    set_word(environment, keys, |word| word.heard_at = environment.monotonic_nanos());
}

fn set_word<E: Environment>(environment: &E, keys: &Keys, change: impl Fn(&mut Word)) -> bool {
    let key = keys.key(WORD_KEY);
    (0..TRIES).any(|_| {
        let before = environment.shared(&key);
        let known = before.as_ref().and_then(|shared| decode_word(&shared.value)).unwrap_or_default();
        let mut word = known;
        change(&mut word);
        // Never back: of two that tell at once, the later number counts.
        word.number = word.number.max(known.number);
        let value = [word.number.to_le_bytes(), word.heard_at.to_le_bytes()].concat();
        environment.set_shared(&key, &value, before.map(|shared| shared.cas)).is_ok()
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fake::Fake;
    use std::sync::atomic::Ordering;

    fn prepared() -> (Fake, Keys) {
        let (fake, keys) = (Fake::default(), Keys::new("c", "a"));
        prepare(&fake, &keys);
        (fake, keys)
    }

    fn hashes(numbers: std::ops::Range<u32>) -> Vec<ChangeHash> {
        numbers.map(|number| hash(number, None)).collect()
    }

    fn set(numbers: std::ops::Range<u32>) -> Option<HashSet<ChangeHash>> {
        Some(hashes(numbers).into_iter().collect())
    }

    /// Others tell the tenants with these numbers, each just before somebody else writes to `key`.
    fn overtake(fake: &Fake, keys: &Keys, key: &'static str, numbers: std::ops::Range<u32>) {
        let others = keys.clone();
        fake.before_write(keys.key(key), move |fake| {
            assert!(tell(fake, &others, Some(&[hash(numbers.start, None)])));
            if numbers.len() > 1 {
                overtake(fake, &others, key, numbers.start + 1..numbers.end);
            }
        });
    }

    #[test]
    fn a_client_its_tenant_and_others_have_different_hashes() {
        let all = [hash(1, None), hash(1, Some("a")), hash(1, Some("b")), hash(2, None), hash(2, Some("a"))];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }

    #[test]
    fn whoever_looks_learns_what_was_told_since_and_no_more() {
        let (fake, keys) = prepared();
        for number in 0..5_000 {
            assert!(tell(&fake, &keys, Some(&hashes(number..number + 1))));
        }
        assert_eq!(last_word(&fake, &keys).number, 5_000);
        assert_eq!(between(&fake, &keys, 4_999, 5_000), set(4_999..5_000));
        assert_eq!(between(&fake, &keys, 4_990, 4_995), set(4_990..4_995));
        assert_eq!(between(&fake, &keys, 5_000, 5_000), set(0..0));
        assert_eq!(between(&fake, &keys, 5_000 - 1_024, 5_000), set(5_000 - 1_024..5_000));
        assert_eq!(fake.keys(), 2);
    }

    #[test]
    fn whoever_missed_more_than_is_remembered_takes_every_client_for_changed() {
        let (fake, keys) = prepared();
        assert!(tell(&fake, &keys, Some(&hashes(0..1_024))));
        assert_eq!(between(&fake, &keys, 0, 1_024), set(0..1_024));
        assert!(tell(&fake, &keys, Some(&hashes(0..1))));
        assert_eq!(between(&fake, &keys, 0, 1_025), None);
        // One that looked at the word and then took its time.
        assert_eq!(between(&fake, &keys, 0, 1), None);
    }

    #[test]
    fn more_than_is_remembered_and_any_client_are_told_alike() {
        for changes in [None, Some(hashes(0..1_025))] {
            let (fake, keys) = prepared();
            assert!(tell(&fake, &keys, Some(&hashes(7..8))));
            assert!(tell(&fake, &keys, changes.as_deref()));
            let told = last_word(&fake, &keys).number;
            assert!(told > 1 && between(&fake, &keys, 1, told).is_none());
            assert!(tell(&fake, &keys, Some(&hashes(8..9))));
            assert_eq!(between(&fake, &keys, told, told + 1), set(8..9));
        }
    }

    #[test]
    fn nothing_is_written_where_nothing_changed() {
        let (fake, keys) = prepared();
        let before = fake.shared(&keys.key(RING_KEY)).unwrap().cas;
        assert!(tell(&fake, &keys, Some(&[])));
        assert_eq!(fake.shared(&keys.key(RING_KEY)).unwrap().cas, before);
        assert_eq!(last_word(&fake, &keys), Word::default());
    }

    #[test]
    fn what_is_not_there_or_not_readable_is_any_client() {
        let (fake, keys) = (Fake::default(), Keys::new("c", "a"));
        assert_eq!((between(&fake, &keys, 0, 1), last_word(&fake, &keys)), (None, Word::default()));
        fake.set_shared(&keys.key(RING_KEY), b"short", None).unwrap();
        fake.set_shared(&keys.key(WORD_KEY), b"short", None).unwrap();
        assert_eq!((between(&fake, &keys, 0, 1), last_word(&fake, &keys)), (None, Word::default()));
        assert!(tell(&fake, &keys, None));
        assert!(last_word(&fake, &keys).number > 0);
    }

    #[test]
    fn keys_are_made_once() {
        let (fake, keys) = prepared();
        assert!(tell(&fake, &keys, Some(&hashes(0..1))));
        prepare(&fake, &keys);
        assert_eq!(between(&fake, &keys, 0, last_word(&fake, &keys).number), set(0..1));
    }

    #[test]
    fn of_two_that_tell_at_once_neither_is_lost() {
        for key in [RING_KEY, WORD_KEY] {
            let (fake, keys) = prepared();
            overtake(&fake, &keys, key, 0..1);
            assert!(tell(&fake, &keys, Some(&hashes(1..2))));
            assert_eq!(last_word(&fake, &keys).number, 2, "{key}");
            assert_eq!(between(&fake, &keys, 0, 2), set(0..2), "{key}");
        }
    }

    #[test]
    fn of_two_that_tell_any_client_at_once_the_second_is_heard_by_whoever_heard_the_first() {
        let (fake, keys) = prepared();
        let (others, (send, heard)) = (keys.clone(), std::sync::mpsc::channel());
        fake.before_write(keys.key(RING_KEY), move |fake| {
            assert!(tell(fake, &others, None));
            send.send(last_word(fake, &others).number).unwrap();
        });
        assert!(tell(&fake, &keys, None));
        let (first, second) = (heard.recv().unwrap(), last_word(&fake, &keys).number);
        assert!(first < second && between(&fake, &keys, first, second).is_none());
    }

    #[test]
    fn whoever_is_overtaken_each_time_says_so_and_writes_over_nobody() {
        let (fake, keys) = prepared();
        let tries = TRIES as u32;
        overtake(&fake, &keys, RING_KEY, 0..tries);
        assert!(!tell(&fake, &keys, Some(&hashes(99..100))));
        assert_eq!(between(&fake, &keys, 0, last_word(&fake, &keys).number), set(0..tries));
        fake.lose_every_cas(true);
        assert!(!tell(&fake, &keys, None));
    }

    #[test]
    fn threads_that_tell_at_once_lose_nothing() {
        let (fake, keys) = prepared();
        let (fake, keys) = (&fake, &keys);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for number in thread * 50..(thread + 1) * 50 {
                        while !tell(fake, keys, Some(&hashes(number..number + 1))) {}
                        set_heard(fake, keys);
                    }
                });
            }
        });
        let told = last_word(fake, keys).number;
        let ring = fake.shared(&keys.key(RING_KEY)).unwrap().value;
        assert_eq!(Ring::decode(&ring).unwrap().number, told);
        // Whoever could not say what it had told told it twice.
        assert!(told < 200 || between(fake, keys, told.saturating_sub(1_024), told).is_some());
        assert!(told > 1_024 || between(fake, keys, 0, told) == set(0..200));
    }

    #[test]
    fn hearing_from_the_store_changes_no_number_and_telling_no_time() {
        let (fake, keys) = prepared();
        fake.now.store(7, Ordering::Relaxed);
        set_heard(&fake, &keys);
        fake.now.store(8, Ordering::Relaxed);
        assert!(tell(&fake, &keys, Some(&hashes(0..1))));
        assert_eq!(last_word(&fake, &keys), Word { number: 1, heard_at: 7 });
        let others = keys.clone();
        fake.before_write(keys.key(WORD_KEY), move |fake| assert!(tell(fake, &others, Some(&hashes(1..2)))));
        set_heard(&fake, &keys);
        assert_eq!(last_word(&fake, &keys), Word { number: 2, heard_at: 8 });
    }
}
