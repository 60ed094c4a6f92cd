//! The head of a request or a response, read once.

use crate::edge_api::is_harmless_id;
use crate::media_type;
use crate::trace_context::{TRACEPARENT, TRACESTATE, TraceContext};

/// The head of a request or a response, read once, in the header callback: names in lower case, pseudo-headers included.
///
/// It stays as the proxy wrote it, in one piece, and is looked through for each name: there are few, and most requests
/// are asked for very few of them.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The number of headers; of each, the lengths of its name and its value; then of each, these two themselves, a zero
    /// byte behind both. Numbers have four bytes, the least first (proxy-wasm ABI 0.2.1, serialised maps).
    map: Vec<u8>,
}

impl Head {
    /// From a serialised map. What is behind a fault in it is not seen.
    pub fn from_map(map: Vec<u8>) -> Self {
        Self { map }
    }

    /// All names with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (count, rest) = self.map.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        let count = usize::try_from(u32::from_le_bytes(*count)).unwrap_or(0);
        let (lengths, mut rest) = rest.split_at_checked(count.saturating_mul(8)).unwrap_or_default();
        let mut take = move |length: &[u8; 4]| {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (text, after) = rest.split_at_checked(length)?;
            rest = after.split_first()?.1;
            Some(text)
        };
        let (lengths, _) = lengths.as_chunks::<4>();
        let (pairs, _) = lengths.as_chunks::<2>();
        pairs.iter().map_while(move |[name, value]| Some((take(name)?, take(value)?)))
    }

    /// The values of the header `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(n, _)| *n == name.as_bytes()).map(|(_, value)| value)
    }

    /// The first value of the header `name`.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(n, _)| *n == name.as_bytes()).map(|(_, value)| value)
    }

    /// Copies of the values of the header `name`.
    pub fn values(&self, name: &str) -> Vec<Vec<u8>> {
        self.all(name).map(<[u8]>::to_vec).collect()
    }

    /// Whether there is a header `name`.
    pub fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// Path and query.
    pub fn path(&self) -> &[u8] {
        self.first(":path").unwrap_or_default()
    }

    /// The method.
    pub fn method(&self) -> &[u8] {
        self.first(":method").unwrap_or_default()
    }

    /// Whether there is exactly one `content-type` and it is JSON; parameters do not matter.
    pub fn is_json(&self) -> bool {
        media_type::is_json(self.all("content-type"))
    }

    /// Whether the body is as it is, without a `content-encoding`.
    pub fn is_identity(&self) -> bool {
        self.all("content-encoding").all(|value| value.is_empty() || value.eq_ignore_ascii_case(b"identity"))
    }

    /// The announced length of the body.
    pub fn content_length(&self) -> Option<u64> {
        std::str::from_utf8(self.first("content-length")?).ok()?.parse().ok()
    }

    /// The trace that it says to be a part of, if it does.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::received(self.first(TRACEPARENT)?, self.first(TRACESTATE))
    }

    /// The `origin`, as text; none of several.
    pub fn origin(&self) -> Option<&str> {
        let mut all = self.all("origin");
        let (Some(only), None) = (all.next(), all.next()) else { return None };
        std::str::from_utf8(only).ok()
    }
}

/// Whether the proxy takes a request with this `content-type` for gRPC.
pub fn is_grpc(content_type: &[u8]) -> bool {
    content_type.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
}

/// An `x-request-id` that harms no log.
pub fn harmless_id(id: &[u8]) -> Option<&str> {
    is_harmless_id(id).then(|| std::str::from_utf8(id).ok()).flatten()
}

#[cfg(test)]
impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Head {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let headers: Vec<_> = headers.into_iter().collect();
        let number = |length: usize| u32::try_from(length).unwrap().to_le_bytes();
        let mut map = number(headers.len()).to_vec();
        for (name, value) in &headers {
            map.extend([number(name.as_ref().len()), number(value.as_ref().len())].concat());
        }
        for (name, value) in &headers {
            map.extend([name.as_ref(), b"\0", value.as_ref(), b"\0"].concat());
        }
        Self::from_map(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&str, &[u8])]) -> Head {
        headers.iter().copied().collect()
    }

    #[test]
    fn a_head_is_read_from_the_proxys_map() {
        let head = head(&[("a", b"1"), ("b", b""), ("a", b"\xff\0")]);
        let all: Vec<_> = head.iter().collect();
        assert_eq!(all, [(&b"a"[..], &b"1"[..]), (b"b", b""), (b"a", b"\xff\0")]);
        assert_eq!(
            (head.values("a"), head.first("b"), head.first("c")),
            (vec![b"1".to_vec(), b"\xff\0".to_vec()], Some(&b""[..]), None)
        );
    }

    #[test]
    fn a_broken_map_has_the_headers_before_the_fault_and_no_others() {
        let whole = head(&[("a", b"1"), ("bc", b"23")]).map;
        for length in 0..whole.len() {
            let head = Head::from_map(whole[..length].to_vec());
            // Two numbers of 4 bytes each, 4 for their count, and what is before the second header.
            assert_eq!(head.iter().count(), usize::from(length >= 24), "{length}");
        }
        let mut too_many = whole.clone();
        too_many[0] = 200;
        assert_eq!(Head::from_map(too_many).iter().count(), 0);
        let mut too_long = whole;
        too_long[4..8].copy_from_slice(&[0xff; 4]);
        assert_eq!(Head::from_map(too_long).iter().count(), 0);
    }

    #[test]
    fn any_encoding_but_identity_is_seen() {
        assert!(head(&[]).is_identity());
        assert!(head(&[("content-encoding", b"Identity")]).is_identity());
        assert!(!head(&[("content-encoding", b"gzip")]).is_identity());
        assert!(!head(&[("content-encoding", b"identity"), ("content-encoding", b"br")]).is_identity());
    }

    #[test]
    fn a_request_id_that_could_harm_a_log_is_none() {
        assert_eq!(harmless_id(b"3f-A_1.b"), Some("3f-A_1.b"));
        for bad in [&b""[..], b"a b", b"\"", b"\xff", &[b'a'; 129]] {
            assert_eq!(harmless_id(bad), None);
        }
    }
}
