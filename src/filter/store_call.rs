//! A call to the store for a request, and its one repeat.
//!
//! The proxy has no retry policy for the calls of filters. What is asked for here is the same however often it is asked:
//! the PUT of a client whose id was made before, and the GET of one. So a call that came to nothing is sent once more,
//! unless its answer was a definite one. Both together have to fit into `store.timeout_ms`, of which the first gets half.
//!
//! The repeat comes a moment later: by then the proxy has put aside the store that broke off, and takes another. A
//! request has no clock, so it is the worker's tick that sends it, and the worker's call that is answered.
//!
//! Settings and reports need no repeat: they are asked for and sent again soon.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::callout::{self, Failure};
use super::environment::{CallAnswer, CallId, CallResult, DispatchError, Environment, Metric};
use super::ticket::Ticket;
use super::worker::Worker;
use crate::edge_api::{EDGE_PROTOCOL_HEADER, PROTOCOL_VERSION, REQUEST_ID_HEADER};
use crate::trace_context::TraceContext;

/// Nanoseconds between a failure and the repeat. The proxy needs a few milliseconds to tell all of its workers that a
/// host is ill, and more where there is much to do.
const PAUSE: u64 = 50_000_000;

/// What a call has to have for a time-out, so that a part of it is kept for a repeat.
const LEAST_FOR_TWO: Duration = Duration::from_millis(200);

/// Most repeats of a worker that are in line or under way: a store that is slow must not get twice the work.
const MAX_REPEATS: usize = 128;

/// What the store is asked.
#[derive(Debug)]
pub struct StoreRequest {
    /// The method.
    pub method: &'static str,
    /// The path.
    pub path: String,
    /// JSON, or nothing.
    pub body: Vec<u8>,
    /// The request's id.
    pub request_id: String,
    /// The trace that it is a part of.
    pub trace: Rc<TraceContext>,
}

impl StoreRequest {
    fn send<E: Environment>(
        &self,
        environment: &E,
        worker: &Worker,
        timeout: Duration,
    ) -> Result<CallId, DispatchError> {
        let store = &worker.config.store;
        let mut headers = vec![
            (":method", self.method),
            (":path", &self.path),
            (":authority", &store.authority),
            ("authorization", &worker.authorization),
            (REQUEST_ID_HEADER, &self.request_id),
            (EDGE_PROTOCOL_HEADER, PROTOCOL_VERSION),
        ];
        headers.extend(self.trace.headers());
        headers.extend((!self.body.is_empty()).then_some(("content-type", "application/json")));
        environment.call(&store.cluster, &headers, &self.body, timeout)
    }
}

/// A call whose answer is awaited.
#[derive(Debug)]
pub struct StoreCall {
    state: State,
    deadline: u64,
}

#[derive(Debug)]
enum State {
    /// It was sent once, at this moment of the monotonic clock, in nanoseconds.
    First(StoreRequest, u64),
    /// It is the worker's to send.
    InLine(Ticket),
}

impl StoreCall {
    /// Asks the store. Gives the number of the call too, if it could be sent at once.
    pub fn send<E: Environment>(
        environment: &E,
        worker: &Worker,
        request: StoreRequest,
    ) -> Result<(Self, Option<CallId>), Failure> {
        let timeout = worker.config.store.timeout;
        let (started, deadline) = (environment.monotonic_nanos(), later(environment, timeout));
        let first = if timeout < LEAST_FOR_TWO { timeout } else { timeout.checked_div(2).unwrap_or(timeout) };
        match request.send(environment, worker, first) {
            Ok(call) => Ok((Self { state: State::First(request, started), deadline }, Some(call))),
            // Where there is no cluster there will be none in a moment either.
            Err(error @ DispatchError::NoCluster) => Err(error.into()),
            Err(error) => match worker.repeats.repeat(environment, worker, request, deadline, Err(error)) {
                Ok(ticket) => Ok((Self { state: State::InLine(ticket), deadline }, None)),
                Err(_) => Err(error.into()),
            },
        }
    }

    /// Has the worker ask the store at its next tick: for whoever is called back by the worker and not by the proxy. It
    /// has no repeat.
    pub fn send_by_worker<E: Environment>(environment: &E, worker: &Worker, request: StoreRequest) -> Self {
        let deadline = later(environment, worker.config.store.timeout);
        let failed = Err(DispatchError::NoHealthyHost);
        let ticket = worker.repeats.put_in_line(worker, request, environment.monotonic_nanos(), deadline, failed);
        Self { state: State::InLine(ticket), deadline }
    }

    /// The ticket under which the worker has it.
    pub fn ticket(&self) -> Option<u64> {
        match &self.state {
            State::First(..) => None,
            State::InLine(ticket) => Some(ticket.number()),
        }
    }

    /// Takes the answer to what was sent first; gives it back unless the call is repeated.
    pub fn answered<E: Environment>(
        self,
        environment: &E,
        worker: &Worker,
        answer: CallAnswer,
    ) -> Result<Self, CallAnswer> {
        let Self { state: State::First(request, started), deadline } = self else { return Err(answer) };
        measure(environment, started, &answer);
        if !callout::is_worth_a_repeat(&answer) {
            return Err(answer);
        }
        match worker.repeats.repeat(environment, worker, request, deadline, Ok(answer)) {
            Ok(ticket) => Ok(Self { state: State::InLine(ticket), deadline }),
            Err(first) => Err(first.ok().flatten()),
        }
    }
}

/// What a call of the worker's came to, with the number of its ticket.
pub type Repeated = (u64, CallResult);

/// The calls to the store that one worker sends in the place of requests.
#[derive(Debug, Default)]
pub struct Repeats {
    in_line: RefCell<Vec<InLine>>,
    /// The number of the ticket for each call that is under way, and when it was sent.
    calls: RefCell<HashMap<u32, (u64, u64)>>,
}

#[derive(Debug)]
struct InLine {
    number: u64,
    awaited: Weak<()>,
    request: StoreRequest,
    due: u64,
    deadline: u64,
    /// What the first came to, and what is told if there is no second.
    first: CallResult,
}

impl Repeats {
    /// Has a call repeated that came to this; gives that back if there is no time, or if there are too many already.
    fn repeat<E: Environment>(
        &self,
        environment: &E,
        worker: &Worker,
        request: StoreRequest,
        deadline: u64,
        first: CallResult,
    ) -> Result<Ticket, CallResult> {
        let due = environment.monotonic_nanos().saturating_add(PAUSE);
        let others = self.in_line.borrow().len().saturating_add(self.calls.borrow().len());
        if due >= deadline || others >= MAX_REPEATS {
            return Err(first);
        }
        environment.measure(Metric::StoreRepeats, 1);
        Ok(self.put_in_line(worker, request, due, deadline, first))
    }

    fn put_in_line(
        &self,
        worker: &Worker,
        request: StoreRequest,
        due: u64,
        deadline: u64,
        first: CallResult,
    ) -> Ticket {
        let ticket = worker.tickets.issue();
        let (number, awaited) = (ticket.number(), ticket.awaited());
        self.in_line.borrow_mut().push(InLine { number, awaited, request, due, deadline, first });
        ticket
    }

    /// Whether a call is one of these.
    pub fn awaits(&self, call: CallId) -> bool {
        self.calls.borrow().contains_key(&call.0)
    }

    /// Sends those that are due; gives what became of those that could not be sent.
    pub fn tick<E: Environment>(&self, environment: &E, worker: &Worker) -> Vec<Repeated> {
        if self.in_line.borrow().is_empty() {
            return Vec::new();
        }
        let now = environment.monotonic_nanos();
        let due: Vec<_> = self.in_line.borrow_mut().extract_if(.., |waiting| waiting.due <= now).collect();
        // Whoever is gone needs no answer, and what was asked for him is no harm undone.
        let due = due.into_iter().filter(|waiting| waiting.awaited.strong_count() > 0);
        due.filter_map(|InLine { number, request, deadline, first, .. }| {
            // The proxy counts in milliseconds, and takes 0 for no time-out at all.
            let left = Duration::from_millis(deadline.saturating_sub(now).checked_div(1_000_000)?);
            let sent = if left.is_zero() { None } else { request.send(environment, worker, left).ok() };
            match sent {
                Some(call) => {
                    self.calls.borrow_mut().insert(call.0, (number, now));
                    None
                }
                None => Some((number, first)),
            }
        })
        .collect()
    }

    /// Takes the answer to a call; gives whose it is.
    pub fn answered<E: Environment>(&self, environment: &E, call: CallId, answer: CallAnswer) -> Option<Repeated> {
        let (number, started) = self.calls.borrow_mut().remove(&call.0)?;
        measure(environment, started, &answer);
        Some((number, Ok(answer)))
    }
}

/// Counts a call that was sent at `started` and came back with this.
fn measure<E: Environment>(environment: &E, started: u64, answer: &CallAnswer) {
    let is_answered = !callout::is_worth_a_repeat(answer);
    environment.measure(if is_answered { Metric::StoreCallAnswered } else { Metric::StoreCallFailed }, 1);
    let took = environment.monotonic_nanos().saturating_sub(started);
    environment.record(Metric::StoreCallMillis, took / 1_000_000);
}

fn later<E: Environment>(environment: &E, span: Duration) -> u64 {
    environment.monotonic_nanos().saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}
