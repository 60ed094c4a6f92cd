//! Who gets in, and who does not.

use dcr_edge::store::token::{Claims, Error, Keys, Kind, MANAGEMENT_SCOPES, is_scope};
use dcr_edge::store::unix_now;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::store::Folder;

const NOW: u64 = 1_700_000_000;

/// How far clocks may be apart, in seconds.
const SKEW: u64 = 60;

fn keys() -> Keys {
    Keys::from_seeds(&[[7; 32]]).unwrap()
}

fn management() -> Claims {
    Claims::management(1, &"a.example".parse().unwrap(), "read:tenant_settings".to_owned(), NOW, 60)
}

/// The key of a seed.
fn private(seed: &[u8; 32]) -> EncodingKey {
    use ed25519_dalek::pkcs8::EncodePrivateKey;
    EncodingKey::from_ed_der(ed25519_dalek::SigningKey::from_bytes(seed).to_pkcs8_der().unwrap().as_bytes())
}

/// A token with any claims, signed with the key of `keys`, and without a `kid`, as the first version signed.
fn signed(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &private(&[7; 32])).unwrap()
}

#[test]
fn a_token_opens_what_it_was_minted_for_until_it_expires() {
    let token = keys().mint(&management()).unwrap();
    let keys = keys();
    for _ in 0..2 {
        assert_eq!(keys.check(&token, Kind::Management, NOW).unwrap(), management());
        assert!(matches!(keys.check(&token, Kind::Edge, NOW), Err(Error::WrongKind)));
        assert_eq!(keys.check(&token, Kind::Management, NOW + 60 + SKEW - 1).unwrap(), management());
        assert!(matches!(keys.check(&token, Kind::Management, NOW + 60 + SKEW), Err(Error::Expired)));
    }
    for (claims, kind) in [(Claims::edge(NOW, 60), Kind::Edge), (Claims::server(1, NOW, 60), Kind::Server)] {
        let token = keys.mint(&claims).unwrap();
        for other in [Kind::Management, Kind::Edge, Kind::Server] {
            let checked = keys.check(&token, other, NOW);
            assert!(if other == kind { checked.is_ok() } else { matches!(checked, Err(Error::WrongKind)) }, "{kind:?}");
        }
        // Whoever could change a kind would still need the audience.
        for other in [Kind::Management, Kind::Edge, Kind::Server].into_iter().filter(|other| *other != kind) {
            let token = keys.mint(&Claims { kind: other, ..claims.clone() }).unwrap();
            assert!(matches!(keys.check(&token, other, NOW), Err(Error::WrongAudience(_))));
        }
    }
}

#[test]
fn a_token_begins_with_its_nbf() {
    let token = keys().mint(&Claims { nbf: Some(NOW + 10), ..management() }).unwrap();
    assert!(matches!(keys().check(&token, Kind::Management, NOW + 9 - SKEW), Err(Error::NotYetValid)));
    assert!(keys().check(&token, Kind::Management, NOW + 10 - SKEW).is_ok());
}

#[test]
fn a_token_of_another_key_or_another_algorithm_is_none_of_ours() {
    let claims = serde_json::to_value(management()).unwrap();
    let other_key = Keys::from_seeds(&[[8; 32]]).unwrap().mint(&management()).unwrap();
    let public_key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
    let hs256 = EncodingKey::from_secret(public_key.as_bytes());
    let hs256 = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &hs256).unwrap();
    let good = signed(&claims);
    let payload = good.split('.').nth(1).unwrap();
    // {"alg":"none"}, {"alg":"EdDSA"} without a signature, and {"alg":"EdDSA","crit":["b64"]}
    let none = format!("eyJhbGciOiJub25lIn0.{payload}.");
    let unsigned = format!("eyJhbGciOiJFZERTQSJ9.{payload}.");
    let critical = format!("eyJhbGciOiJFZERTQSIsImNyaXQiOlsiYjY0Il19.{payload}.");
    let check = |token: &str| keys().check(token, Kind::Management, NOW);
    assert!(matches!(check(&other_key), Err(Error::UnknownKey)));
    assert!(matches!(check(&hs256), Err(Error::WrongAlgorithm("EdDSA"))));
    assert!(matches!(check(&none), Err(Error::Unsigned)));
    assert!(matches!(check(&unsigned), Err(Error::BadSignature)));
    assert!(matches!(check(&critical), Err(Error::CriticalHeader)));
    for bad in ["", "a.b.c", "..", "a.b.c.d", &good[..good.len() - 1]] {
        assert!(matches!(check(bad), Err(Error::Malformed)), "{bad}");
    }
    assert!(check(&good).is_ok());
}

#[test]
fn a_token_without_a_claim_or_with_another_audience_is_refused() {
    for claim in ["iss", "aud", "kind", "exp"] {
        let mut claims = serde_json::to_value(management()).unwrap();
        claims.as_object_mut().unwrap().remove(claim);
        assert!(keys().check(&signed(&claims), Kind::Management, NOW).is_err(), "{claim}");
    }
    for (claim, value) in [
        ("iss", json!("another")),
        ("aud", json!("https://a.example/")),
        ("aud", json!("http://a.example/api/v2/")),
        ("aud", json!("dcr-store/edge")),
        ("aud", json!(["https://a.example/api/v2/"])),
        ("kind", json!("server")),
        ("exp", json!("never")),
    ] {
        let mut claims = serde_json::to_value(management()).unwrap();
        claims[claim] = value;
        assert!(keys().check(&signed(&claims), Kind::Management, NOW).is_err(), "{claims}");
    }
}

#[test]
fn a_scope_is_a_list_of_printable_words() {
    for good in ["a", "read:clients update:clients", "!#[]~"] {
        assert!(is_scope(good), "{good}");
    }
    for bad in ["", " ", "a  b", "a ", "a\"b", "a\\b", "ä", "a\nb"] {
        assert!(!is_scope(bad), "{bad}");
    }
}

#[test]
fn the_store_refuses_whoever_has_no_token_for_what_he_asks() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let mint = |claims: Claims| folder.keys().mint(&claims).unwrap();
    let of =
        |host: &str, now| Claims::management(1, &host.parse().unwrap(), "update:tenant_settings".to_owned(), now, 60);
    let now = unix_now();
    let tokens = [
        mint(of("default.example", now - 121)),
        mint(of("unknown.example", now)),
        mint(Claims::edge(now, 60)),
        mint(Claims::server(1, now, 60)),
        Keys::from_seeds(&[[8; 32]]).unwrap().mint(&of("default.example", now)).unwrap(),
        "nonsense".to_owned(),
    ];
    let callers = tokens.map(|token| store.anyone().with_token(token));
    for caller in callers.iter().chain([&store.anyone()]) {
        let answer = caller.get("/api/v2/tenants/settings");
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"));
        assert_eq!(answer.json()["errorCode"], "invalid_token");
    }
    assert_eq!(store.owner("default").get("/edge/v1/changes").status, 401);
    let two = [("authorization", "Bearer x")];
    assert_eq!(store.owner("default").call("GET", "/api/v2/tenants/settings", &two, None).status, 401);

    let writer = store.anyone().with_token(mint(of("default.example", now)));
    let answer = writer.get("/api/v2/tenants/settings");
    assert_eq!((answer.status, &answer.json()["errorCode"]), (403, &json!("insufficient_scope")));
    assert!(answer.json()["message"].as_str().unwrap().contains("read:tenant_settings"));
    assert_eq!(writer.patch_settings(&json!({})).status, 200);
}

#[test]
fn each_fault_of_a_token_has_its_own_answer() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let store = folder.serve();
    let key = folder.with_database(async |database| database.signing_keys().await.unwrap()[0].seed);
    let now = unix_now();
    let usual = json!({
        "iss": "dcr-store",
        "aud": "https://default.example/api/v2/",
        "kind": "management",
        "slot": 1,
        "scope": "read:tenant_settings",
        "exp": now + 600
    });
    let with = |claim: &str, value: Value| {
        let mut claims = usual.clone();
        claims[claim] = value;
        claims
    };
    let sign = |header: Header, claims: &Value, key: &EncodingKey| jsonwebtoken::encode(&header, claims, key).unwrap();
    let ours = |claims: &Value| sign(Header::new(Algorithm::EdDSA), claims, &private(&key));
    let get = |token: String, headers: &[(&str, &str)]| {
        store.anyone().with_token(token).call("GET", "/api/v2/tenants/settings", headers, None)
    };
    let unknown_kid = Header { kid: Some("unknown".to_owned()), ..Header::new(Algorithm::EdDSA) };
    let public_key = ed25519_dalek::SigningKey::from_bytes(&key).verifying_key();
    let secret = EncodingKey::from_secret(public_key.as_bytes());
    let good = ours(&usual);
    let at = |tenant| [("x-dcr-tenant", tenant)];
    let faults = [
        ("nonsense".to_owned(), "default", "the token is not a JWT"),
        (format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap()), "default", "is not signed (alg none)"),
        (sign(Header::new(Algorithm::HS256), &usual, &secret), "default", "alg is not that of its key; expected EdDSA"),
        (sign(unknown_kid, &usual, &private(&key)), "default", "key (kid) is not in use, or no longer"),
        (
            sign(Header::new(Algorithm::EdDSA), &usual, &private(&[8; 32])),
            "default",
            "signature is not that of its key",
        ),
        (ours(&with("iss", json!("another"))), "default", "issuer (iss) is not one that this store trusts"),
        (ours(&with("exp", json!("never"))), "default", "a claim of the token is missing or of the wrong type"),
        (ours(&with("kind", json!("edge"))), "default", "of another kind"),
        (ours(&with("aud", json!("https://default.example/"))), "default", "for another audience (aud)"),
        (ours(&with("aud", json!("https://nobody.example/api/v2/"))), "default", "no tenant answers for the domain"),
        (ours(&with("aud", json!("https://other.example/api/v2/"))), "other", "was deleted or lost its domain"),
        (good.clone(), "other", "is another tenant's Management API"),
        (ours(&with("exp", json!(now - 61))), "default", "the token has expired"),
        (ours(&with("nbf", json!(now + 90))), "default", "the token is not valid yet (nbf)"),
    ];
    let mut messages = std::collections::HashSet::new();
    for (token, tenant, text) in faults {
        let answer = get(token, &at(tenant));
        let body = answer.json();
        assert_eq!((answer.status, &body["errorCode"]), (401, &json!("invalid_token")), "{body}");
        let message = body["message"].as_str().unwrap().to_owned();
        assert!(message.contains(text), "{text}: {message}");
        assert!(messages.insert(message), "two faults have one answer: {body}");
    }
    let answer = get(ours(&with("scope", json!("read:tenant_setting update:tenant_settings"))), &at("default"));
    assert_eq!((answer.status, &answer.json()["errorCode"]), (403, &json!("insufficient_scope")));
    for claims in [usual.clone(), with("exp", json!(now - 30)), with("nbf", json!(now + 30))] {
        assert_eq!(get(ours(&claims), &at("default")).status, 200, "{claims}");
    }
}

#[test]
fn the_command_line_prints_a_token_alone() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let print = |arguments: &[&str]| {
        let text = folder.succeed(&[&["token"], arguments].concat());
        assert_eq!(text.lines().count(), 1);
        store.anyone().with_token(text.trim())
    };
    assert_eq!(print(&["--kind", "edge"]).get("/edge/v1/changes").status, 200);
    let owner = print(&["--tenant", "default", "--ttl", "30m"]);
    assert_eq!((owner.get("/api/v2/tenants/settings").status, owner.patch_settings(&json!({})).status), (200, 200));
    let reader = print(&["--tenant", "default", "--scope", "read:tenant_settings read:anything"]);
    assert_eq!((reader.get("/api/v2/tenants/settings").status, reader.patch_settings(&json!({})).status), (200, 403));
    for (arguments, text) in [
        (vec!["--tenant", "nobody"], "there is no tenant nobody"),
        (vec![], "--tenant"),
        (vec!["--kind", "edge", "--tenant", "default"], "--tenant"),
        (vec!["--kind", "server"], "name the tenant of the authorization server with --tenant"),
        (vec!["--kind", "server", "--tenant", "nobody"], "there is no tenant nobody"),
        (vec!["--kind", "server", "--tenant", "default", "--scope", "a"], "--scope"),
        (vec!["--tenant", "default", "--scope", "a  b"], "--scope"),
        (vec!["--tenant", "default", "--ttl", "0s"], "a second or more"),
        (vec!["--tenant", "default", "--ttl", "11y"], "10 years at most"),
    ] {
        let error = folder.fail(&[&["token"], arguments.as_slice()].concat());
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn a_scope_that_nobody_asks_for_is_minted_with_a_warning() {
    let folder = Folder::with_default_tenant();
    for (scope, warning) in [
        ("read:tenant_settings", ""),
        (
            "read:tenant_settings read:anything",
            &format!(
                "dcr-store: warning: no interface asks for read:anything; the Management API knows {}\n",
                MANAGEMENT_SCOPES.join(" ")
            ),
        ),
    ] {
        let output = folder.run(&["token", "--tenant", "default", "--ttl", "10y", "--scope", scope]);
        assert_eq!((output.status.code(), std::str::from_utf8(&output.stderr).unwrap()), (Some(0), warning));
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn a_token_does_not_follow_a_domain_to_another_tenant() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    assert_eq!(owner.get("/api/v2/tenants/settings").status, 200);
    folder.succeed(&["tenant", "delete", "default"]);
    assert_eq!(owner.get("/api/v2/tenants/settings").status, 401);
    folder.create_enabled_tenant("default", json!({}));
    assert_eq!(owner.get("/api/v2/tenants/settings").status, 401);
    assert_eq!(store.owner("default").get("/api/v2/tenants/settings").status, 200);
}
