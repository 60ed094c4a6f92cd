//! Tenants as JSON lines, out of one database and into another.
//!
//! | file | what is in it |
//! |---|---|
//! | [`line`] | the lines |
//! | [`input`] | reading and checking them |
//!
//! An import reads its input twice: everything is checked, and compared with what the database has, before anything is
//! written. Then it writes tenant by tenant, each in many transactions, so that registrations of others need not wait for
//! long. A tenant gets its domains last: before it has them no host leads to it, and a repeat of the import goes on with
//! it.

mod input;
mod line;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use self::input::{Input, Part};
use self::line::{ClientLine, Counts, EndLine, FORMAT, HeaderLine, Kind, ObjectLine, TenantLine};
use super::clock::Now;
use super::db::{
    self, Database, Document, DocumentKind, DocumentQuery, Exported, Imported, MovedClient, NewAcl, Presence,
    StoredAcl, StoredTenant, update_known_tenant,
};
use crate::acl::{NetworkAcl, Size};
use crate::tenant::{Name, Tenant};

/// Why tenants were not exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused or failed.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// No such tenant.
    #[error("there is no tenant {0}; `dcr-store tenant list` shows those that there are")]
    UnknownTenant(Name),
    /// A tenant of which an import wrote a part.
    #[error("the tenant {0} is not complete: repeat its import, or delete it")]
    Incomplete(Name),
    /// The export cannot be written.
    #[error("cannot write the export: {0}")]
    Output(io::Error),
    /// The file for the export cannot be made.
    #[error("cannot write {0}: {1}")]
    File(String, String),
    /// The input is none that can be imported.
    #[error("nothing was imported: {0}")]
    Input(#[from] input::Error),
    /// The input is another than the one that was checked.
    #[error("the input was changed while it was imported: {0}; import it again")]
    Changed(input::Error),
    /// The import was cut off.
    #[error("the tenant {0} is not complete: {1}; repeat the import, which goes on with it")]
    CutOff(Name, String),
}

// ---- export ----

/// Writes all tenants, or one of them.
pub async fn export(
    database: &dyn Database,
    tenant: Option<&Name>,
    output: &mut (dyn Write + Send),
) -> Result<(), Error> {
    if let Some(name) = tenant
        && database.tenant(name).await?.is_none()
    {
        return Err(Error::UnknownTenant(name.clone()));
    }
    let mut lines = Output { output, counts: Counts::default(), is_named: tenant.is_some(), leaves_out: false };
    lines.write(Kind::Header, &HeaderLine { kind: Kind::Header, format: FORMAT })?;
    let mut written = Ok(());
    let mut each = |exported| {
        written = lines.exported(exported);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    database.export(tenant, &mut each).await?;
    written?;
    let counts = lines.counts;
    lines.write(Kind::End, &EndLine { kind: Kind::End, counts })?;
    output.flush().map_err(Error::Output)
}

/// Writes all tenants, or one of them, into the new file `to`, for its owner only. An error, and a call that is given
/// up, leaves nothing behind.
pub async fn export_to(database: &dyn Database, tenant: Option<&Name>, to: &Path) -> Result<(), Error> {
    let refuse = |reason: String| Error::File(to.display().to_string(), reason);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(|error| {
        refuse(match error.kind() {
            io::ErrorKind::AlreadyExists => {
                "there is such a file already; choose another path, or move that file away".to_owned()
            }
            io::ErrorKind::NotFound => "its folder does not exist; create the folder first".to_owned(),
            _ => error.to_string(),
        })
    })?;
    let partial = Partial(Some(to));
    let mut output = io::BufWriter::new(&file);
    export(database, tenant, &mut output).await?;
    file.sync_all().map_err(|error| refuse(error.to_string()))?;
    partial.keep();
    Ok(())
}

/// A file that is not complete: gone when this is dropped.
struct Partial<'a>(Option<&'a Path>);

impl Partial<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// The lines of an export as they are written.
struct Output<'a> {
    output: &'a mut (dyn Write + Send),
    counts: Counts,
    /// Whether one tenant was asked for.
    is_named: bool,
    /// Whether what comes is a tenant's that is left out.
    leaves_out: bool,
}

impl Output<'_> {
    fn write(&mut self, kind: Kind, line: &impl Serialize) -> Result<(), Error> {
        serde_json::to_writer(&mut self.output, line).map_err(|error| Error::Output(error.into()))?;
        self.output.write_all(b"\n").map_err(Error::Output)?;
        self.counts.add(kind);
        Ok(())
    }

    fn exported(&mut self, exported: Exported) -> Result<(), Error> {
        match exported {
            Exported::Tenant(tenant) => self.tenant(*tenant),
            _ if self.leaves_out => Ok(()),
            Exported::NetworkAcl(acl) => self.network_acl(&acl),
            Exported::Document(kind, document) => self.document(kind, &document),
            Exported::Client(moved) => self.client(*moved),
        }
    }

    fn tenant(&mut self, tenant: Tenant) -> Result<(), Error> {
        let Tenant { name, domains, settings, permissive_eligible } = tenant;
        // One without domains was not imported to its end, and must not stand in the way of all others.
        self.leaves_out = domains.is_empty() && !self.is_named;
        if self.leaves_out {
            tracing::warn!("the tenant {name} is left out: it is not complete; repeat its import, or delete it");
            return Ok(());
        }
        if domains.is_empty() {
            return Err(Error::Incomplete(name));
        }
        let kind = Kind::Tenant;
        self.write(kind, &TenantLine { kind, name, domains, settings, permissive_eligible })
    }

    fn network_acl(&mut self, acl: &StoredAcl) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Data<'a> {
            description: &'a str,
            active: bool,
            priority: u32,
            rule: &'a RawValue,
        }
        let StoredAcl { id, description, active, priority, rule, created_at, updated_at, .. } = acl;
        let data = Data { description, active: *active, priority: *priority, rule };
        let (kind, id) = (Kind::NetworkAcl, id.clone());
        self.write(kind, &ObjectLine { kind, id, created_at: *created_at, updated_at: *updated_at, data })
    }

    fn document(&mut self, kind: DocumentKind, document: &Document) -> Result<(), Error> {
        let kind = match kind {
            DocumentKind::ResourceServer => Kind::ResourceServer,
            DocumentKind::Connection => Kind::Connection,
            DocumentKind::ClientGrant => Kind::ClientGrant,
        };
        let Document { id, data, created_at, updated_at, .. } = document;
        let data = raw(data, kind, id)?;
        let id = id.clone();
        self.write(kind, &ObjectLine { kind, id, created_at: *created_at, updated_at: *updated_at, data })
    }

    fn client(&mut self, moved: MovedClient) -> Result<(), Error> {
        let MovedClient { client, client_secret_sha256, answered_at, fingerprint } = moved;
        let kind = Kind::Client;
        let line = ClientLine {
            kind,
            metadata: raw(&client.data.metadata, kind, &client.client_id)?,
            client_id: client.client_id,
            client_secret_sha256: client_secret_sha256.map(hex::encode),
            issued_at: client.issued_at,
            updated_at: client.updated_at,
            last_used_at: client.last_used_at,
            answered_at,
            is_dynamic: client.is_dynamic,
            app_type: client.data.app_type,
            owner: client.data.owner,
            third_party_security_mode: client.security_mode,
            has_fingerprint: fingerprint.is_some(),
        };
        self.write(kind, &line)
    }
}

/// Stored JSON as it is.
fn raw<'a>(json: &'a str, kind: Kind, id: &str) -> Result<&'a RawValue, Error> {
    let damaged = |_| db::Error::Failed(format!("the {} {id} cannot be read", kind.as_str()));
    Ok(serde_json::from_str(json).map_err(damaged)?)
}

// ---- import ----

/// After so many objects an import lets others write.
const OBJECTS_AT_ONCE: usize = 500;

/// How long: the longest that SQLite sleeps while it waits for a lock, so that whoever waits finds it free.
const PAUSE: Duration = Duration::from_millis(100);

/// Most conflicts of a tenant that are told one by one.
const TOLD_CONFLICTS: usize = 10;

/// What became of an import.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The tenants that are complete.
    pub imported: Vec<ImportedTenant>,
    /// The tenants of which nothing was written.
    pub refused: Vec<RefusedTenant>,
}

/// A tenant that is complete.
#[derive(Debug)]
pub struct ImportedTenant {
    /// The tenant.
    pub name: Name,
    /// How many objects the file has of it.
    pub objects: u64,
    /// How many of them were missing.
    pub added: u64,
}

/// A tenant that is in conflict with what the database has.
#[derive(Debug)]
pub struct RefusedTenant {
    /// The tenant.
    pub name: Name,
    /// What is in conflict, each with its line.
    pub conflicts: Vec<String>,
    /// How many conflicts more there are.
    pub more: u64,
}

impl RefusedTenant {
    fn new(name: Name) -> Self {
        Self { name, conflicts: Vec::new(), more: 0 }
    }

    fn add(&mut self, conflict: String) {
        if self.conflicts.len() < TOLD_CONFLICTS {
            self.conflicts.push(conflict);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }
}

/// Something that can be read twice, from the file at `path` or, without one, from standard input. What cannot is copied
/// into a file in `folder` that has no name.
pub fn readable_twice(path: Option<&Path>, folder: &Path) -> io::Result<File> {
    let mut source: Box<dyn Read> = match path {
        None => Box::new(io::stdin()),
        Some(path) => {
            let file = File::open(path)?;
            if file.metadata()?.is_file() {
                return Ok(file);
            }
            Box::new(file)
        }
    };
    let path = folder.join(format!(".dcr-store-import-{}", std::process::id()));
    let of_copy = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let create = || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
    let mut file = create().map_err(of_copy)?;
    fs::remove_file(&path).map_err(of_copy)?;
    io::copy(&mut source, &mut file)?;
    file.rewind()?;
    Ok(file)
}

/// Reads tenants from the beginning of `input`, and adds what the database lacks of them. A tenant of which the database
/// has something with other content is left as it is.
pub async fn import(database: &dyn Database, input: &File, now: Now) -> Result<Outcome, Error> {
    let open = || {
        let mut file = input;
        file.rewind().map_err(input::Error::Io)?;
        Ok::<_, Error>(Input::new(BufReader::with_capacity(64 * 1024, file)))
    };
    let surveyed = survey(database, open()?).await?;
    write(database, open()?, surveyed, now).await
}

/// The tenant in the database that the one of the input is, if it is there.
async fn find(database: &dyn Database, tenant: &Tenant) -> Result<Result<Option<StoredTenant>, String>, db::Error> {
    for host in &tenant.domains {
        let owner = database.tenant_of_host(host).await?;
        if let Some(other) = owner.filter(|owner| owner.tenant.name != tenant.name) {
            return Ok(Err(format!("{host} belongs to the tenant {} here", other.tenant.name)));
        }
    }
    let Some(stored) = database.tenant(&tenant.name).await? else { return Ok(Ok(None)) };
    // One without domains was not completed.
    let is_complete = !stored.tenant.domains.is_empty();
    let domains = if is_complete { tenant.domains.clone() } else { Vec::new() };
    let same = Tenant { domains, ..tenant.clone() };
    Ok(if stored.tenant == same {
        Ok(Some(stored))
    } else if is_complete {
        Err("is here with other settings, domains or eligibility".to_owned())
    } else {
        Err(format!(
            "a part of it from another export is here; import that again, or delete that part first: dcr-store tenant \
             delete {}",
            tenant.name
        ))
    })
}

/// A tenant whose objects are compared.
struct Compared {
    refused: RefusedTenant,
    line: u64,
    slot: Option<u32>,
    /// Whether the tenant itself can be imported.
    is_possible: bool,
    absent_acls: Vec<Size>,
    absent_documents: [u64; 3],
}

const DOCUMENTS: [DocumentKind; 3] =
    [DocumentKind::ResourceServer, DocumentKind::Connection, DocumentKind::ClientGrant];

/// Checks the whole input, and compares it with the database. Gives the tenants that are in conflict.
async fn survey(database: &dyn Database, mut input: Input<impl BufRead>) -> Result<Vec<RefusedTenant>, Error> {
    let mut refused = Vec::new();
    let mut current: Option<Compared> = None;
    while let Some(part) = input.part()? {
        match (part, &mut current) {
            (Part::Tenant(line, tenant), _) => {
                if let Some(last) = current.take() {
                    refused.extend(last.end(database).await?);
                }
                current = Some(Compared::begin(database, line, *tenant).await?);
            }
            (Part::Objects(lines, objects), Some(current)) => current.compare(database, &lines, &objects).await?,
            (Part::Objects(..), None) => {}
        }
    }
    if let Some(last) = current {
        refused.extend(last.end(database).await?);
    }
    Ok(refused)
}

impl Compared {
    async fn begin(database: &dyn Database, line: u64, tenant: Tenant) -> Result<Self, Error> {
        let found = find(database, &tenant).await?;
        let mut refused = RefusedTenant::new(tenant.name);
        let (slot, is_possible) = match found {
            Ok(stored) => (stored.map(|stored| stored.slot), true),
            Err(reason) => {
                refused.add(format!("line {line}: tenant {}: {reason}", refused.name));
                (None, false)
            }
        };
        Ok(Self { refused, line, slot, is_possible, absent_acls: Vec::new(), absent_documents: [0; 3] })
    }

    async fn compare(&mut self, database: &dyn Database, lines: &[u64], objects: &[Imported]) -> Result<(), Error> {
        if !self.is_possible {
            return Ok(());
        }
        let found = database.presence(self.slot, objects).await?;
        for ((line, object), presence) in lines.iter().zip(objects).zip(found) {
            match (presence, object) {
                (Presence::Conflict(reason), _) => self.refused.add(conflict(*line, object, reason)),
                (Presence::Absent, Imported::NetworkAcl { acl, .. }) => self.absent_acls.push(acl.size),
                (Presence::Absent, Imported::Document { kind, .. }) => {
                    for (of, absent) in DOCUMENTS.iter().zip(&mut self.absent_documents) {
                        *absent = absent.saturating_add(u64::from(of == kind));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The tenant, if it is in conflict, or would have more than a tenant may have.
    async fn end(mut self, database: &dyn Database) -> Result<Option<RefusedTenant>, Error> {
        let Some(slot) = self.slot else { return Ok(self.refused()) };
        if !self.absent_acls.is_empty() {
            let mut sizes = self.absent_acls.clone();
            for acl in database.network_acls(slot, 0, u32::MAX).await?.acls {
                sizes.push(size_of(acl)?);
            }
            if let Err(reason) = sizes.into_iter().collect::<Size>().check() {
                let error = db::Error::TooManyAcls(reason);
                self.refused.add(format!("line {}: tenant {}: {error}", self.line, self.refused.name));
            }
        }
        for (kind, absent) in DOCUMENTS.into_iter().zip(self.absent_documents).filter(|(_, absent)| *absent > 0) {
            let all = DocumentQuery { with_total: true, ..DocumentQuery::default() };
            let total = database.documents(slot, kind, &all).await?.total.unwrap_or_default();
            if total.saturating_add(absent) > u64::from(kind.most()) {
                let error = db::Error::TooManyDocuments(kind, kind.most());
                self.refused.add(format!("line {}: tenant {}: {error}", self.line, self.refused.name));
            }
        }
        Ok(self.refused())
    }

    fn refused(self) -> Option<RefusedTenant> {
        Some(self.refused).filter(|refused| !refused.conflicts.is_empty())
    }
}

/// How much there is in an access rule that the database has.
fn size_of(acl: StoredAcl) -> Result<Size, db::Error> {
    let StoredAcl { id, description, active, priority, rule, .. } = acl;
    let rule = serde_json::from_str(rule.get())
        .map_err(|_| db::Error::Failed(format!("the access rule {id} cannot be read")))?;
    Ok(NewAcl::new(&NetworkAcl { description, active, priority: Some(priority), rule })?.size)
}

fn conflict(line: u64, object: &Imported, reason: &str) -> String {
    let (kind, id) = match object {
        Imported::NetworkAcl { id, .. } => (Kind::NetworkAcl, id),
        Imported::Document { kind: DocumentKind::ResourceServer, id, .. } => (Kind::ResourceServer, id),
        Imported::Document { kind: DocumentKind::Connection, id, .. } => (Kind::Connection, id),
        Imported::Document { kind: DocumentKind::ClientGrant, id, .. } => (Kind::ClientGrant, id),
        Imported::Client(moved) => (Kind::Client, &moved.client.client_id),
    };
    format!("line {line}: {} {id}: {reason}", kind.as_str())
}

/// A tenant whose objects are written.
struct Written {
    tenant: Tenant,
    stored: StoredTenant,
    outcome: ImportedTenant,
}

/// Writes the tenants that are not in conflict.
async fn write(
    database: &dyn Database,
    mut input: Input<impl BufRead>,
    refused: Vec<RefusedTenant>,
    now: Now,
) -> Result<Outcome, Error> {
    let mut imported = Vec::new();
    let mut current: Option<Written> = None;
    let mut since_pause = 0_usize;
    while let Some(part) = input.part().map_err(Error::Changed)? {
        match (part, &mut current) {
            (Part::Tenant(_, tenant), _) => {
                if let Some(last) = current.take() {
                    imported.push(last.end(database, now).await?);
                }
                if !refused.iter().any(|refused| refused.name == tenant.name) {
                    current = Some(Written::begin(database, *tenant).await?);
                }
            }
            (Part::Objects(lines, objects), Some(current)) => {
                let added = current.add(database, &lines, &objects).await?;
                since_pause = since_pause.saturating_add(added);
                if since_pause >= OBJECTS_AT_ONCE {
                    since_pause = 0;
                    tokio::time::sleep(PAUSE).await;
                }
            }
            // Its tenant is in conflict.
            (Part::Objects(..), None) => {}
        }
    }
    if let Some(last) = current {
        imported.push(last.end(database, now).await?);
    }
    Ok(Outcome { imported, refused })
}

impl Written {
    async fn begin(database: &dyn Database, tenant: Tenant) -> Result<Self, Error> {
        let cut_off = |reason: String| Error::CutOff(tenant.name.clone(), reason);
        let mut found = find(database, &tenant).await?.map_err(cut_off)?;
        if found.is_none() {
            let without_domains = Tenant { domains: Vec::new(), ..tenant.clone() };
            database.create_tenant(&without_domains).await.map_err(|error| cut_off(error.to_string()))?;
            found = find(database, &tenant).await?.map_err(cut_off)?;
        }
        let stored = found.ok_or_else(|| cut_off(DELETED.to_owned()))?;
        let outcome = ImportedTenant { name: tenant.name.clone(), objects: 0, added: 0 };
        Ok(Self { tenant, stored, outcome })
    }

    /// Adds those objects that are absent, and says how many those were.
    async fn add(&mut self, database: &dyn Database, lines: &[u64], objects: &[Imported]) -> Result<usize, Error> {
        let cut_off = |reason: String| Error::CutOff(self.tenant.name.clone(), reason);
        let found = database.import(self.stored.slot, objects).await.map_err(|error| cut_off(error.to_string()))?;
        let found = found.ok_or_else(|| cut_off(DELETED.to_owned()))?;
        let mut added = 0_usize;
        for ((line, object), presence) in lines.iter().zip(objects).zip(found) {
            match presence {
                // It came between the comparison and now.
                Presence::Conflict(reason) => return Err(cut_off(conflict(*line, object, reason))),
                Presence::Absent => added = added.saturating_add(1),
                Presence::Same => {}
            }
        }
        let outcome = &mut self.outcome;
        outcome.objects = outcome.objects.saturating_add(u64::try_from(objects.len()).unwrap_or(u64::MAX));
        outcome.added = outcome.added.saturating_add(u64::try_from(added).unwrap_or(u64::MAX));
        Ok(added)
    }

    /// Gives the tenant its domains, if it has none yet.
    async fn end(self, database: &dyn Database, now: Now) -> Result<ImportedTenant, Error> {
        let Self { tenant, stored, outcome } = self;
        if stored.tenant.domains.is_empty() {
            let complete = |incomplete| Ok::<_, db::Error>(Tenant { domains: tenant.domains.clone(), ..incomplete });
            let changed = update_known_tenant(database, &stored, now, complete).await;
            let changed =
                changed.map_err(|error| error.to_string()).and_then(|changed| changed.ok_or(DELETED.to_owned()));
            changed.map_err(|reason| Error::CutOff(tenant.name, reason))?;
        }
        Ok(outcome)
    }
}

const DELETED: &str = "it was deleted meanwhile";
