//! The head of a request or a response, read once.

use super::environment::Environment;
use crate::edge_api::is_harmless_id;
use crate::media_type;
use crate::trace_context::{TRACEPARENT, TRACESTATE, TraceContext};

/// The head of a request or a response, read once, in the header callback.
#[derive(Clone, Debug)]
pub struct Head {
    headers: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// From headers with names in lower case, pseudo-headers included.
    pub fn new(headers: Vec<(String, Vec<u8>)>) -> Self {
        Self { headers }
    }

    /// The values of the header `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    /// Copies of the values of the header `name`.
    pub fn values(&self, name: &str) -> Vec<Vec<u8>> {
        self.all(name).map(<[u8]>::to_vec).collect()
    }

    /// Whether there is a header `name`.
    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// Path and query.
    pub fn path(&self) -> &[u8] {
        self.all(":path").next().unwrap_or_default()
    }

    /// The method.
    pub fn method(&self) -> &[u8] {
        self.all(":method").next().unwrap_or_default()
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
        std::str::from_utf8(self.all("content-length").next()?).ok()?.parse().ok()
    }

    /// The trace that it says to be a part of, if it does.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::received(self.all(TRACEPARENT).next()?, self.all(TRACESTATE).next())
    }

    /// The `origin`, as text; none of several.
    pub fn origin(&self) -> Option<&str> {
        let mut all = self.all("origin");
        let (Some(only), None) = (all.next(), all.next()) else { return None };
        std::str::from_utf8(only).ok()
    }
}

/// The trace that the request at hand says to be a part of, if it does. In the header callback.
pub fn trace<E: Environment>(environment: &E) -> Option<TraceContext> {
    let traceparent = environment.request_header(TRACEPARENT)?;
    TraceContext::received(&traceparent, environment.request_header(TRACESTATE).as_deref())
}

/// Whether the proxy takes a request with this `content-type` for gRPC.
pub fn is_grpc(content_type: &[u8]) -> bool {
    content_type.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
}

/// An `x-request-id` that harms no log.
pub fn harmless_id(id: Vec<u8>) -> Option<String> {
    is_harmless_id(&id).then(|| String::from_utf8(id).ok()).flatten()
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
        assert_eq!(harmless_id(b"3f-A_1.b".to_vec()).as_deref(), Some("3f-A_1.b"));
        for bad in [&b""[..], b"a b", b"\"", b"\xff", &[b'a'; 129]] {
            assert_eq!(harmless_id(bad.to_vec()), None);
        }
    }
}
