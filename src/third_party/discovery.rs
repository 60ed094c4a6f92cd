//! The authorization server's metadata (RFC 8414 §2, OpenID Connect Discovery 1.0 §3), completed with what the edge adds
//! to the server.
//!
//! Members, their order and the texts of their values stay as the server wrote them, save for those that are completed.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::registration;

/// Longest document, in bytes. Real ones have less than 16 KiB.
pub const MAX_DOCUMENT: usize = 256 * 1024;

const CODE_CHALLENGE_METHODS: &str = "code_challenge_methods_supported";
const TOKEN_ENDPOINT_AUTH_METHODS: &str = "token_endpoint_auth_methods_supported";
const REGISTRATION_ENDPOINT: &str = "registration_endpoint";

/// Endpoints for clients that use mutual TLS, which prefer them to those of the same name beside it (RFC 8705 §5).
const MTLS_ENDPOINT_ALIASES: &str = "mtls_endpoint_aliases";

/// The metadata once more, as claims that count more than the members beside them (RFC 8414 §2.1).
const SIGNED_METADATA: &str = "signed_metadata";

/// Why a document is not completed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// It is no JSON object, or one that two readers could read differently.
    NotAnObject,
    /// A member that has to be completed is no list of texts, or no object.
    Member(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject => f.write_str("it is no JSON object, or a member occurs twice in one"),
            Self::Member(name) => write!(f, "{name} has another type"),
        }
    }
}

/// The document with what the edge adds: PKCE with S256, the authentication methods of registered clients, and
/// `registration_endpoint`, which is nowhere if it is `None`. What is signed goes, since nobody here can sign anew.
///
/// # Errors
/// A document that cannot be completed is of no use: whoever passed it on would tell clients of another server.
pub fn complete(document: &[u8], registration_endpoint: Option<&str>) -> Result<Vec<u8>, Fault> {
    if !registration::is_unambiguous_object(document) {
        return Err(Fault::NotAnObject);
    }
    let mut members: Members = serde_json::from_slice(document).map_err(|_| Fault::NotAnObject)?;
    // `plain` and others stay: they are for clients that are no third party.
    members.add_to_list(CODE_CHALLENGE_METHODS, &[], &["S256"])?;
    // Without the member `client_secret_basic` is what there is (RFC 8414 §2).
    let methods = ["none", "client_secret_post"];
    members.add_to_list(TOKEN_ENDPOINT_AUTH_METHODS, &["client_secret_basic"], &methods)?;
    members.remove(SIGNED_METADATA);
    match registration_endpoint {
        Some(endpoint) => members.set(REGISTRATION_ENDPOINT, raw(&endpoint)?),
        None => members.remove(REGISTRATION_ENDPOINT),
    }
    if let Some(aliases) = members.get(MTLS_ENDPOINT_ALIASES) {
        let mut aliases: Members =
            serde_json::from_slice(aliases.get().as_bytes()).map_err(|_| Fault::Member(MTLS_ENDPOINT_ALIASES))?;
        if aliases.get(REGISTRATION_ENDPOINT).is_some() {
            aliases.remove(REGISTRATION_ENDPOINT);
            members.set(MTLS_ENDPOINT_ALIASES, raw(&aliases)?);
        }
    }
    serde_json::to_vec(&members).map_err(|_| Fault::NotAnObject)
}

fn raw(value: &impl Serialize) -> Result<Box<RawValue>, Fault> {
    to_raw_value(value).map_err(|_| Fault::NotAnObject)
}

/// The members of an object, in their order.
struct Members(Vec<(String, Box<RawValue>)>);

impl Members {
    /// The value of a member; `null` is none.
    fn get(&self, name: &str) -> Option<&RawValue> {
        let (_, value) = self.0.iter().find(|(n, _)| n == name)?;
        (value.get() != "null").then_some(value)
    }

    /// Sets a member in its place, or at the end.
    fn set(&mut self, name: &str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some(member) => member.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }

    /// Adds to a list of texts what it lacks. A list that is not there means `default`.
    fn add_to_list(&mut self, name: &'static str, default: &[&str], added: &[&str]) -> Result<(), Fault> {
        let mut list: Vec<String> = match self.get(name) {
            Some(value) => serde_json::from_slice(value.get().as_bytes()).map_err(|_| Fault::Member(name))?,
            None => default.iter().map(|entry| (*entry).to_owned()).collect(),
        };
        let missing: Vec<_> = added.iter().filter(|entry| !list.iter().any(|known| known == *entry)).collect();
        if !missing.is_empty() {
            list.extend(missing.into_iter().map(|entry| (*entry).to_owned()));
            self.set(name, raw(&list)?);
        }
        Ok(())
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder)
    }
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "https://a.test/oidc/register";

    fn completed(document: &str, registration_endpoint: Option<&str>) -> String {
        String::from_utf8(complete(document.as_bytes(), registration_endpoint).unwrap()).unwrap()
    }

    #[test]
    fn what_is_missing_is_added_and_nothing_is_lost_moved_or_written_otherwise() {
        let document = r#"{ "z":1.10, "code_challenge_methods_supported" : ["plain"], "\u0061":[1e2, "\u00e4\/"],
            "token_endpoint_auth_methods_supported":["private_key_jwt","none"], "registration_endpoint":"https://as/reg",
            "n":123456789012345678901234567890, "b":{"y":null , "x":[]}}"#;
        let expected = concat!(
            r#"{"z":1.10,"code_challenge_methods_supported":["plain","S256"],"a":[1e2, "\u00e4\/"],"#,
            r#""token_endpoint_auth_methods_supported":["private_key_jwt","none","client_secret_post"],"#,
            r#""registration_endpoint":"https://a.test/oidc/register","#,
            r#""n":123456789012345678901234567890,"b":{"y":null , "x":[]}}"#,
        );
        assert_eq!(completed(document, Some(OWN)), expected);
        assert_eq!(completed(expected, Some(OWN)), expected);
    }

    #[test]
    fn lists_that_are_complete_keep_their_text() {
        let document = r#"{"code_challenge_methods_supported":[ "S256"],"token_endpoint_auth_methods_supported":["client_secret_post" ,"none"]}"#;
        assert_eq!(completed(document, None), document);
    }

    #[test]
    fn client_secret_basic_is_written_where_the_server_means_it_by_silence() {
        for absent in ["{}", r#"{"token_endpoint_auth_methods_supported":null}"#] {
            let document: serde_json::Value = serde_json::from_str(&completed(absent, None)).unwrap();
            let methods = serde_json::json!(["client_secret_basic", "none", "client_secret_post"]);
            assert_eq!(document["token_endpoint_auth_methods_supported"], methods);
            assert_eq!(document["code_challenge_methods_supported"], serde_json::json!(["S256"]));
        }
    }

    #[test]
    fn the_servers_registration_endpoint_is_replaced_or_removed_also_for_mutual_tls() {
        let document = r#"{"issuer":"i","mtls_endpoint_aliases":{"token_endpoint":"t","registration_endpoint":"r","u":1.0},"registration_endpoint":"https://as/reg"}"#;
        for endpoint in [Some(OWN), None] {
            let text = completed(document, endpoint);
            assert!(text.contains(r#""mtls_endpoint_aliases":{"token_endpoint":"t","u":1.0}"#), "{text}");
            let document: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(document.get("registration_endpoint").and_then(|uri| uri.as_str()), endpoint);
        }
        assert!(completed("{}", Some(OWN)).ends_with(r#","registration_endpoint":"https://a.test/oidc/register"}"#));
        let escaped = r#"{"registration\u005fendpoint":"https://as/reg"}"#;
        assert!(!completed(escaped, None).contains("https://as/reg"));
        assert!(!completed(escaped, Some(OWN)).contains("https://as/reg"));
    }

    #[test]
    fn what_is_signed_goes_because_it_would_count_more() {
        assert!(!completed(r#"{"issuer":"i","signed_metadata":"a.b.c"}"#, Some(OWN)).contains("signed_metadata"));
    }

    #[test]
    fn a_document_that_readers_could_read_differently_is_not_completed() {
        for bad in [
            &b""[..],
            b"null",
            b"[]",
            b"{",
            b"{} {}",
            b"<html>",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":1,\"a\":1}",
            b"{\"registration_endpoint\":1,\"registration\\u005fendpoint\":2}",
            b"{\"a\":{\"b\":1,\"b\":2}}",
        ] {
            assert_eq!(complete(bad, Some(OWN)), Err(Fault::NotAnObject), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_member_of_another_type_is_not_completed() {
        for (member, name) in [
            (r#"{"code_challenge_methods_supported":"S256"}"#, CODE_CHALLENGE_METHODS),
            (r#"{"token_endpoint_auth_methods_supported":[1]}"#, TOKEN_ENDPOINT_AUTH_METHODS),
            (r#"{"mtls_endpoint_aliases":[]}"#, MTLS_ENDPOINT_ALIASES),
        ] {
            assert_eq!(complete(member.as_bytes(), None), Err(Fault::Member(name)));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(document in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = complete(&document, None);
        }
    }
}
