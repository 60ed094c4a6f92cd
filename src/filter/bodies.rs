//! Whether the proxy lets the filter see bodies.
//!
//! Without `allow_on_headers_stop_iteration: true` on the plugin, Envoy buffers the body of a request that waits in its
//! header callback and never calls back with it: the request would wait until it times out. So each worker watches its
//! first requests with a body. What tells is that bytes have arrived at the proxy of which the filter has not heard a
//! moment later; how long a client takes to send them plays no part. Once a body was seen, nobody watches any more.

use std::cell::Cell;

use super::environment::{Environment, Level};

/// How long bytes may be in the proxy before the filter hears of them, in nanoseconds: another filter may hold them.
const PATIENCE: u64 = 250_000_000;

/// What is known of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Knowledge {
    /// Nothing yet.
    #[default]
    None,
    /// A body was seen.
    Visible,
    /// One was not.
    Hidden,
}

/// What one worker knows of it.
#[derive(Debug, Default)]
pub struct Bodies(Cell<Knowledge>);

impl Bodies {
    /// The line that says what is wrong and what to do.
    pub const ADVICE: &'static str = "this plugin cannot see the bodies of requests, so all that need theirs are refused \
                                      with 503: set allow_on_headers_stop_iteration: true in its PluginConfig, beside \
                                      vm_config (Envoy 1.35 or later; Istio's WasmPlugin has no field for it, use an \
                                      EnvoyFilter)";

    /// Whether bodies are known to be hidden.
    pub fn are_hidden(&self) -> bool {
        self.0.get() == Knowledge::Hidden
    }

    /// A body was seen, or a part of it.
    pub fn seen(&self) {
        self.0.set(Knowledge::Visible);
    }

    /// A watch over a request whose body is awaited, unless it is known what will become of it. In the header callback.
    pub fn watch<E: Environment>(&self, environment: &E) -> Option<Watch> {
        let is_unknown = self.0.get() == Knowledge::None;
        is_unknown.then(|| Watch { at_head: received(environment), since: None })
    }

    /// Whether a request that is watched still waits for bytes that the proxy has. Says so in the log the first time.
    pub fn are_hidden_from<E: Environment>(&self, environment: &E, watch: &mut Watch) -> bool {
        match self.0.get() {
            Knowledge::Visible => return false,
            Knowledge::Hidden => return true,
            Knowledge::None => {}
        }
        if received(environment) <= watch.at_head {
            return false;
        }
        let now = environment.monotonic_nanos();
        let since = *watch.since.get_or_insert(now);
        let is_hidden = now.saturating_sub(since) >= PATIENCE;
        if is_hidden {
            self.0.set(Knowledge::Hidden);
            environment.log(Level::Error, Self::ADVICE);
        }
        is_hidden
    }
}

/// A request whose body is awaited.
#[derive(Debug)]
pub struct Watch {
    /// What the proxy had received of it when its head was looked at, in bytes.
    at_head: u64,
    /// When it was seen that more had come.
    since: Option<u64>,
}

/// The bytes of the request at hand that the proxy has received, its head included.
fn received<E: Environment>(environment: &E) -> u64 {
    let size = environment.property("request\0total_size");
    let size = size.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()).map(i64::from_le_bytes);
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fake::Fake;
    use std::sync::atomic::Ordering;

    fn has_received(fake: &Fake, bytes: i64) {
        fake.properties.lock().unwrap().insert("request.total_size".to_owned(), bytes.to_le_bytes().to_vec());
    }

    fn pass(fake: &Fake, millis: u64) {
        fake.now.fetch_add(millis * 1_000_000, Ordering::Relaxed);
    }

    #[test]
    fn bytes_that_the_filter_does_not_hear_of_show_that_bodies_are_hidden() {
        let (fake, bodies) = (Fake::default(), Bodies::default());
        has_received(&fake, 300);
        let mut watch = bodies.watch(&fake).unwrap();
        let mut other = bodies.watch(&fake).unwrap();
        // However long a client takes.
        pass(&fake, 60_000);
        assert!(!bodies.are_hidden_from(&fake, &mut watch));
        has_received(&fake, 301);
        assert!(!bodies.are_hidden_from(&fake, &mut watch));
        pass(&fake, 249);
        assert!(!bodies.are_hidden_from(&fake, &mut watch) && !bodies.are_hidden());
        pass(&fake, 1);
        assert!(bodies.are_hidden_from(&fake, &mut watch) && bodies.are_hidden());
        assert!(bodies.are_hidden_from(&fake, &mut other));
        assert!(bodies.watch(&fake).is_none());
        let lines = fake.lines.lock().unwrap();
        assert!(lines.len() == 1 && lines[0].contains("allow_on_headers_stop_iteration: true"), "{lines:?}");
    }

    #[test]
    fn a_body_that_was_seen_ends_all_watches() {
        let (fake, bodies) = (Fake::default(), Bodies::default());
        let mut watch = bodies.watch(&fake).unwrap();
        has_received(&fake, 1);
        assert!(!bodies.are_hidden_from(&fake, &mut watch));
        bodies.seen();
        pass(&fake, 60_000);
        assert!(!bodies.are_hidden_from(&fake, &mut watch) && !bodies.are_hidden());
        assert!(bodies.watch(&fake).is_none());
    }

    #[test]
    fn a_proxy_that_does_not_say_what_it_has_received_is_believed_to_show_bodies() {
        let (fake, bodies) = (Fake::default(), Bodies::default());
        let mut watch = bodies.watch(&fake).unwrap();
        pass(&fake, 60_000);
        assert!(!bodies.are_hidden_from(&fake, &mut watch));
    }
}
