//! `dcr-store doctor`: looks at a deployment from outside, as a gateway and a client would, and says what to do.
//!
//! | file | what it looks at |
//! |---|---|
//! | [`store`] | the store: reachable, ready, its release, its clock |
//! | [`gateway`] | the gateway: whether the filter answers there, has settings, and is in the server's metadata |
//! | [`envoy`] | Envoy's admin port: its release, the plugin's settings, what the filter counts |
//! | [`tenants`] | the database: whether registration is on, and what applications would lack |
//!
//! Nothing is changed anywhere. A registration endpoint is asked with GET, which costs no token of a limit.

mod envoy;
mod gateway;
mod http;
mod store;
mod tenants;

use serde::Serialize;

use super::db::Database;

/// How bad something is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Nobody said where to look.
    Skipped,
    /// It works, and somebody should know.
    Warning,
    /// It does not work.
    Failure,
}

/// What a look came to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at, such as `store.clock`.
    pub check: String,
    /// What was found.
    pub found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    fn ok(check: &str, found: impl Into<String>) -> Self {
        Self { level: Level::Ok, check: check.to_owned(), found: found.into(), advice: None }
    }

    fn warning(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warning, advice: Some(advice.into()), ..Self::ok(check, found) }
    }

    fn failure(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Failure, ..Self::warning(check, found, advice) }
    }

    fn skipped(check: &str, advice: &str) -> Self {
        Self { level: Level::Skipped, ..Self::warning(check, "not looked at", advice) }
    }
}

/// Where to look. What is absent is not looked at.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The store, such as `http://127.0.0.1:8081`.
    pub store: Option<String>,
    /// The gateway, by a host of a tenant, such as `https://login.example.com`.
    pub gateway: Option<String>,
    /// Envoy's admin port, such as `http://127.0.0.1:9901`.
    pub envoy_admin: Option<String>,
}

/// Looks everywhere, one after the other.
pub async fn examine(places: Places, database: Option<&dyn Database>) -> Vec<Finding> {
    let looks = tokio::task::spawn_blocking(move || {
        let mut findings = Vec::new();
        match &places.store {
            Some(url) => findings.extend(store::examine(url)),
            None => findings.push(Finding::skipped("store", "say where it is with --store URL")),
        }
        match &places.gateway {
            Some(url) => findings.extend(gateway::examine(url)),
            None => {
                findings.push(Finding::skipped("gateway", "say where it is with --gateway URL, by a tenant's host"))
            }
        }
        match &places.envoy_admin {
            Some(url) => findings.extend(envoy::examine(url)),
            None => findings.push(Finding::skipped("envoy", "say where its admin port is with --envoy-admin URL")),
        }
        findings
    });
    let mut findings = looks.await.unwrap_or_default();
    match database {
        Some(database) => findings.extend(tenants::examine(database).await),
        None => findings.push(Finding::skipped("tenants", "name the database with --database-url or DATABASE_URL")),
    }
    findings
}

/// The findings for people: a line each, with what to do below it.
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { level, check, found, advice } in findings {
        let word = match level {
            Level::Ok => "ok",
            Level::Skipped => "skipped",
            Level::Warning => "WARNING",
            Level::Failure => "FAILURE",
        };
        text.push_str(&format!("{word:8} {check}: {found}\n"));
        if let Some(advice) = advice {
            text.push_str(&format!("         → {advice}\n"));
        }
    }
    let count = |level: Level| findings.iter().filter(|finding| finding.level == level).count();
    text.push_str(&format!(
        "\n{} fine, {} warnings, {} failures, {} not looked at\n",
        count(Level::Ok),
        count(Level::Warning),
        count(Level::Failure),
        count(Level::Skipped)
    ));
    text
}
