//! What clients may do, as the database has it.

use async_trait::async_trait;

use super::{Database, Error, StoredClient};
use crate::management::{Abilities, GrantOfApi, Permission, PermissionSource, effective_permissions};

/// Most default grants of a tenant, and most grants of one client: whoever asks for a client is told them all.
pub const MOST_GRANTS: u32 = 100;

/// What a tenant's third-party clients may do. A tenant is named by its slot. No call keeps another room's readers
/// waiting.
#[async_trait]
pub trait Permissions {
    /// A client with the grants that may concern it, all of one moment: its own, and the defaults for third parties, in the
    /// order of creation. For a permissive client the place of the defaults is taken by the APIs whose policy allows all
    /// clients to act for users, as many as there may be defaults.
    async fn client_with_grants(
        &self,
        tenant: u32,
        client_id: &str,
    ) -> Result<Option<(StoredClient, Vec<GrantOfApi>)>, Error>;

    /// A client with all that the edge holds it to, of one moment: whoever asks after a change reads what it made.
    async fn controlled_client(&self, tenant: u32, client_id: &str) -> Result<Option<ControlledClient>, Error>;

    /// The default grants for third parties, in the order of creation.
    async fn default_grants(&self, tenant: u32) -> Result<Vec<GrantOfApi>, Error>;

    /// The names of the connections that third parties may use, in the order of creation.
    async fn domain_connections(&self, tenant: u32) -> Result<Vec<String>, Error>;
}

/// A client with what it may do at this moment.
#[derive(Clone, Debug)]
pub struct PermittedClient {
    /// The client.
    pub client: StoredClient,
    /// What it can do.
    pub abilities: Abilities,
    /// What it may ask of the tenant's APIs.
    pub permissions: Vec<Permission>,
    /// Whether it has grants of its own, whatever they allow.
    pub has_own_grants: bool,
}

/// A client with all that the edge holds it to.
#[derive(Clone, Debug)]
pub struct ControlledClient {
    /// The client, and what it may do.
    pub permitted: PermittedClient,
    /// SHA-256 of its secret; absent for a public client.
    pub client_secret_sha256: Option<[u8; 32]>,
    /// The names of the connections that its users may log in with, in the order of creation.
    pub connections: Vec<String>,
}

/// The tenant's client with this id and what it may ask of the tenant's APIs.
pub async fn permitted_client(
    database: &dyn Database,
    tenant: u32,
    client_id: &str,
) -> Result<Option<PermittedClient>, Error> {
    let found = database.client_with_grants(tenant, client_id).await?;
    found.map(|(client, grants)| permitted(client, grants)).transpose()
}

/// A client with what it may do by the grants that may concern it.
pub(super) fn permitted(client: StoredClient, grants: Vec<GrantOfApi>) -> Result<PermittedClient, Error> {
    let abilities = client
        .data
        .abilities(client.is_dynamic, client.security_mode)
        .ok_or_else(|| Error::Failed(format!("the client {} cannot be read", client.client_id)))?;
    let has_own_grants = grants.iter().any(|grant| grant.source == PermissionSource::ClientGrant);
    let permissions = effective_permissions(abilities, grants);
    Ok(PermittedClient { client, abilities, permissions, has_own_grants })
}

/// What a client without grants of its own may ask of the tenant's APIs.
pub async fn default_permissions(database: &dyn Database, tenant: u32) -> Result<Vec<Permission>, Error> {
    Ok(effective_permissions(Abilities::OF_THIRD_PARTIES, database.default_grants(tenant).await?))
}
