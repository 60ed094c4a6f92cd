//! dcr-edge: open OAuth/OIDC Dynamic Client Registration, made safe, at the Envoy edge.
//!
//! One crate, two artifacts, one rule: decisions are pure, the two ends only carry bytes.
//!
//! | room | what is in it |
//! |---|---|
//! | [`tenant`] | a tenant's settings as both ends see them |
//! | [`acl`] | who may send requests: rules, signals, the index, evaluation |
//! | [`cidr`] | ranges of addresses |
//! | [`management`] | what a tenant's owner says of APIs, connections and grants |
//! | [`registration`] | metadata in, checked registration or RFC 7591 error out; credentials; the response |
//! | [`media_type`] | whether a `content-type` is JSON |
//! | [`request_path`] | which endpoint a path leads to, and whether it hides that |
//! | [`third_party`] | what a registered client may do at the authorization server |
//! | [`rate_limit`] | the token-bucket arithmetic |
//! | [`filter`] | the edge: an Envoy filter over these rooms; only its `host` touches `proxy_wasm` |
//! | [`trace_context`] | which trace a request is a part of, as the W3C has it |
//! | [`edge_api`] | the words the edge and the store say to each other |
//! | `store` | native only: HTTP, database, tokens |

// In a test an overflow is a failure that shows itself.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod acl;
pub mod cidr;
pub mod edge_api;
pub mod filter;
pub mod management;
pub mod media_type;
pub mod rate_limit;
pub mod registration;
pub mod request_path;
mod sorted;
// No fuzz target needs it, and each would wait minutes for it.
#[cfg(not(any(target_arch = "wasm32", fuzzing)))]
pub mod store;
pub mod tenant;
pub mod third_party;
pub mod trace_context;
