//! Clients as the database has them.

use async_trait::async_trait;

use super::{Database, Error};
use crate::store::client::{AppType, ClientData};
use crate::tenant::SecurityMode;

/// A client as the database has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredClient {
    /// Its id.
    pub client_id: String,
    /// How often it was written.
    pub version: u64,
    /// Whether it registered itself; otherwise the tenant's owner made it.
    pub is_dynamic: bool,
    /// The mode that it was made under, which never changes.
    pub security_mode: SecurityMode,
    /// Whether it has a secret.
    pub has_secret: bool,
    /// When it was registered, in UNIX seconds.
    pub issued_at: u64,
    /// When it was changed last, in UNIX milliseconds.
    pub updated_at: u64,
    /// When an authorization server asked for it last, in UNIX seconds, as far as that was noted; `None` if none ever did.
    pub last_used_at: Option<u64>,
    /// What can be changed of it.
    pub data: ClientData,
}

/// How old the last use of a client has to be for the next one to be noted, in seconds.
const USE_INTERVAL: u64 = 3_600;

impl StoredClient {
    /// Whether a use at `now`, in UNIX milliseconds, is to be noted: none was within the last hour.
    pub fn is_use_due(&self, now: u64) -> bool {
        self.last_used_at.is_none_or(|last| last.saturating_add(USE_INTERVAL) <= now / 1_000)
    }
}

/// A client that the tenant's owner makes.
#[derive(Clone, Debug)]
pub struct MadeClient {
    /// Its id.
    pub client_id: String,
    /// SHA-256 of its secret; absent for a public client.
    pub client_secret_sha256: Option<[u8; 32]>,
    /// What it is.
    pub data: ClientData,
}

/// Some of a tenant's clients.
#[derive(Clone, Debug)]
pub struct ClientPage {
    /// The clients, in the order of their creation.
    pub clients: Vec<StoredClient>,
    /// How many of these types the tenant has.
    pub total: u64,
}

/// Tenants' clients, as their owners see them. Times are UNIX milliseconds.
#[async_trait]
pub trait Clients {
    /// So many clients, of the tenant in slot `tenant` and of one of these types, in the order of their creation, after
    /// the first `offset`. It takes as long among a million clients as among a thousand.
    async fn clients(&self, tenant: u32, app_types: &[AppType], offset: u64, limit: u32) -> Result<ClientPage, Error>;

    /// The tenant's newest clients of this id, or with this text in their name, whatever the case of its ASCII letters;
    /// `limit` at most. All clients may have to be looked at, so it ends with [`Error::SearchTooLong`] where they are too
    /// many.
    async fn find_clients(&self, tenant: u32, text: &str, limit: u32) -> Result<Vec<StoredClient>, Error>;

    /// The tenant's client with this id.
    async fn client(&self, tenant: u32, client_id: &str) -> Result<Option<StoredClient>, Error>;

    /// SHA-256 of the client's secret; `None` if there is no such client, or if it has no secret.
    async fn client_secret_sha256(&self, tenant: u32, client_id: &str) -> Result<Option<[u8; 32]>, Error>;

    /// Adds a client, whatever the tenant's quota; `None` if the tenant was deleted. No registration is folded into it.
    async fn create_client(&self, tenant: u32, client: &MadeClient, now: u64) -> Result<Option<StoredClient>, Error>;

    /// Writes `data` in the place of that of `stored` if that still has the version at which the caller read it; `None`
    /// if it has not. No registration is folded any more into a client whose registered members changed.
    async fn replace_client(
        &self,
        tenant: u32,
        stored: &StoredClient,
        data: &ClientData,
        now: u64,
    ) -> Result<Option<StoredClient>, Error>;

    /// Gives a client that has a secret another; `None` if there is no such client.
    async fn replace_client_secret(
        &self,
        tenant: u32,
        client_id: &str,
        client_secret_sha256: [u8; 32],
        now: u64,
    ) -> Result<Option<StoredClient>, Error>;

    /// Deletes a client, if there is one.
    async fn delete_client(&self, tenant: u32, client_id: &str) -> Result<(), Error>;

    /// Notes that authorization servers asked for these clients, each named by its tenant's slot and its id. Neither
    /// their versions nor their dates of change move.
    async fn note_client_uses(&self, clients: &[(u32, String)], now: u64) -> Result<(), Error>;

    /// Whether an authorization server ever asked for a client that the tenant has.
    async fn has_used_client(&self, tenant: u32) -> Result<bool, Error>;

    /// Deletes little by little the clients that registered themselves, that no authorization server ever asked for, that
    /// the owner never changed, and with which no registration was answered within the tenant's `unused_client_ttl` before
    /// `now`; and, of those of the last 24 hours none and the oldest first, as many as the tenant has beyond its
    /// `client_quota`. Says how many those were. They are an event in the tenant's log for each of the two reasons.
    async fn delete_unused_clients(&self, tenant: u32, now: u64) -> Result<u64, Error>;
}

/// Changes a client by `change`, whoever else changes it meanwhile; `Ok(None)` if the tenant in this slot has no such
/// client. Nothing is written if `change` refuses or changes nothing.
pub async fn update_client<E: From<Error>>(
    database: &dyn Database,
    tenant: u32,
    client_id: &str,
    now: u64,
    change: impl Fn(&StoredClient) -> Result<ClientData, E>,
) -> Result<Option<StoredClient>, E> {
    while let Some(before) = database.client(tenant, client_id).await? {
        let data = change(&before)?;
        if data == before.data {
            return Ok(Some(before));
        }
        if let Some(after) = database.replace_client(tenant, &before, &data, now).await? {
            return Ok(Some(after));
        }
    }
    Ok(None)
}
