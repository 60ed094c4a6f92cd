//! Registrations at an authorization server's own endpoint ([`Registrar::Forward`](crate::tenant::Registrar)): the server
//! registers the client, the store records it, and only then the client has its answer. If the store does not record it,
//! the server's client is deleted again (RFC 7592 §2.3).
//!
//! All calls are the worker's and not the request's: the answer to a request's call is lost when its client is gone, and
//! then nobody would know which client of the server is to be deleted. A request puts its registration in line and has
//! the worker's tick come at once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::{Rc, Weak};

use serde_json::{Map, Value};

use super::board::InForce;
use super::callout::{self, Failure};
use super::environment::{CallAnswer, CallId, CallResponse, CallResult, DispatchError, Environment, Level, Reply};
use super::reason::Reason;
use super::refusal::Refusal;
use super::registering;
use super::request::Head;
use super::store_call::{Repeated, StoreCall};
use super::ticket::{Ticket, Tickets};
use super::worker::Worker;
use crate::edge_api::{self, Origin, REQUEST_ID_HEADER, RegisterClient, RegisteredBy};
use crate::registration::{ClientMetadata, ClientSecret, is_servers_client_id};
use crate::trace_context::TraceContext;

/// Longest answer of a server that is read, in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;

/// Longest registration token and longest path of a client's configuration, in bytes.
const MAX_MANAGEMENT: usize = 8 * 1024;

/// Longest description of a server that is passed on, in bytes.
const MAX_DESCRIPTION: usize = 200;

/// The codes of RFC 7591 §3.2.2.
const CODES: [&str; 4] =
    ["invalid_redirect_uri", "invalid_client_metadata", "invalid_software_statement", "unapproved_software_statement"];

/// Why the authorization server registered no client. Outside, all of them are the same 503.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ServerFailure {
    /// The route of the request leads to no cluster.
    NoCluster,
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// It answered with this status.
    Status(u16),
    /// It says that it registered a client, and this is wrong with its answer.
    Unusable(&'static str),
}

impl ServerFailure {
    /// Why, in one word.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoCluster | Self::Unreachable => Reason::ServerUnreachable,
            Self::Timeout => Reason::ServerTimeout,
            Self::Status(_) => Reason::ServerError,
            Self::Unusable(_) => Reason::ServerUnusable,
        }
    }

    /// What the operator can do about it.
    pub fn advice(&self) -> String {
        match self {
            Self::NoCluster => {
                "the route of the registration endpoint must lead to the authorization server".to_owned()
            }
            Self::Unreachable => "no connection to the authorization server: is it running?".to_owned(),
            Self::Timeout => "the authorization server did not answer within store.timeout_ms; if it registered a \
                              client, that has been told to nobody"
                .to_owned(),
            Self::Status(status) => format!(
                "the authorization server answered with {status}: is dcr_edge.paths.forward_registration its \
                 registration endpoint, and does it register clients without a token?"
            ),
            Self::Unusable(what) => format!("the authorization server's answer is of no use: {what}"),
        }
    }
}

impl From<DispatchError> for ServerFailure {
    fn from(error: DispatchError) -> Self {
        match error {
            DispatchError::NoCluster => Self::NoCluster,
            DispatchError::NoHealthyHost => Self::Unreachable,
        }
    }
}

/// The authorization server, as the request at hand would reach it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    cluster: String,
    /// The headers from which a server knows what it is called outside, and who asks.
    headers: Vec<(&'static str, String)>,
}

impl Server {
    /// The one that the request's route leads to. In the header callback.
    pub fn of_request<E: Environment>(environment: &E, head: &Head) -> Option<Self> {
        let cluster = environment.property("xds\0cluster_name").and_then(|name| String::from_utf8(name).ok())?;
        let headers = [":authority", "x-forwarded-proto", "x-forwarded-for"].into_iter().filter_map(|name| {
            let value = std::str::from_utf8(head.first(name)?).ok()?;
            Some((name, value.to_owned()))
        });
        Some(Self { cluster, headers: headers.collect() }).filter(|server| !server.cluster.is_empty())
    }

    fn call<E: Environment>(
        &self,
        environment: &E,
        worker: &Worker,
        own: &[(&str, &str)],
        body: &[u8],
    ) -> Result<CallId, DispatchError> {
        let mut headers = own.to_vec();
        headers.extend(self.headers.iter().map(|(name, value)| (*name, value.as_str())));
        environment.call(&self.cluster, &headers, body, worker.config.store.timeout)
    }
}

/// A registration for the authorization server.
#[derive(Debug)]
pub struct Forward {
    /// Where it goes.
    pub server: Server,
    /// With which tenant.
    pub tenant: Rc<InForce>,
    /// What is registered.
    pub metadata: ClientMetadata,
    /// Where the request came from.
    pub origin: Origin,
    /// The request's id.
    pub decision_id: String,
    /// The trace that it is a part of.
    pub trace: Rc<TraceContext>,
}

/// What became of a registration: the number of its ticket, and its answer.
pub type Outcome = (u64, Result<Reply, Refusal>);

/// The registrations of one worker that are under way.
#[derive(Debug, Default)]
pub struct Forwards {
    in_line: RefCell<Vec<Numbered>>,
    calls: RefCell<HashMap<u32, Call>>,
    /// Those that the store is asked to record once more, by the number of that.
    repeated: RefCell<HashMap<u64, Recording>>,
}

#[derive(Debug)]
struct Numbered {
    number: u64,
    awaited: Weak<()>,
    forward: Forward,
}

/// A call whose answer is awaited.
#[allow(clippy::large_enum_variant, reason = "a worker has few of them, and a box for each is no gain")]
#[derive(Debug)]
enum Call {
    /// The server is asked to register the client.
    Registration(Numbered),
    /// The store is asked to record it.
    Record(Recording),
    /// The server is asked to delete it.
    Deletion { decision_id: String },
}

/// A client of the server's that the store is asked to record.
#[derive(Debug)]
struct Recording {
    asked: Numbered,
    client: ServersClient,
    call: StoreCall,
}

/// A client that the server registered.
#[derive(Debug)]
struct ServersClient {
    client_id: String,
    secret: Option<ClientSecret>,
    secret_expires_at: u64,
    configuration: Option<Configuration>,
}

/// Where the server's client is configured (RFC 7592 §3). It never leaves the edge, but to the server.
#[derive(Eq, PartialEq)]
struct Configuration {
    token: String,
    path: String,
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Configuration(…)")
    }
}

impl Forwards {
    /// Puts a registration in line, and has the worker's tick come at once.
    pub fn begin<E: Environment>(&self, environment: &E, tickets: &Tickets, forward: Forward) -> Ticket {
        let ticket = tickets.issue();
        self.in_line.borrow_mut().push(Numbered { number: ticket.number(), awaited: ticket.awaited(), forward });
        environment.tick_at_once();
        ticket
    }

    /// Whether some are in line.
    pub fn is_due(&self) -> bool {
        !self.in_line.borrow().is_empty()
    }

    /// Whether a call is one of these.
    pub fn awaits(&self, call: CallId) -> bool {
        self.calls.borrow().contains_key(&call.0)
    }

    /// Sends those in line to their servers; gives what became of those that could not be sent.
    pub fn tick<E: Environment>(&self, environment: &E, worker: &Worker) -> Vec<Outcome> {
        let in_line = std::mem::take(&mut *self.in_line.borrow_mut());
        // Of one whose client is gone already nothing has happened yet.
        let awaited = in_line.into_iter().filter(Numbered::is_awaited);
        awaited.filter_map(|registration| self.register(environment, worker, registration)).collect()
    }

    fn register<E: Environment>(&self, environment: &E, worker: &Worker, asked: Numbered) -> Option<Outcome> {
        let Forward { server, tenant, metadata, decision_id, trace, .. } = &asked.forward;
        let Ok(body) = serde_json::to_vec(metadata) else {
            return Some((asked.number, Err(Refusal::Callout(Failure::StoreError))));
        };
        let mut headers = vec![
            (":method", "POST"),
            (":path", tenant.tenant.settings.dcr_edge.paths.forward_registration.as_str()),
            ("content-type", "application/json"),
            ("accept", "application/json"),
            (REQUEST_ID_HEADER, decision_id),
        ];
        headers.extend(trace.headers());
        match server.call(environment, worker, &headers, &body) {
            Ok(call) => {
                self.calls.borrow_mut().insert(call.0, Call::Registration(asked));
                None
            }
            Err(error) => Some((asked.number, Err(Refusal::Server(error.into())))),
        }
    }

    /// Takes the answer to a call; gives what became of its registration, if that is known now.
    pub fn answered<E: Environment>(
        &self,
        environment: &E,
        worker: &Worker,
        call: CallId,
        answer: CallAnswer,
    ) -> Option<Outcome> {
        let call = self.calls.borrow_mut().remove(&call.0)?;
        match call {
            Call::Registration(asked) => self.registered(environment, worker, asked, answer),
            Call::Record(Recording { asked, client, call }) => match call.answered(environment, worker, answer) {
                Ok(call) => {
                    self.repeat(Recording { asked, client, call });
                    None
                }
                Err(answer) => Some(self.recorded(environment, worker, asked, client, Ok(answer))),
            },
            Call::Deletion { decision_id } => {
                let status = answer.map_or(0, |response| response.status());
                if matches!(status, 200 | 204) {
                    environment.count(Reason::ServerClientDeleted, 1);
                    let line = format!("registration {decision_id}: the authorization server deleted its client again");
                    environment.log(Level::Info, &line);
                } else {
                    left_behind(environment, &decision_id, &format!("it answered with {status}"));
                }
                None
            }
        }
    }

    /// Whether the store was asked once more to record a client, under this ticket.
    pub fn awaits_repeat(&self, ticket: u64) -> bool {
        self.repeated.borrow().contains_key(&ticket)
    }

    /// Takes what the store said when it was asked once more.
    pub fn repeated<E: Environment>(
        &self,
        environment: &E,
        worker: &Worker,
        (ticket, result): Repeated,
    ) -> Option<Outcome> {
        let Recording { asked, client, .. } = self.repeated.borrow_mut().remove(&ticket)?;
        Some(self.recorded(environment, worker, asked, client, result))
    }

    fn repeat(&self, recording: Recording) {
        if let Some(ticket) = recording.call.ticket() {
            self.repeated.borrow_mut().insert(ticket, recording);
        }
    }

    fn recorded<E: Environment>(
        &self,
        environment: &E,
        worker: &Worker,
        asked: Numbered,
        client: ServersClient,
        result: CallResult,
    ) -> Outcome {
        let recorded = recorded(&asked.forward, &client, result);
        if recorded.is_err() {
            self.delete(environment, worker, &asked.forward, client.configuration);
        }
        (asked.number, recorded)
    }

    fn registered<E: Environment>(
        &self,
        environment: &E,
        worker: &Worker,
        asked: Numbered,
        answer: CallAnswer,
    ) -> Option<Outcome> {
        let client = match understand(answer, &asked.forward.metadata) {
            Ok(client) => client,
            Err((refusal, configuration)) => {
                // Whoever says that it registered a client has one.
                if let Refusal::Server(ServerFailure::Unusable(_)) = refusal {
                    self.delete(environment, worker, &asked.forward, configuration);
                }
                return Some((asked.number, Err(refusal)));
            }
        };
        if !asked.is_awaited() {
            // Nobody would ever know its credentials.
            self.delete(environment, worker, &asked.forward, client.configuration);
            return None;
        }
        match record(environment, worker, &asked.forward, &client) {
            Ok((call, id)) => {
                let recording = Recording { asked, client, call };
                match id {
                    Some(id) => _ = self.calls.borrow_mut().insert(id.0, Call::Record(recording)),
                    None => self.repeat(recording),
                }
                None
            }
            Err(failure) => {
                self.delete(environment, worker, &asked.forward, client.configuration);
                Some((asked.number, Err(Refusal::Callout(failure))))
            }
        }
    }

    fn delete<E: Environment>(
        &self,
        environment: &E,
        worker: &Worker,
        forward: &Forward,
        configuration: Option<Configuration>,
    ) {
        let id = &forward.decision_id;
        let Some(Configuration { token, path }) = configuration else {
            return left_behind(environment, id, "it gave no registration_access_token and registration_client_uri");
        };
        let authorization = format!("Bearer {token}");
        let headers = [
            (":method", "DELETE"),
            (":path", &path),
            ("authorization", &authorization),
            ("accept", "application/json"),
            (REQUEST_ID_HEADER, id),
        ];
        match forward.server.call(environment, worker, &headers, b"") {
            Ok(call) => {
                self.calls.borrow_mut().insert(call.0, Call::Deletion { decision_id: id.clone() });
            }
            Err(_) => left_behind(environment, id, "it cannot be reached"),
        }
    }
}

impl Numbered {
    fn is_awaited(&self) -> bool {
        self.awaited.strong_count() > 0
    }
}

/// Says that the server has a client that nobody knows. The id is not said: whoever read it could use the client.
fn left_behind<E: Environment>(environment: &E, decision_id: &str, why: &str) {
    environment.count(Reason::ServerClientLeft, 1);
    let line = format!(
        "registration {decision_id}: the authorization server still has a client of which nobody was told: {why}"
    );
    environment.log(Level::Warn, &line);
}

/// Asks the store to record a client of the server.
fn record<E: Environment>(
    environment: &E,
    worker: &Worker,
    forward: &Forward,
    client: &ServersClient,
) -> Result<(StoreCall, Option<CallId>), Failure> {
    let request = RegisterClient {
        client_secret_sha256: client.secret.as_ref().map(ClientSecret::sha256_hex),
        metadata: &forward.metadata,
        origin: forward.origin.clone(),
        registered_by: RegisteredBy::Server,
    };
    let path = edge_api::client_path(&forward.tenant.tenant.name, &client.client_id);
    StoreCall::send(
        environment,
        worker,
        registering::record(path, &forward.decision_id, Rc::clone(&forward.trace), &request)?,
    )
}

/// The answer to a registration, from the store's.
fn recorded(forward: &Forward, client: &ServersClient, result: CallResult) -> Result<Reply, Refusal> {
    let secret = client.secret.as_ref().map(|secret| (secret, client.secret_expires_at));
    let registered = registering::registered(result)?;
    // The server knows no other id.
    if registered.client_id != client.client_id {
        return Err(Refusal::Callout(Failure::StoreError));
    }
    registering::created(&registered, secret, &forward.metadata)
}

/// What a server's answer means. A refusal may come with where to delete what the server registered all the same.
fn understand(
    answer: CallAnswer,
    metadata: &ClientMetadata,
) -> Result<ServersClient, (Refusal, Option<Configuration>)> {
    let failed = |failure| (Refusal::Server(failure), None);
    let response = answer.ok_or_else(|| failed(ServerFailure::Unreachable))?;
    match response.status() {
        200 | 201 => {}
        400 => return Err((refused(&response), None)),
        status => {
            return Err(failed(match callout::without_marker(&response) {
                Failure::NotOurs => ServerFailure::Status(status),
                Failure::Timeout => ServerFailure::Timeout,
                _ => ServerFailure::Unreachable,
            }));
        }
    }
    if response.body.len() > MAX_ANSWER {
        return Err(failed(ServerFailure::Unusable("it is too long")));
    }
    let Ok(members) = serde_json::from_slice::<Map<String, Value>>(&response.body) else {
        return Err(failed(ServerFailure::Unusable("it is no JSON object")));
    };
    let configuration = configuration(&members);
    match client(&members, metadata) {
        Ok((client_id, secret, secret_expires_at)) => {
            Ok(ServersClient { client_id, secret, secret_expires_at, configuration })
        }
        Err(what) => Err((Refusal::Server(ServerFailure::Unusable(what)), configuration)),
    }
}

/// The client's id, its secret, and when that expires.
fn client(
    members: &Map<String, Value>,
    metadata: &ClientMetadata,
) -> Result<(String, Option<ClientSecret>, u64), &'static str> {
    let client_id = text(members, "client_id").ok_or("client_id is missing")?;
    // Ids of the store's own form are the store's.
    if !is_servers_client_id(client_id) {
        return Err("client_id is not of 1 to 128 unreserved characters, or begins with tpc_");
    }
    let method = members.get("token_endpoint_auth_method");
    if method.is_some_and(|method| method.as_str() != Some(metadata.token_endpoint_auth_method())) {
        return Err("token_endpoint_auth_method is another than was asked for");
    }
    let expires_at = match members.get("client_secret_expires_at") {
        None => 0,
        Some(at) => at.as_u64().ok_or("client_secret_expires_at is no whole number")?,
    };
    let secret = match (members.get("client_secret"), metadata.is_confidential()) {
        (None, false) => None,
        (None, true) => return Err("client_secret is missing"),
        (Some(_), false) => return Err("there is a client_secret, of a public client"),
        (Some(secret), true) => {
            let secret = secret.as_str().and_then(ClientSecret::of_server);
            Some(secret.ok_or("client_secret is no text of 1 to 1,024 printable ASCII characters")?)
        }
    };
    Ok((client_id.to_owned(), secret, expires_at))
}

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    members.get(name).and_then(Value::as_str)
}

/// Where the server's client is deleted. Of its address only path and query count: the edge knows its server itself.
fn configuration(members: &Map<String, Value>) -> Option<Configuration> {
    let is_fit = |text: &&str| text.len() <= MAX_MANAGEMENT && text.bytes().all(|b| b.is_ascii_graphic());
    let token = text(members, "registration_access_token").filter(|token| !token.is_empty()).filter(is_fit)?;
    let uri = text(members, "registration_client_uri").filter(is_fit)?;
    let (_, rest) = uri.split_once("://")?;
    let path = rest.find('/').and_then(|start| rest.get(start..))?;
    let path = path.split('#').next()?;
    Some(Configuration { token: token.to_owned(), path: path.to_owned() })
}

/// The refusal that a server's 400 is.
fn refused(response: &CallResponse) -> Refusal {
    let members = serde_json::from_slice::<Map<String, Value>>(&response.body).unwrap_or_default();
    let code = text(&members, "error").and_then(|error| CODES.into_iter().find(|code| *code == error));
    let Some(error) = code else { return Refusal::Server(ServerFailure::Status(400)) };
    // RFC 6749 §5.2.
    let is_fit = |b: u8| matches!(b, 0x20..=0x7e) && !matches!(b, b'"' | b'\\');
    let theirs = text(&members, "error_description")
        .filter(|text| (1..=MAX_DESCRIPTION).contains(&text.len()) && text.bytes().all(is_fit));
    let mut description = "the authorization server refused the client".to_owned();
    if let Some(theirs) = theirs {
        description.push_str(": ");
        description.push_str(theirs);
    }
    Refusal::RefusedByServer { error, description }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge_api::{PROTOCOL_HEADER, PROTOCOL_VERSION};
    use crate::filter::board::{self, Lookup, Stamp, State};
    use crate::filter::config::Config;
    use crate::filter::fake::{Call as Sent, Fake};
    use crate::registration;
    use crate::tenant::{DcrEdge, SecurityMode};
    use serde_json::json;

    const TOKEN: &str = "token-of-the-registration";
    const SECRET: &str = "secret of the server";

    struct Bench {
        fake: Fake,
        worker: Rc<Worker>,
    }

    impl Bench {
        fn new() -> Self {
            let fake = Fake::default();
            let config = Config::parse(br#"{"store":{"cluster":"store"}}"#).unwrap();
            let worker = Rc::new(Worker::new(config, "edge-token").unwrap());
            let settings =
                json!({"dcr_edge": {"registrar": "forward", "paths": {"forward_registration": "/oauth2/register"}}});
            let tenant = json!({"name": "t", "domains": ["a.test"], "settings": settings}).to_string();
            let domains = ["a.test".parse().unwrap()];
            let state = State { domains: &domains, limits_sources: false, json: tenant.as_bytes() };
            board::publish(&fake, &worker.keys, 1, Stamp { epoch: 1, version: 1 }, Some(&state));
            board::set_loaded(&fake, &worker.keys);
            fake.properties.lock().unwrap().insert("xds.cluster_name".to_owned(), b"server".to_vec());
            for (name, value) in
                [(":authority", "a.test:8443"), ("x-forwarded-proto", "https"), ("x-forwarded-for", "192.0.2.1")]
            {
                fake.set_request_header(name, Some(value));
            }
            fake.set_request_header("cookie", Some("a=b"));
            fake.set_request_header("authorization", Some("Bearer x"));
            Self { fake, worker }
        }

        fn begin(&self, method: &str) -> Ticket {
            let Lookup::Tenant(tenant) = self.worker.copies.look_up(&self.fake, &self.worker.keys, "a.test") else {
                panic!()
            };
            let body = json!({"redirect_uris": ["https://app.example/cb"], "token_endpoint_auth_method": method});
            let metadata =
                registration::check(body.to_string().as_bytes(), SecurityMode::Strict, &DcrEdge::default()).unwrap();
            let server = Server::of_request(&self.fake, &self.fake.request_head()).unwrap();
            let forward = Forward {
                server,
                tenant,
                metadata,
                origin: Origin::default(),
                decision_id: "id-1".to_owned(),
                trace: Rc::new(TraceContext::of_request("id-1")),
            };
            self.worker.forwards.begin(&self.fake, &self.worker.tickets, forward)
        }

        /// One that the server is asked for.
        fn ask(&self) -> Ticket {
            let ticket = self.begin("client_secret_post");
            assert!(self.tick().is_empty());
            ticket
        }

        fn tick(&self) -> Vec<Outcome> {
            self.worker.forwards.tick(&self.fake, &self.worker)
        }

        /// The answer to the call that was sent last.
        fn answer(&self, answer: CallAnswer) -> Option<Outcome> {
            let call = CallId(self.sent().len() as u32);
            assert!(self.worker.forwards.awaits(call));
            let outcome = self.worker.forwards.answered(&self.fake, &self.worker, call, answer);
            assert!(!self.worker.forwards.awaits(call));
            outcome
        }

        /// Sends what is repeated; gives what became of it if it could not be sent.
        fn repeat(&self) -> Option<Outcome> {
            self.fake.now.fetch_add(50_000_000, std::sync::atomic::Ordering::Relaxed);
            let repeated = self.worker.repeats.tick(&self.fake, &self.worker).pop()?;
            assert!(self.worker.forwards.awaits_repeat(repeated.0));
            self.worker.forwards.repeated(&self.fake, &self.worker, repeated)
        }

        /// Sends what is repeated, and answers it.
        fn answer_repeat(&self, answer: CallAnswer) -> Option<Outcome> {
            assert_eq!(self.repeat(), None);
            let call = CallId(self.sent().len() as u32);
            let repeated = self.worker.repeats.answered(&self.fake, call, answer).unwrap();
            self.worker.forwards.repeated(&self.fake, &self.worker, repeated)
        }

        fn sent(&self) -> Vec<Sent> {
            self.fake.calls.lock().unwrap().clone()
        }

        /// Cluster, method and path of each call.
        fn ways(&self) -> Vec<String> {
            let way = |sent: &Sent| format!("{} {} {}", sent.cluster, header(sent, ":method"), header(sent, ":path"));
            self.sent().iter().map(way).collect()
        }

        fn counted(&self, reason: Reason) -> usize {
            self.fake.counted.lock().unwrap().iter().filter(|counted| **counted == reason).count()
        }
    }

    fn header<'a>(sent: &'a Sent, name: &str) -> &'a str {
        sent.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value.as_str())
    }

    fn says(status: &str, body: &str) -> CallAnswer {
        let headers = vec![(":status".to_owned(), status.as_bytes().to_vec())];
        Some(CallResponse { headers, body: body.as_bytes().to_vec() })
    }

    fn store_says(status: &str, body: &Value) -> CallAnswer {
        let mut response = says(status, &body.to_string())?;
        response.headers.push((PROTOCOL_HEADER.to_owned(), PROTOCOL_VERSION.as_bytes().to_vec()));
        Some(response)
    }

    /// What a server says of a client that authenticates with a secret.
    fn client() -> Value {
        json!({
            "client_id": "of-the-server", "client_secret": SECRET, "client_secret_expires_at": 9,
            "token_endpoint_auth_method": "client_secret_post", "registration_access_token": TOKEN,
            "registration_client_uri": "http://inside.example:4444/clients/7?a=b"
        })
    }

    const REGISTER: &str = "server POST /oauth2/register";
    const RECORD: &str = "store PUT /edge/v1/tenants/t/clients/of-the-server";
    const DELETE: &str = "server DELETE /clients/7?a=b";

    #[test]
    fn the_checked_metadata_goes_where_the_request_would_without_what_it_authenticates_with() {
        let bench = Bench::new();
        let _ticket = bench.begin("none");
        assert!(bench.worker.forwards.is_due() && bench.sent().is_empty());
        assert!(bench.fake.ticks_at_once.load(std::sync::atomic::Ordering::Relaxed));
        assert!(bench.tick().is_empty() && !bench.worker.forwards.is_due());
        assert_eq!(bench.ways(), [REGISTER]);
        let sent = bench.sent().remove(0);
        let names = [":authority", "x-forwarded-proto", "x-forwarded-for", "x-request-id", "cookie", "authorization"];
        assert_eq!(names.map(|name| header(&sent, name)), ["a.test:8443", "https", "192.0.2.1", "id-1", "", ""]);
        let body: Value = serde_json::from_slice(&sent.body).unwrap();
        assert_eq!(
            (&body["grant_types"], &body["token_endpoint_auth_method"]),
            (&json!(["authorization_code"]), &json!("none"))
        );
    }

    #[test]
    fn the_client_is_answered_after_the_store_which_sees_neither_secret_nor_token() {
        let bench = Bench::new();
        let ticket = bench.ask();
        assert_eq!(bench.answer(says("201", &client().to_string())), None);
        assert_eq!(bench.ways(), [REGISTER, RECORD]);
        let record = String::from_utf8(bench.sent().remove(1).body).unwrap();
        assert!(record.contains(r#""registered_by":"server""#), "{record}");
        assert!(record.contains(&ClientSecret::of_server(SECRET).unwrap().sha256_hex()));
        assert!(!record.contains(SECRET) && !record.contains(TOKEN));
        let stored = json!({"client_id": "of-the-server", "client_id_issued_at": 7});
        let (number, reply) = bench.answer(store_says("201", &stored)).unwrap();
        let reply = reply.unwrap();
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!((number, reply.status, &body["client_id"]), (ticket.number(), 201, &json!("of-the-server")));
        assert_eq!((&body["client_secret"], &body["client_id_issued_at"]), (&json!(SECRET), &json!(7)));
        assert_eq!(body["client_secret_expires_at"], 9);
        assert!(body.get("registration_access_token").is_none() && body.get("registration_client_uri").is_none());
        assert_eq!(bench.sent().len(), 2);
    }

    #[test]
    fn whatever_the_store_says_but_success_deletes_the_servers_client_and_keeps_its_meaning() {
        let error = json!({"error": "access_denied", "error_description": "d"});
        let limited = json!({"error": "too_many_requests", "error_description": "d", "next_token_in_ms": 1});
        let another = json!({"client_id": "another", "client_id_issued_at": 7});
        for (answer, reason) in [
            (None, Reason::Reset),
            (says("504", "upstream request timeout"), Reason::Timeout),
            (store_says("500", &json!({})), Reason::StoreError),
            (store_says("409", &json!({})), Reason::Conflict),
            (store_says("403", &error), Reason::StoreRefused),
            (store_says("429", &limited), Reason::FleetLimited),
            (store_says("201", &another), Reason::StoreError),
        ] {
            let bench = Bench::new();
            let _ticket = bench.ask();
            bench.answer(says("200", &client().to_string()));
            let is_repeated = callout::is_worth_a_repeat(&answer);
            let mut outcome = bench.answer(answer.clone());
            assert_eq!(outcome.is_none(), is_repeated);
            let mut ways = vec![REGISTER, RECORD, DELETE];
            if is_repeated {
                ways.insert(1, RECORD);
                outcome = bench.answer_repeat(answer);
            }
            assert_eq!(outcome.unwrap().1.unwrap_err().reason(), reason);
            assert_eq!(bench.ways(), ways);
            let deletion = bench.sent().pop().unwrap();
            assert_eq!(header(&deletion, "authorization"), format!("Bearer {TOKEN}"));
            assert_eq!(header(&deletion, ":authority"), "a.test:8443");
            assert_eq!(bench.answer(says("204", "")), None);
            assert_eq!(bench.counted(Reason::ServerClientDeleted), 1);
            assert!(!bench.fake.lines.lock().unwrap().concat().contains(TOKEN));
        }
    }

    #[test]
    fn what_the_store_records_only_when_it_is_asked_once_more_is_a_client_like_any_other() {
        let bench = Bench::new();
        let ticket = bench.ask();
        bench.answer(says("201", &client().to_string()));
        assert_eq!(bench.answer(None), None);
        let stored = json!({"client_id": "of-the-server", "client_id_issued_at": 7});
        let (number, reply) = bench.answer_repeat(store_says("200", &stored)).unwrap();
        assert_eq!((number, reply.unwrap().status), (ticket.number(), 201));
        assert_eq!(bench.ways(), [REGISTER, RECORD, RECORD]);
    }

    #[test]
    fn where_neither_store_nor_server_can_be_asked_the_client_is_counted_as_left() {
        let bench = Bench::new();
        let _ticket = bench.ask();
        *bench.fake.refuse_calls.lock().unwrap() = Some(DispatchError::NoHealthyHost);
        assert_eq!(bench.answer(says("201", &client().to_string())), None);
        let (_, outcome) = bench.repeat().unwrap();
        assert_eq!(outcome.unwrap_err().reason(), Reason::NoHealthyHost);
        assert_eq!(bench.counted(Reason::ServerClientLeft), 1);
        let _ticket = bench.begin("none");
        assert_eq!(bench.tick().remove(0).1.unwrap_err().reason(), Reason::ServerUnreachable);
    }

    #[test]
    fn a_deletion_that_the_server_refuses_is_counted_and_said_without_the_token() {
        for answer in [None, says("401", ""), says("500", TOKEN)] {
            let bench = Bench::new();
            drop(bench.ask());
            bench.answer(says("201", &client().to_string()));
            assert_eq!(bench.answer(answer), None);
            assert_eq!(bench.counted(Reason::ServerClientLeft), 1);
            let lines = bench.fake.lines.lock().unwrap().concat();
            assert!(lines.contains("id-1") && !lines.contains(TOKEN) && !lines.contains("of-the-server"), "{lines}");
        }
    }

    #[test]
    fn of_whoever_is_gone_nothing_begins_nothing_is_recorded_and_what_is_recorded_stays() {
        let bench = Bench::new();
        drop(bench.begin("none"));
        assert!(bench.tick().is_empty() && bench.sent().is_empty());
        drop(bench.ask());
        assert_eq!(bench.answer(says("201", &client().to_string())), None);
        assert_eq!(bench.ways(), [REGISTER, DELETE]);

        let bench = Bench::new();
        let ticket = bench.ask();
        bench.answer(says("201", &client().to_string()));
        drop(ticket);
        let stored = json!({"client_id": "of-the-server", "client_id_issued_at": 7});
        bench.answer(store_says("201", &stored));
        assert_eq!(bench.ways(), [REGISTER, RECORD]);
    }

    #[test]
    fn of_the_clients_address_at_the_server_only_path_and_query_count() {
        let path = |uri: &str| {
            let members = json!({"registration_access_token": "t", "registration_client_uri": uri});
            configuration(members.as_object().unwrap()).map(|configuration| configuration.path)
        };
        for (uri, expected) in [
            ("https://elsewhere.example/reg/1", Some("/reg/1")),
            ("http://a.test:1/reg?client_id=1#x", Some("/reg?client_id=1")),
            ("https://a.test", None),
            ("/reg/1", None),
            ("https://a.test/r g", None),
            ("https://a.test/r\r\nx: y", None),
            ("", None),
        ] {
            assert_eq!(path(uri).as_deref(), expected, "{uri}");
        }
        for token in [json!(""), json!("a b"), json!("a\r\nb"), json!(7), Value::Null] {
            let members = json!({"registration_access_token": token, "registration_client_uri": "https://a.test/r"});
            assert_eq!(configuration(members.as_object().unwrap()), None, "{token}");
        }
        let configuration = configuration(client().as_object().unwrap()).unwrap();
        assert!(!format!("{configuration:?}").contains(TOKEN));
    }

    #[test]
    fn what_the_proxy_says_in_the_servers_place_is_told_from_what_the_server_says() {
        let connect =
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
        for (answer, failure) in [
            (None, ServerFailure::Unreachable),
            (says("503", connect), ServerFailure::Unreachable),
            (says("503", "no healthy upstream"), ServerFailure::Unreachable),
            (says("504", "upstream request timeout"), ServerFailure::Timeout),
            (says("503", "maintenance"), ServerFailure::Status(503)),
            (says("401", "{}"), ServerFailure::Status(401)),
            (says("400", "[]"), ServerFailure::Status(400)),
            (says("400", r#"{"error":"invalid_request"}"#), ServerFailure::Status(400)),
            (says("201", "[\"client_id\"]"), ServerFailure::Unusable("it is no JSON object")),
            (says("201", &" ".repeat(MAX_ANSWER + 1)), ServerFailure::Unusable("it is too long")),
        ] {
            let bench = Bench::new();
            let _ticket = bench.ask();
            let (_, outcome) = bench.answer(answer).unwrap();
            assert_eq!(outcome, Err(Refusal::Server(failure)));
        }
    }
}
