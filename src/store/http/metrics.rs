//! What the store counts, for Prometheus. No labels by tenant: their number is not bounded.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::App;
use crate::store::admission::Refusal;
use crate::store::db::Registered;

/// The counters, and the registry that shows them.
pub struct Metrics {
    registry: Registry,
    registrations: Family<RegistrationLabels, Counter>,
    flushes: Counter,
    batch_sizes: Histogram,
    queue_length: Gauge<u64, AtomicU64>,
    responses: Family<ResponseLabels, Counter>,
    response_seconds: Family<InterfaceLabels, Histogram, fn() -> Histogram>,
    controls_reads: Family<ControlsReadLabels, Counter>,
    acl_evaluations: Counter,
    acl_matches: Counter,
    acl_counts_dropped: Counter,
    refusals: Counter,
    refusal_counts_dropped: Counter,
    report_entries_dropped: Counter,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct RegistrationLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct ResponseLabels {
    status_class: &'static str,
}

/// What of the store's a request asked.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Interface {
    /// The edge's.
    Edge,
    /// The Management API.
    Management,
    /// The console.
    Console,
    /// What watches the process.
    Other,
}

impl Interface {
    /// The one that a path belongs to.
    pub fn of(path: &str) -> Self {
        match path {
            _ if path.starts_with("/edge/") => Self::Edge,
            _ if path.starts_with("/api/") => Self::Management,
            _ if path.starts_with("/console") => Self::Console,
            _ => Self::Other,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Management => "management",
            Self::Console => "console",
            Self::Other => "other",
        }
    }
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct InterfaceLabels {
    interface: &'static str,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct ControlsReadLabels {
    outcome: &'static str,
}

/// What the database answered to a registration, as a label.
pub fn outcome(answer: &Result<Registered, Refusal>) -> &'static str {
    match answer {
        Ok(registered) if registered.created => "created",
        Ok(_) => "existing",
        Err(refusal) => refusal.outcome(),
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let registrations = Family::default();
        let flushes = Counter::default();
        let batch_sizes = Histogram::new(exponential_buckets(1.0, 2.0, 9));
        let queue_length = Gauge::default();
        let responses = Family::default();
        let response_seconds: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 14)));
        let controls_reads = Family::default();
        let acl_evaluations = Counter::default();
        let acl_matches = Counter::default();
        let acl_counts_dropped = Counter::default();
        let refusals = Counter::default();
        let refusal_counts_dropped = Counter::default();
        let report_entries_dropped = Counter::default();
        let mut registry = Registry::with_prefix("dcr_store");
        registry.register("registrations", "Registrations by what became of them", registrations.clone());
        registry.register("flushes", "Transactions that wrote registrations, one sync each", flushes.clone());
        registry.register("flush_registrations", "Registrations in one transaction", batch_sizes.clone());
        registry.register("queue_length", "Registrations that wait for the writer", queue_length.clone());
        registry.register("http_responses", "HTTP answers by class of status", responses.clone());
        let help = "Time until the head of an HTTP answer, by what was asked";
        registry.register_with_unit("http_response", help, Unit::Seconds, response_seconds.clone());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The release that runs", build);
        let help = "Clients that edges asked for, by whether the tenant has them";
        registry.register("controls_reads", help, controls_reads.clone());
        let help = "Requests that access rules were evaluated for, once for each rule";
        registry.register("acl_evaluations", help, acl_evaluations.clone());
        registry.register("acl_matches", "Requests that access rules matched, once for each rule", acl_matches.clone());
        let help = "Counts of access rules that were not kept, because the rule is none or there were too many";
        registry.register("acl_counts_dropped", help, acl_counts_dropped.clone());
        registry.register("refusals", "Requests to register that edges refused, as they report", refusals.clone());
        let help = "Counts of refusals that were not kept, because the reason is not known or there were too many";
        registry.register("refusal_counts_dropped", help, refusal_counts_dropped.clone());
        let help = "Entries of edges' reports that were not kept, because they cannot be read or make no sense";
        registry.register("report_entries_dropped", help, report_entries_dropped.clone());
        Self {
            registry,
            registrations,
            flushes,
            batch_sizes,
            queue_length,
            responses,
            response_seconds,
            controls_reads,
            acl_evaluations,
            acl_matches,
            acl_counts_dropped,
            refusals,
            refusal_counts_dropped,
            report_entries_dropped,
        }
    }
}

impl Metrics {
    /// Counts what became of a registration: an [`outcome`], or that of a `NotRegistered`.
    pub fn registration(&self, outcome: &'static str) {
        self.registrations.get_or_create(&RegistrationLabels { outcome }).inc();
    }

    /// Counts a transaction of so many registrations.
    pub fn flushed(&self, registrations: usize) {
        self.flushes.inc();
        self.batch_sizes.observe(u32::try_from(registrations).unwrap_or(u32::MAX).into());
    }

    /// Counts a question of an edge for what it holds a client to.
    pub fn controls_read(&self, found: bool) {
        let outcome = if found { "found" } else { "unknown_client" };
        self.controls_reads.get_or_create(&ControlsReadLabels { outcome }).inc();
    }

    /// Counts what an access rule did at an edge.
    pub fn acl_requests(&self, evaluated: u64, matched: u64) {
        self.acl_evaluations.inc_by(evaluated);
        self.acl_matches.inc_by(matched);
    }

    /// Counts an access rule's counts that are lost.
    pub fn acl_count_dropped(&self) {
        self.acl_counts_dropped.inc();
    }

    /// Counts refusals of edges.
    pub fn refused(&self, refusals: u64) {
        self.refusals.inc_by(refusals);
    }

    /// Counts a tenant's count of refusals that is lost.
    pub fn refusal_count_dropped(&self) {
        self.refusal_counts_dropped.inc();
    }

    /// Counts an entry of an edge's report that nothing can be done with.
    pub fn report_entry_dropped(&self) {
        self.report_entries_dropped.inc();
    }

    /// Counts an HTTP answer, whose head took so long.
    pub fn response(&self, interface: Interface, status: StatusCode, took: Duration) {
        let labels = InterfaceLabels { interface: interface.as_str() };
        self.response_seconds.get_or_create(&labels).observe(took.as_secs_f64());
        let status_class = match status.as_u16() {
            ..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.responses.get_or_create(&ResponseLabels { status_class }).inc();
    }
}

/// `GET /metrics`
pub async fn show(State(app): State<App>) -> Response {
    app.metrics.queue_length.set(app.writer.waiting() as u64);
    let mut text = String::new();
    match prometheus_text::encode(&mut text, &app.metrics.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, prometheus_text::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
