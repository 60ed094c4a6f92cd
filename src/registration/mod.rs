//! Client metadata in, checked registration or RFC 7591 error out.
//!
//! One parser decides, at the edge and again in the store. It is pure: randomness comes in as an argument, the
//! time of issue from the store.
//!
//! | file | what is in it |
//! |---|---|
//! | `json` | the request body as JSON, more strictly than `serde_json` alone reads it |
//! | `metadata` | the members of RFC 7591 §2: which are registered, in which form |
//! | `redirect_uri` | which URIs a client may register |
//! | `credentials` | client ids and secrets |
//! | `response` | the body of the 201 answer |

mod credentials;
mod json;
mod metadata;
mod redirect_uri;
mod response;

pub use credentials::{
    ClientSecret, RandomError, client_id, client_id_mode, client_secret, is_servers_client_id, is_third_party_form,
    prefixed_id, secret_sha256_hex,
};
pub use metadata::{ClientMetadata, MAX_REDIRECT_URIS, MAX_TEXT_CHARACTERS, check, check_readable, check_redirect_uri};
pub use redirect_uri::{MAX_BYTES as MAX_URI_BYTES, is_loopback};
pub use response::response;

/// Longest request body, in bytes, unless the operator configures another: 64 KiB.
pub const DEFAULT_MAX_BODY_BYTES: usize = 64 * 1024;

/// Whether `text` is a JSON object in which every reader sees the same: no member occurs twice in one object.
pub fn is_unambiguous_object(text: &[u8]) -> bool {
    json::members(text).is_ok()
}

/// Why a registration is refused (RFC 7591 §3.2.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejection {
    /// The code.
    pub error: ErrorCode,
    /// A sentence that names the member and the rule, in ASCII (RFC 7591 §3.2.2). It never has bytes of the client's own in it.
    pub description: String,
}

impl Rejection {
    /// `rule` is broken by `member`, or by its element `index`.
    fn at(member: &str, index: Option<usize>, rule: &str) -> Self {
        let error = match member {
            "redirect_uris" => ErrorCode::InvalidRedirectUri,
            "software_statement" => ErrorCode::InvalidSoftwareStatement,
            _ => ErrorCode::InvalidClientMetadata,
        };
        let description = match index {
            Some(index) => format!("{member}[{index}]: {rule}"),
            None => format!("{member}: {rule}"),
        };
        Self { error, description }
    }
}

/// The error codes of RFC 7591 §3.2.2 that registration uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorCode {
    /// `invalid_client_metadata`
    InvalidClientMetadata,
    /// `invalid_redirect_uri`
    InvalidRedirectUri,
    /// `invalid_software_statement`
    InvalidSoftwareStatement,
}

impl ErrorCode {
    /// The code as it stands in the `error` member of the answer.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidClientMetadata => "invalid_client_metadata",
            Self::InvalidRedirectUri => "invalid_redirect_uri",
            Self::InvalidSoftwareStatement => "invalid_software_statement",
        }
    }
}
