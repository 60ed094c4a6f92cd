//! What clients may do, as the database has it.

use async_trait::async_trait;

use super::{Database, Error};
use crate::management::{ClientGrant, Permission, ResourceServer, effective_permissions};

/// What a tenant's third-party clients may do. A tenant is named by its slot.
#[async_trait]
pub trait Permissions {
    /// The grants that may concern a client, its own and the defaults for third parties, each with its API, in the order
    /// of creation.
    async fn grants_of(&self, tenant: u32, client_id: &str) -> Result<Vec<(ClientGrant, ResourceServer)>, Error>;

    /// The names of the connections that third parties may use, in the order of creation.
    async fn domain_connections(&self, tenant: u32) -> Result<Vec<String>, Error>;
}

/// What a client may ask of the tenant's APIs at this moment.
pub async fn permissions_of(database: &dyn Database, tenant: u32, client_id: &str) -> Result<Vec<Permission>, Error> {
    Ok(effective_permissions(database.grants_of(tenant, client_id).await?))
}
