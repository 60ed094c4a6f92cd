//! What third-party clients lack without which registering is of no use to them.

use maud::{Markup, html};

use super::failure::Failure;
use super::session::Session;
use crate::store::db::default_permissions;
use crate::store::http::App;
use crate::tenant::SecurityMode;

/// What there is none of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Missing {
    /// Default permissions for an API.
    pub permissions: bool,
    /// A connection at domain level.
    pub connection: bool,
}

impl Missing {
    /// What the session's tenant lacks, as far as the session may know. Permissive clients need neither.
    pub async fn of(app: &App, session: &Session) -> Result<Self, Failure> {
        let tenant = &session.tenant;
        let mut missing = Self { permissions: false, connection: false };
        if tenant.tenant.settings.dynamic_client_registration_security_mode == SecurityMode::Permissive {
            return Ok(missing);
        }
        if session.allows("read:client_grants") && session.allows("read:resource_servers") {
            let _turn = app.permission_turn().await;
            missing.permissions = default_permissions(&*app.database, tenant.slot).await?.is_empty();
        }
        if session.allows("read:connections") {
            missing.connection = app.database.domain_connections(tenant.slot).await?.is_empty();
        }
        Ok(missing)
    }

    /// A note where default permissions matter.
    pub fn show_permissions(self) -> Markup {
        html! {
            @if self.permissions {
                div class="notice warning" {
                    p {
                        strong { "No API has default permissions for third-party applications. " }
                        "Applications that register themselves can reach no API until one has. "
                        a href="/console/apis" { "Choose an API" } "."
                    }
                }
            }
        }
    }

    /// A note where connections matter.
    pub fn show_connection(self) -> Markup {
        html! {
            @if self.connection {
                div class="notice warning" {
                    p {
                        strong { "No connection is promoted to domain level. " }
                        "Nobody can log in with an application that registered itself until one is. "
                        a href="/console/connections" { "Promote a connection" } "."
                    }
                }
            }
        }
    }
}
