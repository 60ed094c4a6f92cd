//! The tenants, by what the database says.

use super::Finding;
use crate::store::client::AppType;
use crate::store::db::{Database, Error, StoredTenant, default_permissions};
use crate::tenant::{Registrar, SecurityMode};

/// Looks at every tenant.
pub async fn examine(database: &dyn Database) -> Vec<Finding> {
    let tenants = match database.tenants().await {
        Ok(tenants) => tenants,
        Err(error) => {
            return vec![Finding::failure(
                "tenants",
                error.to_string(),
                "look at --database-url, and at the store's log",
            )];
        }
    };
    if tenants.is_empty() {
        let advice = "make one: `dcr-store tenant create NAME --domain HOST`";
        return vec![Finding::failure("tenants", "there is no tenant, so no host is answered for", advice)];
    }
    let mut findings = Vec::new();
    for stored in tenants {
        match of(database, &stored).await {
            Ok(of) => findings.extend(of),
            Err(error) => findings.push(Finding::failure("tenants", error.to_string(), "look at the store's log")),
        }
    }
    findings
}

async fn of(database: &dyn Database, stored: &StoredTenant) -> Result<Vec<Finding>, Error> {
    let StoredTenant { slot, tenant, .. } = stored;
    let (settings, name) = (&tenant.settings, &tenant.name);
    let check = |what: &str| format!("tenant.{name}.{what}");
    let mut findings = Vec::new();
    if tenant.domains.is_empty() {
        let found = "it answers for no host: its import was not complete";
        findings.push(Finding::failure(&check("hosts"), found, "import the same file again, or delete the tenant"));
        return Ok(findings);
    }
    if !settings.registers_clients() {
        findings.push(Finding::ok(&check("registration"), "off"));
        return Ok(findings);
    }
    let mode = settings.dynamic_client_registration_security_mode;
    findings.push(Finding::ok(
        &check("registration"),
        format!("on, {} mode: anyone can create applications", mode.as_str()),
    ));
    if mode == SecurityMode::Permissive {
        findings.push(Finding::warning(
            &check("mode"),
            "new registrations get no third-party controls",
            "choose the strict mode unless you know why not: dynamic_client_registration_security_mode",
        ));
    } else {
        if default_permissions(database, *slot).await?.is_empty() {
            findings.push(Finding::warning(
                &check("permissions"),
                "no API has default permissions: applications that register themselves can reach none",
                "choose an API in the console, or POST a client grant with default_for: third_party_clients",
            ));
        }
        if database.domain_connections(*slot).await?.is_empty() {
            findings.push(Finding::warning(
                &check("connections"),
                "no connection is at domain level: nobody can log in with such an application",
                "promote one in the console, or PATCH it with is_domain_connection: true",
            ));
        }
    }
    let own = &settings.dcr_edge;
    if own.per_source.is_none() {
        findings.push(Finding::warning(
            &check("per_source"),
            "there is no limit for each source: one stranger can use up all registration requests",
            "set dcr_edge.per_source, and exempt the addresses that many users share",
        ));
    }
    match own.client_quota {
        None => findings.push(Finding::warning(
            &check("client_quota"),
            "there is no bound to how many applications are kept",
            "set dcr_edge.client_quota: unused applications give way to new ones",
        )),
        Some(quota) => {
            let clients = database.clients(*slot, &AppType::ALL, 0, 1).await?.total;
            if clients >= u64::from(quota.get()) && own.registrar != Registrar::Off {
                findings.push(Finding::warning(
                    &check("client_quota"),
                    format!("it is used up: {clients} of {quota}"),
                    "unused applications give way; if all are used, new ones are refused: raise it, or delete some",
                ));
            }
        }
    }
    Ok(findings)
}
