//! Which web pages may read an answer: the CORS protocol of the Fetch standard.
//!
//! A tenant without origins leaves that to the server behind. For one that has some they count, whatever the server says.

use super::environment::Environment;
use super::refusal;
use super::request::Head;
use crate::request_path::Endpoint;
use crate::tenant::CorsOrigin;

const ALLOW_ORIGIN: &str = "access-control-allow-origin";

/// What pages may read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Readable {
    /// Answers of the registration endpoint, all of which are the edge's.
    Registration,
    /// Answers of the token endpoint.
    Token,
    /// The server's metadata.
    Discovery,
}

impl Readable {
    /// What pages may read at an endpoint.
    pub fn at(endpoint: Endpoint) -> Option<Self> {
        match endpoint {
            Endpoint::Registration | Endpoint::BelowRegistration => Some(Self::Registration),
            Endpoint::Token => Some(Self::Token),
            Endpoint::Discovery => Some(Self::Discovery),
            _ => None,
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::Registration | Self::Token => "POST",
            Self::Discovery => "GET",
        }
    }

    /// The headers that clients in browsers send and that need a word of permission.
    fn request_headers(self) -> &'static str {
        match self {
            Self::Registration | Self::Discovery => "content-type, authorization, mcp-protocol-version",
            Self::Token => "content-type, authorization, dpop, mcp-protocol-version, auth0-client",
        }
    }

    /// The headers of the edge's own answers that pages may read besides those that they always may.
    fn exposed(self) -> &'static str {
        match self {
            Self::Registration => "retry-after, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset",
            Self::Token => "retry-after, www-authenticate",
            Self::Discovery => "retry-after",
        }
    }
}

/// What a tenant says of the page that sent a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cors {
    readable: Readable,
    /// The value of `access-control-allow-origin`, for a page that may read the answer.
    allowed: Option<String>,
}

impl Cors {
    /// What the tenant's origins say of a page of the origin `asked`. `None` if it has none.
    pub fn new(readable: Readable, origins: &[CorsOrigin], asked: Option<&str>) -> Option<Self> {
        let allowed = origins.iter().find_map(|allowed| match allowed {
            // Tokens are for those that the tenant knows.
            CorsOrigin::Any if readable == Readable::Token => None,
            // Pages of no origin, such as sandboxed ones, cannot be told apart.
            CorsOrigin::Any => Some("*").filter(|_| asked != Some("null")),
            CorsOrigin::One(origin) => Some(origin.as_str()).filter(|origin| Some(*origin) == asked),
        });
        (!origins.is_empty()).then(|| Self { readable, allowed: allowed.map(str::to_owned) })
    }

    /// The headers of an answer of the edge's own, without which a browser shows its page nothing of it.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![("vary", "origin".to_owned())];
        if let Some(origin) = &self.allowed {
            headers.push((ALLOW_ORIGIN, origin.clone()));
            headers.push(("access-control-expose-headers", self.readable.exposed().to_owned()));
        }
        headers
    }

    /// Puts the tenant's word in the place of the server's, in the head of its answer.
    pub fn replace<E: Environment>(&self, environment: &E) {
        let head = environment.response_head();
        for name in head.iter().filter_map(|(name, _)| std::str::from_utf8(name).ok()) {
            let counts = match self.allowed {
                // A page that may read the answer may read what the server exposes.
                Some(_) => matches!(name, ALLOW_ORIGIN | "access-control-allow-credentials"),
                None => name.starts_with("access-control-"),
            };
            if counts {
                environment.set_response_header(name, None);
            }
        }
        if let Some(origin) = &self.allowed {
            environment.set_response_header(ALLOW_ORIGIN, Some(origin));
        }
        let vary: Vec<_> = head.all("vary").map(String::from_utf8_lossy).collect();
        let names = || vary.iter().flat_map(|value| value.split(',')).map(str::trim);
        if !names().any(|name| name == "*" || name.eq_ignore_ascii_case("origin")) {
            let all: Vec<_> = names().filter(|name| !name.is_empty()).chain(["origin"]).collect();
            environment.set_response_header("vary", None);
            environment.set_response_header("vary", Some(&all.join(", ")));
        }
    }
}

/// Whether a request only asks whether another one may be sent. The registration endpoint, where no other OPTIONS means
/// anything, does not ask that.
pub fn is_preflight(head: &Head) -> bool {
    head.origin().is_some() && head.has("access-control-request-method")
}

/// What a preflight is told besides the headers of every answer.
pub fn preflight_headers(readable: Readable, cors: Option<&Cors>) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    if readable == Readable::Registration {
        headers.push(("allow", refusal::ALLOW.to_owned()));
    }
    if cors.is_some_and(|cors| cors.allowed.is_some()) {
        headers.push(("access-control-allow-methods", readable.method().to_owned()));
        headers.push(("access-control-allow-headers", readable.request_headers().to_owned()));
        headers.push(("access-control-max-age", "600".to_owned()));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fake::Fake;

    fn origins(list: &[&str]) -> Vec<CorsOrigin> {
        list.iter().map(|origin| CorsOrigin::try_from((*origin).to_owned()).unwrap()).collect()
    }

    fn allowed(readable: Readable, list: &[&str], asked: &str) -> Option<String> {
        Cors::new(readable, &origins(list), Some(asked)).unwrap().allowed
    }

    #[test]
    fn an_origin_is_compared_as_browsers_write_it_and_a_star_is_not_for_tokens() {
        use Readable::{Discovery, Registration, Token};
        let page = "https://a.test";
        for readable in [Registration, Token, Discovery] {
            assert_eq!(allowed(readable, &[page], page).as_deref(), Some(page));
            for other in ["https://A.test", "https://a.test:443", "https://a.test.evil.test", "null", ""] {
                assert_eq!(allowed(readable, &[page], other), None, "{other}");
            }
            assert_eq!(allowed(readable, &["*"], "null"), None);
        }
        assert_eq!(allowed(Discovery, &["*"], page).as_deref(), Some("*"));
        assert_eq!(allowed(Token, &["*"], page), None);
        assert_eq!(allowed(Token, &["*", page], page).as_deref(), Some(page));
        assert_eq!(Cors::new(Discovery, &[], Some(page)), None);
    }

    #[test]
    fn origin_joins_what_varies_already_and_is_not_said_twice() {
        let cors = Cors::new(Readable::Discovery, &origins(&["*"]), None).unwrap();
        for (before, after) in [
            (&[][..], "origin"),
            (&["accept", "cookie , X"], "accept, cookie, X, origin"),
            (&["Origin"], "Origin"),
            (&["*"], "*"),
        ] {
            let fake = Fake::default();
            let before = before.iter().map(|value| ("vary".to_owned(), value.as_bytes().to_vec()));
            *fake.response_headers.lock().unwrap() = before.collect();
            cors.replace(&fake);
            assert_eq!(fake.response_header("vary").as_deref(), Some(after.as_bytes()));
        }
    }
}
