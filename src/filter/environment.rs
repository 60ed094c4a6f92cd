//! What the filter needs of the proxy that it runs in.
//!
//! Everything else in this room is plain Rust over this trait, so that it is tested natively and a second front
//! end is one more thin implementation.

use std::time::Duration;

use super::reason::Reason;
use super::request::Head;

/// A value in shared data, with the number that changes at each write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shared {
    /// The value.
    pub value: Vec<u8>,
    /// Compare-and-swap number; never 0.
    pub cas: u32,
}

/// Another worker wrote the key since it was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CasMismatch;

/// Names a call that was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CallId(pub u32);

/// A call that could not be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DispatchError {
    /// The proxy has no cluster of that name.
    NoCluster,
    /// The cluster has no healthy host.
    NoHealthyHost,
}

/// The system's random source did not answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoRandomness;

/// The answer to a call: what arrived, or `None` if the stream was reset or its answer was too large to buffer.
pub type CallAnswer = Option<CallResponse>;

/// What a call came to: its answer, or why it was not sent.
pub type CallResult = Result<CallAnswer, DispatchError>;

/// The response to a call.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CallResponse {
    /// Header names, lower case, and values, with the pseudo-header `:status`.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl CallResponse {
    /// The first value of the header `name`.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    /// The status; 0 if there is none.
    pub fn status(&self) -> u16 {
        self.header(":status").and_then(|v| std::str::from_utf8(v).ok()).and_then(|v| v.parse().ok()).unwrap_or(0)
    }
}

/// A whole answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// Body; empty for none.
    pub body: Vec<u8>,
    /// For the access log and the metrics.
    pub reason: Reason,
    /// The client that it registers.
    pub client_id: Option<String>,
}

/// What the proxy does with the request next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flow {
    /// It goes on to the next filter.
    Continue,
    /// It waits here, or was answered.
    Pause,
}

/// How loud a log line is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Level {
    /// For the operator to know.
    Info,
    /// Something failed that may heal by itself.
    Warn,
    /// Something that needs the operator.
    Error,
}

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MetricKind {
    /// It grows.
    Counter,
    /// It is what it is set to, or what is added to it.
    Gauge,
    /// Many numbers, of which the proxy keeps how they are spread.
    Histogram,
}

/// Declares [`Metric`] with kinds and names, so that no variant can be missing among those that the proxy is told of.
macro_rules! metrics {
    ($($(#[$doc:meta])* $variant:ident: $kind:ident = $name:literal,)*) => {
        /// What is measured beside the decisions. All workers together have one of each.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Metric {
            $($(#[$doc])* $variant,)*
        }

        impl Metric {
            /// Each of them, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!("dcr_edge.", $name),)*
                }
            }

            /// Its kind.
            pub fn kind(self) -> MetricKind {
                match self {
                    $(Self::$variant => MetricKind::$kind,)*
                }
            }
        }
    };
}

metrics! {
    /// Requests to register that were answered with a client.
    Registered: Counter = "registrations.result=registered",
    /// Those that an access rule kept out.
    RegistrationBlocked: Counter = "registrations.result=blocked",
    /// Those that were over a limit.
    RegistrationLimited: Counter = "registrations.result=limited",
    /// Those that the tenant does not take, or that break a rule.
    RegistrationRefused: Counter = "registrations.result=refused",
    /// Those that could not be decided on, or not be carried out.
    RegistrationFailed: Counter = "registrations.result=failed",
    /// Requests to register that the limiters of this edge let pass.
    LimiterAdmissions: Counter = "limiter_admissions",
    /// Calls to the store for requests that were answered by it.
    StoreCallAnswered: Counter = "store_calls.result=answered",
    /// Those that were not, each repeat by itself.
    StoreCallFailed: Counter = "store_calls.result=failed",
    /// How long those calls took that came back, in milliseconds.
    StoreCallMillis: Histogram = "store_call_ms",
    /// Calls to the store that came to nothing and were sent once more.
    StoreRepeats: Counter = "store_repeats",
    /// The number of the store's last change that is in force.
    SettingsVersion: Gauge = "settings_version",
    /// For how many seconds nothing was heard of the store.
    SettingsAge: Gauge = "settings_age_seconds",
    /// Clients that workers know; one that two know counts twice.
    CachedClients: Gauge = "cached_clients",
    /// Bytes that they take up.
    CachedClientBytes: Gauge = "cached_client_bytes",
    /// Requests whose client a worker knew.
    ClientHits: Counter = "client_lookups.result=hit",
    /// Requests with an id that a worker knew to be nobody's.
    ClientUnknownHits: Counter = "client_lookups.result=unknown_hit",
    /// Times that the store was asked for a client.
    ClientMisses: Counter = "client_lookups.result=miss",
}

/// What the access log may say of a request, beside the reason of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogField {
    /// What became of it: `registered`, `refused`, `redirected`, `preflight` or `passed`.
    Decision,
    /// The name of the tenant.
    Tenant,
    /// The client that it registered, or that sent it.
    ClientId,
}

impl LogField {
    /// The filter state that has it: `%FILTER_STATE(wasm.dcr_edge.tenant:PLAIN)%`, without `wasm.`.
    pub fn state(self) -> &'static str {
        match self {
            Self::Decision => "dcr_edge.decision",
            Self::Tenant => "dcr_edge.tenant",
            Self::ClientId => "dcr_edge.client_id",
        }
    }
}

/// What the filter needs of the proxy that it runs in.
pub trait Environment {
    /// Reads a key of the data that all workers share.
    fn shared(&self, key: &str) -> Option<Shared>;
    /// Writes a key of the data that all workers share. With `cas`, only if nobody wrote since; without, always.
    fn set_shared(&self, key: &str, value: &[u8], cas: Option<u32>) -> Result<(), CasMismatch>;
    /// A clock that never steps, the same for all workers, in nanoseconds.
    fn monotonic_nanos(&self) -> u64;
    /// The wall clock, in nanoseconds since the UNIX epoch.
    fn unix_nanos(&self) -> u64;
    /// Fills `buffer` from the system's random source.
    fn fill_random(&self, buffer: &mut [u8]) -> Result<(), NoRandomness>;
    /// Sends a request to a cluster. The answer comes to whoever sent it.
    fn call(
        &self,
        cluster: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        timeout: Duration,
    ) -> Result<CallId, DispatchError>;
    /// Has the worker's next tick come at once.
    fn tick_at_once(&self);
    /// The head of the request at hand. Only until it goes on.
    fn request_head(&self) -> Head;
    /// Replaces a header of the request at hand, or removes it. Only until the request goes on.
    fn set_request_header(&self, name: &str, value: Option<&str>);
    /// A property of the request at hand or of its connection, by its path, between whose parts are zero bytes, such as
    /// `source\0address`.
    fn property(&self, path: &str) -> Option<Vec<u8>>;
    /// The first `size` bytes of the request's buffered body.
    fn request_body(&self, size: usize) -> Vec<u8>;
    /// Replaces the request's buffered body, of `size` bytes. Its length in the headers is the caller's business.
    fn set_request_body(&self, size: usize, body: &[u8]);
    /// Lets the request go on that was told to wait. Not in a callback of the request's own.
    fn resume_request(&self);
    /// The head of the response at hand. Only until it goes on.
    fn response_head(&self) -> Head;
    /// Replaces a header of the response at hand, or removes it. Only until it goes on.
    fn set_response_header(&self, name: &str, value: Option<&str>);
    /// The first `size` bytes of the response's buffered body.
    fn response_body(&self, size: usize) -> Vec<u8>;
    /// Replaces the response's buffered body, of `size` bytes. Its length in the headers is the caller's business.
    fn set_response_body(&self, size: usize, body: &[u8]);
    /// Answers the request at hand, which goes no further; tells the access log and the metrics why.
    fn reply(&self, reply: &Reply);
    /// Counts a reason that is not that of an answer, so many times.
    fn count(&self, reason: Reason, times: u32);
    /// Adds to a counter or a gauge.
    fn measure(&self, metric: Metric, by: i64);
    /// Sets a gauge, or adds a number to a histogram.
    fn record(&self, metric: Metric, value: u64);
    /// Tells the access log something of the request at hand.
    fn tell_log(&self, field: LogField, value: &str);
    /// Writes a line to the proxy's log.
    fn log(&self, level: Level, line: &str);
}
