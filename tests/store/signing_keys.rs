//! The keys that sign tokens, and their rotation.

use std::time::{Duration, Instant};

use dcr_edge::store::token::{Claims, Error, Keys, Kind};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use crate::support::process::eventually;
use crate::support::store::{Caller, Folder};

const NOW: u64 = 1_700_000_000;

fn status(caller: &Caller) -> u16 {
    caller.get("/edge/v1/changes").status
}

#[test]
fn a_running_store_accepts_tokens_of_a_rotated_key_at_once_and_the_one_before_until_the_next() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let token = || store.anyone().with_token(folder.succeed(&["token", "--kind", "edge"]).trim());
    let first = token();
    assert_eq!(status(&first), 200);
    let said = folder.succeed(&["key", "rotate"]);
    assert_eq!(said.lines().count(), 2, "{said}");
    let second = token();
    assert_eq!((status(&second), status(&first)), (200, 200));
    let said = folder.succeed(&["key", "rotate"]);
    assert_eq!(said.lines().count(), 3, "{said}");
    // Enough for the pause between two looks.
    std::thread::sleep(Duration::from_millis(150));
    let third = token();
    assert_eq!((status(&third), status(&second), status(&first)), (200, 200, 401));
    assert!(first.get("/edge/v1/changes").text.contains("not in use, or no longer; get a new token"));
}

#[test]
fn a_running_store_refuses_a_retired_key_within_seconds_though_nobody_has_a_new_token() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let edge = store.edge();
    assert_eq!(status(&edge), 200);
    folder.succeed(&["key", "rotate"]);
    let retired = Instant::now();
    folder.succeed(&["key", "rotate"]);
    eventually("the retired key is refused", || (status(&edge) == 401).then_some(()));
    assert!(retired.elapsed() < Duration::from_secs(5), "{:?}", retired.elapsed());
}

#[test]
fn a_rotation_says_which_tokens_work_until_when() {
    let folder = Folder::with_default_tenant();
    let kids = || -> Vec<String> {
        let list = folder.succeed(&["key", "list"]);
        list.lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(folder.succeed(&["key", "list"]), "KEY  USE  SINCE\n");
    folder.keys();
    let [a] = &kids()[..] else { panic!() };
    let said = folder.succeed(&["key", "rotate"]);
    let [b, before] = &kids()[..] else { panic!() };
    assert_eq!(before, a);
    let changed = |new, before| {
        format!(
            "new tokens are signed with the key {new}\n\
             tokens of the key {before} work until they end, or until the next rotation: make new ones before it, \
             for Envoy too\n"
        )
    };
    assert_eq!(said, changed(b, a));
    let said = folder.succeed(&["key", "rotate"]);
    let [c, before] = &kids()[..] else { panic!() };
    assert_eq!(before, b);
    let retired =
        format!("tokens of the key {a} work no longer, Envoy's neither: running stores refuse them within seconds\n");
    assert_eq!(said, changed(c, b) + &retired);
    let list = folder.succeed(&["key", "list"]);
    let uses: Vec<_> = list.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(uses, ["signs", "checks"]);
    assert!(folder.fail(&["key", "list", "--database-url", "sqlite://nowhere.db"]).contains("there is no database"));
}

#[test]
fn anyone_may_read_the_public_keys_and_check_tokens_with_them() {
    let folder = Folder::with_default_tenant();
    let before = folder.keys();
    folder.succeed(&["key", "rotate"]);
    let store = folder.serve();
    let answer = store.anyone().get("/.well-known/jwks.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.header("cache-control"), "public, max-age=60");
    let keys = answer.json()["keys"].as_array().unwrap().clone();
    assert_eq!(keys.len(), 2);
    for key in &keys {
        let members: Vec<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x"]);
        assert_eq!([&key["kty"], &key["crv"], &key["alg"], &key["use"]], ["OKP", "Ed25519", "EdDSA", "sig"]);
    }
    let set: JwkSet = serde_json::from_value(answer.json()).unwrap();
    let mut rules = Validation::new(Algorithm::EdDSA);
    rules.set_audience(&["dcr-store/edge"]);
    let claims = Claims::edge(dcr_edge::store::unix_now(), 60);
    for (keys, position) in [(folder.keys(), 0), (before, 1)] {
        let token = keys.mint(&claims).unwrap();
        let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
        let jwk = set.find(&kid).unwrap();
        assert_eq!(jwk, &set.keys[position]);
        assert_eq!(jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256).unwrap(), kid);
        let key = DecodingKey::from_jwk(jwk).unwrap();
        assert_eq!(jsonwebtoken::decode::<Value>(&token, &key, &rules).unwrap().claims["kind"], json!("edge"));
    }
    assert_eq!(store.anyone().call("POST", "/.well-known/jwks.json", &[], None).status, 405);
}

#[test]
fn a_token_without_a_kid_is_tried_with_both_keys() {
    use ed25519_dalek::pkcs8::EncodePrivateKey;
    let keys = Keys::from_seeds(&[[8; 32], [7; 32]]).unwrap();
    for (seed, is_in_use) in [(7, true), (8, true), (9, false)] {
        let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).to_pkcs8_der().unwrap();
        let key = jsonwebtoken::EncodingKey::from_ed_der(key.as_bytes());
        let header = jsonwebtoken::Header::new(Algorithm::EdDSA);
        let token = jsonwebtoken::encode(&header, &Claims::edge(NOW, 60), &key).unwrap();
        match keys.check(&token, Kind::Edge, NOW) {
            Ok(_) => assert!(is_in_use),
            Err(error) => assert!(!is_in_use && matches!(error, Error::BadSignature), "{error}"),
        }
    }
}

#[test]
fn keys_that_were_replaced_are_not_remembered() {
    let keys = Keys::from_seeds(&[[7; 32]]).unwrap();
    let token = keys.mint(&Claims::edge(NOW, 60)).unwrap();
    assert!(keys.check(&token, Kind::Edge, NOW).is_ok());
    keys.replace(&[[8; 32], [7; 32]]).unwrap();
    assert!(keys.check(&token, Kind::Edge, NOW).is_ok());
    keys.replace(&[[9; 32], [8; 32]]).unwrap();
    assert!(matches!(keys.check(&token, Kind::Edge, NOW), Err(Error::UnknownKey)));
    assert!(keys.replace(&[]).is_err());
}
