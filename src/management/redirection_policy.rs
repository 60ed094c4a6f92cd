//! Where errors of authorization requests go.

use serde::{Deserialize, Serialize};

/// Where errors of an authorization request go.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RedirectionPolicy {
    /// Never to the client's callback.
    #[default]
    OpenRedirectProtection,
    /// To the client's callback.
    AllowAlways,
}
