//! The head of a request, read once.

use crate::media_type;

/// The head of a request, read once, in the header callback.
#[derive(Clone, Debug)]
pub struct Head {
    headers: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// From headers with names in lower case, pseudo-headers included.
    pub fn new(headers: Vec<(String, Vec<u8>)>) -> Self {
        Self { headers }
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    /// The method.
    pub fn method(&self) -> &[u8] {
        self.all(":method").next().unwrap_or_default()
    }

    /// Whether HTML is preferred to JSON.
    pub fn prefers_html(&self) -> bool {
        media_type::prefers_html(self.all("accept"))
    }

    /// Whether there is exactly one `content-type` and it is JSON; parameters do not matter.
    pub fn is_json(&self) -> bool {
        media_type::is_json(self.all("content-type"))
    }

    /// Whether the proxy takes the request for gRPC.
    pub fn is_grpc(&self) -> bool {
        let is_grpc =
            |value: &[u8]| value.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"));
        self.all("content-type").any(is_grpc)
    }

    /// Whether the body is as it is, without a `content-encoding`.
    pub fn is_identity(&self) -> bool {
        self.all("content-encoding").all(|value| value.is_empty() || value.eq_ignore_ascii_case(b"identity"))
    }

    /// The announced length of the body.
    pub fn content_length(&self) -> Option<u64> {
        std::str::from_utf8(self.all("content-length").next()?).ok()?.parse().ok()
    }

    /// The `origin`, as text.
    pub fn origin(&self) -> Option<&str> {
        self.all("origin").next().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The request's id, if it has a harmless one.
    pub fn request_id(&self) -> Option<&str> {
        let id = std::str::from_utf8(self.all("x-request-id").next()?).ok()?;
        let harmless = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        ((1..=128).contains(&id.len()) && id.bytes().all(harmless)).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&str, &[u8])]) -> Head {
        Head::new(headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect())
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
        assert_eq!(head(&[("x-request-id", b"3f-A_1.b")]).request_id(), Some("3f-A_1.b"));
        for bad in [&b""[..], b"a b", b"\"", b"\xff", &[b'a'; 129]] {
            assert_eq!(head(&[("x-request-id", bad)]).request_id(), None);
        }
    }
}
