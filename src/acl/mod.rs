//! Who may send requests to a tenant: its access control list.
//!
//! | file | what is in it |
//! |---|---|
//! | [`rule`] | rules as they are written, checked while they are parsed |
//! | [`signal`] | what is known of a request, and what can be known at all |
//! | [`index`] | rules as they are searched: compiled once for each change |
//!
//! A rule never needs a signal to be there to stay safe: a value that is unknown matches nothing, so a rule that blocks
//! what is *not* in its list blocks it, and no rule that allows is ever satisfied by it.

pub mod index;
pub mod rule;
pub mod signal;

mod lockout;

pub use index::{Index, Verdict};
pub use lockout::{Known, decides_management, locks_out_management};
pub use rule::{Action, Condition, Effect, NetworkAcl, Rule, Scope, Signals, Size};
pub use signal::{Facts, RequestKind, Signal, SignalSet};
