//! What the command line does to tenants and keys, each as the text that it prints.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::clock::{Now, rfc3339, unix_millis};
use super::db::{
    self, Database, Rotation, SETTINGS_CHANGED, SignInLink, StoredKey, StoredTenant, settings_event, update_tenant,
};
use super::token::keys::kid;
use super::token::{self, Claims, Keys, Kind, MANAGEMENT_SCOPES};
use crate::tenant::{Domain, MAX_DOMAINS, Name, RateLimit, SecurityMode, Settings, Tenant};

/// Why a command failed, in one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused or failed.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// No token.
    #[error(transparent)]
    Token(#[from] token::Error),
    /// No such tenant.
    #[error("there is no tenant {0}; `dcr-store tenant list` shows those that there are")]
    UnknownTenant(Name),
    /// The input breaks a rule.
    #[error("{0}")]
    Invalid(String),
}

/// What the command line sets of a rate limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateLimitChange {
    /// Requests that may come at once.
    pub burst: Option<NonZeroU32>,
    /// Requests that come back each second.
    pub per_second: Option<NonZeroU32>,
}

impl RateLimitChange {
    fn apply(self, limit: &mut RateLimit) -> Result<(), Error> {
        let changed = RateLimit {
            burst: self.burst.unwrap_or(limit.burst),
            per_second: self.per_second.unwrap_or(limit.per_second),
        };
        if changed.burst.get().max(changed.per_second.get()) > RateLimit::MAX {
            return Err(Error::Invalid(format!("a rate limit has whole numbers from 1 to {}", RateLimit::MAX)));
        }
        *limit = changed;
        Ok(())
    }
}

/// How the command line changes a tenant's domains.
#[derive(Clone, Debug, Default)]
pub struct DomainChange {
    /// These instead of those that there are, unless empty.
    pub replace: Vec<Domain>,
    /// These too, at the end.
    pub add: Vec<Domain>,
    /// These no longer.
    pub remove: Vec<Domain>,
}

impl DomainChange {
    fn apply(&self, domains: &[Domain]) -> Result<Vec<Domain>, Error> {
        let kept = if self.replace.is_empty() { domains } else { &self.replace };
        if let Some(unknown) = self.remove.iter().find(|domain| !kept.contains(domain)) {
            return Err(Error::Invalid(format!("the tenant has no domain {unknown}")));
        }
        let mut after: Vec<Domain> = Vec::new();
        for domain in kept.iter().chain(&self.add) {
            if !self.remove.contains(domain) && !after.contains(domain) {
                after.push(domain.clone());
            }
        }
        match after.len() {
            0 => Err(Error::Invalid("a tenant needs at least one domain".to_owned())),
            1..=MAX_DOMAINS => Ok(after),
            _ => Err(Error::Invalid(format!("a tenant can have at most {MAX_DOMAINS} domains"))),
        }
    }
}

/// `tenant create`
pub async fn create(
    database: &dyn Database,
    name: Name,
    domains: Vec<Domain>,
    limit: RateLimitChange,
    permissive_eligible: bool,
) -> Result<String, Error> {
    let domains = DomainChange { add: domains, ..DomainChange::default() }.apply(&[])?;
    let mut settings = Settings::default();
    limit.apply(&mut settings.dcr_edge.rate_limit)?;
    let tenant = Tenant { name, domains, settings, permissive_eligible };
    database.create_tenant(&tenant).await?;
    Ok(format!("created tenant {} for {}\n", tenant.name, joined(&tenant.domains)))
}

/// `tenant update`, at the time `now`. A tenant that is not eligible any more goes back to the strict mode.
pub async fn update(
    database: &dyn Database,
    name: &Name,
    domains: &DomainChange,
    limit: RateLimitChange,
    permissive_eligible: Option<bool>,
    now: Now,
) -> Result<String, Error> {
    let changed = update_tenant(database, name, now, |mut tenant| {
        if tenant.domains.is_empty() {
            let text = format!("the tenant {name} is not complete: repeat its import, or delete it");
            return Err(Error::Invalid(text));
        }
        tenant.domains = domains.apply(&tenant.domains)?;
        limit.apply(&mut tenant.settings.dcr_edge.rate_limit)?;
        tenant.permissive_eligible = permissive_eligible.unwrap_or(tenant.permissive_eligible);
        if !tenant.permissive_eligible {
            tenant.settings.dynamic_client_registration_security_mode = SecurityMode::Strict;
        }
        Ok::<_, Error>(tenant)
    })
    .await?
    .ok_or_else(|| Error::UnknownTenant(name.clone()))?;
    let what = if changed.before == changed.after { "nothing changed: tenant" } else { "updated tenant" };
    let mut text = format!("{what} {name} for {}\n", joined(&changed.after.domains));
    let mode = |tenant: &Tenant| tenant.settings.dynamic_client_registration_security_mode;
    if mode(&changed.before) != mode(&changed.after) {
        text.push_str(
            "dynamic_client_registration_security_mode is strict again; clients that were registered in the permissive \
             mode stay as they are\n",
        );
        let details = json!({
            "dynamic_client_registration_security_mode": SecurityMode::Strict,
            "permissive_eligible": false
        });
        let event = settings_event(&details);
        if let Err(error) = database.write_log_event(changed.slot, SETTINGS_CHANGED, &event, unix_millis()).await {
            text.push_str(&format!("the tenant's log does not say so: {error}\n"));
        }
    }
    Ok(text)
}

/// `tenant delete`
pub async fn delete(database: &dyn Database, name: &Name) -> Result<String, Error> {
    let clients = database.delete_tenant(name).await?.ok_or_else(|| Error::UnknownTenant(name.clone()))?;
    Ok(format!("deleted tenant {name} (clients deleted with it: {clients})\n"))
}

/// `tenant list`
pub async fn list(database: &dyn Database) -> Result<String, Error> {
    let mut rows = vec![["NAME", "REGISTRATION", "PERMISSIVE", "BURST", "PER SECOND", "DOMAINS"].map(str::to_owned)];
    for StoredTenant { tenant, .. } in database.tenants().await? {
        let limit = tenant.settings.dcr_edge.rate_limit;
        let enabled = tenant.settings.flags.enable_dynamic_client_registration;
        let permissive = match (tenant.permissive_eligible, tenant.settings.dynamic_client_registration_security_mode) {
            (_, SecurityMode::Permissive) => "in force",
            (true, SecurityMode::Strict) => "eligible",
            (false, SecurityMode::Strict) => "no",
        };
        rows.push([
            tenant.name.to_string(),
            if enabled { "enabled" } else { "disabled" }.to_owned(),
            permissive.to_owned(),
            limit.burst.to_string(),
            limit.per_second.to_string(),
            joined(&tenant.domains),
        ]);
    }
    Ok(table(&rows))
}

/// Rows of cells as columns of text.
fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut table = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        table.push_str(cells.join("  ").trim_end());
        table.push('\n');
    }
    table
}

/// `tenant show`
pub async fn show(database: &dyn Database, name: &Name) -> Result<String, Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        #[serde(flatten)]
        tenant: &'a Tenant,
        permissive_eligible: bool,
    }
    let stored = database.tenant(name).await?.ok_or_else(|| Error::UnknownTenant(name.clone()))?;
    let shown = Shown { tenant: &stored.tenant, permissive_eligible: stored.tenant.permissive_eligible };
    let mut json = serde_json::to_string_pretty(&shown).map_err(|error| Error::Invalid(error.to_string()))?;
    json.push('\n');
    Ok(json)
}

/// Longest time that a token is valid, in seconds: ten years of 365.25 days.
const MAX_TTL: u64 = 10 * 31_557_600;

/// What the command line says of a token.
#[derive(Debug)]
pub struct TokenRequest {
    /// What it opens.
    pub kind: Kind,
    /// Whose Management API or clients; none for an edge's token.
    pub tenant: Option<Name>,
    /// The scopes, separated by spaces; all if absent.
    pub scope: Option<String>,
    /// How long it is valid, in seconds.
    pub ttl: u64,
}

/// `token`: a token valid from `now`, in UNIX seconds.
pub async fn mint(database: &dyn Database, keys: &Keys, request: TokenRequest, now: u64) -> Result<String, Error> {
    let invalid = |text: &str| Err(Error::Invalid(text.to_owned()));
    if !(1..=MAX_TTL).contains(&request.ttl) {
        return invalid("a token must be valid for a second or more and for 10 years at most");
    }
    let claims = match (request.kind, request.tenant, request.scope) {
        (Kind::Edge, None, None) => Claims::edge(now, request.ttl),
        (Kind::Edge, ..) => return invalid("a token of the kind edge has no --tenant and no --scope"),
        (Kind::Server, _, Some(_)) => return invalid("a token of the kind server has no --scope"),
        (Kind::Server, None, None) => return invalid("name the tenant of the authorization server with --tenant"),
        (Kind::Server, Some(name), None) => {
            let stored = database.tenant(&name).await?.ok_or(Error::UnknownTenant(name))?;
            Claims::server(stored.slot, now, request.ttl)
        }
        (Kind::Management, None, _) => return invalid("name the tenant of the Management API with --tenant"),
        (Kind::Management, Some(name), scope) => {
            let scope = scope.unwrap_or_else(|| MANAGEMENT_SCOPES.join(" "));
            if !token::is_scope(&scope) {
                return invalid("--scope is a list of scopes separated by single spaces");
            }
            let stored = database.tenant(&name).await?.ok_or(Error::UnknownTenant(name))?;
            let canonical = stored.tenant.domains.first();
            let Some(domain) = canonical else { return invalid("the tenant has no domain") };
            Claims::management(stored.slot, domain, scope, now, request.ttl)
        }
    };
    Ok(format!("{}\n", keys.mint(&claims)?))
}

/// What the command line says of a link to the console.
#[derive(Debug)]
pub struct LinkRequest {
    /// Whose console it opens.
    pub tenant: Name,
    /// Where a browser finds the store, such as `http://127.0.0.1:8081`.
    pub url: String,
    /// What may be done there: scopes of the Management API, separated by spaces; all if absent.
    pub scope: Option<String>,
    /// How long the link is valid, in seconds.
    pub ttl: u64,
    /// How long its user is signed in, in seconds.
    pub session_ttl: u64,
}

/// `console-link`: a link that signs in once, valid from `now`, in UNIX seconds.
pub async fn console_link(database: &dyn Database, request: LinkRequest, now: u64) -> Result<String, Error> {
    let LinkRequest { tenant, url, scope, ttl, session_ttl } = request;
    let invalid = |text: &str| Err(Error::Invalid(text.to_owned()));
    if !(1..=MAX_TTL).contains(&ttl) || !(1..=MAX_TTL).contains(&session_ttl) {
        return invalid("a link and a session last a second or more and 10 years at most");
    }
    let scope = scope.unwrap_or_else(|| MANAGEMENT_SCOPES.join(" "));
    if !token::is_scope(&scope) {
        return invalid("--scope is a list of scopes separated by single spaces");
    }
    let base = url.trim_end_matches('/');
    if !(base.starts_with("http://") || base.starts_with("https://")) || base.contains(['?', '#']) {
        return invalid("--url is where a browser finds the store, such as http://127.0.0.1:8081");
    }
    let stored = database.tenant(&tenant).await?.ok_or_else(|| Error::UnknownTenant(tenant.clone()))?;
    let mut code = [0; 32];
    getrandom::fill(&mut code).map_err(|_| token::Error::NoRandomness)?;
    let code = URL_SAFE_NO_PAD.encode(code);
    let link = SignInLink {
        code_sha256: Sha256::digest(&code).into(),
        tenant: stored.slot,
        scope,
        session_ttl,
        expires_at: now.saturating_add(ttl),
    };
    if !database.create_sign_in_link(&link, now).await? {
        return Err(Error::UnknownTenant(tenant));
    }
    Ok(format!("{base}/console/sign-in?code={code}\n"))
}

/// `key list`
pub async fn list_keys(database: &dyn Database) -> Result<String, Error> {
    let mut rows = vec![["KEY", "USE", "SINCE"].map(str::to_owned)];
    for (position, StoredKey { seed, created_at }) in database.signing_keys().await?.into_iter().enumerate() {
        let since = created_at.map_or("unknown".to_owned(), |seconds| rfc3339(seconds.saturating_mul(1_000)));
        let used_to = if position == 0 { "signs" } else { "checks" };
        rows.push([kid(&seed), used_to.to_owned(), since]);
    }
    Ok(table(&rows))
}

/// `key rotate`, with the key that signs from now on.
pub async fn rotate_key(database: &dyn Database, new: StoredKey) -> Result<String, Error> {
    let Rotation { keys, retired } = database.rotate_signing_keys(new).await?;
    let mut text = String::new();
    for (position, key) in keys.iter().enumerate() {
        let kid = kid(&key.seed);
        text.push_str(&match position {
            0 => format!("new tokens are signed with the key {kid}\n"),
            _ => format!(
                "tokens of the key {kid} work until they end, or until the next rotation: make new ones before it, \
                 for Envoy too\n"
            ),
        });
    }
    for key in &retired {
        let kid = kid(&key.seed);
        text.push_str(&format!(
            "tokens of the key {kid} work no longer, Envoy's neither: running stores refuse them within seconds\n"
        ));
    }
    Ok(text)
}

fn joined(domains: &[Domain]) -> String {
    domains.iter().map(Domain::as_str).collect::<Vec<_>>().join(", ")
}
