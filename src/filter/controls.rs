//! The way of a request to the authorization server that a registered client may have sent.
//!
//! Forward only: the whole request, the clients that it names, what is known of each of them, the decision. What goes on
//! is the request as it came if none of them is a third party's client with controls, and otherwise one that is written
//! anew from the parameters that were decided on: the server cannot read in it what the edge did not.

use std::rc::Rc;

use super::board::InForce;
use super::callout::{self, LookedUp};
use super::clients::{Client, Known, Question};
use super::environment::{CallAnswer, CallResult, Environment, Metric};
use super::limiter::{self, Outcome};
use super::refusal::{ClientAnswer, Refusal};
use super::request::Head;
use super::store_call::{StoreCall, StoreRequest};
use super::worker::Worker;
use crate::edge_api;
use crate::management::RedirectionPolicy;
use crate::media_type;
use crate::rate_limit::Verdict;
use crate::registration::is_third_party_form;
use crate::request_path::Endpoint;
use crate::tenant::{Registrar, SecurityMode, UnknownClients};
use crate::third_party::{self, AuthorizationRefusal, Denial, Message, OAuthError, Parameters};
use crate::trace_context::TraceContext;

/// Header by which the server knows the client of a request that the edge has written.
const CLIENT_HEADER: &str = "x-dcr-client";

/// Header that marks the request of a third party's client: the user's consent is never skipped.
const THIRD_PARTY_HEADER: &str = "x-dcr-third-party";

/// Header with the names of the connections that the user may log in with, where the request names none.
const CONNECTIONS_HEADER: &str = "x-dcr-connections";

/// The headers that only the edge may send.
pub const OWN_HEADERS: [&str; 3] = [CLIENT_HEADER, THIRD_PARTY_HEADER, CONNECTIONS_HEADER];

/// What becomes of the request for now.
#[derive(Debug)]
pub enum Step {
    /// It waits for its body, or for the store.
    Wait,
    /// It goes on: as it came, or, if it is a client's with controls, as it was written anew; the answer to an
    /// authorization request is then looked at too.
    Pass(Option<Guarded>),
}

/// A request to the authorization server that a registered client may have sent.
#[derive(Debug)]
pub struct Controls {
    worker: Rc<Worker>,
    tenant: Rc<InForce>,
    endpoint: Endpoint,
    head: Head,
    /// So many bytes of the body have come.
    size: usize,
    /// The body, once it is whole.
    body: Vec<u8>,
    /// The ids that the request names and that nobody has looked at yet.
    unseen: Vec<String>,
    /// Those that somebody has, each with its client if it has one.
    seen: Vec<(String, Option<Rc<Client>>)>,
    /// What the store is asked, and for which id.
    asked: Option<(Question, String, StoreCall)>,
    /// Whether the worker calls back, and not the proxy: an answer to a call of the request's own would be lost then.
    is_called_by_worker: bool,
    /// The request's id, for the store's log.
    request_id: String,
    /// The trace that it says to be a part of.
    trace: Option<Rc<TraceContext>>,
}

impl Controls {
    /// A request of which no body has been read. The refusal is of one whose body cannot be.
    pub fn new(
        worker: &Rc<Worker>,
        tenant: Rc<InForce>,
        endpoint: Endpoint,
        head: Head,
        request_id: String,
    ) -> Result<Self, Refusal> {
        let most = worker.config.max_body_bytes;
        if head.content_length().is_some_and(|length| usize::try_from(length).map_or(true, |length| length > most)) {
            return Err(Refusal::BodyTooLarge { most });
        }
        if !head.is_identity() {
            return Err(Refusal::ContentEncoding);
        }
        Ok(Self {
            worker: Rc::clone(worker),
            tenant,
            endpoint,
            size: 0,
            body: Vec::new(),
            unseen: Vec::new(),
            seen: Vec::new(),
            asked: None,
            is_called_by_worker: false,
            trace: head.trace().map(Rc::new),
            head,
            request_id,
        })
    }

    /// Looks at the body as far as it has come: `total` bytes.
    pub fn on_body<E: Environment>(
        &mut self,
        environment: &E,
        total: usize,
        end_of_stream: bool,
    ) -> Result<Step, Refusal> {
        let most = self.worker.config.max_body_bytes;
        if total > most {
            return Err(Refusal::BodyTooLarge { most });
        }
        self.size = total;
        if end_of_stream { self.on_end(environment) } else { Ok(Step::Wait) }
    }

    /// The request is whole.
    pub fn on_end<E: Environment>(&mut self, environment: &E) -> Result<Step, Refusal> {
        self.body = if self.size == 0 { Vec::new() } else { environment.request_body(self.size) };
        let named = third_party::named_clients(&Message {
            is_named_by_path: self.endpoint == Endpoint::Closed,
            path_and_query: self.head.path(),
            authorization: &self.head.values("authorization"),
            content_types: &self.head.values("content-type"),
            body: &self.body,
        });
        // Nobody knows whose it is.
        if named.too_many {
            return Err(self.invalid("the request names more clients than any request has to do with"));
        }
        if named.uncertain {
            return Err(self.invalid("the request cannot be read in one way only, send parameters in their plain form"));
        }
        self.unseen = named.ids;
        self.look_up(environment)
    }

    /// Takes the store's answer, which may have it asked once more.
    pub fn on_answer<E: Environment>(&mut self, environment: &E, answer: CallAnswer) -> Result<Step, Refusal> {
        let Some((question, id, call)) = self.asked.take() else { return Ok(Step::Wait) };
        match call.answered(environment, &self.worker, answer) {
            Ok(call) => {
                self.asked = Some((question, id, call));
                Ok(Step::Wait)
            }
            Err(answer) => self.learn(environment, question, id, Ok(answer)),
        }
    }

    /// Takes what the store said when the worker asked it.
    pub fn on_repeat<E: Environment>(&mut self, environment: &E, result: CallResult) -> Result<Step, Refusal> {
        let Some((question, id, _)) = self.asked.take() else { return Ok(Step::Wait) };
        self.is_called_by_worker = true;
        self.learn(environment, question, id, result)
    }

    /// The client that the request is of, if the tenant has it.
    pub fn client_id(&self) -> Option<&str> {
        let mut known = self.seen.iter().filter_map(|(_, client)| client.as_ref());
        let (Some(only), None) = (known.next(), known.next()) else { return None };
        Some(&only.record.client_id)
    }

    /// The number of the ticket under which the worker asks the store, if it does.
    pub fn ticket(&self) -> Option<u64> {
        self.asked.as_ref().and_then(|(.., call)| call.ticket())
    }

    fn learn<E: Environment>(
        &mut self,
        environment: &E,
        question: Question,
        id: String,
        result: CallResult,
    ) -> Result<Step, Refusal> {
        let controls = match callout::looked_up(result).map_err(Refusal::LookUp)? {
            LookedUp::Client(controls) => Some(*controls),
            LookedUp::Nobody => None,
        };
        let client = self.worker.clients.learn(question, controls, environment.monotonic_nanos());
        self.seen.push((id, client));
        self.look_up(environment)
    }

    /// Whether an id is worth a look: an id of any form may be a third party's only where somebody else makes them.
    fn is_looked_up(&self, id: &str) -> bool {
        let settings = &self.tenant.tenant.settings.dcr_edge;
        let is_any = settings.registrar != Registrar::Store || settings.unknown_clients == UnknownClients::Refuse;
        edge_api::is_client_id(id) && (is_any || is_third_party_form(id))
    }

    /// Looks at one id after the other; decides when there is none left.
    fn look_up<E: Environment>(&mut self, environment: &E) -> Result<Step, Refusal> {
        let clients = &self.worker.clients;
        let grace = self.tenant.tenant.settings.dcr_edge.client_grace;
        while let Some(id) = self.unseen.pop() {
            if self.seen.iter().any(|(seen, _)| *seen == id) {
                continue;
            }
            if !self.is_looked_up(&id) {
                self.seen.push((id, None));
                continue;
            }
            let known = clients.look_up(self.tenant.slot, &id, environment.monotonic_nanos(), grace);
            let client = match known {
                Known::Client(client) => {
                    environment.measure(Metric::ClientHits, 1);
                    Some(client)
                }
                Known::Nobody => {
                    environment.measure(Metric::ClientUnknownHits, 1);
                    None
                }
                Known::Outdated | Known::Nothing => {
                    // Whoever is known was looked up before: only strangers can be invented.
                    if matches!(known, Known::Nothing) {
                        self.take_look_up(environment)?;
                    }
                    environment.measure(Metric::ClientMisses, 1);
                    let request = StoreRequest {
                        method: "GET",
                        path: edge_api::controls_path(&self.tenant.tenant.name, &id),
                        body: Vec::new(),
                        request_id: self.request_id.clone(),
                        trace: self.trace(),
                    };
                    let call = if self.is_called_by_worker {
                        StoreCall::send_by_worker(environment, &self.worker, request)
                    } else {
                        StoreCall::send(environment, &self.worker, request).map_err(Refusal::LookUp)?.0
                    };
                    self.asked = Some((clients.ask(self.tenant.slot, &id), id, call));
                    return Ok(Step::Wait);
                }
            };
            self.seen.push((id, client));
        }
        self.decide(environment)
    }

    fn trace(&self) -> Rc<TraceContext> {
        self.trace.clone().unwrap_or_else(|| Rc::new(TraceContext::of_request(&self.request_id)))
    }

    fn take_look_up<E: Environment>(&self, environment: &E) -> Result<(), Refusal> {
        let limit = self.tenant.tenant.settings.dcr_edge.client_lookups;
        match limiter::take(environment, &self.tenant.look_ups, limit) {
            Outcome::Judged { verdict: Verdict { admitted: true, .. }, .. } => Ok(()),
            Outcome::Judged { .. } => Err(Refusal::LookUpsLimited),
            Outcome::Unavailable => Err(Refusal::LimiterUnavailable),
        }
    }

    fn decide<E: Environment>(&mut self, environment: &E) -> Result<Step, Refusal> {
        let is_strict = |client: &Rc<Client>| client.record.security_mode == SecurityMode::Strict;
        let is_controlled = |(id, client): &(String, Option<Rc<Client>>)| match client {
            Some(client) => is_strict(client),
            None => is_third_party_form(id),
        };
        let is_controlled = self.seen.iter().any(is_controlled);
        match self.endpoint {
            Endpoint::Authorization | Endpoint::Token if is_controlled => self.control(environment),
            Endpoint::Authorization | Endpoint::Token => {
                let is_known = !self.seen.is_empty() && self.seen.iter().all(|(_, client)| client.is_some());
                if self.tenant.tenant.settings.dcr_edge.unknown_clients == UnknownClients::Refuse && !is_known {
                    return Err(self.refuse_unknown());
                }
                Ok(Step::Pass(None))
            }
            _ if is_controlled => {
                let description = "this endpoint is closed to third-party clients";
                Err(Refusal::Client(Denial::new(OAuthError::AccessDenied, description), ClientAnswer::Closed))
            }
            _ => Ok(Step::Pass(None)),
        }
    }

    /// The refusal of a client that the tenant does not have.
    fn refuse_unknown(&self) -> Refusal {
        self.refuse(Denial::new(OAuthError::InvalidClient, "client_id: there is no such client, register one"))
    }

    fn refuse(&self, denial: Denial) -> Refusal {
        let answer = match self.endpoint {
            Endpoint::Token => ClientAnswer::Token { is_challenged: self.head.has("authorization") },
            _ => ClientAnswer::Page { is_html: media_type::prefers_html(self.head.all("accept")) },
        };
        Refusal::Client(denial, answer)
    }

    fn invalid(&self, description: &str) -> Refusal {
        self.refuse(Denial::new(OAuthError::InvalidRequest, description))
    }

    /// Holds a request to what its client may do, and writes it anew.
    fn control<E: Environment>(&self, environment: &E) -> Result<Step, Refusal> {
        let [(_, client)] = self.seen.as_slice() else {
            return Err(self.invalid("the request names more than one client"));
        };
        let Some(client) = client else { return Err(self.refuse_unknown()) };
        let (sent, is_form) = self.parameters()?;
        let (settings, permissions) = (&self.tenant.tenant.settings, client.permissions());
        let mut connections = None;
        let parameters = if self.endpoint == Endpoint::Token {
            let has_authorization = self.head.has("authorization");
            third_party::token(sent, has_authorization, &client.record, permissions, settings)
                .map_err(|denial| self.refuse(denial))?
        } else {
            let authorization = third_party::authorize(sent, &client.record, permissions, settings);
            let authorization = authorization.map_err(|AuthorizationRefusal { denial, location }| match location {
                Some(location) => Refusal::Client(denial, ClientAnswer::Redirect { location }),
                None => self.refuse(denial),
            })?;
            connections = authorization.connections;
            authorization.parameters
        };
        let encoded = parameters.encode();
        let path = self.head.path().split(|byte| *byte == b'?').next().unwrap_or_default();
        let path = String::from_utf8_lossy(path);
        if is_form {
            // It may have had a `?` with nothing after it.
            environment.set_request_header(":path", Some(&path));
            environment.set_request_header("content-type", Some(third_party::FORM));
            environment.set_request_header("content-length", Some(&encoded.len().to_string()));
            environment.set_request_body(self.body.len(), encoded.as_bytes());
        } else {
            environment.set_request_header(":path", Some(&format!("{path}?{encoded}")));
        }
        environment.set_request_header(CLIENT_HEADER, Some(&client.record.client_id));
        environment.set_request_header(THIRD_PARTY_HEADER, Some("1"));
        if let Some(connections) = connections {
            environment.set_request_header(CONNECTIONS_HEADER, Some(&connections));
        }
        let is_html = media_type::prefers_html(self.head.all("accept"));
        let guarded = Guarded { client: Rc::clone(client), is_html };
        Ok(Step::Pass((self.endpoint == Endpoint::Authorization).then_some(guarded)))
    }

    /// The parameters, and whether they came as a form: from one place only.
    fn parameters(&self) -> Result<(Parameters, bool), Refusal> {
        let query = self.head.path().splitn(2, |byte| *byte == b'?').nth(1).unwrap_or_default();
        let is_form = match (self.head.method(), self.endpoint) {
            (b"POST", _) => true,
            (b"GET" | b"HEAD", Endpoint::Authorization) => false,
            (_, Endpoint::Token) => return Err(self.invalid("send POST with a form")),
            _ => return Err(self.invalid("send GET with a query, or POST with a form")),
        };
        if is_form && !query.is_empty() {
            return Err(self.invalid("parameters came in the query of a POST, send them in the form alone"));
        }
        if !is_form && !self.body.is_empty() {
            return Err(self.invalid("a body came with a GET, send parameters in the query alone"));
        }
        if is_form && !media_type::is_form(self.head.all("content-type")) {
            return Err(self.invalid("send exactly one content-type: application/x-www-form-urlencoded"));
        }
        let encoded = if is_form { &self.body } else { query };
        let parameters = Parameters::parse(encoded).map_err(|malformed| self.invalid(&malformed.to_string()))?;
        Ok((parameters, is_form))
    }
}

/// A client's authorization request that went on to the server.
#[derive(Debug)]
pub struct Guarded {
    client: Rc<Client>,
    is_html: bool,
}

impl Guarded {
    /// What takes the place of the server's answer, if that sends the user back to the client with an error and the
    /// client is to learn of none. In the response's header callback.
    pub fn replacement<E: Environment>(&self, environment: &E) -> Option<Refusal> {
        let record = &self.client.record;
        if record.redirection_policy == RedirectionPolicy::AllowAlways {
            return None;
        }
        let head = environment.response_head();
        if !matches!(head.first(":status")?, b"301" | b"302" | b"303" | b"307" | b"308") {
            return None;
        }
        let location = std::str::from_utf8(head.first("location")?).ok()?;
        let error = third_party::error_of_redirect(record, location)?;
        Some(Refusal::ErrorRedirect { error, is_html: self.is_html })
    }
}
