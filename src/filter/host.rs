//! The proxy over proxy-wasm, and the entry points. The one file that touches `proxy_wasm`.
//!
//! The SDK traps the whole worker on a status that it does not expect, on a context that it does not know, and in
//! its getters that return text. So: only `hostcalls`, only getters of bytes, and only where the call cannot fail
//! (headers in the header callback, a call's headers only if it has some).

// The SDK's entry point is an exported symbol, and the monotonic clock a raw WASI call.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::{Duration, UNIX_EPOCH};

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, LogLevel, MapType, MetricType, Status};

use super::callout;
use super::config::Config;
use super::environment::{
    CallAnswer, CallId, CallResponse, CasMismatch, DispatchError, Environment, Flow, Level, LogField, Metric,
    MetricKind, NoRandomness, Reply, Shared,
};
use super::exchange::Exchange;
use super::feed::Feed;
use super::forward::{self, Outcome};
use super::reason::Reason;
use super::report::Reporter;
use super::request::Head;
use super::store_call::Repeated;
use super::worker::Worker;

/// The environment variable of the VM that holds the edge's token.
const TOKEN_VARIABLE: &str = "DCR_EDGE_TOKEN";

/// Path of the filter state in which the access log finds the reason: `%FILTER_STATE(wasm.dcr_edge.reason:PLAIN)%`.
const REASON_PROPERTY: &str = "dcr_edge.reason";

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|context| {
        Box::new(Root { configured: None, context, waiting: Rc::default(), watched: Rc::default() })
    });
}}

thread_local! {
    /// The ids of the counters, by number of the reason. The proxy gives a new id at each definition, so they are
    /// defined once for the VM.
    static COUNTERS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    /// Those of the other metrics, by number.
    static METRICS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// One configured plugin in one VM.
struct Root {
    configured: Option<Configured>,
    /// The number of its own context.
    context: u32,
    waiting: Rc<Waiting>,
    watched: Rc<Watched>,
}

/// Requests that are looked at with each tick, each with its context: the first ones of a worker whose bodies are awaited.
type Watched = RefCell<Vec<(u32, Weak<RefCell<Exchange>>)>>;

/// Requests that wait for what the worker does in their place, by the tickets' numbers, each with its context.
type Waiting = RefCell<HashMap<u64, (u32, Weak<RefCell<Exchange>>)>>;

/// What one worker does.
struct Configured {
    worker: Rc<Worker>,
    feed: Feed,
    reporter: Reporter,
}

impl Configured {
    /// The time between two ticks. A tick is a look at some shared keys; it bounds how long Envoy is up without settings,
    /// and how late a look is.
    fn tick(&self) -> Duration {
        let half = self.worker.config.store.poll_interval.checked_div(2).unwrap_or_default();
        half.clamp(Duration::from_millis(10), Duration::from_millis(50))
    }
}

impl Root {
    fn configure(&self) -> Result<Configured, String> {
        let json = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX).ok().flatten();
        let config = Config::parse(&json.unwrap_or_default())?;
        let token = std::env::var(TOKEN_VARIABLE).unwrap_or_default();
        let worker = Rc::new(Worker::new(config, token.trim())?);
        let feed = Feed::new(Rc::clone(&worker));
        feed.prepare(&Proxy);
        let reporter = Reporter::new(Rc::clone(&worker));
        Ok(Configured { worker, feed, reporter })
    }

    /// Tells requests what became of their registrations.
    fn deliver(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        for (ticket, outcome) in outcomes {
            self.tell(ticket, |exchange| exchange.on_outcome(&Proxy, outcome));
        }
    }

    /// Tells whoever waits for it what calls to the store came to.
    fn deliver_repeated(&self, worker: &Worker, repeated: impl IntoIterator<Item = Repeated>) {
        for (ticket, result) in repeated {
            if worker.forwards.awaits_repeat(ticket) {
                self.deliver(worker.forwards.repeated(&Proxy, worker, (ticket, result)));
            } else {
                self.tell(ticket, |exchange| exchange.on_repeat(&Proxy, result));
            }
        }
    }

    /// Looks at the requests that are watched.
    fn look(&self) {
        let watched = self.watched.take();
        if watched.is_empty() {
            return;
        }
        let mut kept = Vec::new();
        for (context, weak) in watched {
            let Some(exchange) = weak.upgrade() else { continue };
            let Ok(mut exchange) = exchange.try_borrow_mut() else { continue };
            if hostcalls::set_effective_context(context).is_ok() {
                exchange.on_watch(&Proxy);
            }
            if exchange.is_watched() {
                kept.push((context, weak));
            }
        }
        let _ = hostcalls::set_effective_context(self.context);
        self.watched.borrow_mut().extend(kept);
    }

    /// Tells the request that waits under this ticket something: what it does then, it does in its own context.
    fn tell(&self, ticket: u64, say: impl FnOnce(&mut Exchange)) {
        let waiting = self.waiting.borrow_mut().remove(&ticket);
        // Whoever has gone waits no longer.
        let Some((context, weak)) = waiting else { return };
        let Some(exchange) = weak.upgrade() else { return };
        if hostcalls::set_effective_context(context).is_ok() {
            if let Ok(mut exchange) = exchange.try_borrow_mut() {
                say(&mut exchange);
                if let Some(next) = exchange.ticket() {
                    self.waiting.borrow_mut().insert(next, (context, weak));
                }
            }
            let _ = hostcalls::set_effective_context(self.context);
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if let Some(Configured { worker, .. }) = &self.configured {
            worker.clients.end(&Proxy);
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, id: u32, num_headers: usize, body_size: usize, _: usize) {
        if let Some(Configured { worker, feed, reporter }) = &self.configured {
            let call = CallId(id);
            if worker.repeats.awaits(call) {
                let answer = call_answer(num_headers, body_size, callout::MAX_CLIENT_ANSWER);
                return self.deliver_repeated(worker, worker.repeats.answered(&Proxy, call, answer));
            }
            if worker.forwards.awaits(call) {
                let answer = call_answer(num_headers, body_size, forward::MAX_ANSWER);
                return self.deliver(worker.forwards.answered(&Proxy, worker, call, answer));
            }
            let answer = call_answer(num_headers, body_size, callout::MAX_CHANGES_ANSWER);
            if let Some(answer) = reporter.answered(&Proxy, call, answer) {
                feed.answered(&Proxy, answer);
            }
        }
    }
}

impl RootContext for Root {
    fn on_vm_start(&mut self, _: usize) -> bool {
        COUNTERS.with_borrow_mut(|counters| {
            if counters.is_empty() {
                counters.extend(Reason::ALL.iter().map_while(|reason| {
                    let name = format!("dcr_edge.decisions.reason={}", reason.as_str());
                    hostcalls::define_metric(MetricType::Counter, &name).ok()
                }));
            }
        });
        METRICS.with_borrow_mut(|metrics| {
            if metrics.is_empty() {
                metrics.extend(Metric::ALL.iter().map_while(|metric| {
                    let kind = match metric.kind() {
                        MetricKind::Counter => MetricType::Counter,
                        MetricKind::Gauge => MetricType::Gauge,
                        MetricKind::Histogram => MetricType::Histogram,
                    };
                    hostcalls::define_metric(kind, metric.name()).ok()
                }));
            }
        });
        true
    }

    fn on_configure(&mut self, _: usize) -> bool {
        match self.configure() {
            Ok(configured) => {
                let _ = hostcalls::set_tick_period(configured.tick());
                self.configured = Some(configured);
                true
            }
            Err(error) => {
                let _ = hostcalls::log(LogLevel::Critical, &format!("dcr_edge configuration: {error}"));
                false
            }
        }
    }

    fn on_tick(&mut self) {
        if let Some(configured @ Configured { worker, feed, reporter }) = &self.configured {
            feed.tick(&Proxy);
            reporter.tick(&Proxy);
            self.look();
            worker.clients.tick(&Proxy, &worker.keys);
            self.deliver_repeated(worker, worker.repeats.tick(&Proxy, worker));
            if worker.forwards.is_due() {
                // It came at once, and the ones after it need not.
                let _ = hostcalls::set_tick_period(configured.tick());
                self.deliver(worker.forwards.tick(&Proxy, worker));
            }
        }
    }

    fn create_http_context(&self, context: u32) -> Option<Box<dyn HttpContext>> {
        let exchange = |configured: &Configured| Rc::new(RefCell::new(Exchange::new(Rc::clone(&configured.worker))));
        let exchange = self.configured.as_ref().map(exchange);
        let (waiting, watched) = (Rc::clone(&self.waiting), Rc::clone(&self.watched));
        Some(Box::new(Stream { context, exchange, waiting, watched }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// One request. Without an exchange, which never happens after a successful configuration, it waits for ever.
struct Stream {
    context: u32,
    exchange: Option<Rc<RefCell<Exchange>>>,
    waiting: Rc<Waiting>,
    watched: Rc<Watched>,
}

impl Stream {
    /// Does something with the exchange.
    fn with<T>(&self, act: impl FnOnce(&mut Exchange) -> T) -> Option<T> {
        let exchange = self.exchange.as_ref()?;
        let mut borrowed = exchange.try_borrow_mut().ok()?;
        let result = act(&mut borrowed);
        if let Some(ticket) = borrowed.ticket() {
            self.waiting.borrow_mut().insert(ticket, (self.context, Rc::downgrade(exchange)));
        }
        Some(result)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(ticket) = self.exchange.as_ref().and_then(|exchange| exchange.try_borrow().ok()?.ticket()) {
            self.waiting.borrow_mut().remove(&ticket);
        }
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, _: u32, num_headers: usize, body_size: usize, _: usize) {
        self.with(|exchange| {
            exchange.on_answer(&Proxy, call_answer(num_headers, body_size, callout::MAX_CLIENT_ANSWER))
        });
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let flow = self.with(|exchange| {
            let flow = exchange.on_headers(&Proxy, end_of_stream);
            (flow, exchange.is_watched())
        });
        if let (Some((_, true)), Some(exchange)) = (flow, &self.exchange) {
            self.watched.borrow_mut().push((self.context, Rc::downgrade(exchange)));
        }
        action(flow.map(|(flow, _)| flow))
    }

    fn on_http_request_body(&mut self, total: usize, end_of_stream: bool) -> Action {
        action(self.with(|exchange| exchange.on_body(&Proxy, total, end_of_stream)))
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        response_action(self.with(|exchange| exchange.on_response_headers(&Proxy, end_of_stream)))
    }

    fn on_http_response_body(&mut self, total: usize, end_of_stream: bool) -> Action {
        response_action(self.with(|exchange| exchange.on_response_body(&Proxy, total, end_of_stream)))
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        response_action(self.with(|exchange| exchange.on_response_trailers(&Proxy)))
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        action(self.with(|exchange| exchange.on_trailers(&Proxy)))
    }
}

fn action(flow: Option<Flow>) -> Action {
    match flow {
        Some(Flow::Continue) => Action::Continue,
        Some(Flow::Pause) | None => Action::Pause,
    }
}

/// A response of which nothing is known goes on.
fn response_action(flow: Option<Flow>) -> Action {
    action(flow.or(Some(Flow::Continue)))
}

/// What a call came to. `most` is the longest body that is of use; one byte more shows that it was longer.
fn call_answer(num_headers: usize, body_size: usize, most: usize) -> CallAnswer {
    if num_headers == 0 {
        // Reset, or too large to buffer. There is no map to read.
        return None;
    }
    let headers = hostcalls::get_map_bytes(MapType::HttpCallResponseHeaders).unwrap_or_default();
    let size = body_size.min(most.saturating_add(1));
    let body = match size {
        0 => None,
        _ => hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, size).ok().flatten(),
    };
    Some(CallResponse { headers, body: body.unwrap_or_default() })
}

// Calls that every request makes. The SDK's own copy what goes in and what comes out once more, piece by piece.
unsafe extern "C" {
    fn proxy_get_header_map_pairs(map: MapType, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
}

/// What a call gives in memory that it takes from our allocator; `None` if it has nothing.
fn given(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Option<Vec<u8>> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    if call(&raw mut data, &raw mut size) != Status::Ok as u32 || data.is_null() {
        return None;
    }
    // SAFETY: the proxy has this memory from `proxy_on_memory_allocate`, which is the SDK's: a vector's, with a capacity of
    // `size` bytes, that nobody else has. The proxy has written all of them.
    Some(unsafe { Vec::from_raw_parts(data, size, size) })
}

/// The head that a map has; empty if there is no such map now.
fn head(map: MapType) -> Head {
    // SAFETY: both pointers are to variables of `given`, of the sizes that the ABI names.
    Head::from_map(given(|data, size| unsafe { proxy_get_header_map_pairs(map, data, size) }).unwrap_or_default())
}

/// Tells the access log something, in the filter state at this path.
fn set_state(path: &str, value: &str) {
    // SAFETY: both are read while the call lasts.
    let _ = unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) };
}

/// The proxy over proxy-wasm.
struct Proxy;

impl Environment for Proxy {
    fn shared(&self, key: &str) -> Option<Shared> {
        match hostcalls::get_shared_data(key) {
            Ok((Some(value), Some(cas))) => Some(Shared { value, cas }),
            _ => None,
        }
    }

    fn set_shared(&self, key: &str, value: &[u8], cas: Option<u32>) -> Result<(), CasMismatch> {
        hostcalls::set_shared_data(key, Some(value), cas).map_err(|_| CasMismatch)
    }

    fn monotonic_nanos(&self) -> u64 {
        // Where there is no clock it is always 0, at which no bucket fills.
        // SAFETY: the call writes one integer to its own stack frame and reads no memory of ours.
        unsafe { wasip1::clock_time_get(wasip1::CLOCKID_MONOTONIC, 1) }.unwrap_or(0)
    }

    fn unix_nanos(&self) -> u64 {
        let now = hostcalls::get_current_time().ok().and_then(|now| now.duration_since(UNIX_EPOCH).ok());
        now.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0)
    }

    fn fill_random(&self, buffer: &mut [u8]) -> Result<(), NoRandomness> {
        getrandom::fill(buffer).map_err(|_| NoRandomness)
    }

    fn call(
        &self,
        cluster: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        timeout: Duration,
    ) -> Result<CallId, DispatchError> {
        let body = (!body.is_empty()).then_some(body);
        match hostcalls::dispatch_http_call(cluster, headers.to_vec(), body, Vec::new(), timeout) {
            Ok(id) => Ok(CallId(id)),
            // All headers that a call needs are there, so a bad argument is the cluster.
            Err(Status::BadArgument) => Err(DispatchError::NoCluster),
            Err(_) => Err(DispatchError::NoHealthyHost),
        }
    }

    fn tick_at_once(&self) {
        let _ = hostcalls::set_tick_period(Duration::from_millis(1));
    }

    fn request_head(&self) -> Head {
        head(MapType::HttpRequestHeaders)
    }

    fn set_request_header(&self, name: &str, value: Option<&str>) {
        let _ = hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, value.map(str::as_bytes));
    }

    fn property(&self, path: &str) -> Option<Vec<u8>> {
        given(|data, size| {
            // SAFETY: the path is read while the call lasts.
            unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) }
        })
    }

    fn request_body(&self, size: usize) -> Vec<u8> {
        hostcalls::get_buffer(BufferType::HttpRequestBody, 0, size).ok().flatten().unwrap_or_default()
    }

    fn set_request_body(&self, size: usize, body: &[u8]) {
        let _ = hostcalls::set_buffer(BufferType::HttpRequestBody, 0, size, body);
    }

    fn resume_request(&self) {
        let _ = hostcalls::resume_http_request();
    }

    fn response_head(&self) -> Head {
        head(MapType::HttpResponseHeaders)
    }

    fn set_response_header(&self, name: &str, value: Option<&str>) {
        let _ = hostcalls::set_map_value_bytes(MapType::HttpResponseHeaders, name, value.map(str::as_bytes));
    }

    fn response_body(&self, size: usize) -> Vec<u8> {
        hostcalls::get_buffer(BufferType::HttpResponseBody, 0, size).ok().flatten().unwrap_or_default()
    }

    fn set_response_body(&self, size: usize, body: &[u8]) {
        let _ = hostcalls::set_buffer(BufferType::HttpResponseBody, 0, size, body);
    }

    fn reply(&self, reply: &Reply) {
        set_state(REASON_PROPERTY, reply.reason.as_str());
        self.count(reply.reason, 1);
        let headers = reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = (!reply.body.is_empty()).then_some(reply.body.as_slice());
        let _ = hostcalls::send_http_response(u32::from(reply.status), headers, body);
    }

    fn count(&self, reason: Reason, times: u32) {
        let id = COUNTERS.with_borrow(|counters| counters.get(reason as usize).copied());
        if let Some(id) = id {
            let _ = hostcalls::increment_metric(id, i64::from(times));
        }
    }

    fn measure(&self, metric: Metric, by: i64) {
        let id = METRICS.with_borrow(|metrics| metrics.get(metric as usize).copied());
        if let Some(id) = id.filter(|_| by != 0) {
            let _ = hostcalls::increment_metric(id, by);
        }
    }

    fn record(&self, metric: Metric, value: u64) {
        let id = METRICS.with_borrow(|metrics| metrics.get(metric as usize).copied());
        if let Some(id) = id {
            let _ = hostcalls::record_metric(id, value);
        }
    }

    fn tell_log(&self, field: LogField, value: &str) {
        set_state(field.state(), value);
    }

    fn log(&self, level: Level, line: &str) {
        let level = match level {
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        let _ = hostcalls::log(level, line);
    }
}
