//! The way of one request through the filter.
//!
//! Forward only: tenant, path, method, access rules, limiters, registration enabled, type and length, body,
//! `registration`, credentials, one call to the store, 201. Each step is one call to one room; each refusal is a
//! [`Refusal`].
//!
//! A request that is none of ours costs what it takes to see that: its headers, its server name and one look at shared
//! data, and whatever signals the rules for it need.

use std::net::IpAddr;
use std::rc::Rc;

use super::board::{InForce, Lookup};
use super::bodies::Watch;
use super::callout::StoreRefusal;
use super::config::UnknownHosts;
use super::controls::{self, Controls, Guarded};
use super::cors::{self, Cors, Readable};
use super::discovery::{Completion, Unusable};
use super::environment::{CallAnswer, CallResult, Environment, Flow, Level, LogField, Metric, Reply};
use super::limiter::{self, Outcome};
use super::reason::Reason;
use super::refusal::{Limiter, Refusal};
use super::registering::{self, Registration};
use super::request::{self, Head};
use super::signals::{self, Observed};
use super::worker::Worker;
use crate::acl::{self, RequestKind, Signal, SignalSet};
use crate::edge_api::{CLIENT_ADDRESS_HEADER, REQUEST_ID_HEADER, TENANT_HEADER};
use crate::media_type;
use crate::rate_limit::Verdict;
use crate::request_path::{Disguised, Endpoint};
use crate::tenant::{self, RateLimit, Tenant};

/// How far a request has come. Only one in `Passing` goes on, and one in `Answered` is never answered again.
#[derive(Debug)]
enum State {
    /// A step is being taken.
    Deciding,
    /// Nothing of ours.
    Passing,
    /// A registration.
    Registering(Box<Registration>),
    /// A request that a registered client may have sent.
    Controlling(Box<Controls>),
    /// Answered with this status.
    Answered { status: u16 },
}

/// What answers say of the limiter: the burst, the tokens that are left, and the UNIX second of the next one.
#[derive(Clone, Copy, Debug)]
struct Limit {
    burst: u32,
    remaining: u32,
    reset: u64,
}

/// The host that a request is for, lower case, without port; empty if there is none that a tenant could have.
fn host(head: &Head) -> String {
    head.first(":authority").and_then(tenant::authority_host).unwrap_or_default()
}

/// What a request's head asks for.
enum Admission {
    /// Nothing of ours.
    Pass,
    /// A CORS preflight.
    Preflight,
    /// A request for the server's metadata.
    Discovery(Rc<InForce>),
    /// A registration whose body is worth reading.
    Registration(Box<Registration>),
    /// A request that a registered client may have sent.
    Client(Rc<InForce>, Endpoint),
}

/// One request.
#[derive(Debug)]
pub struct Exchange {
    worker: Rc<Worker>,
    state: State,
    /// The `decision_id` of the answer: the request's id, which is in the access log and the store's log too.
    decision_id: String,
    /// Headers that every answer carries, from the step on that knows them.
    shared: Vec<(&'static str, String)>,
    /// What the limiters said: each answer after them says it.
    limit: Option<Limit>,
    /// Whether the request says it is gRPC.
    is_grpc: bool,
    /// The tenant that it is for.
    tenant: Option<Rc<InForce>>,
    /// Whether it is for the registration endpoint.
    is_registration: bool,
    /// The authorization request of a client with controls, once it went on.
    guarded: Option<Guarded>,
    /// What the tenant says of the page that sent it, in the place of what the server says.
    cors: Option<Cors>,
    /// The server's metadata on their way to the client.
    completion: Option<Completion>,
    /// Kept while a body is awaited and nobody knows whether this worker sees any.
    watch: Option<Watch>,
}

impl Exchange {
    /// A request that nobody has looked at yet.
    pub fn new(worker: Rc<Worker>) -> Self {
        Self {
            worker,
            state: State::Deciding,
            decision_id: String::new(),
            shared: Vec::new(),
            limit: None,
            is_grpc: false,
            tenant: None,
            is_registration: false,
            guarded: None,
            cors: None,
            completion: None,
            watch: None,
        }
    }

    /// Looks at the request's head.
    pub fn on_headers<E: Environment>(&mut self, environment: &E, end_of_stream: bool) -> Flow {
        // Each call of the proxy costs more than a look through all headers, so they are fetched once.
        let head = environment.request_head();
        match self.admit(environment, &head) {
            Ok(Admission::Pass) => self.state = State::Passing,
            Ok(Admission::Discovery(tenant)) => {
                // Refusals of the server's answer come when the request's head is gone.
                self.recognise(environment, &head);
                self.completion = Completion::of_request(environment, &head, &tenant.tenant);
                self.state = State::Passing;
            }
            Ok(Admission::Preflight) => {
                let headers = std::mem::take(&mut self.shared);
                let (body, reason) = (Vec::new(), Reason::Preflight);
                self.answer(environment, &Reply { status: 204, headers, body, reason, client_id: None });
            }
            Ok(Admission::Registration(registration)) => {
                self.recognise(environment, &head);
                self.state = State::Registering(registration);
                self.on_head(environment, end_of_stream);
            }
            Ok(Admission::Client(tenant, endpoint)) => {
                self.recognise(environment, &head);
                match Controls::new(&self.worker, tenant, endpoint, head, self.decision_id.clone()) {
                    Ok(controls) => {
                        self.state = State::Controlling(Box::new(controls));
                        self.on_head(environment, end_of_stream);
                    }
                    Err(refusal) => self.refuse(environment, &refusal),
                }
            }
            Err(refusal) => {
                self.recognise(environment, &head);
                self.refuse(environment, &refusal);
            }
        }
        self.flow()
    }

    /// Keeps what answers need to know of the head.
    fn recognise<E: Environment>(&mut self, environment: &E, head: &Head) {
        self.is_grpc = head.first("content-type").is_some_and(request::is_grpc);
        let id = head.first(REQUEST_ID_HEADER).and_then(request::harmless_id);
        self.decision_id = id.map_or_else(|| random_id(environment), str::to_owned);
    }

    /// Waits for the body, if there is one and the worker may see it.
    fn on_head<E: Environment>(&mut self, environment: &E, end_of_stream: bool) {
        if end_of_stream {
            self.on_end(environment);
        } else if self.worker.bodies.are_hidden() {
            self.refuse(environment, &Refusal::BodiesHidden);
        } else {
            self.watch = self.worker.bodies.watch(environment);
        }
    }

    /// Whether the request is to be looked at from time to time, since its body may never be seen.
    pub fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    /// Refuses the request if its body is there and hidden.
    pub fn on_watch<E: Environment>(&mut self, environment: &E) {
        let Some(mut watch) = self.watch.take() else { return };
        match self.state {
            State::Registering(_) | State::Controlling(_) => {
                if self.worker.bodies.are_hidden_from(environment, &mut watch) {
                    self.refuse(environment, &Refusal::BodiesHidden);
                } else {
                    self.watch = Some(watch);
                }
            }
            State::Deciding | State::Passing | State::Answered { .. } => {}
        }
    }

    /// The proxy calls back with the body, or with what comes after it.
    fn on_seen(&mut self) {
        if self.watch.take().is_some() {
            self.worker.bodies.seen();
        }
    }

    /// Looks at the body as far as it has come: `total` bytes.
    pub fn on_body<E: Environment>(&mut self, environment: &E, total: usize, end_of_stream: bool) -> Flow {
        self.on_seen();
        self.register(environment, |registration, id| registration.on_body(environment, id, total, end_of_stream));
        self.control(environment, |controls| controls.on_body(environment, total, end_of_stream));
        self.flow()
    }

    /// Trailers end the body without a last piece that says so.
    pub fn on_trailers<E: Environment>(&mut self, environment: &E) -> Flow {
        self.on_seen();
        self.on_end(environment);
        self.flow()
    }

    fn on_end<E: Environment>(&mut self, environment: &E) {
        self.register(environment, |registration, id| registration.on_end(environment, id));
        self.control(environment, |controls| controls.on_end(environment));
    }

    /// Takes the answer to a call.
    pub fn on_answer<E: Environment>(&mut self, environment: &E, answer: CallAnswer) {
        match self.state {
            State::Registering(_) => {
                self.register(environment, |registration, _| registration.on_answer(environment, answer));
            }
            State::Controlling(_) => {
                self.control(environment, |controls| controls.on_answer(environment, answer));
                self.go_on(environment);
            }
            State::Deciding | State::Passing | State::Answered { .. } => {}
        }
    }

    /// Takes what a call came to that the worker sent.
    pub fn on_repeat<E: Environment>(&mut self, environment: &E, result: CallResult) {
        match self.state {
            State::Registering(_) => self.register(environment, |registration, _| registration.on_repeat(result)),
            State::Controlling(_) => {
                self.control(environment, |controls| controls.on_repeat(environment, result));
                self.go_on(environment);
            }
            State::Deciding | State::Passing | State::Answered { .. } => {}
        }
    }

    /// Lets the request go on that has waited for an answer, if that is what follows from it.
    fn go_on<E: Environment>(&self, environment: &E) {
        if let State::Passing = self.state {
            environment.resume_request();
        }
    }

    /// The number of the ticket under which the worker has something of it.
    pub fn ticket(&self) -> Option<u64> {
        match &self.state {
            State::Registering(registration) => registration.ticket(),
            State::Controlling(controls) => controls.ticket(),
            State::Deciding | State::Passing | State::Answered { .. } => None,
        }
    }

    /// Takes what became of that registration.
    pub fn on_outcome<E: Environment>(&mut self, environment: &E, outcome: Result<Reply, Refusal>) {
        self.register(environment, |registration, _| registration.on_outcome(outcome));
    }

    /// Takes a step of the registration, if the request is one.
    fn register<E: Environment>(
        &mut self,
        environment: &E,
        take: impl FnOnce(&mut Registration, &str) -> Result<registering::Step, Refusal>,
    ) {
        let State::Registering(registration) = &mut self.state else { return };
        match take(registration, &self.decision_id) {
            Ok(registering::Step::Wait) => {}
            Ok(registering::Step::Answer(mut reply)) => {
                reply.headers.extend(self.shared_headers());
                self.answer(environment, &reply);
            }
            Err(refusal) => {
                if let Refusal::RateLimited { next_token_in, .. } = &refusal {
                    let (burst, reset) = (registration.burst(), reset(environment, *next_token_in));
                    self.limit = Some(Limit { burst, remaining: 0, reset });
                }
                self.refuse(environment, &refusal);
            }
        }
    }

    /// Takes a step of the controls, if the request is one that a registered client may have sent.
    fn control<E: Environment>(
        &mut self,
        environment: &E,
        take: impl FnOnce(&mut Controls) -> Result<controls::Step, Refusal>,
    ) {
        let State::Controlling(controls) = &mut self.state else { return };
        match take(controls) {
            Ok(controls::Step::Wait) => {}
            Ok(controls::Step::Pass(guarded)) => {
                if let Some(client_id) = controls.client_id() {
                    environment.tell_log(LogField::ClientId, client_id);
                    environment.tell_log(LogField::Decision, "passed");
                    if let Some(tenant) = &self.tenant {
                        environment.tell_log(LogField::Tenant, tenant.tenant.name.as_str());
                    }
                }
                self.guarded = guarded;
                self.state = State::Passing;
            }
            Err(refusal) => {
                if let Some(client_id) = controls.client_id() {
                    environment.tell_log(LogField::ClientId, client_id);
                }
                self.refuse(environment, &refusal);
            }
        }
    }

    /// Looks at the head of the response. The proxy writes an answer of ours to a request that says it is gRPC as a 200
    /// with the body in `grpc-message`; whoever watches the status should see a refusal all the same.
    pub fn on_response_headers<E: Environment>(&mut self, environment: &E, end_of_stream: bool) -> Flow {
        if let State::Answered { status } = self.state {
            if self.is_grpc {
                environment.set_response_header(":status", Some(&status.to_string()));
            }
            return Flow::Continue;
        }
        if let Some(cors) = &self.cors {
            cors.replace(environment);
        }
        if let Some(guarded) = self.guarded.take()
            && let Some(refusal) = guarded.replacement(environment)
        {
            let reply = refusal.reply(&self.decision_id, &[]);
            self.answer(environment, &reply);
            return Flow::Pause;
        }
        let flow = self.completion.as_mut().map(|completion| completion.on_headers(environment, end_of_stream));
        self.response_flow(environment, flow)
    }

    /// Looks at the response's body as far as it has come: `total` bytes.
    pub fn on_response_body<E: Environment>(&mut self, environment: &E, total: usize, end_of_stream: bool) -> Flow {
        let flow = self.completion.as_mut().map(|completion| completion.on_body(environment, total, end_of_stream));
        self.response_flow(environment, flow)
    }

    /// Trailers end the response's body without a last piece that says so.
    pub fn on_response_trailers<E: Environment>(&mut self, environment: &E) -> Flow {
        let flow = self.completion.as_mut().map(|completion| completion.on_trailers(environment));
        self.response_flow(environment, flow)
    }

    /// A response that is nobody's business goes on; one that is not passed on gives way to an answer of ours.
    fn response_flow<E: Environment>(&mut self, environment: &E, flow: Option<Result<Flow, Unusable>>) -> Flow {
        match flow {
            None => Flow::Continue,
            Some(Ok(flow)) => flow,
            Some(Err(unusable)) => {
                self.refuse(environment, &Refusal::ServerMetadata(unusable));
                Flow::Pause
            }
        }
    }

    fn flow(&self) -> Flow {
        if matches!(self.state, State::Passing) { Flow::Continue } else { Flow::Pause }
    }

    fn admit<E: Environment>(&mut self, environment: &E, head: &Head) -> Result<Admission, Refusal> {
        for name in controls::OWN_HEADERS {
            if head.has(name) {
                environment.set_request_header(name, None);
            }
        }
        let host = host(head);
        let server_name = signals::server_name(environment);
        // No tenant has the empty host; whether settings are loaded is asked all the same.
        let Some(tenant) = self.tenant_of(environment, &host)? else {
            return match (self.worker.config.unknown_hosts, self.worker.routes.classify(head.path())) {
                (UnknownHosts::Pass, Ok(endpoint @ (Endpoint::Other | Endpoint::Discovery))) => {
                    // A tenant's connection must not be the way round its rules.
                    let name = server_name.as_deref().filter(|name| *name != host);
                    if let Some(name) = name
                        && self.tenant_of(environment, name)?.is_some()
                    {
                        return Err(Refusal::Misdirected);
                    }
                    self.check_access(environment, head, None, endpoint, &host, server_name.as_deref())?;
                    Ok(Admission::Pass)
                }
                _ => Err(Refusal::UnknownHost),
            };
        };
        self.tenant = Some(Rc::clone(&tenant));
        let endpoint = tenant.routes.classify(head.path());
        self.is_registration = matches!(endpoint, Ok(Endpoint::Registration | Endpoint::BelowRegistration));
        if let Some(name) = server_name.as_deref().filter(|name| *name != host) {
            let other = self.tenant_of(environment, name)?;
            if other.is_some_and(|other| other.slot != tenant.slot) {
                return Err(Refusal::Misdirected);
            }
        }
        let endpoint = endpoint.map_err(|Disguised| {
            self.allow_origin(Readable::Registration, &tenant.tenant, head);
            Refusal::DisguisedPath
        })?;
        let mut preflight = None;
        if let Some(readable) = Readable::at(endpoint) {
            let cors = self.allow_origin(readable, &tenant.tenant, head);
            let method = head.method();
            let mut is_preflight = method == b"OPTIONS";
            if readable == Readable::Registration {
                if endpoint == Endpoint::BelowRegistration || !(is_preflight || method == b"POST") {
                    return Err(Refusal::Method);
                }
            } else {
                is_preflight = is_preflight && cors.is_some() && cors::is_preflight(head);
            }
            preflight = is_preflight.then(|| cors::preflight_headers(readable, cors.as_ref()));
            self.cors = cors;
        }
        let address = self.check_access(environment, head, Some(&tenant), endpoint, &host, server_name.as_deref())?;
        if let Some(headers) = preflight {
            self.shared.extend(headers);
            return Ok(Admission::Preflight);
        }
        match endpoint {
            Endpoint::Management => {
                let address = address.or_else(|| signals::client_address(environment));
                let address = address.map(|address| address.to_string());
                environment.set_request_header(TENANT_HEADER, Some(tenant.tenant.name.as_str()));
                environment.set_request_header(CLIENT_ADDRESS_HEADER, address.as_deref());
                Ok(Admission::Pass)
            }
            Endpoint::Registration => {
                self.take_tokens(environment, &tenant, address)?;
                if !tenant.tenant.settings.registers_clients() {
                    return Err(Refusal::RegistrationDisabled);
                }
                registering::check_head(&self.worker.config, head)?;
                let sources = self.worker.config.signal_sources;
                let wanted = sources.union(SignalSet::BUILT_IN).without(Signal::ConnectingAddress.into());
                let origin = Observed::read(environment, head, wanted, sources).origin(&host);
                let registration = Registration::new(environment, Rc::clone(&self.worker), tenant, head, origin);
                Ok(Admission::Registration(Box::new(registration)))
            }
            Endpoint::ServerRegistration => Err(Refusal::ServerRegistration),
            Endpoint::Userinfo if tenant.tenant.settings.dcr_edge.third_party_oidc_scopes => Ok(Admission::Pass),
            Endpoint::Authorization | Endpoint::Token | Endpoint::Userinfo | Endpoint::Closed => {
                Ok(Admission::Client(tenant, endpoint))
            }
            Endpoint::Discovery => Ok(Admission::Discovery(tenant)),
            Endpoint::Scim | Endpoint::BelowRegistration | Endpoint::Other => Ok(Admission::Pass),
        }
    }

    /// The tenant that answers for the host, if there is one.
    fn tenant_of<E: Environment>(&self, environment: &E, host: &str) -> Result<Option<Rc<InForce>>, Refusal> {
        match self.worker.copies.look_up(environment, &self.worker.keys, host) {
            Lookup::Tenant(tenant) => Ok(Some(tenant)),
            Lookup::Unknown => Ok(None),
            Lookup::NotLoaded => Err(Refusal::SettingsNotLoaded),
            Lookup::Unreadable => Err(Refusal::SettingsUnreadable),
        }
    }

    /// Asks the access rules: those of the configuration, then those of the tenant. Gives the client's address if a
    /// rule needed it.
    fn check_access<E: Environment>(
        &self,
        environment: &E,
        head: &Head,
        tenant: Option<&InForce>,
        endpoint: Endpoint,
        host: &str,
        server_name: Option<&str>,
    ) -> Result<Option<IpAddr>, Refusal> {
        let Worker { acl: own, config, .. } = &*self.worker;
        if own.is_empty() && tenant.is_none_or(|tenant| tenant.acl.is_empty()) {
            return Ok(None);
        }
        let kind = match endpoint {
            Endpoint::Management | Endpoint::Scim => RequestKind::Management,
            Endpoint::Registration | Endpoint::BelowRegistration => RequestKind::Registration,
            Endpoint::Authorization
            | Endpoint::Token
            | Endpoint::Userinfo
            | Endpoint::Closed
            | Endpoint::ServerRegistration
            | Endpoint::Discovery
            | Endpoint::Other => RequestKind::Other,
        };
        let needs = tenant.map_or_else(SignalSet::default, |tenant| tenant.acl.needs(kind)).union(own.needs(kind));
        let observed = Observed::read(environment, head, needs, config.signal_sources);
        let facts = observed.facts(host, server_name);
        let mut monitored = 0_u32;
        let mut verdict = own.evaluate(kind, &facts, |rule, matched| {
            monitored = monitored.saturating_add((matched && own.monitors(rule)).into());
        });
        if let (acl::Verdict::NoMatch, Some(tenant)) = (verdict, tenant) {
            verdict = tenant.acl.evaluate(kind, &facts, |rule, matched| {
                tenant.tally.count(rule, matched);
                monitored = monitored.saturating_add((matched && tenant.acl.monitors(rule)).into());
            });
        }
        if monitored > 0 {
            environment.count(Reason::AclMonitored, monitored);
        }
        match verdict {
            acl::Verdict::NoMatch => Ok(facts.address),
            acl::Verdict::Allow => {
                environment.count(Reason::AclAllowed, 1);
                Ok(facts.address)
            }
            // Sent to where it came from, a client would come again and again.
            acl::Verdict::Redirect { uri, host: to } if !is_host_of(tenant, host, to) => {
                Err(Refusal::Redirected { uri: uri.to_owned() })
            }
            acl::Verdict::Block | acl::Verdict::Redirect { .. } => {
                // A registration is answered in JSON, whoever asks.
                let is_page =
                    kind != RequestKind::Registration && media_type::prefers_html(head.first("accept").into_iter());
                Err(Refusal::Blocked { html: is_page })
            }
        }
    }

    /// Adds to every answer what the tenant says of pages of the request's origin, and gives it.
    fn allow_origin(&mut self, readable: Readable, tenant: &Tenant, head: &Head) -> Option<Cors> {
        let origins = &tenant.settings.dcr_edge.cors_origins;
        let cors = if origins.is_empty() { None } else { Cors::new(readable, origins, head.origin()) };
        self.shared.extend(cors.iter().flat_map(Cors::headers));
        cors
    }

    /// Takes a token of the source, if the tenant limits those, and one of the tenant.
    fn take_tokens<E: Environment>(
        &mut self,
        environment: &E,
        tenant: &InForce,
        address: Option<IpAddr>,
    ) -> Result<(), Refusal> {
        let settings = &tenant.tenant.settings.dcr_edge;
        if let Some(per_source) = &settings.per_source {
            let address = address.or_else(|| signals::client_address(environment));
            if !address.is_some_and(|address| tenant.exempt.contains(address)) {
                let keys = &self.worker.keys;
                let seed = self.worker.copies.seed(environment, keys).ok_or(Refusal::LimiterUnavailable)?;
                let key = |number| keys.source(tenant.slot, number);
                let limit = per_source.limit();
                let outcome = limiter::take_for_source(environment, &seed, address, key, limit);
                self.take(environment, outcome, limit, Limiter::Source)?;
            }
        }
        let outcome = limiter::take(environment, &tenant.bucket, settings.rate_limit);
        self.take(environment, outcome, settings.rate_limit, Limiter::Tenant)?;
        environment.measure(Metric::LimiterAdmissions, 1);
        Ok(())
    }

    fn take<E: Environment>(
        &mut self,
        environment: &E,
        outcome: Outcome,
        limit: RateLimit,
        by: Limiter,
    ) -> Result<(), Refusal> {
        let Outcome::Judged { verdict, contended } = outcome else { return Err(Refusal::LimiterUnavailable) };
        let Verdict { admitted, remaining, next_token_in, .. } = verdict;
        let reset = reset(environment, next_token_in);
        // Of two limits the one that is nearer is the one to know.
        if !admitted || self.limit.as_ref().is_none_or(|limit| remaining < limit.remaining) {
            self.limit = Some(Limit { burst: limit.burst.get(), remaining, reset });
        }
        let by = if contended { Limiter::Contention } else { by };
        if admitted { Ok(()) } else { Err(Refusal::RateLimited { next_token_in, by }) }
    }

    fn refuse<E: Environment>(&mut self, environment: &E, refusal: &Refusal) {
        let id = &self.decision_id;
        match refusal {
            Refusal::Callout(failure) => {
                let (reason, advice) = (failure.reason().as_str(), failure.advice());
                environment.log(Level::Warn, &format!("registration {id} failed: {reason}: {advice}"));
            }
            Refusal::Server(failure) => {
                let (reason, advice) = (failure.reason().as_str(), failure.advice());
                environment.log(Level::Warn, &format!("registration {id} failed: {reason}: {advice}"));
            }
            Refusal::LookUp(failure) => {
                let (reason, advice) = (failure.reason().as_str(), failure.advice());
                let line = format!("request {id}: its client could not be looked up: {reason}: {advice}");
                environment.log(Level::Warn, &line);
            }
            // The edge had accepted it: the two ends differ in their release or, for a moment, in the settings.
            Refusal::Store(StoreRefusal { error, .. }) => {
                environment.log(Level::Info, &format!("registration {id} was refused by the store: {error}"));
            }
            Refusal::ServerMetadata(unusable) => {
                environment.log(Level::Warn, &format!("request {id}: the server's metadata are withheld: {unusable}"));
            }
            _ => {}
        }
        let reply = refusal.reply(&self.decision_id, &self.shared_headers());
        self.answer(environment, &reply);
    }

    /// The headers of every answer, with those of the limiters if they were asked.
    fn shared_headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = self.shared.clone();
        if let Some(Limit { burst, remaining, reset }) = &self.limit {
            headers.push(("x-ratelimit-limit", burst.to_string()));
            headers.push(("x-ratelimit-remaining", remaining.to_string()));
            headers.push(("x-ratelimit-reset", reset.to_string()));
        }
        headers
    }

    /// The one latch: an answer is given once, and the state says so.
    fn answer<E: Environment>(&mut self, environment: &E, reply: &Reply) {
        if matches!(self.state, State::Answered { .. }) {
            return;
        }
        self.state = State::Answered { status: reply.status };
        if let Some(tenant) = &self.tenant {
            if self.is_registration {
                // What is no success was refused.
                if reply.status >= 300 {
                    self.worker.refusals.count(tenant.slot, reply.reason);
                }
                if let Some(metric) = registration_metric(reply) {
                    environment.measure(metric, 1);
                }
            }
            environment.tell_log(LogField::Tenant, tenant.tenant.name.as_str());
        }
        if let Some(client_id) = &reply.client_id {
            environment.tell_log(LogField::ClientId, client_id);
        }
        environment.tell_log(LogField::Decision, decision(reply));
        environment.reply(reply);
    }
}

/// What became of a request that was answered like this, in one word for the access log.
fn decision(reply: &Reply) -> &'static str {
    match reply.reason {
        Reason::Registered => "registered",
        Reason::Preflight => "preflight",
        Reason::AclRedirected => "redirected",
        _ => "refused",
    }
}

/// The counter of a registration that was answered like this; none for a preflight, which is no registration.
fn registration_metric(reply: &Reply) -> Option<Metric> {
    match (reply.reason, reply.status) {
        (Reason::Preflight, _) => None,
        (Reason::Registered, _) => Some(Metric::Registered),
        (Reason::AclBlocked | Reason::AclRedirected, _) => Some(Metric::RegistrationBlocked),
        (reason, _) if reason.is_limit() => Some(Metric::RegistrationLimited),
        (_, 500..) => Some(Metric::RegistrationFailed),
        _ => Some(Metric::RegistrationRefused),
    }
}

/// The UNIX second at which a token arrives that is so many nanoseconds away.
fn reset<E: Environment>(environment: &E, next_token_in: u64) -> u64 {
    environment.unix_nanos().saturating_add(next_token_in).div_ceil(1_000_000_000)
}

/// Whether a host is one of the tenant's, or that of the request if it has no tenant.
fn is_host_of(tenant: Option<&InForce>, host: &str, other: &str) -> bool {
    tenant.map_or(other == host, |tenant| tenant.tenant.domains.iter().any(|domain| domain.as_str() == other))
}

/// An id for a request that has none.
fn random_id<E: Environment>(environment: &E) -> String {
    let mut bytes = [0; 16];
    // Without randomness the id only loses its use for finding a log line.
    let _ = environment.fill_random(&mut bytes);
    format!("{:032x}", u128::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge_api;
    use crate::filter::board::{self, Stamp, State};
    use crate::filter::config::Config;
    use crate::filter::environment::{CallId, CallResponse, DispatchError};
    use crate::filter::fake::{self, Fake};
    use crate::filter::store_call::Repeated;
    use crate::registration;
    use crate::tenant::{Domain, SecurityMode};
    use serde_json::{Value, json};
    use std::sync::atomic::Ordering;

    const CLIENT: &[u8] = br#"{"redirect_uris":["https://app.example/cb"],"client_name":"Test"}"#;

    struct Bench {
        fake: Fake,
        worker: Rc<Worker>,
    }

    impl Bench {
        fn new(settings: Value) -> Self {
            Self::with_config(settings, json!({"store": {"cluster": "c"}}))
        }

        fn with_config(settings: Value, config: Value) -> Self {
            let fake = Fake::default();
            let config = Config::parse(config.to_string().as_bytes()).unwrap();
            let worker = Rc::new(Worker::new(config, "token").unwrap());
            let tenant = json!({"name": "default", "domains": ["a.test"], "settings": settings});
            let json = serde_json::to_vec(&tenant).unwrap();
            let domains: Vec<Domain> = serde_json::from_value(tenant["domains"].clone()).unwrap();
            let limits_sources = settings["dcr_edge"].get("per_source").is_some();
            let state = State { domains: &domains, limits_sources, json: &json };
            board::publish(&fake, &worker.keys, 1, Stamp { epoch: 1, version: 1 }, Some(&state));
            crate::filter::feed::Feed::new(Rc::clone(&worker)).prepare(&fake);
            board::set_loaded(&fake, &worker.keys);
            Self { fake, worker }
        }

        fn enabled(settings: Value) -> Self {
            let mut settings = settings;
            settings["flags"] = json!({"enable_dynamic_client_registration": true});
            Self::new(settings)
        }

        fn headers(&self, method: &str, path: &str, more: &[(&str, &str)]) {
            let all = [(":method", method), (":path", path), (":authority", "a.test:1"), ("x-request-id", "id-1")];
            let all = all.iter().chain(more).map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
            *self.fake.headers.lock().unwrap() = all.collect();
        }

        /// A request without a body.
        fn bare(&self, method: &str, path: &str, more: &[(&str, &str)]) -> Flow {
            self.headers(method, path, more);
            Exchange::new(Rc::clone(&self.worker)).on_headers(&self.fake, true)
        }

        /// A registration whose body is there.
        fn register(&self, body: &[u8], more: &[(&str, &str)]) -> Exchange {
            let json = [("content-type", "application/json")];
            self.headers("POST", "/oidc/register", &[&json, more].concat());
            *self.fake.body.lock().unwrap() = body.to_vec();
            let mut exchange = Exchange::new(Rc::clone(&self.worker));
            if exchange.on_headers(&self.fake, false) == Flow::Pause {
                assert_eq!(exchange.on_body(&self.fake, body.len(), true), Flow::Pause);
            }
            exchange
        }

        fn last(&self) -> (u16, Value, Reply) {
            let reply = self.fake.replies.lock().unwrap().last().cloned().unwrap();
            (reply.status, serde_json::from_slice(&reply.body).unwrap_or(Value::Null), reply)
        }

        /// What was refused since the last call, by reason.
        fn refused(&self) -> Value {
            let counts = serde_json::to_value(self.worker.refusals.take()).unwrap();
            let counts = counts.as_array().unwrap().iter();
            let count = |count: &Value| (count["reason"].as_str().unwrap().to_owned(), count["count"].clone());
            Value::Object(counts.inspect(|count| assert_eq!(count["slot"], 1)).map(count).collect())
        }

        fn replies(&self) -> usize {
            self.fake.replies.lock().unwrap().len()
        }

        /// Lets so many milliseconds pass, has the worker tick, and tells `exchange` what it waits for.
        fn tick(&self, millis: u64, exchange: &mut Exchange) {
            self.fake.now.fetch_add(millis * 1_000_000, Ordering::Relaxed);
            self.told(exchange, self.worker.repeats.tick(&self.fake, &self.worker));
        }

        /// Answers the worker's call that was sent last.
        fn answer_worker(&self, exchange: &mut Exchange, answer: CallAnswer) {
            let call = CallId(self.sent().len() as u32);
            assert!(self.worker.repeats.awaits(call));
            self.told(exchange, self.worker.repeats.answered(&self.fake, call, answer));
            assert!(!self.worker.repeats.awaits(call));
        }

        fn told(&self, exchange: &mut Exchange, repeated: impl IntoIterator<Item = Repeated>) {
            for (ticket, result) in repeated {
                assert_eq!(exchange.ticket(), Some(ticket));
                exchange.on_repeat(&self.fake, result);
            }
        }

        fn sent(&self) -> Vec<fake::Call> {
            self.fake.calls.lock().unwrap().clone()
        }

        fn repeats(&self) -> i64 {
            self.fake.measured.lock().unwrap().get(Metric::StoreRepeats.name()).copied().unwrap_or_default()
        }
    }

    fn store_says(status: &str, body: Value) -> CallAnswer {
        let headers = [(":status", status), (edge_api::PROTOCOL_HEADER, edge_api::PROTOCOL_VERSION)];
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        Some(CallResponse { headers, body: serde_json::to_vec(&body).unwrap() })
    }

    fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
        reply.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_registration_is_one_call_and_a_201_with_a_secret_that_the_store_never_sees() {
        let bench = Bench::enabled(json!({}));
        let mut exchange = bench.register(CLIENT, &[]);
        let call = bench.fake.calls.lock().unwrap().pop().unwrap();
        let path = &call.headers.iter().find(|(name, _)| name == ":path").unwrap().1;
        let client_id = path.rsplit('/').next().unwrap().to_owned();
        assert!(path.starts_with("/edge/v1/tenants/default/clients/tpc_"), "{path}");
        exchange.on_answer(&bench.fake, store_says("201", json!({"client_id": client_id, "client_id_issued_at": 7})));
        let (status, body, reply) = bench.last();
        assert_eq!((status, &body["client_id"], &body["client_id_issued_at"]), (201, &json!(client_id), &json!(7)));
        assert_eq!(body["client_secret_expires_at"], 0);
        let secret = body["client_secret"].as_str().unwrap();
        assert_eq!(secret.len(), 64);
        assert!(!String::from_utf8(call.body).unwrap().contains(secret));
        assert_eq!(header(&reply, "cache-control"), Some("no-store"));
        assert_eq!(header(&reply, "x-ratelimit-remaining"), Some("4"));
    }

    #[test]
    fn a_permissive_tenants_registration_is_checked_and_named_in_its_mode() {
        let body = br#"{"grant_types":["client_credentials"],"jwks_uri":"https://app.example/jwks"}"#;
        let bench = Bench::enabled(json!({"dynamic_client_registration_security_mode": "permissive"}));
        let mut exchange = bench.register(body, &[]);
        let call = bench.fake.calls.lock().unwrap().pop().unwrap();
        let path = &call.headers.iter().find(|(name, _)| name == ":path").unwrap().1;
        let client_id = path.strip_prefix("/edge/v1/tenants/default/clients/").unwrap().to_owned();
        assert_eq!(registration::client_id_mode(&client_id), Some(SecurityMode::Permissive));
        exchange.on_answer(&bench.fake, store_says("201", json!({"client_id": client_id, "client_id_issued_at": 7})));
        let (status, answer, _) = bench.last();
        assert_eq!((status, &answer["token_endpoint_auth_method"]), (201, &json!("client_secret_basic")));
        assert_eq!((&answer["redirect_uris"], &answer["jwks_uri"]), (&json!([]), &json!("https://app.example/jwks")));

        let bench = Bench::enabled(json!({}));
        bench.register(body, &[]);
        assert_eq!((bench.last().0, &bench.last().1["error"]), (400, &json!("invalid_redirect_uri")));
    }

    #[test]
    fn a_request_is_answered_once_whatever_the_proxy_calls_afterwards() {
        let bench = Bench::enabled(json!({}));
        let mut exchange = bench.register(b"{}", &[]);
        assert_eq!(bench.replies(), 1);
        exchange.on_body(&bench.fake, 99_999, true);
        exchange.on_trailers(&bench.fake);
        exchange.on_answer(&bench.fake, None);
        assert_eq!(exchange.on_body(&bench.fake, 10, true), Flow::Pause);
        assert_eq!(bench.replies(), 1);
    }

    #[test]
    fn trailers_end_a_body_that_no_piece_ended() {
        let bench = Bench::enabled(json!({}));
        bench.headers("POST", "/oidc/register", &[("content-type", "application/json")]);
        *bench.fake.body.lock().unwrap() = CLIENT.to_vec();
        let mut exchange = Exchange::new(Rc::clone(&bench.worker));
        exchange.on_headers(&bench.fake, false);
        exchange.on_body(&bench.fake, CLIENT.len(), false);
        assert_eq!(exchange.on_trailers(&bench.fake), Flow::Pause);
        assert_eq!(bench.fake.calls.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_body_is_refused_as_soon_as_it_is_too_long() {
        let bench = Bench::enabled(json!({}));
        bench.headers("POST", "/oidc/register", &[("content-type", "application/json")]);
        let mut exchange = Exchange::new(Rc::clone(&bench.worker));
        exchange.on_headers(&bench.fake, false);
        exchange.on_body(&bench.fake, 65_536, false);
        assert_eq!(bench.replies(), 0);
        exchange.on_body(&bench.fake, 65_537, false);
        assert_eq!(bench.last().0, 413);
        bench.register(CLIENT, &[("content-length", "65537")]);
        assert_eq!(bench.last().0, 413);
    }

    #[test]
    fn each_check_comes_before_the_dearer_ones() {
        let bench = Bench::new(json!({}));
        assert_eq!(bench.bare("GET", "/oidc/register", &[]), Flow::Pause);
        assert_eq!(bench.last().0, 405);
        assert_eq!(header(&bench.last().2, "x-ratelimit-limit"), None);
        // Off: 403 before the body's type, and it costs a token.
        for remaining in (0..5).rev() {
            bench.bare("POST", "/oidc/register", &[]);
            assert_eq!(bench.last().0, 403);
            assert_eq!(header(&bench.last().2, "x-ratelimit-remaining"), Some(remaining.to_string().as_str()));
        }
        bench.bare("POST", "/oidc/register", &[]);
        let (status, body, reply) = bench.last();
        assert_eq!(
            (status, &body["error"], header(&reply, "retry-after")),
            (429, &json!("too_many_requests"), Some("1"))
        );
    }

    #[test]
    fn wrong_types_and_encodings_are_415_and_an_empty_body_is_400() {
        let bench = Bench::enabled(json!({"dcr_edge": {"rate_limit": {"burst": 100, "per_second": 1}}}));
        bench.bare("POST", "/oidc/register", &[("content-type", "text/plain")]);
        assert_eq!(bench.last().0, 415);
        bench.bare("POST", "/oidc/register", &[("content-type", "application/json"), ("content-encoding", "gzip")]);
        assert_eq!(bench.last().0, 415);
        bench.bare("POST", "/oidc/register", &[("content-type", "application/json")]);
        let (status, body, _) = bench.last();
        assert_eq!(
            (status, &body["error"], &body["decision_id"]),
            (400, &json!("invalid_client_metadata"), &json!("id-1"))
        );
    }

    #[test]
    fn a_preflight_is_answered_here_and_costs_no_token() {
        let bench = Bench::new(json!({"dcr_edge": {"cors_origins": ["https://app.test"]}}));
        for (origin, allowed) in [("https://app.test", Some("https://app.test")), ("https://evil.test", None)] {
            assert_eq!(bench.bare("OPTIONS", "/oidc/register", &[("origin", origin)]), Flow::Pause);
            let (status, _, reply) = bench.last();
            assert_eq!((status, header(&reply, "access-control-allow-origin")), (204, allowed));
            assert_eq!(header(&reply, "vary"), Some("origin"));
            assert_eq!(header(&reply, "access-control-allow-headers").is_some(), allowed.is_some());
            bench.bare("POST", "/oidc/register", &[("origin", origin)]);
            assert_eq!(header(&bench.last().2, "access-control-allow-origin"), allowed);
        }
        assert_eq!(header(&bench.last().2, "x-ratelimit-remaining"), Some("3"));
        let bench = Bench::new(json!({}));
        bench.bare("OPTIONS", "/oidc/register", &[("origin", "https://app.test")]);
        assert!(bench.last().2.headers.iter().all(|(name, _)| !name.starts_with("access-control") && *name != "vary"));
    }

    #[test]
    fn what_is_not_ours_passes_and_what_pretends_not_to_be_does_not() {
        let bench = Bench::new(json!({}));
        assert_eq!(bench.bare("GET", "/authorize?x=1", &[]), Flow::Continue);
        assert_eq!(bench.bare("POST", "/login", &[]), Flow::Continue);
        assert_eq!(bench.bare("GET", "/api/v2/tenants/settings", &[("x-dcr-tenant", "forged")]), Flow::Continue);
        let headers = bench.fake.headers.lock().unwrap().clone();
        assert_eq!(headers.iter().filter(|(name, _)| name == TENANT_HEADER).collect::<Vec<_>>().len(), 1);
        assert!(headers.contains(&(TENANT_HEADER.to_owned(), b"default".to_vec())));
        for path in ["/OIDC/register", "/oidc/register;x=1", "/oidc/register%20", "/oidc/register%3f"] {
            assert_eq!(bench.bare("POST", path, &[]), Flow::Pause);
            assert_eq!((bench.last().0, &bench.last().1["error"]), (404, &json!("not_found")), "{path}");
        }
        let bench = Bench::new(json!({"dcr_edge": {"cors_origins": ["https://app.test"]}}));
        bench.bare("POST", "/oidc/register/tpc_1", &[("origin", "https://app.test")]);
        assert_eq!((bench.last().0, header(&bench.last().2, "vary")), (405, Some("origin")));
        assert_eq!(header(&bench.last().2, "allow"), Some("POST, OPTIONS"));
    }

    #[test]
    fn a_host_of_no_tenant_is_refused_unless_the_operator_lets_it_pass() {
        let bench = Bench::new(json!({}));
        let forge = |bench: &Bench, path: &str| {
            *bench.fake.headers.lock().unwrap() =
                vec![(":path".to_owned(), path.as_bytes().to_vec()), (":authority".to_owned(), b"b.test".to_vec())];
            Exchange::new(Rc::clone(&bench.worker)).on_headers(&bench.fake, true)
        };
        assert_eq!(forge(&bench, "/login"), Flow::Pause);
        assert_eq!(bench.last().0, 404);
        let bench = Bench::with_config(json!({}), json!({"store": {"cluster": "c"}, "unknown_hosts": "pass"}));
        assert_eq!(forge(&bench, "/login"), Flow::Continue);
        for ours in ["/oidc/register", "/api/v2/clients", "/authorize", "/OIDC/register"] {
            assert_eq!(forge(&bench, ours), Flow::Pause, "{ours}");
            assert_eq!(bench.last().0, 404);
        }
    }

    #[test]
    fn every_failure_of_the_store_is_the_same_503_outside() {
        let bench = Bench::enabled(json!({"dcr_edge": {"rate_limit": {"burst": 100, "per_second": 1}}}));
        let mut bodies = Vec::new();
        for answer in [None, store_says("500", json!({})), store_says("201", json!([])), store_says("409", json!({}))] {
            let mut exchange = bench.register(CLIENT, &[]);
            exchange.on_answer(&bench.fake, answer.clone());
            if answer.is_none() {
                bench.tick(50, &mut exchange);
                bench.answer_worker(&mut exchange, None);
            }
            bodies.push((bench.last().0, bench.last().1));
        }
        *bench.fake.refuse_calls.lock().unwrap() = Some(DispatchError::NoCluster);
        bench.register(CLIENT, &[]);
        bodies.push((bench.last().0, bench.last().1));
        assert_eq!(bodies[0].0, 503);
        assert_eq!(header(&bench.last().2, "retry-after"), Some("2"));
        bodies.dedup();
        assert_eq!(bodies.len(), 1);
    }

    fn created() -> CallAnswer {
        store_says("201", json!({"client_id": "tpc_1", "client_id_issued_at": 1}))
    }

    #[test]
    fn a_registration_without_a_definite_answer_is_sent_once_more_as_it_was() {
        let of_the_proxy = |status: &str, body: &str| {
            let headers = vec![(":status".to_owned(), status.as_bytes().to_vec())];
            Some(CallResponse { headers, body: body.as_bytes().to_vec() })
        };
        let connect = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
        for first in [
            None,
            of_the_proxy("503", connect),
            of_the_proxy("504", "upstream request timeout"),
            store_says("503", json!({})),
        ] {
            let bench = Bench::enabled(json!({}));
            let mut exchange = bench.register(CLIENT, &[]);
            exchange.on_answer(&bench.fake, first);
            assert_eq!((bench.replies(), bench.sent().len(), bench.repeats()), (0, 1, 1));
            // Not at once: the proxy has to find the store ill before.
            bench.tick(49, &mut exchange);
            assert_eq!(bench.sent().len(), 1);
            bench.tick(1, &mut exchange);
            let [sent, again] = bench.sent().try_into().unwrap();
            assert_eq!((&sent.headers, &sent.body), (&again.headers, &again.body));
            assert_eq!([sent.timeout, again.timeout].map(|timeout| timeout.as_millis()), [1_000, 1_950]);
            bench.answer_worker(&mut exchange, created());
            assert_eq!((bench.last().0, bench.sent().len()), (201, 2));
        }
    }

    #[test]
    fn a_registration_is_sent_twice_at_most_and_never_after_a_definite_answer() {
        let unavailable = || store_says("503", json!({}));
        let bench = Bench::enabled(json!({}));
        let mut exchange = bench.register(CLIENT, &[]);
        exchange.on_answer(&bench.fake, None);
        bench.tick(50, &mut exchange);
        bench.answer_worker(&mut exchange, unavailable());
        assert_eq!((bench.last().0, bench.last().2.reason), (503, Reason::StoreError));
        bench.tick(1_000, &mut exchange);
        assert_eq!((bench.sent().len(), bench.replies()), (2, 1));

        let bench = Bench::enabled(json!({}));
        for answer in
            [created(), store_says("500", json!({})), store_says("409", json!({})), store_says("401", json!({}))]
        {
            bench.register(CLIENT, &[]).on_answer(&bench.fake, answer);
        }
        assert_eq!((bench.replies(), bench.sent().len(), bench.repeats()), (4, 4, 0));
    }

    #[test]
    fn both_have_to_fit_into_the_time_of_one() {
        let bench = Bench::enabled(json!({}));
        let mut exchange = bench.register(CLIENT, &[]);
        bench.fake.now.fetch_add(1_950_000_000, Ordering::Relaxed);
        exchange.on_answer(&bench.fake, None);
        assert_eq!((bench.last().2.reason, bench.repeats()), (Reason::Reset, 0));
        // A worker that ticks late tells what came of the first.
        let mut exchange = bench.register(CLIENT, &[]);
        exchange.on_answer(&bench.fake, store_says("503", json!({})));
        bench.tick(2_000, &mut exchange);
        assert_eq!((bench.last().2.reason, bench.sent().len()), (Reason::StoreError, 2));
        // Where there is no time for two, one has all of it.
        let settings = json!({"flags": {"enable_dynamic_client_registration": true}});
        let bench = Bench::with_config(settings, json!({"store": {"cluster": "c", "timeout_ms": 199}}));
        bench.register(CLIENT, &[]);
        assert_eq!(bench.sent()[0].timeout.as_millis(), 199);
    }

    #[test]
    fn a_store_that_cannot_be_called_is_called_once_more_unless_it_has_no_cluster() {
        let bench = Bench::enabled(json!({}));
        let refuse = |error| *bench.fake.refuse_calls.lock().unwrap() = error;
        refuse(Some(DispatchError::NoHealthyHost));
        let mut exchange = bench.register(CLIENT, &[]);
        refuse(None);
        bench.tick(50, &mut exchange);
        bench.answer_worker(&mut exchange, created());
        assert_eq!((bench.last().0, bench.sent().len()), (201, 1));
        refuse(Some(DispatchError::NoHealthyHost));
        let mut exchange = bench.register(CLIENT, &[]);
        bench.tick(50, &mut exchange);
        assert_eq!(bench.last().2.reason, Reason::NoHealthyHost);
        refuse(Some(DispatchError::NoCluster));
        bench.register(CLIENT, &[]);
        assert_eq!((bench.last().2.reason, bench.repeats()), (Reason::NoCluster, 2));
    }

    #[test]
    fn a_worker_has_so_many_repeats_and_none_for_whoever_is_gone() {
        let bench = Bench::enabled(json!({"dcr_edge": {"rate_limit": {"burst": 1_000, "per_second": 1}}}));
        let fail = || {
            let mut exchange = bench.register(CLIENT, &[]);
            exchange.on_answer(&bench.fake, None);
            exchange
        };
        let waiting: Vec<_> = (0..128).map(|_| fail()).collect();
        assert_eq!((bench.replies(), bench.repeats()), (0, 128));
        fail();
        assert_eq!((bench.last().2.reason, bench.repeats()), (Reason::Reset, 128));
        drop(waiting);
        bench.fake.now.fetch_add(50_000_000, Ordering::Relaxed);
        assert!(bench.worker.repeats.tick(&bench.fake, &bench.worker).is_empty());
        assert_eq!(bench.sent().len(), 129);
        let mut exchange = fail();
        bench.tick(50, &mut exchange);
        assert_eq!((bench.sent().len(), bench.replies()), (131, 1));
    }

    #[test]
    fn a_look_for_a_client_is_sent_once_more_and_those_after_it_by_the_worker() {
        let bench = Bench::new(json!({}));
        let unknown = || store_says("404", json!({"error": edge_api::UNKNOWN_CLIENT, "error_description": "d"}));
        let [first, second] = ["1", "2"].map(|digit| format!("tpc_{}", digit.repeat(32)));
        bench.headers("GET", &format!("/userinfo?client_id={first}&client_id={second}"), &[]);
        let mut exchange = Exchange::new(Rc::clone(&bench.worker));
        assert_eq!(exchange.on_headers(&bench.fake, true), Flow::Pause);
        exchange.on_answer(&bench.fake, None);
        bench.tick(50, &mut exchange);
        bench.answer_worker(&mut exchange, unknown());
        assert_eq!((bench.replies(), bench.sent().len()), (0, 2));
        bench.tick(0, &mut exchange);
        bench.answer_worker(&mut exchange, unknown());
        let paths = bench.sent().into_iter().map(|call| call.headers[1].1.clone()).collect::<Vec<_>>();
        assert_eq!(paths[0], paths[1]);
        assert_ne!(paths[1], paths[2]);
        // Both are of the form of a third party's, to which the endpoint is closed.
        assert_eq!((bench.last().0, bench.repeats()), (403, 1));
    }

    #[test]
    fn a_refusal_of_the_store_reaches_the_client() {
        let bench = Bench::enabled(json!({}));
        let refusal = json!({"error": "invalid_redirect_uri", "error_description": "redirect_uris[0]: no"});
        bench.register(CLIENT, &[]).on_answer(&bench.fake, store_says("400", refusal));
        assert_eq!((bench.last().0, &bench.last().1["error"]), (400, &json!("invalid_redirect_uri")));
    }

    #[test]
    fn nothing_passes_before_settings_are_loaded() {
        let worker = Rc::new(Worker::new(Config::parse(br#"{"store":{"cluster":"c"}}"#).unwrap(), "t").unwrap());
        let bench = Bench { fake: Fake::default(), worker };
        for path in ["/", "/authorize", "/oidc/register", "/.well-known/openid-configuration"] {
            assert_eq!(bench.bare("GET", path, &[]), Flow::Pause);
            assert_eq!((bench.last().0, header(&bench.last().2, "retry-after")), (503, Some("2")));
        }
    }

    fn rule(action: Value, condition: Value, scope: &str) -> Value {
        let mut rule = condition;
        rule["action"] = action;
        rule["scope"] = json!(scope);
        rule
    }

    fn block(scope: &str) -> Value {
        rule(json!({"block": true}), json!({"match": {"ipv4_cidrs": ["198.51.100.0/24"]}}), scope)
    }

    /// A bench whose tenant has these rules, and registration switched on.
    fn with_rules(rules: &[Value], configuration: Value) -> Bench {
        let mut configuration = configuration;
        configuration["store"] = json!({"cluster": "c"});
        let bench = Bench::with_config(json!({"flags": {"enable_dynamic_client_registration": true}}), configuration);
        let acls: Vec<_> =
            rules.iter().enumerate().map(|(n, rule)| json!({"id": format!("acl_{n}"), "rule": rule})).collect();
        bench.put(2, json!(["a.test", "also-a.test"]), acls);
        bench
    }

    impl Bench {
        fn put(&self, version: u64, domains: Value, network_acls: Vec<Value>) {
            let settings = json!({"flags": {"enable_dynamic_client_registration": true}});
            let tenant = json!({"name": "t", "domains": domains, "settings": settings, "network_acls": network_acls});
            let (json, domains): (_, Vec<Domain>) = (tenant.to_string(), serde_json::from_value(domains).unwrap());
            let state = State { domains: &domains, limits_sources: false, json: json.as_bytes() };
            board::publish(&self.fake, &self.worker.keys, 1, Stamp { epoch: 1, version }, Some(&state));
        }

        fn comes_from(&self, address: &str) {
            self.property("source.address", address);
        }

        fn property(&self, path: &str, value: &str) {
            self.fake.properties.lock().unwrap().insert(path.to_owned(), value.as_bytes().to_vec());
        }

        fn counted(&self, reason: Reason) -> usize {
            self.fake.counted.lock().unwrap().iter().filter(|counted| **counted == reason).count()
        }
    }

    #[test]
    fn a_blocked_request_goes_no_further_and_costs_no_token() {
        let bench = with_rules(&[block("dcr")], json!({}));
        bench.comes_from("198.51.100.7:4711");
        bench.register(CLIENT, &[]);
        let (status, body, reply) = bench.last();
        assert_eq!((status, &body["error"], &body["decision_id"]), (403, &json!("access_denied"), &json!("id-1")));
        assert_eq!((reply.reason, header(&reply, "x-ratelimit-limit")), (Reason::AclBlocked, None));
        assert!(bench.fake.calls.lock().unwrap().is_empty());
        bench.comes_from("203.0.113.7:4711");
        bench.register(CLIENT, &[]);
        assert_eq!(bench.fake.calls.lock().unwrap().len(), 1);
    }

    #[test]
    fn each_scope_covers_its_endpoints() {
        let everywhere = ["/oidc/register", "/api/v2/clients", "/scim/v2", "/authorize", "/", "/oauth/token"];
        for (scope, blocked) in [
            ("tenant", &everywhere[..]),
            ("management", &["/api/v2/clients", "/scim/v2"]),
            ("authentication", &["/oidc/register", "/authorize", "/", "/oauth/token"]),
            ("dynamic_client_registration", &["/oidc/register"]),
        ] {
            let bench = with_rules(&[block(scope)], json!({}));
            bench.comes_from("198.51.100.7:1");
            for path in everywhere {
                let before = bench.replies();
                bench.bare("POST", path, &[("content-type", "application/json")]);
                let is_blocked = bench.replies() > before && bench.last().2.reason == Reason::AclBlocked;
                assert_eq!(is_blocked, blocked.contains(&path), "{scope} {path}");
            }
        }
    }

    #[test]
    fn a_preflight_is_subject_to_the_rules_and_a_wrong_method_is_refused_before_them() {
        let bench = with_rules(&[block("dcr")], json!({}));
        bench.comes_from("198.51.100.7:1");
        bench.bare("OPTIONS", "/oidc/register", &[]);
        assert_eq!(bench.last().0, 403);
        bench.bare("GET", "/oidc/register", &[]);
        assert_eq!(bench.last().0, 405);
    }

    #[test]
    fn a_browser_gets_a_page_that_needs_nothing_else() {
        let bench = with_rules(&[block("tenant")], json!({}));
        bench.comes_from("198.51.100.7:1");
        bench.bare("GET", "/authorize", &[("accept", "text/html,*/*;q=0.8")]);
        let reply = bench.last().2;
        let page = String::from_utf8(reply.body.clone()).unwrap();
        assert_eq!((reply.status, header(&reply, "content-type")), (403, Some("text/html; charset=utf-8")));
        assert!(page.contains("id-1") && !page.contains("http") && !page.contains("src="), "{page}");
        assert_eq!((header(&reply, "vary"), header(&reply, "cache-control")), (Some("accept"), Some("no-store")));
        bench.bare("POST", "/oidc/register", &[("accept", "text/html"), ("content-type", "application/json")]);
        assert_eq!(header(&bench.last().2, "content-type"), Some("application/json"));
        bench.bare("GET", "/authorize", &[("accept", "*/*")]);
        assert_eq!(header(&bench.last().2, "content-type"), Some("application/json"));
    }

    #[test]
    fn a_redirect_has_a_location_and_no_body_and_never_leads_back_to_the_tenant() {
        let to = |uri: &str| {
            rule(json!({"redirect": true, "redirect_uri": uri}), json!({"match_all": true}), "authentication")
        };
        let bench = with_rules(&[to("https://www.example.com/blocked")], json!({}));
        bench.register(CLIENT, &[]);
        let reply = bench.last().2;
        assert_eq!((reply.status, header(&reply, "location")), (302, Some("https://www.example.com/blocked")));
        assert_eq!((reply.body.len(), header(&reply, "content-type")), (0, None));
        for uri in ["https://a.test/x", "https://ALSO-a.test:8443/"] {
            let bench = with_rules(&[to(uri)], json!({}));
            bench.bare("GET", "/", &[]);
            assert_eq!((bench.last().0, header(&bench.last().2, "location")), (403, None), "{uri}");
        }
    }

    #[test]
    fn the_configurations_rules_come_first_and_also_look_at_hosts_of_no_tenant() {
        let own = |action: &str| {
            let rule = rule(json!({action: true}), json!({"match": {"ipv4_cidrs": ["198.51.100.0/24"]}}), "tenant");
            json!({"unknown_hosts": "pass", "network_acls": [{"description": "d", "active": true, "rule": rule}]})
        };
        let everybody = rule(json!({"block": true}), json!({"match_all": true}), "tenant");
        let bench = with_rules(&[everybody], own("allow"));
        bench.comes_from("198.51.100.7:1");
        assert_eq!(bench.bare("GET", "/", &[]), Flow::Continue);
        bench.comes_from("203.0.113.7:1");
        assert_eq!(bench.bare("GET", "/", &[]), Flow::Pause);

        let bench = with_rules(&[], own("block"));
        for (address, flow) in [("198.51.100.7:1", Flow::Pause), ("203.0.113.7:1", Flow::Continue)] {
            bench.comes_from(address);
            bench.headers("GET", "/", &[]);
            bench.fake.set_request_header(":authority", Some("of-nobody.test"));
            assert_eq!(Exchange::new(Rc::clone(&bench.worker)).on_headers(&bench.fake, true), flow, "{address}");
        }
    }

    #[test]
    fn a_monitoring_rule_is_counted_and_lets_pass() {
        let monitor = rule(json!({"block": true, "log": true}), json!({"match_all": true}), "tenant");
        let bench = with_rules(&[monitor], json!({}));
        assert_eq!(bench.bare("GET", "/", &[]), Flow::Continue);
        assert_eq!((bench.counted(Reason::AclMonitored), bench.counted(Reason::AclBlocked)), (1, 0));
        let counts = serde_json::to_value(bench.worker.copies.take_counts()).unwrap();
        assert_eq!(counts, json!([{"slot": 1, "acl_id": "acl_0", "evaluated": 1, "matched": 1}]));
    }

    #[test]
    fn each_refusal_of_the_registration_endpoint_is_counted_once_and_nothing_else_is() {
        let everybody = rule(json!({"block": true}), json!({"match_all": true}), "dcr");
        let blocked = with_rules(&[everybody], json!({}));
        assert_eq!(blocked.bare("GET", "/", &[]), Flow::Continue);
        blocked.register(CLIENT, &[]);
        assert_eq!(blocked.refused(), json!({"acl_blocked": 1}));

        let bench = Bench::enabled(json!({"dcr_edge": {"rate_limit": {"burst": 5, "per_second": 1}}}));
        bench.bare("GET", "/oidc/register", &[]);
        bench.bare("POST", "/oidc/register/x", &[]);
        bench.bare("OPTIONS", "/oidc/register", &[]);
        bench.bare("GET", "/OIDC/register", &[]);
        bench.register(b"{}", &[]).on_body(&bench.fake, 2, true);
        let refusal = json!({"error": "invalid_client_metadata", "error_description": "d"});
        let created = json!({"client_id": "tpc_1", "client_id_issued_at": 1});
        for (status, body) in [("400", refusal), ("201", json!({})), ("201", created)] {
            bench.register(CLIENT, &[]).on_answer(&bench.fake, store_says(status, body));
        }
        let mut exchange = bench.register(CLIENT, &[]);
        exchange.on_answer(&bench.fake, None);
        bench.tick(50, &mut exchange);
        bench.answer_worker(&mut exchange, None);
        bench.register(CLIENT, &[]);
        let expected = json!({
            "method": 2, "invalid_redirect_uri": 1, "invalid_client_metadata": 1, "store_error": 1, "store_reset": 1,
            "rate_limited": 1
        });
        assert_eq!(bench.refused(), expected);
        assert_eq!(bench.refused(), json!({}));
    }

    #[test]
    fn a_server_name_of_another_tenant_is_misdirected() {
        let bench = with_rules(&[], json!({}));
        let other = json!({"name": "other", "domains": ["other.test"], "settings": {}}).to_string();
        let domains = ["other.test".parse().unwrap()];
        let state = State { domains: &domains, limits_sources: false, json: other.as_bytes() };
        board::publish(&bench.fake, &bench.worker.keys, 2, Stamp { epoch: 1, version: 3 }, Some(&state));
        for (server_name, flow) in [
            ("a.test", Flow::Continue),
            ("A.TEST", Flow::Continue),
            ("also-a.test", Flow::Continue),
            ("of-nobody.test", Flow::Continue),
            ("", Flow::Continue),
            ("other.test", Flow::Pause),
        ] {
            bench.property("connection.requested_server_name", server_name);
            assert_eq!(bench.bare("GET", "/", &[]), flow, "{server_name}");
        }
        assert_eq!((bench.last().0, bench.last().2.reason), (421, Reason::Misdirected));
    }

    #[test]
    fn a_tenants_server_name_with_a_host_of_nobody_is_misdirected_even_where_such_hosts_pass() {
        let bench = with_rules(&[], json!({"unknown_hosts": "pass"}));
        for (server_name, flow) in [("a.test", Flow::Pause), ("of-nobody.test", Flow::Continue), ("", Flow::Continue)] {
            bench.property("connection.requested_server_name", server_name);
            bench.headers("GET", "/", &[]);
            bench.fake.set_request_header(":authority", Some("other-nobody.test"));
            assert_eq!(Exchange::new(Rc::clone(&bench.worker)).on_headers(&bench.fake, true), flow, "{server_name}");
        }
        assert_eq!((bench.last().0, bench.last().2.reason), (421, Reason::Misdirected));
    }

    #[test]
    fn the_management_api_is_told_the_tenant_and_the_clients_address_and_no_clients_word_for_them() {
        let bench = with_rules(&[], json!({}));
        bench.comes_from("198.51.100.7:1");
        let forged = [(TENANT_HEADER, "forged"), (CLIENT_ADDRESS_HEADER, "192.0.2.1")];
        bench.bare("GET", "/api/v2/clients", &forged);
        assert_eq!(bench.fake.request_header(TENANT_HEADER).as_deref(), Some(&b"t"[..]));
        assert_eq!(bench.fake.request_header(CLIENT_ADDRESS_HEADER).as_deref(), Some(&b"198.51.100.7"[..]));
        bench.fake.properties.lock().unwrap().clear();
        bench.bare("GET", "/api/v2/clients", &forged);
        assert_eq!(bench.fake.request_header(CLIENT_ADDRESS_HEADER), None);
    }

    #[test]
    fn one_source_cannot_use_up_the_tenants_tokens_and_a_shared_address_is_spared() {
        let per_source = json!({"burst": 2, "per_second": 1, "exempt": ["203.0.113.0/24"]});
        let limit = json!({"burst": 5, "per_second": 5});
        let bench = Bench::enabled(json!({"dcr_edge": {"per_source": per_source, "rate_limit": limit}}));
        let send = |address: &str| {
            bench.comes_from(address);
            bench.register(b"{}", &[]);
            bench.last().2
        };
        for remaining in ["1", "0"] {
            assert_eq!(header(&send("198.51.100.7:1"), "x-ratelimit-remaining"), Some(remaining));
        }
        let refused = send("198.51.100.7:2");
        assert_eq!((refused.status, refused.reason), (429, Reason::SourceLimited));
        assert_eq!((header(&refused, "x-ratelimit-limit"), header(&refused, "retry-after")), (Some("2"), Some("1")));
        // Two of the tenant's five are gone, and the refused one took none.
        for remaining in ["2", "1", "0"] {
            assert_eq!(header(&send("203.0.113.7:1"), "x-ratelimit-remaining"), Some(remaining));
        }
        assert_eq!(send("203.0.113.8:1").reason, Reason::RateLimited);
    }

    #[test]
    fn a_step_of_the_wall_clock_neither_opens_nor_closes_the_gate() {
        let bench = Bench::enabled(json!({"dcr_edge": {"rate_limit": {"burst": 1, "per_second": 1}}}));
        let status = |step: u64, steady: u64| {
            bench.fake.wall_step.store(step, Ordering::Relaxed);
            bench.fake.now.fetch_add(steady, Ordering::Relaxed);
            bench.register(b"{}", &[]);
            bench.last().0
        };
        let (hour, second) = (3_600_000_000_000, 1_000_000_000);
        assert_eq!([status(hour, 0), status(2 * hour, 0), status(0, 0)], [400, 429, 429]);
        assert_eq!([status(hour, second), status(0, second)], [400, 400]);
    }

    #[test]
    fn a_reset_is_never_earlier_than_the_token() {
        let bench = Bench::enabled(json!({"dcr_edge": {"rate_limit": {"burst": 1, "per_second": 5}}}));
        for (step, reset) in [(0, "1800000001"), (800_000_000, "1800000001"), (800_000_001, "1800000002")] {
            bench.fake.wall_step.store(step, Ordering::Relaxed);
            bench.register(b"{}", &[]);
            bench.register(b"{}", &[]);
            assert_eq!(header(&bench.last().2, "x-ratelimit-reset"), Some(reset), "{step}");
            bench.fake.now.fetch_add(1_000_000_000, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_fleets_refusal_is_a_429_like_any_other() {
        let bench = Bench::enabled(json!({}));
        let body = json!({"error": "too_many_requests", "error_description": "d", "next_token_in_ms": 150});
        bench.register(CLIENT, &[]).on_answer(&bench.fake, store_says("429", body));
        let (status, body, reply) = bench.last();
        assert_eq!((status, &body["error"], reply.reason), (429, &json!("too_many_requests"), Reason::FleetLimited));
        let headers = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after"];
        let values = headers.map(|name| header(&reply, name).map(str::to_owned).unwrap());
        assert_eq!(values, ["5", "0", "1800000001", "1"].map(str::to_owned));
    }

    #[test]
    fn the_fleets_refusal_tells_the_tenants_burst_also_where_the_sources_is_nearer() {
        let bench = Bench::enabled(json!({"dcr_edge": {"per_source": {"burst": 2, "per_second": 1}}}));
        bench.comes_from("198.51.100.7:1");
        let mut exchange = bench.register(CLIENT, &[]);
        let body = json!({"error": "too_many_requests", "error_description": "d", "next_token_in_ms": 150});
        exchange.on_answer(&bench.fake, store_says("429", body));
        let reply = bench.last().2;
        assert_eq!((reply.reason, header(&reply, "x-ratelimit-limit")), (Reason::FleetLimited, Some("5")));
    }

    #[test]
    fn whatever_hosts_clients_name_nothing_grows() {
        let bench = with_rules(&[], json!({}));
        let before = bench.fake.keys();
        for number in 0..1_000 {
            bench.headers("GET", "/", &[]);
            bench.fake.set_request_header(":authority", Some(&format!("h{number}.test")));
            bench.property("connection.requested_server_name", &format!("s{number}.test"));
            Exchange::new(Rc::clone(&bench.worker)).on_headers(&bench.fake, true);
        }
        assert_eq!((bench.fake.keys(), bench.worker.copies.hosts()), (before, 0));
    }
}
