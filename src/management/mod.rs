//! What a tenant's owner says about its APIs, its connections and who may use which API: the objects of the Management
//! API, checked while they are parsed. An unknown member is an error, because whoever sends it expects something of it.
//!
//! Each object has a type for what is sent to create it, which is also how it is kept, and one for a change of it.

mod client_grant;
mod connection;
mod redirection_policy;
mod resource_server;

pub use client_grant::{
    Abilities, ClientGrant, ClientGrantPatch, GrantOfApi, Permission, PermissionSource, SubjectType, Whose,
    effective_permissions,
};
pub use connection::{Connection, ConnectionPatch};
pub use redirection_policy::RedirectionPolicy;
pub use resource_server::{
    ClientAuthorization, ClientPolicy, ResourceServer, ResourceServerPatch, Scope, SubjectTypeAuthorization,
    UserAuthorization, UserPolicy, is_system_api, management_domain,
};

use serde::{Deserialize, Deserializer};

/// Most scopes of an API or of a grant.
pub const MAX_SCOPES: usize = 1_000;

/// Longest name, description or identifier, in characters.
const MAX_TEXT: usize = 1_000;

/// Longest scope, in bytes.
const MAX_SCOPE: usize = 280;

/// What the API's description says of text: no control characters.
#[cfg(not(target_arch = "wasm32"))]
const TEXT_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// What it says of a scope.
#[cfg(not(target_arch = "wasm32"))]
const SCOPE_PATTERN: &str = r"^[\x21\x23-\x5b\x5d-\x7e]+$";

/// Text of 1 to [`MAX_TEXT`] characters without control characters.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if (1..=MAX_TEXT).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        Ok(text)
    } else {
        Err(serde::de::Error::custom(format_args!("expected 1 to {MAX_TEXT} characters without control characters")))
    }
}

/// The same for a member that may be absent.
fn some_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer).map(Some)
}

/// The same for a member of a change, of which `null` takes the value away.
fn changed_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    #[derive(Deserialize)]
    struct Text(#[serde(deserialize_with = "text")] String);
    let changed: Option<Text> = Option::deserialize(deserializer)?;
    Ok(Some(changed.map(|Text(text)| text)))
}

/// A member that was sent. What `null` means is up to its type: where that has none it is an error.
pub fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Whether text is one scope (RFC 6749 §3.3).
pub fn is_scope_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

/// Whether text is a scope that an API may have.
fn is_scope(text: &str) -> bool {
    text.len() <= MAX_SCOPE && is_scope_token(text)
}
