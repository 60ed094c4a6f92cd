//! What an owner should know after a change to the access rules.

use std::net::IpAddr;
use std::time::Instant;

use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::Response;

use super::warning::warn;
use crate::acl::{Facts, Index, RequestKind, Rule, Signal, SignalSet, Verdict, locks_out_management};
use crate::edge_api::{ASN_HEADER, CLIENT_ADDRESS_HEADER, COUNTRY_HEADER, REGION_HEADER};
use crate::store::http::App;
use crate::tenant::authority_host;

const LOCKED_OUT: &str = "The active access rules refuse every request to the Management API that comes through a \
                          gateway. The store's own port stays open.";

/// Adds the warnings that `rule`, which was just written, and all rules of the tenant together call for.
pub(super) async fn add(response: &mut Response, app: &App, tenant: u32, rule: &Rule, request: &Parts) {
    let active = app.database.active_rules(tenant).await.unwrap_or_else(|error| {
        // The rule is written, and that is what the answer must say.
        tracing::error!(%error, "a change to access rules was answered without the warnings that it may call for");
        Vec::new()
    });
    if locks_out_management(&active) {
        warn(response, LOCKED_OUT);
    }
    if let Some(address) = refused_client(&active, request) {
        let text = format!("The active access rules refuse your own requests to the Management API from {address}.");
        warn(response, &text);
    }
    let missing = rule.named_signals().intersection(app.edge_signals.without_source(Instant::now()));
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(Signal::as_str).collect();
        let names = names.join(", ");
        let text = format!("An edge has no source for {names}: there a rule that matches on it never fires.");
        warn(response, &text);
    }
}

/// The address of the client that sent the request through a gateway, if the rules would refuse it. The store does not
/// see all that an edge sees; where that is what decides, it says nothing.
fn refused_client(rules: &[Rule], request: &Parts) -> Option<IpAddr> {
    let text = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
    let address: IpAddr = text(CLIENT_ADDRESS_HEADER)?.parse().ok()?;
    let host = host(request);
    let facts = Facts {
        address: Some(address),
        asn: text(ASN_HEADER).and_then(|asn| asn.parse().ok()),
        country: text(COUNTRY_HEADER),
        subdivision: text(REGION_HEADER),
        user_agent: user_agent(&request.headers),
        authority: host.as_deref(),
        ..Facts::default()
    };
    let (index, mut last) = (Index::new(rules), None);
    let verdict = index.evaluate(RequestKind::Management, &facts, |place, matched| {
        if matched {
            last = Some(place);
        }
    });
    let unseen: SignalSet = [Signal::Ja3, Signal::Ja4, Signal::ConnectingAddress].into_iter().collect();
    let decided = rules.get(last?)?;
    let is_certain = decided.named_signals().intersection(unseen).is_empty();
    (is_certain && matches!(verdict, Verdict::Block | Verdict::Redirect { .. })).then_some(address)
}

fn user_agent(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(header::USER_AGENT).map(|value| value.as_bytes())
}

/// The host that the request is for; HTTP/2 has it in the URI.
fn host(request: &Parts) -> Option<String> {
    let named = request.headers.get(header::HOST).map(|value| value.as_bytes());
    authority_host(named.or_else(|| request.uri.authority().map(|authority| authority.as_str().as_bytes()))?)
}
