//! Why a request of a client is refused.

/// A refusal, in the words of OAuth.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denial {
    /// The code.
    pub error: OAuthError,
    /// A sentence for the developer who reads it, in ASCII without quotation marks and backslashes (RFC 6749 §5.2). It
    /// has no bytes of the request in it but the names of parameters.
    pub description: String,
}

impl Denial {
    /// A refusal with this sentence.
    pub fn new(error: OAuthError, description: impl Into<String>) -> Self {
        Self { error, description: description.into() }
    }
}

/// Error codes of RFC 6749 §4.1.2.1 and §5.2, and RFC 8707 §2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OAuthError {
    /// `access_denied`
    AccessDenied,
    /// `invalid_client`
    InvalidClient,
    /// `invalid_request`
    InvalidRequest,
    /// `invalid_scope`
    InvalidScope,
    /// `invalid_target`
    InvalidTarget,
    /// `unauthorized_client`
    UnauthorizedClient,
    /// `unsupported_grant_type`
    UnsupportedGrantType,
    /// `unsupported_response_type`
    UnsupportedResponseType,
}

impl OAuthError {
    /// The code as it stands in `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessDenied => "access_denied",
            Self::InvalidClient => "invalid_client",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedResponseType => "unsupported_response_type",
        }
    }
}
