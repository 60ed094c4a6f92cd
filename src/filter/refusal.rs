//! Refusals, and the one place that turns them into HTTP answers.

use serde::Serialize;

use super::callout::{Failure, StoreRefusal};
use super::discovery::Unusable;
use super::environment::Reply;
use super::forward::ServerFailure;
use super::reason::Reason;
use crate::registration::{ErrorCode, Rejection};
use crate::third_party::{Denial, OAuthError};

/// Why a request goes no further.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// No settings have been loaded yet.
    SettingsNotLoaded,
    /// The tenant's settings cannot be read.
    SettingsUnreadable,
    /// The host belongs to no tenant.
    UnknownHost,
    /// The path equals a protected one only after normalisation.
    DisguisedPath,
    /// The authorization server's own registration endpoint, which is nobody's outside.
    ServerRegistration,
    /// The TLS hello and the request name hosts of different tenants.
    Misdirected,
    /// An access rule blocks it.
    Blocked {
        /// Whether the client prefers HTML.
        html: bool,
    },
    /// An access rule sends it elsewhere.
    Redirected {
        /// Where to.
        uri: String,
    },
    /// Another method than POST, or a path below the endpoint.
    Method,
    /// No token is left; the next one arrives in so many nanoseconds.
    RateLimited {
        /// Nanoseconds until the next token.
        next_token_in: u64,
        /// Which bucket has none.
        by: Limiter,
    },
    /// The tenant's bucket is missing or unreadable.
    LimiterUnavailable,
    /// The tenant has registration switched off.
    RegistrationDisabled,
    /// A `content-encoding` other than identity.
    ContentEncoding,
    /// A missing, repeated or other `content-type`.
    ContentType,
    /// A body of more than so many bytes.
    BodyTooLarge {
        /// The limit in bytes.
        most: usize,
    },
    /// The plugin cannot see bodies.
    BodiesHidden,
    /// The metadata breaks a rule.
    Metadata(Rejection),
    /// The system's random source failed.
    RandomnessUnavailable,
    /// The store refused what the edge accepted.
    Store(StoreRefusal),
    /// The server's metadata are none that can be completed.
    ServerMetadata(Unusable),
    /// The store could not be asked or did not answer as it should.
    Callout(Failure),
    /// It could not be asked for the client of a request, or did not answer as it should.
    LookUp(Failure),
    /// The authorization server could not register the client.
    Server(ServerFailure),
    /// It refused the client.
    RefusedByServer {
        /// Its code, one of RFC 7591 §3.2.2.
        error: &'static str,
        /// A sentence.
        description: String,
    },
    /// Too many clients that are not known were looked up.
    LookUpsLimited,
    /// A registered client may not do this.
    Client(Denial, ClientAnswer),
    /// The server sent the user back to the client with an error of which the client is to learn nothing.
    ErrorRedirect {
        /// The server's code.
        error: String,
        /// Whether HTML is preferred.
        is_html: bool,
    },
}

/// How a client, or its user, is told what it may not do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClientAnswer {
    /// At the authorization endpoint: the user's browser shows it, and the client's callback learns nothing.
    Page {
        /// Whether HTML is preferred.
        is_html: bool,
    },
    /// At the authorization endpoint, to the client's callback.
    Redirect {
        /// Where to, with the error.
        location: String,
    },
    /// At the token endpoint (RFC 6749 §5.2).
    Token {
        /// Whether an `authorization` header came, which is answered with a challenge.
        is_challenged: bool,
    },
    /// At an endpoint that is closed to third-party clients.
    Closed,
}

/// What limits registrations.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limiter {
    /// The tenant's bucket at this edge.
    Tenant,
    /// That of the source.
    Source,
    /// That of all edges together.
    Fleet,
    /// None of them: other workers took the tokens at each try.
    Contention,
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    error_description: &'a str,
    decision_id: &'a str,
}

impl Refusal {
    /// Why, in one word.
    pub fn reason(&self) -> Reason {
        match self {
            Self::SettingsNotLoaded => Reason::SettingsNotLoaded,
            Self::SettingsUnreadable => Reason::SettingsUnreadable,
            Self::UnknownHost => Reason::UnknownHost,
            Self::DisguisedPath => Reason::DisguisedPath,
            Self::ServerRegistration => Reason::ServerRegistration,
            Self::Misdirected => Reason::Misdirected,
            Self::Blocked { .. } => Reason::AclBlocked,
            Self::Redirected { .. } => Reason::AclRedirected,
            Self::Method => Reason::Method,
            Self::RateLimited { by, .. } => match by {
                Limiter::Tenant => Reason::RateLimited,
                Limiter::Source => Reason::SourceLimited,
                Limiter::Fleet => Reason::FleetLimited,
                Limiter::Contention => Reason::LimiterContended,
            },
            Self::LimiterUnavailable => Reason::LimiterUnavailable,
            Self::RegistrationDisabled => Reason::RegistrationDisabled,
            Self::ContentEncoding => Reason::ContentEncoding,
            Self::ContentType => Reason::ContentType,
            Self::BodyTooLarge { .. } => Reason::BodyTooLarge,
            Self::BodiesHidden => Reason::BodiesHidden,
            Self::Metadata(rejection) => match rejection.error {
                ErrorCode::InvalidClientMetadata => Reason::InvalidClientMetadata,
                ErrorCode::InvalidRedirectUri => Reason::InvalidRedirectUri,
                ErrorCode::InvalidSoftwareStatement => Reason::InvalidSoftwareStatement,
            },
            Self::RandomnessUnavailable => Reason::RandomnessUnavailable,
            Self::Store(refusal) => refusal.reason,
            Self::Callout(failure) | Self::LookUp(failure) => failure.reason(),
            Self::Server(failure) => failure.reason(),
            Self::RefusedByServer { .. } => Reason::ServerRefused,
            Self::LookUpsLimited => Reason::LookUpsLimited,
            Self::ErrorRedirect { .. } => Reason::ErrorRedirectReplaced,
            Self::Client(denial, _) => match denial.error {
                OAuthError::AccessDenied => Reason::ClientAccessDenied,
                OAuthError::InvalidClient => Reason::InvalidClient,
                OAuthError::InvalidRequest => Reason::InvalidRequest,
                OAuthError::InvalidScope => Reason::InvalidScope,
                OAuthError::InvalidTarget => Reason::InvalidTarget,
                OAuthError::UnauthorizedClient => Reason::UnauthorizedClient,
                OAuthError::UnsupportedGrantType => Reason::UnsupportedGrantType,
                OAuthError::UnsupportedResponseType => Reason::UnsupportedResponseType,
            },
            Self::ServerMetadata(_) => Reason::ServerMetadata,
        }
    }

    /// The answer, with the headers `shared` that every answer to this request carries.
    pub fn reply(&self, decision_id: &str, shared: &[(&'static str, String)]) -> Reply {
        const UNAVAILABLE: (u16, &str) = (503, "temporarily_unavailable");
        let too_large;
        let ((status, error), error_description) = match self {
            Self::SettingsNotLoaded => {
                (UNAVAILABLE, "the gateway has not loaded its settings yet, try again in a moment")
            }
            Self::SettingsUnreadable | Self::LimiterUnavailable | Self::BodiesHidden | Self::RandomnessUnavailable => {
                (UNAVAILABLE, "the gateway cannot decide on this request now, try again later")
            }
            Self::RefusedByServer { error, description } => ((400, *error), description.as_str()),
            Self::Callout(_) | Self::Server(_) => {
                (UNAVAILABLE, "the client could not be registered now, try again later")
            }
            Self::UnknownHost => ((404, "not_found"), "no tenant answers for this host"),
            Self::DisguisedPath => (
                (404, "not_found"),
                "the path is not in its plain form, write it in lower case without escapes or parameters",
            ),
            Self::ServerRegistration => ((404, "not_found"), "clients register at /oidc/register"),
            Self::Method => ((405, "invalid_request"), "only POST /oidc/register registers a client"),
            Self::Misdirected => (
                (421, "misdirected_request"),
                "the TLS connection was made for a host of another tenant, open a connection for this one",
            ),
            Self::Blocked { .. } => ((403, "access_denied"), BLOCKED),
            Self::Redirected { .. } => ((302, ""), ""),
            Self::RateLimited { by: Limiter::Source, .. } => (
                (429, "too_many_requests"),
                "too many registration requests from this address, try again after the time in retry-after",
            ),
            Self::RateLimited { .. } => (
                (429, "too_many_requests"),
                "too many registration requests for this tenant, try again after the time in retry-after",
            ),
            Self::RegistrationDisabled => {
                ((403, "access_denied"), "dynamic client registration is switched off for this tenant")
            }
            Self::ContentEncoding => {
                ((415, "invalid_request"), "content-encoding is not supported, send the body as it is")
            }
            Self::ContentType => ((415, "invalid_request"), "send exactly one content-type: application/json"),
            Self::BodyTooLarge { most } => {
                too_large = format!("the body is longer than {most} bytes");
                ((413, "invalid_request"), too_large.as_str())
            }
            Self::Metadata(rejection) => ((400, rejection.error.as_str()), rejection.description.as_str()),
            Self::LookUp(_) | Self::LookUpsLimited => {
                (UNAVAILABLE, "the client could not be looked up now, try again later")
            }
            Self::ErrorRedirect { error, .. } => ((400, error.as_str()), SERVER_REFUSED),
            Self::Client(denial, answer) => {
                let status = match (answer, denial.error) {
                    (ClientAnswer::Redirect { .. }, _) => 302,
                    (ClientAnswer::Closed, _) => 403,
                    (ClientAnswer::Token { .. }, OAuthError::InvalidClient) => 401,
                    (ClientAnswer::Token { .. } | ClientAnswer::Page { .. }, _) => 400,
                };
                ((status, denial.error.as_str()), denial.description.as_str())
            }
            Self::ServerMetadata(_) => {
                ((502, "bad_gateway"), "the authorization server's metadata are not what RFC 8414 has them to be")
            }
            Self::Store(refusal) => ((refusal.status, refusal.error.as_str()), refusal.error_description.as_str()),
        };
        let mut headers = match self {
            Self::Blocked { html: true }
            | Self::ErrorRedirect { is_html: true, .. }
            | Self::Client(_, ClientAnswer::Page { is_html: true }) => html_headers(),
            Self::Redirected { .. } | Self::Client(_, ClientAnswer::Redirect { .. }) => vec![no_store()],
            _ => no_store_headers(),
        };
        headers.extend_from_slice(shared);
        match self {
            Self::Blocked { .. } | Self::ErrorRedirect { .. } | Self::Client(_, ClientAnswer::Page { .. }) => {
                headers.push(("vary", "accept".to_owned()));
            }
            Self::Redirected { uri: location } | Self::Client(_, ClientAnswer::Redirect { location }) => {
                headers.push(("location", location.clone()));
            }
            Self::Client(_, ClientAnswer::Token { is_challenged: true }) if status == 401 => {
                headers.push(("www-authenticate", "Basic realm=\"token endpoint\"".to_owned()));
            }
            Self::Method => headers.push(("allow", ALLOW.to_owned())),
            Self::RateLimited { next_token_in, .. } => {
                headers.push(("retry-after", next_token_in.div_ceil(1_000_000_000).max(1).to_string()));
            }
            _ if status == 503 => headers.push(("retry-after", "2".to_owned())),
            _ => {}
        }
        let body = match self {
            Self::Blocked { html: true } => {
                let text = format!("Your request was refused: {BLOCKED}.");
                page("Access denied", &text, decision_id).into_bytes()
            }
            Self::ErrorRedirect { is_html: true, .. } | Self::Client(_, ClientAnswer::Page { is_html: true }) => {
                let text = format!(
                    "The application that sent you here cannot log you in. Error <code>{}</code>: {}.",
                    escaped(error),
                    escaped(error_description)
                );
                page("Login is not possible", &text, decision_id).into_bytes()
            }
            Self::Redirected { .. } | Self::Client(_, ClientAnswer::Redirect { .. }) => Vec::new(),
            // Text in, text out: this serialisation has no way to fail; an empty body would still be a refusal.
            _ => serde_json::to_vec(&Body { error, error_description, decision_id }).unwrap_or_default(),
        };
        Reply { status, headers, body, reason: self.reason(), client_id: None }
    }
}

/// The methods of the registration endpoint.
pub const ALLOW: &str = "POST, OPTIONS";

/// The headers of every answer with a body of JSON, which nobody may keep.
pub fn no_store_headers() -> Vec<(&'static str, String)> {
    vec![("content-type", "application/json".to_owned()), no_store()]
}

fn no_store() -> (&'static str, String) {
    ("cache-control", "no-store".to_owned())
}

/// What somebody reads whom an access rule blocks: not which rule it is.
const BLOCKED: &str = "access is denied by the access rules of this tenant";

/// What somebody reads instead of going back to the client.
const SERVER_REFUSED: &str = "the authorization server refused the request";

/// The headers of [`page`], which needs nothing from anywhere.
fn html_headers() -> Vec<(&'static str, String)> {
    vec![
        ("content-type", "text/html; charset=utf-8".to_owned()),
        no_store(),
        ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
    ]
}

/// The answer to a browser: a heading, a sentence in HTML, and the decision's id, which has no character that means
/// something in HTML.
fn page(heading: &str, text: &str, decision_id: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{heading}</title>\n\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:20vh auto;padding:0 1rem;\
         color:#222;background:#fff}}code{{font-size:.9em}}</style>\n\
         <h1>{heading}</h1>\n<p>{text}</p>\n\
         <p>If you think that this is a mistake, give this number to whoever runs this site: \
         <code>{decision_id}</code></p>\n</html>\n"
    )
}

/// A text as it stands in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
