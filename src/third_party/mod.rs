//! What a registered client may do at the authorization server: at the authorization endpoint, the token endpoint and
//! elsewhere. Pure: a request's parameters, the client and the tenant's settings in; what goes on to the server, or a
//! refusal, out.
//!
//! | file | what is in it |
//! |---|---|
//! | `denial` | why a request of a client is refused |

mod denial;

pub use denial::{Denial, OAuthError};
