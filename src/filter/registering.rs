//! What of a request's way belongs to a registration: body, `registration`, credentials, one call to the store, 201. Where
//! the authorization server registers, what follows the checks is [`super::forward`]'s.

use std::rc::Rc;

use super::board::InForce;
use super::callout::{self, Answer, Failure};
use super::config::Config;
use super::environment::{CallAnswer, CallResult, Environment, Reply};
use super::forward::{Forward, Server, ServerFailure};
use super::reason::Reason;
use super::refusal::{self, Limiter, Refusal};
use super::request::Head;
use super::store_call::{StoreCall, StoreRequest};
use super::ticket::Ticket;
use super::worker::Worker;
use crate::edge_api::{self, Origin, RegisterClient, RegisteredBy, RegisteredClient};
use crate::registration::{self, ClientMetadata, ClientSecret};
use crate::tenant::{Registrar, SecurityMode};
use crate::trace_context::TraceContext;

/// What follows from a step of a registration that is not refused.
#[derive(Debug)]
pub enum Step {
    /// More of the body is awaited, or the answer to a call.
    Wait,
    /// This answer, with the headers that every answer carries.
    Answer(Reply),
}

/// One registration, from the request's body on.
#[derive(Debug)]
pub struct Registration {
    worker: Rc<Worker>,
    tenant: Rc<InForce>,
    /// The authorization server, if it registers.
    server: Option<Server>,
    /// The trace that the request says to be a part of.
    trace: Option<Rc<TraceContext>>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The body is awaited; so many bytes have come.
    Body { origin: Box<Origin>, size: usize },
    /// The store is asked to register the client.
    Calling { call: StoreCall, client: NewClient },
    /// It is under way to the authorization server.
    Forwarded(Ticket),
    /// It came to its end.
    Done,
}

/// What the answer to a registration is made of, beside what the store says.
#[derive(Debug)]
struct NewClient {
    secret: Option<ClientSecret>,
    metadata: Box<ClientMetadata>,
}

/// Whether the body that a head announces is worth reading.
pub fn check_head(config: &Config, head: &Head) -> Result<(), Refusal> {
    let most = config.max_body_bytes;
    if head.content_length().is_some_and(|length| usize::try_from(length).map_or(true, |length| length > most)) {
        Err(Refusal::BodyTooLarge { most })
    } else if !head.is_identity() {
        Err(Refusal::ContentEncoding)
    } else if !head.is_json() {
        Err(Refusal::ContentType)
    } else {
        Ok(())
    }
}

impl Registration {
    /// A registration with `tenant` whose body is awaited. In the header callback.
    pub fn new<E: Environment>(
        environment: &E,
        worker: Rc<Worker>,
        tenant: Rc<InForce>,
        head: &Head,
        origin: Origin,
    ) -> Self {
        let is_forwarded = tenant.tenant.settings.dcr_edge.registrar == Registrar::Forward;
        let server = is_forwarded.then(|| Server::of_request(environment, head)).flatten();
        let trace = head.trace().map(Rc::new);
        Self { worker, tenant, server, trace, state: State::Body { origin: Box::new(origin), size: 0 } }
    }

    /// The number of the ticket under which the worker has it, if it has.
    pub fn ticket(&self) -> Option<u64> {
        match &self.state {
            State::Forwarded(ticket) => Some(ticket.number()),
            State::Calling { call, .. } => call.ticket(),
            State::Body { .. } | State::Done => None,
        }
    }

    /// The burst of the tenant's limit.
    pub fn burst(&self) -> u32 {
        self.tenant.tenant.settings.dcr_edge.rate_limit.burst.get()
    }

    /// Looks at the body as far as it has come: `total` bytes.
    pub fn on_body<E: Environment>(
        &mut self,
        environment: &E,
        decision_id: &str,
        total: usize,
        end_of_stream: bool,
    ) -> Result<Step, Refusal> {
        let most = self.worker.config.max_body_bytes;
        match &mut self.state {
            State::Body { .. } if total > most => Err(Refusal::BodyTooLarge { most }),
            State::Body { size, .. } => {
                *size = total;
                if end_of_stream { self.on_end(environment, decision_id) } else { Ok(Step::Wait) }
            }
            State::Calling { .. } | State::Forwarded(_) | State::Done => Ok(Step::Wait),
        }
    }

    /// The body is whole: checks it and asks the store or the server to register the client.
    pub fn on_end<E: Environment>(&mut self, environment: &E, decision_id: &str) -> Result<Step, Refusal> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Body { origin, size } => {
                self.state = self.send(environment, decision_id, *origin, size)?;
            }
            other => self.state = other,
        }
        Ok(Step::Wait)
    }

    /// Takes the store's answer, which may have it asked once more.
    pub fn on_answer<E: Environment>(&mut self, environment: &E, answer: CallAnswer) -> Result<Step, Refusal> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Calling { call, client } => match call.answered(environment, &self.worker, answer) {
                Ok(call) => {
                    self.state = State::Calling { call, client };
                    Ok(Step::Wait)
                }
                Err(answer) => client.answer(Ok(answer)),
            },
            other => {
                self.state = other;
                Ok(Step::Wait)
            }
        }
    }

    /// Takes what the store said when it was asked once more.
    pub fn on_repeat(&mut self, result: CallResult) -> Result<Step, Refusal> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Calling { client, .. } => client.answer(result),
            other => {
                self.state = other;
                Ok(Step::Wait)
            }
        }
    }

    /// Takes what became of a registration at the authorization server.
    pub fn on_outcome(&mut self, outcome: Result<Reply, Refusal>) -> Result<Step, Refusal> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Forwarded(_) => outcome.map(Step::Answer),
            other => {
                self.state = other;
                Ok(Step::Wait)
            }
        }
    }

    fn send<E: Environment>(
        &self,
        environment: &E,
        decision_id: &str,
        origin: Origin,
        size: usize,
    ) -> Result<State, Refusal> {
        let tenant = &self.tenant.tenant;
        let body = if size == 0 { Vec::new() } else { environment.request_body(size) };
        let trace = self.trace.clone().unwrap_or_else(|| Rc::new(TraceContext::of_request(decision_id)));
        let forwards = tenant.settings.dcr_edge.registrar == Registrar::Forward;
        // A server's clients are third parties whatever the tenant's mode says.
        let mode = match tenant.settings.dynamic_client_registration_security_mode {
            _ if forwards => SecurityMode::Strict,
            mode => mode,
        };
        let metadata = registration::check(&body, mode, &tenant.settings.dcr_edge).map_err(Refusal::Metadata)?;
        if forwards {
            let server = self.server.clone().ok_or(Refusal::Server(ServerFailure::NoCluster))?;
            let (tenant, decision_id) = (Rc::clone(&self.tenant), decision_id.to_owned());
            let forward = Forward { server, tenant, metadata, origin, decision_id, trace };
            return Ok(State::Forwarded(self.worker.forwards.begin(environment, &self.worker.tickets, forward)));
        }
        let mut random = |buffer: &mut [u8]| environment.fill_random(buffer);
        let client_id = registration::client_id(mode, &mut random).map_err(|_| Refusal::RandomnessUnavailable)?;
        let secret = metadata.is_confidential().then(|| registration::client_secret(&mut random)).transpose();
        let secret = secret.map_err(|_| Refusal::RandomnessUnavailable)?;
        let client_secret_sha256 = secret.as_ref().map(ClientSecret::sha256_hex);
        let request =
            RegisterClient { client_secret_sha256, metadata: &metadata, origin, registered_by: RegisteredBy::Edge };
        let path = edge_api::client_path(&tenant.name, &client_id);
        let request = record(path, decision_id, trace, &request).map_err(Refusal::Callout)?;
        let (call, _) = StoreCall::send(environment, &self.worker, request).map_err(Refusal::Callout)?;
        Ok(State::Calling { call, client: NewClient { secret, metadata: Box::new(metadata) } })
    }
}

impl NewClient {
    fn answer(&self, result: CallResult) -> Result<Step, Refusal> {
        let secret = self.secret.as_ref().map(|secret| (secret, 0));
        created(&registered(result)?, secret, &self.metadata).map(Step::Answer)
    }
}

/// What has the store record a client at `path`.
pub fn record(
    path: String,
    decision_id: &str,
    trace: Rc<TraceContext>,
    request: &RegisterClient<&ClientMetadata>,
) -> Result<StoreRequest, Failure> {
    let body = serde_json::to_vec(request).map_err(|_| Failure::StoreError)?;
    Ok(StoreRequest { method: "PUT", path, body, request_id: decision_id.to_owned(), trace })
}

/// The client that the store has recorded.
pub fn registered(result: CallResult) -> Result<RegisteredClient, Refusal> {
    let body = match callout::understand(result, callout::MAX_REGISTRATION_ANSWER).map_err(Refusal::Callout)? {
        Answer::Success(body) => body,
        Answer::Refused(refusal) => return Err(Refusal::Store(refusal)),
        Answer::RateLimited { next_token_in } => {
            return Err(Refusal::RateLimited { next_token_in, by: Limiter::Fleet });
        }
    };
    callout::parse(&body).map_err(Refusal::Callout)
}

/// The answer to a registration: the credentials, of which a secret ends at this UNIX second or, with 0, never.
pub fn created(
    client: &RegisteredClient,
    secret: Option<(&ClientSecret, u64)>,
    metadata: &ClientMetadata,
) -> Result<Reply, Refusal> {
    let body = registration::response(client, secret, metadata).map_err(|_| Refusal::Callout(Failure::StoreError))?;
    let mut headers = refusal::no_store_headers();
    headers.push(("pragma", "no-cache".to_owned()));
    let client_id = Some(client.client_id.clone());
    Ok(Reply { status: 201, headers, body, reason: Reason::Registered, client_id })
}
