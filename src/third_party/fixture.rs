//! Clients, grants and requests for tests.

use super::parameters::Parameters;
use crate::edge_api::{ClientRecord, EffectiveGrant, Permissions};
use crate::management::{RedirectionPolicy, SubjectType};
use crate::tenant::SecurityMode;

/// A public client that registered itself with both grants of third parties.
pub fn client() -> ClientRecord {
    ClientRecord {
        client_id: "tpc_a".into(),
        security_mode: SecurityMode::Strict,
        self_registered: true,
        redirect_uris: Box::new(["https://app.example/cb".into()]),
        grant_types: Box::new(["authorization_code".into(), "refresh_token".into()]),
        token_endpoint_auth_method: "none".into(),
        client_secret_sha256: None,
        redirection_policy: RedirectionPolicy::OpenRedirectProtection,
    }
}

/// A user grant of an API that allows no refresh token.
pub fn grant(audience: &str, scope: &str) -> EffectiveGrant {
    EffectiveGrant {
        audience: audience.to_owned(),
        scope: scope.split_ascii_whitespace().map(str::to_owned).collect(),
        subject_type: SubjectType::User,
        allow_offline_access: false,
    }
}

/// Permissions of these grants, without connections.
pub fn permissions(grants: impl Into<Vec<EffectiveGrant>>) -> Permissions {
    Permissions { grants: grants.into().into(), connections: Box::new([]) }
}

/// Parameters of these pairs; of one name the last counts, and one without a value is not there at all.
pub fn parameters(pairs: &[(&str, Option<&str>)]) -> Parameters {
    let mut parameters = Parameters::default();
    for (name, value) in pairs {
        match value {
            Some(value) => parameters.set(name, value),
            None => parameters.remove(name),
        }
    }
    parameters
}

/// The pairs of what goes on.
pub fn pairs(parameters: &Parameters) -> Vec<(&str, &str)> {
    parameters.names().map(|name| (name, parameters.get(name).unwrap_or_default())).collect()
}
