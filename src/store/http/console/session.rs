//! Who it is that looks at a page: a Management API token in a cookie, checked anew with every request.
//!
//! The session is that token and nothing else, so any store on the same database knows it, and it ends when the token
//! does.

use axum::Extension;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::failure::Failure;
use crate::store::db::StoredTenant;
use crate::store::http::App;
use crate::store::http::management::Access;
use crate::store::token::Claims;

/// Name of the cookie that has the token.
const COOKIE: &str = "dcr_console";

/// Name of the cookie that has what the next page is to say.
const NOTICE_COOKIE: &str = "dcr_console_notice";

/// The name of the member of a form that shows that a page of this session sent it.
pub const CSRF: &str = "csrf";

/// Longest token that a cookie can have, in bytes: browsers keep 4096 with the name and what else a cookie says.
pub const MAX_TOKEN: usize = 3_900;

/// Marks requests that came over the store's own TLS.
#[derive(Clone, Copy, Debug)]
pub struct OverTls;

/// A person who is signed in.
pub struct Session {
    /// The token.
    pub token: String,
    claims: Claims,
    /// The tenant whose console it is.
    pub tenant: StoredTenant,
    /// What an earlier answer left to be said.
    pub notice: Option<Notice>,
}

/// What became of something that was done.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Notice {
    /// What was done.
    pub done: String,
    /// What follows from it.
    pub warnings: Vec<String>,
}

impl Session {
    /// Whether the token allows what needs this scope of the Management API.
    pub fn allows(&self, scope: &str) -> bool {
        self.claims.allows(scope)
    }

    /// Refuses who may not do what needs this scope.
    pub fn require(&self, scope: &str) -> Result<(), Failure> {
        if self.allows(scope) {
            return Ok(());
        }
        let message = format!("Your token does not allow this: it lacks the scope {scope}.");
        Err(Failure::new(StatusCode::FORBIDDEN, message))
    }

    /// What a form of this session has to send back, and nobody else's page can know.
    pub fn csrf(&self) -> String {
        let hash = Sha256::new().chain_update("dcr-edge console form\n").chain_update(&self.token).finalize();
        URL_SAFE_NO_PAD.encode(hash)
    }
}

impl FromRequestParts<App> for Session {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let token = cookie(&parts.headers, COOKIE).ok_or_else(Failure::signed_out)?;
        let (claims, tenant) = Access::of_token(app, token).await?;
        let notice = cookie(&parts.headers, NOTICE_COOKIE).and_then(Notice::decode);
        Ok(Self { token: token.to_owned(), claims, tenant, notice })
    }
}

impl Notice {
    /// Longest that a cookie can have, in bytes.
    const MAX: usize = 3_000;

    fn decode(text: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }

    /// The cookie that lets the next page say it.
    pub fn cookie(mut self) -> Option<HeaderValue> {
        loop {
            let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&self).ok()?);
            if text.len() <= Self::MAX {
                let cookie = format!("{NOTICE_COOKIE}={text}; Path=/console/; HttpOnly; SameSite=Strict; Max-Age=60");
                return HeaderValue::try_from(cookie).ok();
            }
            self.warnings.pop()?;
        }
    }

    /// The cookie that takes it away once it was said.
    pub const SAID: &str = "dcr_console_notice=; Path=/console/; HttpOnly; SameSite=Strict; Max-Age=0";
}

/// The cookie that signs out.
pub const SIGNED_OUT: &str = "dcr_console=; Path=/console/; HttpOnly; SameSite=Strict; Max-Age=0";

/// The cookie that signs in.
pub fn signed_in(token: &str, is_secure: bool) -> Option<HeaderValue> {
    let secure = if is_secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={token}; Path=/console/; HttpOnly; SameSite=Strict{secure}");
    let mut value = HeaderValue::try_from(cookie).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The value of a cookie (RFC 6265 §4.2).
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';')).find_map(|pair| {
        let (other, value) = pair.trim().split_once('=')?;
        (other == name && !value.is_empty()).then_some(value)
    })
}

/// How a request came.
pub struct Transport {
    /// Whether it was encrypted all the way, as far as this store knows.
    pub is_secure: bool,
    /// Whether it came from this machine, as the browser names it.
    pub is_local: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Transport {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let over_tls = Extension::<OverTls>::from_request_parts(parts, state).await.is_ok();
        let forwarded = parts.headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        let host = host(parts).unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
        let is_local = name == "localhost" || name == "[::1]" || name.starts_with("127.");
        Ok(Self { is_secure: over_tls || forwarded, is_local })
    }
}

/// The host and port that a request names.
pub fn host(parts: &Parts) -> Option<&str> {
    let header = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    header.or_else(|| parts.uri.authority().map(|authority| authority.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        for value in ["a=1; xdcr_console=2", "dcr_console_notice=3;dcr_console=4 ; dcr_console=5"] {
            headers.append(header::COOKIE, HeaderValue::from_static(value));
        }
        assert_eq!(cookie(&headers, COOKIE), Some("4"));
        assert_eq!(cookie(&headers, NOTICE_COOKIE), Some("3"));
        assert_eq!(cookie(&headers, "b"), None);
    }

    #[test]
    fn a_notice_that_no_cookie_can_hold_loses_its_last_warnings() {
        let notice = Notice { done: "Done.".to_owned(), warnings: vec!["short".to_owned(), "x".repeat(4_000)] };
        let cookie = notice.cookie().unwrap();
        let value = cookie.to_str().unwrap().split(['=', ';']).nth(1).unwrap();
        assert_eq!(Notice::decode(value).unwrap().warnings, ["short"]);
    }
}
