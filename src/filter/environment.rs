//! What the filter needs of the proxy that it runs in.
//!
//! Everything else in this room is plain Rust over this trait, so that it is tested natively and a second front
//! end is one more thin implementation.

use std::time::Duration;

use super::reason::Reason;

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

/// What is measured beside the decisions. All workers together have one of each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Metric {
    /// Clients that workers know; one that two know counts twice.
    CachedClients,
    /// Bytes that they take up.
    CachedClientBytes,
    /// Requests whose client a worker knew.
    ClientHits,
    /// Requests with an id that a worker knew to be nobody's.
    ClientUnknownHits,
    /// Times that the store was asked for a client.
    ClientMisses,
    /// Calls to the store that came to nothing and were sent once more.
    StoreRepeats,
}

impl Metric {
    /// Each of them, in the order of its number.
    pub const ALL: [Self; 6] = [
        Self::CachedClients,
        Self::CachedClientBytes,
        Self::ClientHits,
        Self::ClientUnknownHits,
        Self::ClientMisses,
        Self::StoreRepeats,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::CachedClients => "dcr_edge.cached_clients",
            Self::CachedClientBytes => "dcr_edge.cached_client_bytes",
            Self::ClientHits => "dcr_edge.client_lookups.result=hit",
            Self::ClientUnknownHits => "dcr_edge.client_lookups.result=unknown_hit",
            Self::ClientMisses => "dcr_edge.client_lookups.result=miss",
            Self::StoreRepeats => "dcr_edge.store_repeats",
        }
    }

    /// Whether it can become less.
    pub fn is_gauge(self) -> bool {
        matches!(self, Self::CachedClients | Self::CachedClientBytes)
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
    /// The first value of a header of the request at hand. Only until the request goes on.
    fn request_header(&self, name: &str) -> Option<Vec<u8>>;
    /// The headers of the request at hand: names in lower case, pseudo-headers included. Only until it
    /// goes on.
    fn request_headers(&self) -> Vec<(String, Vec<u8>)>;
    /// Replaces a header of the request at hand, or removes it. Only until the request goes on.
    fn set_request_header(&self, name: &str, value: Option<&str>);
    /// A property of the request at hand or of its connection, such as `source.address`, by its path.
    fn property(&self, path: &[&str]) -> Option<Vec<u8>>;
    /// The first `size` bytes of the request's buffered body.
    fn request_body(&self, size: usize) -> Vec<u8>;
    /// Replaces the request's buffered body, of `size` bytes. Its length in the headers is the caller's business.
    fn set_request_body(&self, size: usize, body: &[u8]);
    /// Lets the request go on that was told to wait. Not in a callback of the request's own.
    fn resume_request(&self);
    /// The headers of the response at hand: names in lower case, pseudo-headers included. Only until it goes on.
    fn response_headers(&self) -> Vec<(String, Vec<u8>)>;
    /// The first value of a header of the response at hand. Only until it goes on.
    fn response_header(&self, name: &str) -> Option<Vec<u8>>;
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
    /// Adds to a measure.
    fn measure(&self, metric: Metric, by: i64);
    /// Writes a line to the proxy's log.
    fn log(&self, level: Level, line: &str);
}
