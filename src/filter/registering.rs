//! What of a request's way belongs to a registration: body, `registration`, credentials, one call to the store, 201.

use std::rc::Rc;

use super::board::InForce;
use super::callout::{self, Answer, Failure};
use super::config::Config;
use super::environment::{CallAnswer, Environment, Reply};
use super::reason::Reason;
use super::refusal::{self, Limiter, Refusal};
use super::request::Head;
use super::worker::Worker;
use crate::edge_api::{self, Origin, REQUEST_ID_HEADER, RegisterClient, RegisteredBy, RegisteredClient};
use crate::registration::{self, ClientMetadata, ClientSecret};

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
    state: State,
}

#[derive(Debug)]
enum State {
    /// The body is awaited; so many bytes have come.
    Body { origin: Box<Origin>, size: usize },
    /// The store is asked to register the client.
    Calling { secret: Option<ClientSecret>, metadata: Box<ClientMetadata> },
    /// It came to its end.
    Done,
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
    /// A registration with `tenant` whose body is awaited.
    pub fn new(worker: Rc<Worker>, tenant: Rc<InForce>, origin: Origin) -> Self {
        Self { worker, tenant, state: State::Body { origin: Box::new(origin), size: 0 } }
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
            State::Calling { .. } | State::Done => Ok(Step::Wait),
        }
    }

    /// The body is whole: checks it and asks the store to register the client.
    pub fn on_end<E: Environment>(&mut self, environment: &E, decision_id: &str) -> Result<Step, Refusal> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Body { origin, size } => {
                self.state = self.send(environment, decision_id, *origin, size)?;
            }
            other => self.state = other,
        }
        Ok(Step::Wait)
    }

    /// Takes the store's answer.
    pub fn on_answer(&mut self, answer: CallAnswer) -> Result<Step, Refusal> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Calling { secret, metadata } => registered(secret.as_ref(), &metadata, answer).map(Step::Answer),
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
        let mode = tenant.settings.dynamic_client_registration_security_mode;
        let metadata = registration::check(&body, mode, &tenant.settings.dcr_edge).map_err(Refusal::Metadata)?;
        let mut random = |buffer: &mut [u8]| environment.fill_random(buffer);
        let client_id = registration::client_id(mode, &mut random).map_err(|_| Refusal::RandomnessUnavailable)?;
        let secret = metadata.is_confidential().then(|| registration::client_secret(&mut random)).transpose();
        let secret = secret.map_err(|_| Refusal::RandomnessUnavailable)?;
        let client_secret_sha256 = secret.as_ref().map(ClientSecret::sha256_hex);
        let request =
            RegisterClient { client_secret_sha256, metadata: &metadata, origin, registered_by: RegisteredBy::Edge };
        let body = serde_json::to_vec(&request).map_err(|_| Refusal::Callout(Failure::StoreError))?;
        let store = &self.worker.config.store;
        let headers = [
            (":method", "PUT"),
            (":path", &edge_api::client_path(&tenant.name, &client_id)),
            (":authority", &store.authority),
            ("authorization", &self.worker.authorization),
            ("content-type", "application/json"),
            (REQUEST_ID_HEADER, decision_id),
        ];
        match environment.call(&store.cluster, &headers, &body, store.timeout) {
            Ok(_) => Ok(State::Calling { secret, metadata: Box::new(metadata) }),
            Err(error) => Err(Refusal::Callout(error.into())),
        }
    }
}

/// The answer to a registration, from that of the store.
fn registered(secret: Option<&ClientSecret>, metadata: &ClientMetadata, answer: CallAnswer) -> Result<Reply, Refusal> {
    let body = match callout::understand(answer, callout::MAX_REGISTRATION_ANSWER).map_err(Refusal::Callout)? {
        Answer::Success(body) => body,
        Answer::Refused(refusal) => return Err(Refusal::Store(refusal)),
        Answer::RateLimited { next_token_in } => {
            return Err(Refusal::RateLimited { next_token_in, by: Limiter::Fleet });
        }
    };
    let client: RegisteredClient = callout::parse(&body).map_err(Refusal::Callout)?;
    let body = registration::response(&client, secret, metadata).map_err(|_| Refusal::Callout(Failure::StoreError))?;
    let mut headers = refusal::no_store_headers();
    headers.push(("pragma", "no-cache".to_owned()));
    Ok(Reply { status: 201, headers, body, reason: Reason::Registered })
}
