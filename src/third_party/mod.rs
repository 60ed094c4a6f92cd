//! What a registered client may do at the authorization server: at the authorization endpoint, the token endpoint and
//! elsewhere. Pure: a request's parameters, the client and the tenant's settings in; what goes on to the server, or a
//! refusal, out.
//!
//! | file | what is in it |
//! |---|---|
//! | `named` | which clients a request names, in the most generous reading |
//! | `parameters` | the parameters of a request, read strictly and written anew |
//! | `authorize` | the authorization endpoint |
//! | `token` | the token endpoint |
//! | `access` | which API a token may be for, and with which scopes |
//! | `error_redirect` | the server's own errors on their way to a client |
//! | `denial` | why a request of a client is refused |
//! | [`discovery`] | the server's metadata, completed |

mod access;
mod authorize;
mod denial;
pub mod discovery;
mod error_redirect;
#[cfg(test)]
mod fixture;
mod named;
mod parameters;
mod token;

pub use authorize::{Authorization, AuthorizationRefusal, authorize};
pub use denial::{Denial, OAuthError};
pub use error_redirect::error_of_redirect;
pub use named::{Message, NamedClients, named_clients};
pub use parameters::{Malformed, Parameters};
pub use token::token;

/// The media type of a form.
pub const FORM: &str = "application/x-www-form-urlencoded";
