//! Tokens that an external issuer signs.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dcr_edge::store::token::jwks::{self, Source};
use dcr_edge::store::unix_now;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::issuer::{ISSUER, JwksServer, KeyPair, jwk_set, ok, publish};
use crate::support::process::eventually;
use crate::support::store::{Answer, Folder, Store};

const SETTINGS: &str = "/api/v2/tenants/settings";

/// A token for the tenant `default` with these claims instead of the usual ones; `null` leaves one out.
fn claims(changes: &Value) -> Value {
    let now = unix_now();
    let mut claims = json!({
        "iss": ISSUER,
        "aud": "https://default.example/api/v2/",
        "scope": "read:tenant_settings other",
        "sub": "somebody",
        "iat": now,
        "exp": now + 600
    });
    for (claim, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => _ = claims.as_object_mut().unwrap().remove(claim),
            value => claims[claim] = value.clone(),
        }
    }
    claims
}

fn trust(folder: &Folder, jwks: &str, more: &[&str]) -> Store {
    folder.serve_with(&[&["--token-issuer", ISSUER, "--token-jwks", jwks], more].concat())
}

fn ask(store: &Store, token: String) -> Answer {
    store.anyone().with_token(token).get(SETTINGS)
}

fn refused(answer: &Answer, status: u16, text: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["statusCode"], status);
    assert!(body["message"].as_str().unwrap().contains(text), "{text}: {body}");
    assert!(body["error"].is_string() && body["errorCode"].is_string(), "{body}");
}

#[test]
fn a_token_of_the_issuer_opens_the_tenant_of_its_audience_with_its_scopes() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let keys = [("r", Algorithm::RS256), ("e", Algorithm::ES256), ("d", Algorithm::EdDSA)]
        .map(|(kid, algorithm)| KeyPair::new(kid, algorithm));
    let store = trust(&folder, publish(folder.path(), &keys.each_ref()).to_str().unwrap(), &[]);
    for key in &keys {
        for _ in 0..2 {
            assert_eq!(ask(&store, key.sign(&claims(&json!({})))).status, 200, "{:?}", key.algorithm);
        }
        let writes = store.anyone().with_token(key.sign(&claims(&json!({})))).patch_settings(&json!({}));
        refused(&writes, 403, "Insufficient scope, expected: update:tenant_settings");
        refused(&ask(&store, key.sign(&claims(&json!({"scope": null})))), 403, "expected: read:tenant_settings");
        let many = claims(&json!({"aud": ["https://issuer.example/userinfo", "https://other.example/api/v2/"]}));
        assert_eq!(ask(&store, key.sign(&many)).status, 200);
        // The header stands for the host that the request came to.
        let at_default = [("x-dcr-tenant", "default")];
        let elsewhere = store.anyone().with_token(key.sign(&many)).call("GET", SETTINGS, &at_default, None);
        refused(&elsewhere, 401, "another tenant's Management API");
        let at_its_own = [("x-dcr-tenant", "other")];
        assert_eq!(store.anyone().with_token(key.sign(&many)).call("GET", SETTINGS, &at_its_own, None).status, 200);
    }
    // The store's own tokens work as before.
    assert_eq!(store.owner("default").get(SETTINGS).status, 200);
}

#[test]
fn each_fault_of_a_token_of_the_issuer_has_its_own_answer() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let key = KeyPair::new("r", Algorithm::RS256);
    let store = trust(&folder, publish(folder.path(), &[&key]).to_str().unwrap(), &[]);
    let now = unix_now();
    let audience = |host: &str| format!("https://{host}/api/v2/");
    for (changes, text) in [
        (json!({"exp": now - 61}), "the token has expired"),
        (json!({"nbf": now + 90}), "the token is not valid yet"),
        (json!({"exp": null}), "a claim of the token is missing"),
        (json!({"exp": "never"}), "a claim of the token is missing"),
        (json!({"aud": null}), "a claim of the token is missing"),
        (json!({"scope": ["read:tenant_settings"]}), "of the wrong type"),
        (json!({"iss": null}), "issuer (iss) is not one"),
        (json!({"iss": "https://issuer.example"}), "issuer (iss) is not one"),
        (json!({"iss": "dcr-store"}), "key (kid) is not in use"),
        (json!({"aud": "https://default.example/"}), "for another audience"),
        (json!({"aud": ["dcr-store/edge"]}), "for another audience"),
        (json!({"aud": []}), "for another audience"),
        (json!({"aud": audience("unknown.example")}), "no tenant answers for the domain"),
        (json!({"aud": [audience("default.example"), audience("other.example")]}), "more than one Management API"),
    ] {
        refused(&ask(&store, key.sign(&claims(&changes))), 401, text);
    }
    for changes in [json!({"exp": now - 30}), json!({"nbf": now + 30}), json!({"exp": now as f64 + 60.5, "nbf": 1.5})] {
        assert_eq!(ask(&store, key.sign(&claims(&changes))).status, 200, "{changes}");
    }
}

#[test]
fn the_algorithm_is_that_of_the_key_whatever_the_token_says() {
    let folder = Folder::with_default_tenant();
    let (rsa, stranger) = (KeyPair::new("r", Algorithm::RS256), KeyPair::new("r", Algorithm::RS256));
    let ec = KeyPair::new("e", Algorithm::ES256);
    let path = publish(folder.path(), &[&rsa, &ec]);
    let store = trust(&folder, path.to_str().unwrap(), &[]);
    let good = claims(&json!({}));
    let with = |algorithm, kid: &str, key: &EncodingKey| {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, &good, key).unwrap()
    };
    // The public key, as text and as bytes, taken for a shared secret.
    for secret in [rsa.public()["n"].as_str().unwrap().as_bytes(), &fs::read(&path).unwrap()] {
        let token = with(Algorithm::HS256, "r", &EncodingKey::from_secret(secret));
        refused(&ask(&store, token), 401, "alg is not that of its key; expected RS256");
    }
    for other in [Algorithm::RS384, Algorithm::PS256] {
        refused(&ask(&store, with(other, "r", &rsa.private)), 401, "alg is not that of its key; expected RS256");
    }
    refused(&ask(&store, with(Algorithm::ES256, "r", &ec.private)), 401, "expected RS256");
    refused(&ask(&store, with(Algorithm::RS256, "e", &rsa.private)), 401, "expected ES256");
    refused(&ask(&store, stranger.sign(&good)), 401, "signature is not that of its key");
    refused(&ask(&store, with(Algorithm::RS256, "x", &rsa.private)), 401, "key (kid) is not in use");
    let signed = rsa.sign(&good);
    let payload = signed.split('.').nth(1).unwrap();
    for none in ["eyJhbGciOiJub25lIiwia2lkIjoiciJ9", "eyJhbGciOiJOb25lIiwia2lkIjoiciJ9"] {
        refused(&ask(&store, format!("{none}.{payload}.")), 401, "not signed (alg none)");
    }
    // Without a kid the only key of the algorithm is meant.
    let header = Header::new(Algorithm::RS256);
    assert_eq!(ask(&store, jsonwebtoken::encode(&header, &good, &rsa.private).unwrap()).status, 200);
    // An ID token or a logout token is no access token.
    for (typ, status) in [("at+jwt", 200), ("application/AT+JWT", 200), ("JWT", 200), ("logout+jwt", 401)] {
        let header = Header { typ: Some(typ.to_owned()), kid: Some("r".to_owned()), ..Header::new(Algorithm::RS256) };
        let answer = ask(&store, jsonwebtoken::encode(&header, &good, &rsa.private).unwrap());
        assert_eq!(answer.status, status, "{typ}: {answer:?}");
    }
}

#[test]
fn an_edges_token_never_comes_from_outside() {
    let folder = Folder::with_default_tenant();
    let key = KeyPair::new("d", Algorithm::EdDSA);
    let store = trust(&folder, publish(folder.path(), &[&key]).to_str().unwrap(), &[]);
    for iss in [ISSUER, "dcr-store"] {
        let token = key.sign(&claims(&json!({"iss": iss, "aud": "dcr-store/edge", "kind": "edge"})));
        let edge = store.anyone().with_token(token);
        assert_eq!(edge.get("/edge/v1/changes").status, 401);
        assert_eq!(edge.put_client("default", "tpc_x", &json!({})).status, 401);
    }
    // Nor does a good token for the Management API open the edge's interface.
    let owner = store.anyone().with_token(key.sign(&claims(&json!({}))));
    assert_eq!((owner.get(SETTINGS).status, owner.get("/edge/v1/changes").status), (200, 401));
    assert_eq!(store.edge().get("/edge/v1/changes").status, 200);
    // A slot of its own choice means nothing either.
    assert_eq!(ask(&store, key.sign(&claims(&json!({"slot": 99, "kind": "edge"})))).status, 200);
}

#[test]
fn a_token_has_to_name_the_audience_that_the_operator_expects() {
    let folder = Folder::with_default_tenant();
    let key = KeyPair::new("d", Algorithm::EdDSA);
    let path = publish(folder.path(), &[&key]);
    let store = trust(&folder, path.to_str().unwrap(), &["--token-audience", "registrations"]);
    let of = |aud: Value| ask(&store, key.sign(&claims(&json!({"aud": aud}))));
    assert_eq!(of(json!(["registrations", "https://default.example/api/v2/"])).status, 200);
    refused(&of(json!("https://default.example/api/v2/")), 401, "does not name the audience that this store expects");
    refused(&of(json!("registrations")), 401, "for another audience");
}

#[test]
fn new_keys_in_the_file_are_found_by_the_first_token_that_needs_them_and_then_once_a_minute() {
    let folder = Folder::with_default_tenant();
    let [first, second, third] = ["1", "2", "3"].map(|kid| KeyPair::new(kid, Algorithm::EdDSA));
    let path = publish(folder.path(), &[&first]);
    let store = trust(&folder, path.to_str().unwrap(), &[]);
    assert_eq!(ask(&store, first.sign(&claims(&json!({})))).status, 200);
    publish(folder.path(), &[&second]);
    assert_eq!(ask(&store, second.sign(&claims(&json!({})))).status, 200);
    refused(&ask(&store, first.sign(&claims(&json!({})))), 401, "key (kid) is not in use");
    publish(folder.path(), &[&third]);
    refused(&ask(&store, third.sign(&claims(&json!({})))), 401, "key (kid) is not in use");
    assert_eq!(ask(&store, second.sign(&claims(&json!({})))).status, 200);
}

#[test]
fn an_issuer_that_withdraws_its_last_key_is_believed() {
    let folder = Folder::with_default_tenant();
    let [leaked, unknown] = ["1", "2"].map(|kid| KeyPair::new(kid, Algorithm::EdDSA));
    let path = publish(folder.path(), &[&leaked]);
    let store = trust(&folder, path.to_str().unwrap(), &[]);
    assert_eq!(ask(&store, leaked.sign(&claims(&json!({})))).status, 200);
    publish(folder.path(), &[]);
    refused(&ask(&store, unknown.sign(&claims(&json!({})))), 401, "key (kid) is not in use");
    refused(&ask(&store, leaked.sign(&claims(&json!({})))), 401, "key (kid) is not in use");
}

fn trust_url(folder: &Folder, server: &JwksServer) -> Store {
    let mut command = folder.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("DCR_TOKEN_ISSUER", ISSUER).env("DCR_TOKEN_JWKS", server.url()).env("SSL_CERT_FILE", &server.ca);
    folder.serve_as(&mut command)
}

#[test]
fn keys_come_from_an_https_url_and_its_silence_stops_nobody_who_has_them() {
    let folder = Folder::with_default_tenant();
    let (key, new) = (KeyPair::new("1", Algorithm::ES256), KeyPair::new("2", Algorithm::ES256));
    let server = JwksServer::start(&jwk_set(&[&key]));
    let store = Arc::new(trust_url(&folder, &server));
    eventually("the URL is asked", || (server.requests() == 1).then_some(()));
    assert_eq!(ask(&store, key.sign(&claims(&json!({})))).status, 200);
    assert_eq!(server.requests(), 1);
    server.answer_with(None);
    let waiting = {
        let (store, token) = (Arc::clone(&store), new.sign(&claims(&json!({}))));
        std::thread::spawn(move || ask(&store, token))
    };
    eventually("the URL is asked again", || (server.requests() == 2).then_some(()));
    let start = Instant::now();
    assert_eq!(ask(&store, key.sign(&claims(&json!({"jti": "another"})))).status, 200);
    assert_eq!(store.owner("default").get(SETTINGS).status, 200);
    assert_eq!(store.edge().get("/edge/v1/changes").status, 200);
    assert!(start.elapsed() < Duration::from_secs(2) && !waiting.is_finished(), "{:?}", start.elapsed());
    refused(&waiting.join().unwrap(), 401, "key (kid) is not in use");
    server.answer_with(Some(ok(&jwk_set(&[&key, &new]))));
    refused(&ask(&store, new.sign(&claims(&json!({})))), 401, "key (kid) is not in use");
    assert_eq!(server.requests(), 2, "at most once a minute");
    let log = store.process.log();
    assert!(log.contains("WARN") && log.contains("those read last stay in use"), "{log}");
}

#[test]
fn a_store_whose_issuer_is_away_serves_all_others_and_says_to_its_tokens_that_they_may_try_again() {
    for (answer, reason) in [
        ("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", "expected 200"),
        (
            "HTTP/1.1 302 Found\r\nlocation: http://localhost/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "expected 200",
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}", "no JWK set"),
    ] {
        let folder = Folder::with_default_tenant();
        let key = KeyPair::new("1", Algorithm::EdDSA);
        let server = JwksServer::start(&json!({}));
        server.answer_with(Some(answer.to_owned()));
        let store = trust_url(&folder, &server);
        assert_eq!(store.owner("default").get(SETTINGS).status, 200);
        let answer = ask(&store, key.sign(&claims(&json!({}))));
        refused(&answer, 503, "could not be read yet; try again");
        assert_eq!(answer.header("retry-after"), "1");
        let log = store.process.log();
        assert!(log.contains(reason), "{log}");
        assert!(store.process.terminate().success());
    }
}

#[test]
fn a_store_stops_at_once_while_its_issuer_keeps_silent() {
    let folder = Folder::with_default_tenant();
    let server = JwksServer::start(&json!({}));
    server.answer_with(None);
    let store = trust_url(&folder, &server);
    eventually("the URL is asked", || (server.requests() == 1).then_some(()));
    let start = Instant::now();
    assert!(store.process.terminate().success());
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn a_server_that_no_authority_vouches_for_gives_no_keys() {
    let folder = Folder::with_default_tenant();
    let key = KeyPair::new("1", Algorithm::EdDSA);
    let (server, other) = (JwksServer::start(&jwk_set(&[&key])), JwksServer::start(&json!({})));
    let mut command = folder.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("DCR_TOKEN_ISSUER", ISSUER).env("DCR_TOKEN_JWKS", server.url()).env("SSL_CERT_FILE", &other.ca);
    let store = folder.serve_as(&mut command);
    refused(&ask(&store, key.sign(&claims(&json!({})))), 503, "could not be read yet");
}

#[test]
fn only_keys_that_check_signatures_of_the_pinned_algorithms_are_used() {
    let rsa = KeyPair::new("r", Algorithm::RS256).public();
    let short = output_of_openssl(&["genrsa", "-traditional", "1024"]);
    let ed = KeyPair::new("d", Algorithm::EdDSA).public();
    let changed = |jwk: &Value, member: &str, value: Value| {
        let mut jwk = jwk.clone();
        jwk[member] = value;
        jwk
    };
    let number = |key: Value| jwks::parse(json!({"keys": [key]}).to_string().as_bytes()).map_or(0, |keys| keys.len());
    assert_eq!((number(rsa.clone()), number(ed.clone())), (1, 1));
    for useless in [
        json!({"kty": "oct", "k": "c2VjcmV0", "kid": "s", "alg": "HS256"}),
        json!({"kty": "RSA"}),
        json!("text"),
        short,
        changed(&rsa, "use", json!("enc")),
        changed(&rsa, "key_ops", json!(["encrypt"])),
        changed(&rsa, "alg", json!("RS512")),
        changed(&rsa, "alg", json!("HS256")),
        changed(&ed, "x", json!("AAAA")),
        changed(&ed, "crv", json!("X25519")),
    ] {
        assert_eq!(number(useless.clone()), 0, "{useless}");
    }
    let mixed = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}, rsa, rsa, ed]});
    assert_eq!(jwks::parse(mixed.to_string().as_bytes()).unwrap().len(), 2);
    assert!(jwks::parse(b"{\"keys\": []}").unwrap().is_empty() && jwks::parse(b"[]").is_err());
}

/// The public JWK of an RSA key that `openssl` makes.
fn output_of_openssl(arguments: &[&str]) -> Value {
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, pem::PemObject};
    let pem = crate::support::output_of(Command::new("openssl").args(arguments));
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let private = EncodingKey::from_rsa_der(key.secret_der());
    serde_json::to_value(jsonwebtoken::jwk::Jwk::from_encoding_key(&private, Algorithm::RS256).unwrap()).unwrap()
}

#[test]
fn an_issuer_that_cannot_be_used_is_named_before_the_store_starts() {
    let folder = Folder::with_default_tenant();
    let missing = folder.path().join("missing.json");
    fs::write(folder.path().join("text.json"), "text").unwrap();
    let text = folder.path().join("text.json");
    let serve = |arguments: &[&str]| folder.run(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat());
    for (arguments, code, said) in [
        (&["--token-issuer", ISSUER][..], 2, "--token-jwks"),
        (&["--token-jwks", "https://issuer.example/"], 2, "--token-issuer"),
        (&["--token-audience", "a"], 2, "--token-issuer"),
        (&["--token-issuer", "", "--token-jwks", "x"], 2, "--token-issuer"),
        (&["--token-issuer", ISSUER, "--token-jwks", "http://issuer.example/"], 2, "https URL or a file only"),
        (&["--token-issuer", ISSUER, "--token-jwks", "https://a:b@issuer.example/"], 2, "no user information"),
        (&["--token-issuer", ISSUER, "--token-jwks", missing.to_str().unwrap()], 1, "missing.json: No such file"),
        (&["--token-issuer", ISSUER, "--token-jwks", text.to_str().unwrap()], 1, "text.json: it is no JWK set"),
        (&["--token-issuer", "dcr-store", "--token-jwks", "https://issuer.example/"], 1, "the store's own tokens"),
    ] {
        let output = serve(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(said), "{error}");
    }
    assert!("https://issuer.example/jwks".parse::<Source>().is_ok());
}
