//! The gateway, as a client finds it.

use serde_json::Value;

use super::Finding;
use super::http::{Answer, get};
use super::store::clock;

/// Looks at the gateway at this URL, whose host is one of a tenant's.
pub fn examine(url: &str) -> Vec<Finding> {
    let answer = match get(url, "/oidc/register") {
        Ok(answer) => answer,
        Err(error) => {
            let found = format!("{url} does not answer: {error}");
            let advice =
                "is Envoy running? An authority of your own has to be among the machine's, or ask in clear text";
            return vec![Finding::failure("gateway.reachable", found, advice)];
        }
    };
    let mut findings = vec![Finding::ok("gateway.reachable", url), filter(&answer), clock("gateway.clock", &answer)];
    findings.push(discovery(url));
    findings
}

/// GET is no registration: the filter says so, and no token is taken for it.
fn filter(answer: &Answer) -> Finding {
    let check = "gateway.filter";
    let json = answer.json();
    let error = json.get("error").and_then(Value::as_str).unwrap_or_default();
    let is_ours = json.get("decision_id").is_some();
    match (answer.status, error) {
        (405, _) if is_ours => {
            Finding::ok(check, "it answers for the registration endpoint, and has the tenant's settings")
        }
        (403 | 302, _) if is_ours => Finding::warning(
            check,
            "an access rule refuses requests from here",
            "that may be what you want; ask from an address that the rules let in to see the rest",
        ),
        (404, "not_found") if is_ours => Finding::failure(
            check,
            "no tenant answers for the host of --gateway",
            "`dcr-store tenant list` shows the hosts; add one with `dcr-store tenant update NAME --add-domain HOST`",
        ),
        (421, _) if is_ours => Finding::failure(check, "host and TLS name differ", "ask by one name for both"),
        (503, _) if is_ours => Finding::failure(
            check,
            "the filter has no settings, or cannot decide",
            "Envoy's log says why: is the store reachable from there, and DCR_EDGE_TOKEN one of its tokens?",
        ),
        (status, _) => Finding::failure(
            check,
            format!("/oidc/register is answered with {status} by something else than the filter"),
            "put the filter dcr_edge before the router on this listener, and let no route disable it there",
        ),
    }
}

/// Whether clients find the registration endpoint.
fn discovery(url: &str) -> Finding {
    let check = "gateway.discovery";
    for path in ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"] {
        let Ok(answer) = get(url, path) else { continue };
        if answer.status != 200 {
            continue;
        }
        return match answer.json().get("registration_endpoint").and_then(Value::as_str) {
            Some(endpoint) if endpoint.ends_with("/oidc/register") => {
                Finding::ok(check, format!("{path} names {endpoint}"))
            }
            Some(endpoint) => Finding::warning(
                check,
                format!("{path} names {endpoint}"),
                "clients register there and not at the gateway: look whether the filter is on that route",
            ),
            None => Finding::warning(
                check,
                format!("{path} names no registration_endpoint"),
                "registration is switched off for this tenant, or the filter is not on that route",
            ),
        };
    }
    Finding::warning(
        check,
        "there are no authorization server metadata (RFC 8414)",
        "without them clients have to be told the endpoints; is the authorization server running?",
    )
}
