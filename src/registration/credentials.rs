//! Client ids and secrets. Random bytes come in as an argument, so that this stays pure and testable.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::edge_api;
use crate::tenant::SecurityMode;

/// What the id of a client of the strict mode begins with: a third-party client.
const ID_PREFIX: &str = "tpc_";

/// Random characters of a client id, each of 62: 190 bits.
const ID_LENGTH: usize = 32;

/// Characters of a client secret, each of 64: 384 bits.
const SECRET_LENGTH: usize = 64;

const SECRET_ALPHABET: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-";
const ID_ALPHABET: &[u8] = SECRET_ALPHABET.split_at(62).0;

/// Draws of 64 bytes before a random source is given up. An honest one needs a second draw about never.
const MAX_DRAWS: usize = 8;

/// Why there are no credentials.
#[derive(Debug, Eq, PartialEq)]
pub enum RandomError<E> {
    /// The random source failed.
    Source(E),
    /// The random source works, but what it gives is not random.
    NotRandom,
}

impl<E: fmt::Display> fmt::Display for RandomError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => write!(f, "the random source failed: {error}"),
            Self::NotRandom => f.write_str("the random source gives bytes that are not random"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for RandomError<E> {}

/// A client secret. It stands in one response only: it is shown once, and `Debug` never shows it.
#[derive(Clone, Eq, PartialEq)]
pub struct ClientSecret(String);

impl ClientSecret {
    /// The secret itself, for the one response that shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A secret that an authorization server made: 1 to 1,024 printable ASCII characters (RFC 6749 appendix A.2).
    pub fn of_server(text: &str) -> Option<Self> {
        let is_fit = (1..=1_024).contains(&text.len()) && text.bytes().all(|b| (0x20..=0x7e).contains(&b));
        is_fit.then(|| Self(text.to_owned()))
    }

    /// Lower-case hexadecimal SHA-256, as it travels to the store and is kept there.
    ///
    /// A plain hash is enough: a secret of 384 random bits cannot be guessed from it.
    pub fn sha256_hex(&self) -> String {
        secret_sha256_hex(&self.0)
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(…)")
    }
}

/// Lower-case hexadecimal SHA-256 of a secret that a client sends.
pub fn secret_sha256_hex(secret: &str) -> String {
    let digest = Sha256::digest(secret);
    digest
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// A new client id: 32 characters of `[0-9A-Za-z]`, after `tpc_` in the strict mode. `random` fills a buffer with random
/// bytes.
pub fn client_id<E, R: FnMut(&mut [u8]) -> Result<(), E>>(
    mode: SecurityMode,
    random: &mut R,
) -> Result<String, RandomError<E>> {
    let prefix = match mode {
        SecurityMode::Strict => ID_PREFIX,
        SecurityMode::Permissive => "",
    };
    prefixed_id(prefix, ID_LENGTH, random)
}

/// A new id: `prefix` and `length` characters of `[0-9A-Za-z]`. `random` fills a buffer with random bytes.
pub fn prefixed_id<E, R: FnMut(&mut [u8]) -> Result<(), E>>(
    prefix: &str,
    length: usize,
    random: &mut R,
) -> Result<String, RandomError<E>> {
    let mut id = String::with_capacity(prefix.len().saturating_add(length));
    id.push_str(prefix);
    draw(random, ID_ALPHABET, length, &mut id)?;
    Ok(id)
}

/// A new client secret: 64 characters of `[0-9A-Za-z_-]`. `random` fills a buffer with random bytes.
pub fn client_secret<E, R: FnMut(&mut [u8]) -> Result<(), E>>(random: &mut R) -> Result<ClientSecret, RandomError<E>> {
    let mut secret = String::with_capacity(SECRET_LENGTH);
    draw(random, SECRET_ALPHABET, SECRET_LENGTH, &mut secret)?;
    Ok(ClientSecret(secret))
}

/// The mode in which [`client_id`] makes ids of exactly the form of `text`; `None` if it makes none.
pub fn client_id_mode(text: &str) -> Option<SecurityMode> {
    let (mode, random) = match text.strip_prefix(ID_PREFIX) {
        Some(rest) => (SecurityMode::Strict, rest),
        None => (SecurityMode::Permissive, text),
    };
    (random.len() == ID_LENGTH && random.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(mode)
}

/// Whether an id has the form of a client's of the strict mode, for a server that minds no case.
pub fn is_third_party_form(id: &str) -> bool {
    id.get(..ID_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(ID_PREFIX))
}

/// Whether a text can be the id of a client that an authorization server made, and that was not made by us for a third
/// party's client ([`crate::tenant::Registrar::Forward`]).
pub fn is_servers_client_id(text: &str) -> bool {
    edge_api::is_client_id(text) && !is_third_party_form(text)
}

/// Appends `length` characters, each of the alphabet's with the same probability: of every byte count six bits, and
/// a value beyond the alphabet is dropped, where a remainder would prefer the first characters.
fn draw<E>(
    random: &mut dyn FnMut(&mut [u8]) -> Result<(), E>,
    alphabet: &[u8],
    length: usize,
    out: &mut String,
) -> Result<(), RandomError<E>> {
    let mut missing = length;
    for _ in 0..MAX_DRAWS {
        let mut bytes = [0; 64];
        random(&mut bytes).map_err(RandomError::Source)?;
        for character in bytes.iter().filter_map(|byte| alphabet.get(usize::from(byte & 63))).take(missing) {
            out.push(char::from(*character));
            missing = missing.saturating_sub(1);
        }
        if missing == 0 {
            return Ok(());
        }
    }
    Err(RandomError::NotRandom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const DRAWS: usize = 100_000;

    /// SplitMix64: good enough to show bias, and the same in every run.
    fn pseudo_random() -> impl FnMut(&mut [u8]) -> Result<(), &'static str> {
        let mut state = 42_u64;
        move |buffer| {
            for chunk in buffer.chunks_mut(8) {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut word = state;
                word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                chunk.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes()[..chunk.len()]);
            }
            Ok(())
        }
    }

    /// Pearson's statistic of the characters' counts against the even distribution over `alphabet`.
    fn chi_square<'a>(alphabet: &[u8], texts: impl Iterator<Item = &'a str>) -> f64 {
        let mut counts = [0_u32; 256];
        for byte in texts.flat_map(str::bytes) {
            let count = &mut counts[usize::from(byte)];
            *count = count.saturating_add(1);
        }
        let total: u32 = counts.iter().sum();
        let expected = f64::from(total) / alphabet.len() as f64;
        let counted: u32 = alphabet.iter().map(|byte| counts[usize::from(*byte)]).sum();
        assert_eq!(counted, total, "a character outside the alphabet");
        alphabet.iter().map(|byte| (f64::from(counts[usize::from(*byte)]) - expected).powi(2) / expected).sum()
    }

    #[test]
    fn ids_have_the_promised_form_are_unique_and_without_bias() {
        let mut random = pseudo_random();
        let ids: HashSet<String> = (0..DRAWS).map(|_| client_id(SecurityMode::Strict, &mut random).unwrap()).collect();
        assert_eq!(ids.len(), DRAWS);
        assert!(ids.iter().all(|id| id.len() == 36 && client_id_mode(id) == Some(SecurityMode::Strict)));
        let permissive = client_id(SecurityMode::Permissive, &mut random).unwrap();
        assert_eq!((permissive.len(), client_id_mode(&permissive)), (32, Some(SecurityMode::Permissive)));
        assert_eq!(ID_ALPHABET.len(), 62);
        assert!(ID_ALPHABET.iter().all(u8::is_ascii_alphanumeric));
        // 61 degrees of freedom: an even source stays below this with a probability of 99.99 %.
        assert!(chi_square(ID_ALPHABET, ids.iter().map(|id| &id[4..])) < 112.0);
    }

    #[test]
    fn secrets_have_the_promised_form_are_unique_and_without_bias() {
        let mut random = pseudo_random();
        let secrets: HashSet<String> = (0..DRAWS).map(|_| client_secret(&mut random).unwrap().0).collect();
        assert_eq!(secrets.len(), DRAWS);
        assert!(secrets.iter().all(|secret| secret.len() == 64));
        let alphabet: HashSet<u8> = SECRET_ALPHABET.iter().copied().collect();
        assert_eq!(alphabet.len(), 64);
        assert!(alphabet.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')));
        // 63 degrees of freedom, 99.99 %.
        assert!(chi_square(SECRET_ALPHABET, secrets.iter().map(String::as_str)) < 115.0);
    }

    #[test]
    fn a_remainder_instead_of_rejection_would_fail_the_test_for_bias() {
        let mut random = pseudo_random();
        let mut bytes = vec![0; DRAWS];
        random(&mut bytes).unwrap();
        let text: String = bytes.iter().map(|byte| char::from(ID_ALPHABET[usize::from(*byte) % 62])).collect();
        assert!(chi_square(ID_ALPHABET, std::iter::once(text.as_str())) > 112.0);
    }

    #[test]
    fn a_random_source_that_fails_or_is_stuck_is_an_error() {
        let strict = SecurityMode::Strict;
        assert_eq!(client_id(strict, &mut |_: &mut [u8]| Err("no entropy")), Err(RandomError::Source("no entropy")));
        let mut stuck = |buffer: &mut [u8]| -> Result<(), &'static str> {
            buffer.fill(0xff);
            Ok(())
        };
        assert_eq!(client_id(strict, &mut stuck), Err(RandomError::NotRandom));
        assert_eq!(RandomError::Source("no entropy").to_string(), "the random source failed: no entropy");
    }

    #[test]
    fn a_secret_shows_itself_as_a_hash_only() {
        assert_eq!(format!("{:?}", ClientSecret("abc".to_owned())), "ClientSecret(…)");
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            ClientSecret("abc".to_owned()).sha256_hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn an_id_has_the_form_of_a_third_partys_in_any_case() {
        assert!(is_third_party_form("tpc_") && is_third_party_form("TPC_x"));
        assert!(!is_third_party_form("tpc") && !is_third_party_form("x_tpc_") && !is_third_party_form("\u{e4}\u{e4}"));
    }

    #[test]
    fn a_client_id_has_exactly_one_form_in_each_mode() {
        let id = format!("tpc_{}", "aZ9".repeat(10) + "bb");
        assert_eq!(client_id_mode(&id), Some(SecurityMode::Strict));
        assert_eq!(client_id_mode(&id[4..]), Some(SecurityMode::Permissive));
        for bad in ["", "tpc_", &id[..35], &format!("{id}a"), &id.replace("tpc_", "TPC_"), &id.replace('9', "-")] {
            assert_eq!(client_id_mode(bad), None, "{bad}");
        }
        for bad in [&id[4..35], &format!("{}a", &id[4..]), &format!("tpc_{}", &id[8..]), &id.replace("tpc_", "tpc")] {
            assert_eq!(client_id_mode(bad), None, "{bad}");
        }
        for prefix in ["tpc_", ""] {
            assert_eq!(client_id_mode(&format!("{prefix}{}", "é".repeat(16))), None);
        }
    }
}
