//! Which web pages may read an answer (the Fetch standard, §3.3: the CORS protocol).

use crate::tenant::CorsOrigin;

use super::refusal;

/// What a tenant says of the page that sent a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cors {
    /// The value of `access-control-allow-origin`, for a page that may read the answer.
    allowed: Option<String>,
}

impl Cors {
    /// What the tenant's origins say of a page of the origin `asked`. `None` if it has none.
    pub fn new(origins: &[CorsOrigin], asked: Option<&str>) -> Option<Self> {
        let allowed = origins.iter().find_map(|allowed| match allowed {
            CorsOrigin::Any => Some("*"),
            CorsOrigin::One(origin) => Some(origin.as_str()).filter(|origin| Some(*origin) == asked),
        });
        (!origins.is_empty()).then(|| Self { allowed: allowed.map(str::to_owned) })
    }

    /// The headers without which a browser shows its page nothing of any answer.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![("vary", "origin".to_owned())];
        if let Some(origin) = &self.allowed {
            let exposed = "retry-after, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset";
            headers.push(("access-control-allow-origin", origin.clone()));
            headers.push(("access-control-expose-headers", exposed.to_owned()));
        }
        headers
    }
}

/// What a preflight is told besides.
pub fn preflight_headers(cors: Option<&Cors>) -> Vec<(&'static str, String)> {
    let mut headers = vec![("allow", refusal::ALLOW.to_owned())];
    if cors.is_some_and(|cors| cors.allowed.is_some()) {
        headers.push(("access-control-allow-methods", "POST".to_owned()));
        headers.push(("access-control-allow-headers", "content-type, authorization, mcp-protocol-version".to_owned()));
        headers.push(("access-control-max-age", "600".to_owned()));
    }
    headers
}
