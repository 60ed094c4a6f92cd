//! The authorization server's metadata on its way to the client: asked for in a form that can be completed, and
//! completed.

use std::fmt;

use super::environment::{Environment, Flow};
use super::request::Head;
use crate::tenant::Tenant;
use crate::third_party::discovery::{self, Fault, MAX_DOCUMENT};

/// What would let the server answer with less than the whole document. What it knows of changes is not all: the answer
/// depends on the tenant's settings too.
const CONDITIONS: [&str; 6] =
    ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "range"];

/// What the server says of a document that is not the one that the client gets.
const OF_THE_DOCUMENT: [&str; 7] =
    ["etag", "last-modified", "accept-ranges", "content-md5", "digest", "content-digest", "repr-digest"];

/// Why an answer is not passed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unusable {
    /// It is compressed, although the server was asked for it as it is.
    Encoded,
    /// It has more than [`MAX_DOCUMENT`] bytes.
    TooLong,
    /// It cannot be completed.
    Document(Fault),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoded => f.write_str("it has a content-encoding, which accept-encoding had excluded"),
            Self::TooLong => write!(f, "it is longer than {MAX_DOCUMENT} bytes"),
            Self::Document(fault) => fault.fmt(f),
        }
    }
}

/// How far the answer has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Progress {
    /// Nothing of it is there.
    Asked,
    /// So many bytes of a body that is completed are there.
    Body { size: usize },
    /// It goes on.
    Passing,
    /// It is not passed on.
    Withheld,
}

/// One request for the server's metadata.
#[derive(Debug)]
pub struct Completion {
    registration_endpoint: Option<String>,
    has_body: bool,
    progress: Progress,
}

impl Completion {
    /// Prepares a request for the metadata, whose head has not gone on yet. `None` if its method is one that does not
    /// get them.
    pub fn of_request<E: Environment>(environment: &E, head: &Head, tenant: &Tenant) -> Option<Self> {
        let has_body = match head.method() {
            b"GET" => true,
            b"HEAD" => false,
            _ => return None,
        };
        environment.set_request_header("accept-encoding", Some("identity"));
        for name in CONDITIONS {
            environment.set_request_header(name, None);
        }
        let is_open = tenant.settings.registers_clients();
        let registration_endpoint = is_open.then(|| registration_endpoint(environment, head)).flatten();
        Some(Self { registration_endpoint, has_body, progress: Progress::Asked })
    }

    /// Looks at the head of the answer. An error is one that no client should see.
    ///
    /// # Errors
    /// Why it is not passed on.
    pub fn on_headers<E: Environment>(&mut self, environment: &E, end_of_stream: bool) -> Result<Flow, Unusable> {
        let head = environment.response_head();
        if head.first(":status") != Some(b"200") || !head.is_json() {
            return self.go_on(Progress::Passing);
        }
        if !head.is_identity() {
            return self.withhold(Unusable::Encoded);
        }
        let most = u64::try_from(MAX_DOCUMENT).unwrap_or(u64::MAX);
        if self.has_body && head.content_length().is_some_and(|length| length > most) {
            return self.withhold(Unusable::TooLong);
        }
        for name in OF_THE_DOCUMENT {
            environment.set_response_header(name, None);
        }
        if !self.has_body {
            // How long the document would be is known once it is there.
            environment.set_response_header("content-length", None);
            return self.go_on(Progress::Passing);
        }
        self.progress = Progress::Body { size: 0 };
        if end_of_stream { self.finish(environment) } else { Ok(Flow::Pause) }
    }

    /// Looks at the body as far as it has come: `total` bytes.
    ///
    /// # Errors
    /// Why it is not passed on.
    pub fn on_body<E: Environment>(
        &mut self,
        environment: &E,
        total: usize,
        end_of_stream: bool,
    ) -> Result<Flow, Unusable> {
        match self.progress {
            Progress::Body { .. } if total > MAX_DOCUMENT => self.withhold(Unusable::TooLong),
            Progress::Body { .. } => {
                self.progress = Progress::Body { size: total };
                if end_of_stream { self.finish(environment) } else { Ok(Flow::Pause) }
            }
            progress => self.go_on(progress),
        }
    }

    /// Trailers end the body without a last piece that says so.
    ///
    /// # Errors
    /// Why it is not passed on.
    pub fn on_trailers<E: Environment>(&mut self, environment: &E) -> Result<Flow, Unusable> {
        self.finish(environment)
    }

    fn finish<E: Environment>(&mut self, environment: &E) -> Result<Flow, Unusable> {
        let Progress::Body { size } = self.progress else { return self.go_on(self.progress) };
        let document = if size == 0 { Vec::new() } else { environment.response_body(size) };
        match discovery::complete(&document, self.registration_endpoint.as_deref()) {
            Ok(completed) => {
                environment.set_response_header("content-length", Some(&completed.len().to_string()));
                environment.set_response_body(size, &completed);
                self.go_on(Progress::Passing)
            }
            Err(fault) => self.withhold(Unusable::Document(fault)),
        }
    }

    fn go_on(&mut self, progress: Progress) -> Result<Flow, Unusable> {
        self.progress = progress;
        Ok(if progress == Progress::Withheld { Flow::Pause } else { Flow::Continue })
    }

    fn withhold(&mut self, unusable: Unusable) -> Result<Flow, Unusable> {
        self.progress = Progress::Withheld;
        Err(unusable)
    }
}

/// Where the client finds the edge's own registration endpoint: on the host that it came to, as it wrote it.
fn registration_endpoint<E: Environment>(environment: &E, head: &Head) -> Option<String> {
    // Whoever leads to a tenant has nothing in it but the tenant's host and a port.
    let authority = std::str::from_utf8(head.first(":authority")?).ok()?;
    // The proxy sets this to what the connection has, unless it trusts the one that came before it. `:scheme` is the
    // client's own word.
    let scheme = head.first("x-forwarded-proto").and_then(scheme).or_else(|| {
        let own = environment.property("request\0scheme");
        own.as_deref().and_then(scheme)
    });
    Some(format!("{}://{authority}/oidc/register", scheme.unwrap_or("https")))
}

fn scheme(text: &[u8]) -> Option<&'static str> {
    ["https", "http"].into_iter().find(|scheme| scheme.as_bytes() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fake::Fake;
    use serde_json::json;

    fn asked(fake: &Fake, headers: &[(&str, &str)]) -> Option<Completion> {
        let all = [(":method", "GET"), (":authority", "a.test")];
        let all = headers.iter().chain(&all).map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        *fake.headers.lock().unwrap() = all.collect();
        let settings = json!({"flags": {"enable_dynamic_client_registration": true}});
        let tenant = json!({"name": "t", "domains": ["a.test"], "settings": settings});
        Completion::of_request(fake, &fake.request_head(), &serde_json::from_value(tenant).unwrap())
    }

    fn answer(fake: &Fake, body: &[u8]) {
        let headers = [(":status", "200"), ("content-type", "application/json"), ("content-length", "2")];
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        *fake.response_headers.lock().unwrap() = headers.collect();
        *fake.response_body.lock().unwrap() = body.to_vec();
    }

    #[test]
    fn trailers_end_a_document_that_no_piece_ended() {
        let fake = Fake::default();
        let mut completion = asked(&fake, &[]).unwrap();
        answer(&fake, b"{}");
        assert_eq!(completion.on_headers(&fake, false), Ok(Flow::Pause));
        assert_eq!(completion.on_body(&fake, 2, false), Ok(Flow::Pause));
        assert_eq!(completion.on_trailers(&fake), Ok(Flow::Continue));
        let body = fake.response_body.lock().unwrap().clone();
        assert!(body.starts_with(b"{\"code_challenge_methods_supported\""));
        assert_eq!(fake.response_header("content-length"), Some(body.len().to_string().into_bytes()));
    }

    #[test]
    fn what_is_withheld_stays_withheld() {
        let fake = Fake::default();
        let mut completion = asked(&fake, &[]).unwrap();
        answer(&fake, b"[]");
        assert_eq!(completion.on_headers(&fake, false), Ok(Flow::Pause));
        assert_eq!(completion.on_body(&fake, MAX_DOCUMENT + 1, false), Err(Unusable::TooLong));
        assert_eq!(completion.on_body(&fake, MAX_DOCUMENT + 2, true), Ok(Flow::Pause));
        assert_eq!(completion.on_trailers(&fake), Ok(Flow::Pause));
        assert_eq!(*fake.response_body.lock().unwrap(), b"[]");
    }

    #[test]
    fn the_scheme_is_the_connections_and_other_words_for_it_do_not_count() {
        for (forwarded, own, endpoint) in [
            (Some("http"), Some("https"), "http://a.test/oidc/register"),
            (Some("https, http"), Some("http"), "http://a.test/oidc/register"),
            (None, Some("https"), "https://a.test/oidc/register"),
            (Some("javascript"), None, "https://a.test/oidc/register"),
        ] {
            let fake = Fake::default();
            let own = own.map(|own| ("request.scheme".to_owned(), own.as_bytes().to_vec()));
            fake.properties.lock().unwrap().extend(own);
            let headers: Vec<_> = forwarded.map(|scheme| ("x-forwarded-proto", scheme)).into_iter().collect();
            assert_eq!(asked(&fake, &headers).unwrap().registration_endpoint.as_deref(), Some(endpoint));
        }
        assert!(asked(&Fake::default(), &[(":method", "POST")]).is_none());
    }
}
