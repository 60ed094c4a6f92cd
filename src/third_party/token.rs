//! The token endpoint (RFC 6749 §3.2): which requests of a third-party client go on, and in which form.

use subtle::{Choice, ConstantTimeEq};

use super::access::{Ask, WithoutScope, audience_name, is_for_pkce, use_word};
use super::parameters::Parameters;
use super::{Denial, OAuthError};
use crate::edge_api::{ClientRecord, Permissions};
use crate::management::SubjectType;
use crate::registration::secret_sha256_hex;
use crate::tenant::Settings;

/// What clients may send, beside the server's word for the API.
const ALLOWED: [&str; 10] = [
    "audience",
    "client_id",
    "client_secret",
    "code",
    "code_verifier",
    "grant_type",
    "redirect_uri",
    "refresh_token",
    "resource",
    "scope",
];

/// Grants that servers know and third-party clients may not use (RFC 6749, 7522, 7523, 8628 and 8693, OpenID Connect
/// CIBA, the hosted product's own). `client_credentials` is one of them for most clients.
const KNOWN_GRANTS: [&str; 16] = [
    "implicit",
    "password",
    "urn:ietf:params:oauth:grant-type:saml2-bearer",
    "urn:ietf:params:oauth:grant-type:jwt-bearer",
    "urn:ietf:params:oauth:grant-type:device_code",
    "urn:ietf:params:oauth:grant-type:token-exchange",
    "urn:openid:params:grant-type:ciba",
    "http://auth0.com/oauth/grant-type/password-realm",
    "http://auth0.com/oauth/grant-type/passwordless/otp",
    "http://auth0.com/oauth/grant-type/mfa-oob",
    "http://auth0.com/oauth/grant-type/mfa-otp",
    "http://auth0.com/oauth/grant-type/mfa-recovery-code",
    "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token",
    "urn:okta:params:oauth:grant-type:webauthn",
    "urn:ietf:params:oauth:grant-type:uma-ticket",
    "urn:okta:params:oauth:grant-type:otp",
];

/// A grant that a third-party client may use.
#[derive(Clone, Copy)]
enum Grant {
    AuthorizationCode,
    RefreshToken,
    ClientCredentials,
}

/// Holds a token request of a third-party client to what the client may ask for. The parameters are those of the body;
/// `sent_authorization` is whether there is an `authorization` header. What comes back goes on: all of it.
///
/// # Errors
/// The request breaks a rule: first those of the client's authentication, then those of the grant, then the others.
pub fn token(
    mut sent: Parameters,
    sent_authorization: bool,
    client: &ClientRecord,
    permissions: &Permissions,
    settings: &Settings,
) -> Result<Parameters, Denial> {
    let word = settings.dcr_edge.parameters.audience.as_str();
    // Also one without a value.
    let is_foreign = |name: &str| !ALLOWED.contains(&name) && name != word;
    let (has_foreign, has_assertion) =
        (sent.names().any(is_foreign), sent.names().any(|name| name.starts_with("client_assertion")));
    sent.drop_valueless();
    authenticate(&sent, sent_authorization, client)?;
    let grant = grant(&sent, client)?;
    if has_foreign {
        return Err(invalid(if has_assertion {
            "client_assertion is not for third-party clients: send the client_secret, if there is one"
        } else {
            "the request has a parameter that is not for third-party clients: leave it out"
        }));
    }
    match grant {
        Grant::AuthorizationCode if sent.get("code").is_none() => return Err(invalid("code is missing")),
        Grant::AuthorizationCode if !sent.get("code_verifier").is_some_and(is_for_pkce) => {
            return Err(invalid("code_verifier must be there, of 43 to 128 unreserved characters (RFC 7636)"));
        }
        Grant::RefreshToken if sent.get("refresh_token").is_none() => {
            return Err(invalid("refresh_token is missing"));
        }
        Grant::AuthorizationCode | Grant::RefreshToken | Grant::ClientCredentials => {}
    }
    let has_user_grant = permissions.grants.iter().any(|grant| grant.subject_type == SubjectType::User);
    if !matches!(grant, Grant::ClientCredentials) && !has_user_grant {
        // Whatever its codes and tokens were for.
        return Err(Denial::new(OAuthError::UnauthorizedClient, "the client has no grant for any API"));
    }
    use_word(&mut sent, "audience", audience_name(word))?;
    let (subject_type, without_scope) = match grant {
        Grant::AuthorizationCode | Grant::RefreshToken => (SubjectType::User, WithoutScope::Origin),
        Grant::ClientCredentials => (SubjectType::Client, WithoutScope::Defaults),
    };
    // Of a code or a refresh token the server knows what it is for.
    let is_about_access = [audience_name(word), "resource", "scope"].iter().any(|name| sent.get(name).is_some());
    if is_about_access || without_scope == WithoutScope::Defaults {
        Ask { client, permissions, settings, subject_type, without_scope }.hold(&mut sent)?;
    }
    Ok(sent)
}

/// Checks that the client authenticates as it registered (RFC 6749 §2.3).
fn authenticate(sent: &Parameters, sent_authorization: bool, client: &ClientRecord) -> Result<(), Denial> {
    let denied = |description: &str| Err(Denial::new(OAuthError::InvalidClient, description));
    if sent_authorization {
        return denied("the client did not register client authentication by a header");
    }
    if sent.get("client_id") != Some(&client.client_id) {
        return denied("client_id must be in the body");
    }
    match (&*client.token_endpoint_auth_method, sent.get("client_secret")) {
        ("none", None) => Ok(()),
        ("none", Some(_)) => denied("the client has no secret: leave client_secret out"),
        ("client_secret_post", Some(secret)) if is_secret(client, secret) => Ok(()),
        ("client_secret_post", _) => denied("client_secret must be in the body, and the client's"),
        // No strict client registers another one; whoever has it all the same cannot be told from an impostor.
        _ => denied("the way in which the client authenticates is not for third-party clients"),
    }
}

/// Whether the secret is the client's. Where there is none one is compared all the same, so that the time tells nothing.
fn is_secret(client: &ClientRecord, secret: &str) -> bool {
    const NONE: &str = "0000000000000000000000000000000000000000000000000000000000000000";
    let stored = client.client_secret_sha256.as_deref().filter(|stored| stored.len() == NONE.len());
    let is_same = stored.unwrap_or(NONE).as_bytes().ct_eq(secret_sha256_hex(secret).as_bytes());
    bool::from(is_same & Choice::from(u8::from(stored.is_some())))
}

fn grant(sent: &Parameters, client: &ClientRecord) -> Result<Grant, Denial> {
    let Some(grant_type) = sent.get("grant_type") else { return Err(invalid("grant_type is missing")) };
    let grant = match grant_type {
        "authorization_code" => Some(Grant::AuthorizationCode),
        "refresh_token" => Some(Grant::RefreshToken),
        // The owner alone says that a client acts for itself, and only of one with a secret (RFC 6749 §4.4).
        "client_credentials" if client.self_registered || &*client.token_endpoint_auth_method == "none" => None,
        "client_credentials" => Some(Grant::ClientCredentials),
        known if KNOWN_GRANTS.contains(&known) => None,
        _ => {
            let description = "grant_type must be authorization_code or refresh_token";
            return Err(Denial::new(OAuthError::UnsupportedGrantType, description));
        }
    };
    grant.filter(|_| client.grant_types.iter().any(|registered| &**registered == grant_type)).ok_or_else(|| {
        Denial::new(OAuthError::UnauthorizedClient, "the client has not registered the grant that grant_type names")
    })
}

fn invalid(description: impl Into<String>) -> Denial {
    Denial::new(OAuthError::InvalidRequest, description)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{client, grant, parameters, permissions};
    use super::*;
    use crate::edge_api::EffectiveGrant;
    use serde_json::json;

    const API: &str = "https://api.example";
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

    type Changes<'a> = &'a [(&'a str, Option<&'a str>)];

    /// A good request for a code with these changes; `None` takes a parameter away.
    fn request(changes: Changes<'_>) -> Parameters {
        let good = [
            ("grant_type", Some("authorization_code")),
            ("client_id", Some("tpc_a")),
            ("code", Some("c")),
            ("redirect_uri", Some("https://app.example/cb")),
            ("code_verifier", Some(VERIFIER)),
        ];
        parameters(&[good.as_slice(), changes].concat())
    }

    fn of(client: &ClientRecord, changes: Changes<'_>) -> Result<Parameters, &'static str> {
        let permissions = permissions([grant(API, "read write"), own_grant("read jobs")]);
        token(request(changes), false, client, &permissions, &Settings::default())
            .map_err(|denial| denial.error.as_str())
    }

    fn own_grant(scope: &str) -> EffectiveGrant {
        EffectiveGrant { subject_type: SubjectType::Client, ..grant(API, scope) }
    }

    fn confidential() -> ClientRecord {
        ClientRecord {
            token_endpoint_auth_method: "client_secret_post".into(),
            client_secret_sha256: Some(secret_sha256_hex("geheim").into()),
            ..client()
        }
    }

    /// One that the owner made, which acts for itself.
    fn own() -> ClientRecord {
        ClientRecord { self_registered: false, grant_types: Box::new(["client_credentials".into()]), ..confidential() }
    }

    const FOR_ITSELF: [(&str, Option<&str>); 5] = [
        ("grant_type", Some("client_credentials")),
        ("client_secret", Some("geheim")),
        ("code", None),
        ("redirect_uri", None),
        ("code_verifier", None),
    ];

    const REFRESH: [(&str, Option<&str>); 5] = [
        ("grant_type", Some("refresh_token")),
        ("refresh_token", Some("r")),
        ("code", None),
        ("redirect_uri", None),
        ("code_verifier", None),
    ];

    #[test]
    fn a_good_request_goes_on_as_it_is() {
        assert_eq!(of(&client(), &[]), Ok(request(&[])));
        assert_eq!(of(&client(), &REFRESH), Ok(request(&REFRESH)));
        let with_secret = [("client_secret", Some("geheim"))];
        assert_eq!(of(&confidential(), &with_secret), Ok(request(&with_secret)));
    }

    #[test]
    fn client_authentication_comes_first_then_the_grant_type_then_the_rest() {
        let all_wrong =
            [("client_secret", Some("x")), ("grant_type", Some("password")), ("evil", Some("x")), ("code", None)];
        assert_eq!(of(&client(), &all_wrong), Err("invalid_client"));
        assert_eq!(of(&client(), &all_wrong[1..]), Err("unauthorized_client"));
        assert_eq!(of(&client(), &all_wrong[2..]), Err("invalid_request"));
        let first = [("client_secret", Some("x")), ("grant_type", None)];
        assert_eq!(of(&confidential(), &first), Err("invalid_client"));
    }

    #[test]
    fn known_grants_are_unauthorized_and_unknown_ones_unsupported() {
        for known in KNOWN_GRANTS.iter().chain(&["client_credentials"]) {
            assert_eq!(of(&client(), &[("grant_type", Some(known))]), Err("unauthorized_client"), "{known}");
        }
        for unknown in ["x", "Authorization_Code", "authorization_code ", "authorization_code,refresh_token"] {
            assert_eq!(of(&client(), &[("grant_type", Some(unknown))]), Err("unsupported_grant_type"), "{unknown}");
        }
        assert_eq!(of(&client(), &[("grant_type", None)]), Err("invalid_request"));
    }

    #[test]
    fn only_what_the_client_registered_is_a_grant_of_its() {
        let codes = ClientRecord { grant_types: Box::new(["authorization_code".into()]), ..client() };
        assert_eq!(of(&codes, &REFRESH), Err("unauthorized_client"));
        assert!(of(&codes, &[]).is_ok());
        assert_eq!(of(&own(), &[("client_secret", Some("geheim"))]), Err("unauthorized_client"));
    }

    #[test]
    fn a_code_needs_its_verifier() {
        assert_eq!(of(&client(), &[("code", None)]), Err("invalid_request"));
        let short = "a".repeat(42);
        let long = "a".repeat(129);
        for verifier in [None, Some(""), Some(&*short), Some(&*long), Some(&format!("{short}+"))] {
            assert_eq!(of(&client(), &[("code_verifier", verifier)]), Err("invalid_request"), "{verifier:?}");
        }
    }

    #[test]
    fn a_refresh_needs_its_token() {
        let without = [REFRESH.as_slice(), &[("refresh_token", None)]].concat();
        assert_eq!(of(&client(), &without), Err("invalid_request"));
    }

    #[test]
    fn client_credentials_are_never_for_a_client_that_registered_itself() {
        let grants = || -> Box<[Box<str>]> { Box::new(["authorization_code".into(), "client_credentials".into()]) };
        let client = ClientRecord { grant_types: grants(), ..confidential() };
        assert_eq!(of(&client, &FOR_ITSELF), Err("unauthorized_client"));
        // Nor for one that the owner made without a secret, or without that grant.
        let public = ClientRecord { token_endpoint_auth_method: "none".into(), ..own() };
        let without_secret = [FOR_ITSELF.as_slice(), &[("client_secret", None)]].concat();
        assert_eq!(of(&public, &without_secret), Err("unauthorized_client"));
        let without_grant = ClientRecord { self_registered: false, ..confidential() };
        assert_eq!(of(&without_grant, &FOR_ITSELF), Err("unauthorized_client"));
    }

    #[test]
    fn client_credentials_of_the_owners_client_stay_within_its_client_grants() {
        let going = of(&own(), &FOR_ITSELF).unwrap();
        assert_eq!((going.get("audience"), going.get("scope")), (Some(API), Some("read jobs")));
        let scoped = |scope| [FOR_ITSELF.as_slice(), &[("scope", Some(scope))]].concat();
        assert_eq!(of(&own(), &scoped("jobs write")).unwrap().get("scope"), Some("jobs"));
        assert_eq!(of(&own(), &scoped("write")), Err("invalid_scope"));
        let elsewhere = [FOR_ITSELF.as_slice(), &[("audience", Some("https://b.example"))]].concat();
        assert_eq!(of(&own(), &elsewhere), Err("unauthorized_client"));
        let two = permissions([own_grant("read"), EffectiveGrant { audience: "b".into(), ..own_grant("read") }]);
        let held = |settings| token(request(&FOR_ITSELF), false, &own(), &two, &settings);
        assert_eq!(held(Settings::default()).unwrap_err().error, OAuthError::InvalidRequest);
        let with_default = Settings { default_audience: Some("b".into()), ..Settings::default() };
        assert_eq!(held(with_default).unwrap().get("audience"), Some("b"));
    }

    #[test]
    fn audience_resource_and_scope_follow_the_rules_of_the_authorization_endpoint() {
        for base in [[].as_slice(), &REFRESH] {
            let with = |more: Changes<'_>| of(&client(), &[base, more].concat());
            assert_eq!(with(&[("audience", Some("https://b.example"))]), Err("unauthorized_client"));
            assert_eq!(with(&[("resource", Some("https://b.example"))]), Err("unauthorized_client"));
            assert_eq!(with(&[("resource", Some("b"))]), Err("invalid_target"));
            assert_eq!(with(&[("scope", Some("admin"))]), Err("invalid_scope"));
            assert_eq!(with(&[("scope", Some("jobs"))]), Err("invalid_scope"));
            let going = with(&[("resource", Some("https://api.example/")), ("scope", Some("admin read"))]).unwrap();
            let going = ["resource", "audience", "scope"].map(|name| going.get(name));
            assert_eq!(going, [Some(API), Some(API), Some("read")]);
        }
    }

    #[test]
    fn a_code_is_not_redeemed_for_more_scopes_of_another_api() {
        let two = permissions([grant(API, "read write"), grant("https://b.example", "read")]);
        let sent = request(&[("resource", Some("https://b.example"))]);
        let going = token(sent, false, &client(), &two, &Settings::default()).unwrap();
        assert_eq!(going.get("scope"), Some("read"));
    }

    #[test]
    fn other_members_are_an_invalid_request_also_without_a_value() {
        for name in [
            "client_assertion",
            "client_assertion_type",
            "username",
            "password",
            "assertion",
            "device_code",
            "code_challenge",
            "claims",
            "organization",
            "Scope",
            "ext-a",
        ] {
            for value in ["x", ""] {
                assert_eq!(of(&client(), &[(name, Some(value))]), Err("invalid_request"), "{name}");
            }
        }
    }

    #[test]
    fn the_servers_word_for_the_api_is_a_member_too() {
        let settings: Settings =
            serde_json::from_value(json!({"dcr_edge": {"parameters": {"audience": "api"}}})).unwrap();
        let permissions = permissions([grant(API, "read")]);
        let held = |changes: Changes<'_>| token(request(changes), false, &client(), &permissions, &settings);
        for name in ["api", "audience"] {
            let going = held(&[(name, Some(API))]).unwrap();
            assert_eq!((going.get("api"), going.get("audience")), (Some(API), None));
        }
        assert!(held(&[("api", Some(API)), ("audience", Some(API))]).is_err());
        assert_eq!(of(&client(), &[("api", Some(API))]), Err("invalid_request"));
    }

    #[test]
    fn a_public_client_sends_no_secret() {
        assert_eq!(of(&client(), &[("client_secret", Some("x"))]), Err("invalid_client"));
        // Without a value it is omitted (RFC 6749 §2.3.1), and does not go on.
        assert_eq!(of(&client(), &[("client_secret", Some(""))]), Ok(request(&[])));
    }

    #[test]
    fn a_confidential_client_sends_its_secret_in_the_body() {
        for secret in [None, Some(""), Some("Geheim"), Some("geheim "), Some("geheimgeheim")] {
            assert_eq!(of(&confidential(), &[("client_secret", secret)]), Err("invalid_client"), "{secret:?}");
        }
        // Nor is there a secret whose hash is that of none.
        for stored in [None, Some(""), Some("geheim")] {
            let client = ClientRecord { client_secret_sha256: stored.map(Into::into), ..confidential() };
            assert_eq!(of(&client, &[("client_secret", Some("geheim"))]), Err("invalid_client"), "{stored:?}");
        }
    }

    #[test]
    fn an_authorization_header_of_such_a_client_is_an_invalid_client() {
        let with_secret = [("client_secret", Some("geheim"))];
        for (client, changes) in [(client(), [].as_slice()), (confidential(), &with_secret), (confidential(), &[])] {
            let refused = token(request(changes), true, &client, &permissions([]), &Settings::default());
            assert_eq!(refused.unwrap_err().error, OAuthError::InvalidClient);
        }
    }

    #[test]
    fn a_client_that_is_not_named_or_authenticates_otherwise_is_an_invalid_client() {
        for id in [None, Some("tpc_b")] {
            assert_eq!(of(&client(), &[("client_id", id)]), Err("invalid_client"), "{id:?}");
        }
        for method in ["client_secret_basic", "private_key_jwt", "tls_client_auth", "", "NONE"] {
            let client = ClientRecord { token_endpoint_auth_method: method.into(), ..confidential() };
            for secret in [None, Some("geheim")] {
                assert_eq!(of(&client, &[("client_secret", secret)]), Err("invalid_client"), "{method}");
            }
        }
    }
}
