//! The filter at the edge. It carries bytes between the proxy and the pure rooms and decides nothing itself.
//!
//! | file | what is in it |
//! |---|---|
//! | [`environment`] | what the filter needs of the proxy: a trait |
//! | `host` | that trait over proxy-wasm, and the entry points; wasm only |
//! | [`config`] | the plugin's configuration |
//! | [`exchange`] | the way of one request |
//! | [`forward`] | registrations at an authorization server's own endpoint |
//! | [`registering`] | what of it belongs to a registration: body, checks, the call to the store, 201 |
//! | [`request`], [`refusal`], [`reason`] | a request's head; refusals and their answers; words for logs and metrics |
//! | [`cors`], [`discovery`] | which web pages may read an answer; the server's metadata on their way to the client |
//! | [`board`], [`feed`] | settings in shared data: looked up and published; how they come from the store |
//! | [`signals`] | where the signals of access rules come from |
//! | [`limiter`] | buckets in shared data: the tenant's, and those of sources |
//! | [`tally`], [`report`] | what access rules did and what was refused: counted; told to the store |
//! | [`bodies`] | whether the proxy lets the filter see bodies at all |
//! | [`controls`] | the way of a request to the authorization server that a registered client may have sent |
//! | [`clients`], [`client_changes`] | what a worker knows of clients; which of them changed |
//! | [`callout`] | what the store's answers mean |
//! | [`store_call`], [`ticket`] | a call to the store for a request, and its repeat; names for what a worker does for one |
//! | [`worker`] | what the exchanges of one worker share |

pub mod board;
pub mod bodies;
pub mod callout;
pub mod client_changes;
pub mod clients;
pub mod config;
pub mod controls;
pub mod cors;
pub mod discovery;
pub mod environment;
pub mod exchange;
pub mod feed;
pub mod forward;
#[cfg(target_arch = "wasm32")]
mod host;
pub mod limiter;
pub mod reason;
pub mod refusal;
pub mod registering;
pub mod report;
pub mod request;
pub mod signals;
pub mod store_call;
pub mod tally;
pub mod ticket;
pub mod worker;

#[cfg(test)]
mod fake;
