//! Reading an export: each line checked by the rules by which the Management API and registrations are, and against the
//! lines before it. What comes out is fit to be written.
//!
//! A line is forgotten when it is read, save for 20 bytes of each id.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, Read};

use hex::FromHex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::line::{ClientLine, Counts, EndLine, FORMAT, HeaderLine, Kind, ObjectLine, Start, TenantLine};
use crate::acl::{NetworkAcl, Size};
use crate::management::{ClientGrant, Connection, ResourceServer, Whose, is_system_api};
use crate::registration::{self, client_id_mode, is_servers_client_id};
use crate::store::client::{ClientData, Registered};
use crate::store::clock::LAST_MILLI;
use crate::store::db::{DocumentKind, Imported, MOST_GRANTS, MovedClient, NewAcl, StoredClient, is_acl_id};
use crate::tenant::{DcrEdge, Domain, MAX_DOMAINS, Name, SecurityMode, Tenant};

/// Longest line, in bytes: twice the longest access rule that the Management API takes.
const MAX_LINE: u64 = 16 * 1024 * 1024;

/// Longest metadata of a client, in bytes: twice the longest registration that the store takes.
const MAX_METADATA: usize = 512 * 1024;

/// Longest line of a client, in bytes: metadata and what else it may have.
const MAX_CLIENT_LINE: usize = 2 * MAX_METADATA;

/// Most characters of an error that a line may have a part in.
const MAX_CHARACTERS: usize = 300;

/// Objects that are handed on together, and bytes of lines after which they are.
const MOST_OBJECTS: usize = 500;
const MOST_BYTES: usize = 1024 * 1024;

/// Why an export cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A line is wrong.
    #[error("line {0}: {1}")]
    Line(u64, String),
    /// There are no more bytes for another reason than that there are none.
    #[error("cannot read the input: {0}")]
    Io(#[from] io::Error),
}

/// Some lines of an export, in their order.
#[derive(Debug)]
pub enum Part {
    /// A tenant, and its line. What it has follows.
    Tenant(u64, Box<Tenant>),
    /// Some of what the last tenant has, and the line of each. All access rules of a tenant are in one part.
    Objects(Vec<u64>, Vec<Imported>),
}

/// What a line says.
enum Said {
    Header,
    Tenant(Box<Tenant>),
    Object(Imported),
    End,
}

/// Reads an export.
pub struct Input<R> {
    reader: R,
    line: u64,
    buffer: Vec<u8>,
    last: Option<Kind>,
    counts: Counts,
    names: HashSet<Name>,
    domains: HashSet<Domain>,
    /// The tenant to which each id belongs.
    ids: HashMap<ShortHash, u32>,
    tenant: OfTenant,
    /// A tenant that ended a part and begins the next.
    pending: Option<(u64, Box<Tenant>)>,
    is_done: bool,
}

/// What is known of the tenant whose lines are read.
#[derive(Default)]
struct OfTenant {
    /// Which one of the file it is.
    number: u32,
    domains: Vec<Domain>,
    acls: Size,
    documents: [u32; 3],
    /// What it can have once only.
    keys: HashSet<ShortHash>,
    /// How many grants each client has, and all third parties.
    grants: HashMap<ShortHash, u32>,
}

impl<R: BufRead> Input<R> {
    /// Begins to read.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            line: 0,
            buffer: Vec::new(),
            last: None,
            counts: Counts::default(),
            names: HashSet::new(),
            domains: HashSet::new(),
            ids: HashMap::new(),
            tenant: OfTenant::default(),
            pending: None,
            is_done: false,
        }
    }

    /// The next part; `None` after the last.
    pub fn part(&mut self) -> Result<Option<Part>, Error> {
        if let Some((line, tenant)) = self.pending.take() {
            return Ok(Some(Part::Tenant(line, tenant)));
        }
        let (mut lines, mut objects, mut bytes) = (Vec::new(), Vec::new(), 0_usize);
        while !self.is_done {
            match self.read()? {
                Said::Header => {}
                Said::Tenant(tenant) if objects.is_empty() => return Ok(Some(Part::Tenant(self.line, tenant))),
                Said::Tenant(tenant) => {
                    self.pending = Some((self.line, tenant));
                    break;
                }
                Said::Object(object) => {
                    let is_acl = matches!(object, Imported::NetworkAcl { .. });
                    lines.push(self.line);
                    objects.push(object);
                    bytes = bytes.saturating_add(self.buffer.len());
                    if !is_acl && (objects.len() >= MOST_OBJECTS || bytes >= MOST_BYTES) {
                        break;
                    }
                }
                Said::End => self.is_done = true,
            }
        }
        Ok((!objects.is_empty()).then_some(Part::Objects(lines, objects)))
    }

    fn read(&mut self) -> Result<Said, Error> {
        self.line = self.line.saturating_add(1);
        self.buffer.clear();
        self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.buffer)?;
        self.checked().map_err(|reason| Error::Line(self.line, printable(&reason)))
    }

    /// What the line in the buffer says.
    fn checked(&mut self) -> Result<Said, String> {
        if self.buffer.is_empty() {
            return Err("the file ends without the line of the type end: it was cut off; export it again".to_owned());
        }
        if self.buffer.len() as u64 >= MAX_LINE {
            return Err(format!("expected {MAX_LINE} bytes at most"));
        }
        let Start { kind, format } = parsed(&self.buffer)?;
        let expected = match (self.last, kind) {
            (None, Kind::Header) | (Some(_), Kind::Tenant | Kind::End) => None,
            (None, _) => Some("a line of the type header"),
            (Some(Kind::Header), _) | (Some(_), Kind::Header) => Some("a line of the type tenant"),
            (Some(last), _) if kind < last => {
                Some("network_acl, resource_server, connection, client, client_grant in this order")
            }
            _ => None,
        };
        if let Some(expected) = expected {
            return Err(format!("{}: is not in its place; expected {expected}", kind.as_str()));
        }
        if kind == Kind::Header && format != Some(FORMAT) {
            return Err(format!("format: expected {FORMAT}; use the version of dcr-store that wrote the file"));
        }
        self.last = Some(kind);
        self.counts.add(kind);
        self.of_kind(kind).map_err(|reason| format!("{}: {reason}", kind.as_str()))
    }

    fn of_kind(&mut self, kind: Kind) -> Result<Said, String> {
        let object = match kind {
            Kind::Header => {
                let _: HeaderLine = parsed(&self.buffer)?;
                return Ok(Said::Header);
            }
            Kind::End => {
                self.end()?;
                return Ok(Said::End);
            }
            Kind::Tenant => return Ok(Said::Tenant(Box::new(self.tenant()?))),
            Kind::NetworkAcl => self.network_acl()?,
            Kind::ResourceServer => {
                let line: ObjectLine<ResourceServer> = parsed(&self.buffer)?;
                refuse_system_api("identifier", &line.data.identifier)?;
                self.take_key("identifier", &[API, &line.data.identifier])?;
                self.document(DocumentKind::ResourceServer, line)?
            }
            Kind::Connection => {
                let line: ObjectLine<Connection> = parsed(&self.buffer)?;
                self.take_key("name", &["connection", &line.data.name])?;
                self.document(DocumentKind::Connection, line)?
            }
            Kind::Client => self.client()?,
            Kind::ClientGrant => self.client_grant()?,
        };
        Ok(Said::Object(object))
    }

    fn end(&mut self) -> Result<(), String> {
        let EndLine { counts, .. } = parsed(&self.buffer)?;
        if counts != self.counts {
            return Err("counts: are not those of the lines; lines are missing or were added".to_owned());
        }
        self.buffer.clear();
        match self.reader.by_ref().take(1).read_until(b'\n', &mut self.buffer) {
            Ok(0) => Ok(()),
            Ok(_) => Err("something follows; it has to be the last line".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn tenant(&mut self) -> Result<Tenant, String> {
        let TenantLine { name, domains, settings, permissive_eligible, .. } = parsed(&self.buffer)?;
        if !(1..=MAX_DOMAINS).contains(&domains.len()) {
            return Err(format!("domains: expected 1 to {MAX_DOMAINS}"));
        }
        if let Some(twice) = domains.iter().find(|domain| !self.domains.insert((*domain).clone())) {
            return Err(format!("domains: {twice} is in the file twice"));
        }
        if !self.names.insert(name.clone()) {
            return Err(format!("name: {name} is in the file twice"));
        }
        if settings.dynamic_client_registration_security_mode == SecurityMode::Permissive && !permissive_eligible {
            let member = "settings.dynamic_client_registration_security_mode";
            return Err(format!("{member}: permissive needs a tenant with permissive_eligible true"));
        }
        let number = self.tenant.number.saturating_add(1);
        self.tenant = OfTenant { number, domains: domains.clone(), ..OfTenant::default() };
        Ok(Tenant { name, domains, settings, permissive_eligible })
    }

    fn network_acl(&mut self) -> Result<Imported, String> {
        let ObjectLine { id, created_at, updated_at, data, .. }: ObjectLine<NetworkAcl> = parsed(&self.buffer)?;
        check_times(&[("created_at", created_at), ("updated_at", updated_at)])?;
        if !is_acl_id(&id) {
            return Err(bad_form("id"));
        }
        if data.priority.is_none() {
            return Err("data.priority: is missing".to_owned());
        }
        let acl = NewAcl::new(&data).map_err(|error| error.to_string())?;
        let own = acl.redirect_host.as_ref().filter(|host| self.tenant.domains.iter().any(|own| own.as_str() == *host));
        if let Some(host) = own {
            return Err(format!("data.rule.action.redirect_uri: {host} is a host of this tenant"));
        }
        self.tenant.acls = [self.tenant.acls, acl.size].into_iter().collect();
        self.tenant.acls.check()?;
        self.take_id("id", &id)?;
        Ok(Imported::NetworkAcl { id, acl, created_at, updated_at })
    }

    fn document<T: Serialize>(&mut self, kind: DocumentKind, line: ObjectLine<T>) -> Result<Imported, String> {
        let ObjectLine { id, created_at, updated_at, data, .. } = line;
        check_times(&[("created_at", created_at), ("updated_at", updated_at)])?;
        if !kind.is_id(&id) {
            return Err(bad_form("id"));
        }
        let [apis, connections, grants] = &mut self.tenant.documents;
        let count = match kind {
            DocumentKind::ResourceServer => apis,
            DocumentKind::Connection => connections,
            DocumentKind::ClientGrant => grants,
        };
        *count = count.saturating_add(1);
        if *count > kind.most() {
            return Err(format!("{}s of a tenant are {} at most", kind.noun(), kind.most()));
        }
        self.take_id("id", &id)?;
        let data = serde_json::to_string(&data).map_err(|_| "data: cannot be written as JSON".to_owned())?;
        Ok(Imported::Document { kind, id, data, created_at, updated_at })
    }

    fn client_grant(&mut self) -> Result<Imported, String> {
        let line: ObjectLine<ClientGrant> = parsed(&self.buffer)?;
        let ClientGrant { whose, audience, subject_type, .. } = &line.data;
        refuse_system_api("audience", audience)?;
        if !self.tenant.keys.contains(&digest(&[API, audience])) {
            return Err("data.audience: the tenant has no such API in the file".to_owned());
        }
        let client_id = match whose {
            Whose::Client(client_id) => client_id.as_str(),
            Whose::ThirdPartyClients => "",
        };
        if !client_id.is_empty() && self.ids.get(&digest(&[client_id])) != Some(&self.tenant.number) {
            return Err("data.client_id: the tenant has no such client in the file".to_owned());
        }
        let of_these = self.tenant.grants.entry(digest(&[client_id])).or_default();
        *of_these = of_these.saturating_add(1);
        if *of_these > MOST_GRANTS {
            return Err(format!("those of one client, and those for all third parties, are {MOST_GRANTS} at most"));
        }
        self.take_key("audience", &["grant", audience, subject_type.as_str(), client_id])?;
        self.document(DocumentKind::ClientGrant, line)
    }

    fn client(&mut self) -> Result<Imported, String> {
        // Before much is made of it: in memory JSON takes many times its length.
        if self.buffer.len() > MAX_CLIENT_LINE {
            return Err(format!("expected {MAX_CLIENT_LINE} bytes at most"));
        }
        let line: ClientLine<Map<String, Value>> = parsed(&self.buffer)?;
        let ClientLine { client_id, issued_at, updated_at, last_used_at, answered_at, is_dynamic, .. } = line;
        let security_mode = line.third_party_security_mode;
        check_times(&[
            ("issued_at", issued_at.saturating_mul(1_000)),
            ("updated_at", updated_at),
            ("last_used_at", last_used_at.unwrap_or_default().saturating_mul(1_000)),
            ("answered_at", answered_at.unwrap_or_default().saturating_mul(1_000)),
        ])?;
        let is_servers = security_mode == SecurityMode::Strict && is_dynamic && is_servers_client_id(&client_id);
        if client_id_mode(&client_id) != Some(security_mode) && !is_servers {
            return Err(format!("client_id: has not the form of one of the mode {}", security_mode.as_str()));
        }
        let data = ClientData::moved(line.metadata, line.app_type, line.owner, is_dynamic, security_mode)?;
        if data.metadata.len() > MAX_METADATA {
            return Err(format!("metadata: expected {MAX_METADATA} bytes at most"));
        }
        let is_confidential = Registered::read(&data.metadata).is_some_and(|registered| registered.is_confidential());
        let client_secret_sha256 = line.client_secret_sha256.as_deref().map(sha256_digest).transpose()?;
        if client_secret_sha256.is_some() != is_confidential {
            return Err("client_secret_sha256: expected exactly if the client authenticates with a secret".to_owned());
        }
        let may_have_fingerprint = is_dynamic && !is_confidential;
        let fingerprint = match (line.has_fingerprint, may_have_fingerprint) {
            (false, _) => None,
            (true, true) => Some(fingerprint(&data.metadata, security_mode)?),
            (true, false) => {
                return Err(
                    "has_fingerprint: expected false, unless it is a public client that registered itself".to_owned()
                );
            }
        };
        self.take_id("client_id", &client_id)?;
        let client = StoredClient {
            client_id,
            version: 1,
            is_dynamic,
            security_mode,
            has_secret: is_confidential,
            issued_at,
            updated_at,
            last_used_at,
            data,
        };
        Ok(Imported::Client(Box::new(MovedClient { client, client_secret_sha256, answered_at, fingerprint })))
    }

    /// Notes that the tenant has something of this id, which nobody has yet.
    fn take_id(&mut self, member: &str, id: &str) -> Result<(), String> {
        match self.ids.insert(digest(&[id]), self.tenant.number) {
            None => Ok(()),
            Some(_) => Err(format!("{member}: {id} is in the file twice")),
        }
    }

    /// Notes something that the tenant can have once only.
    fn take_key(&mut self, member: &str, key: &[&str]) -> Result<(), String> {
        if self.tenant.keys.insert(digest(key)) {
            Ok(())
        } else {
            Err(format!("data.{member}: the tenant has such a one twice"))
        }
    }
}

/// What the key of an API begins with.
const API: &str = "api";

/// What stands for texts where millions of them are to be told apart: a half of their SHA-256.
type ShortHash = [u8; 16];

fn digest(parts: &[&str]) -> ShortHash {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().first_chunk().copied().unwrap_or_default()
}

/// What the JSON object in `line` says. The error names the member.
fn parsed<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    if line.first() != Some(&b'{') {
        return Err("is not a JSON object".to_owned());
    }
    let mut json = serde_json::Deserializer::from_slice(line);
    let object = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (member, reason) = (error.path().to_string(), without_place(error.inner()));
        // Of the object as a whole there is no name.
        if member == "." { reason } else { format!("{member}: {reason}") }
    })?;
    json.end().map_err(|error| without_place(&error))?;
    Ok(object)
}

/// The error without its place in the line, which would be taken for one in the file.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).map_or_else(|| text.clone(), |reason| format!("{reason} (byte {})", error.column()))
}

/// The text as a terminal may show it: what is wrong may be the line's own words.
fn printable(text: &str) -> String {
    text.chars().take(MAX_CHARACTERS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn check_times(unix_millis: &[(&str, u64)]) -> Result<(), String> {
    match unix_millis.iter().find(|(_, at)| *at > LAST_MILLI) {
        Some((member, _)) => Err(format!("{member}: expected a time before the year 10000")),
        None => Ok(()),
    }
}

fn bad_form(member: &str) -> String {
    format!("{member}: has not the form of such an id")
}

fn refuse_system_api(member: &str, identifier: &str) -> Result<(), String> {
    if is_system_api(identifier) {
        Err(format!("data.{member}: a Management API is a system API, which is not granted"))
    } else {
        Ok(())
    }
}

fn sha256_digest(text: &str) -> Result<[u8; 32], String> {
    <[u8; 32]>::from_hex(text).map_err(|_| "client_secret_sha256: expected 64 hexadecimal digits".to_owned())
}

/// What equal public clients have in common with this one.
fn fingerprint(metadata: &str, mode: SecurityMode) -> Result<[u8; 32], String> {
    let metadata = registration::check(metadata.as_bytes(), mode, &DcrEdge::default())
        .map_err(|rejection| format!("metadata.{}", rejection.description))?;
    metadata.fingerprint().map_err(|_| "metadata: cannot be written as JSON".to_owned())
}
