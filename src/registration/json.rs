//! The request body as JSON, more strictly than `serde_json` alone reads it.
//!
//! Two readers of one text must not see two registrations: a member that occurs twice is an error at any depth
//! (RFC 8259 §4 leaves open which one counts), and so is text after the object. Nesting is bounded.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::Rejection;

/// Most objects and arrays inside each other, the outermost counted.
const MAX_LEVELS: u32 = 32;

/// A JSON value, as much of it as registration looks at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(u32),
    /// A number that no member has: below 0, larger, or a fraction.
    OtherNumber,
    Text(String),
    List(Vec<Self>),
    Object(BTreeMap<String, Self>),
}

impl Json {
    /// Whether a member with this value counts as not sent: real clients write `null`, `""` and `[]` for that.
    fn is_absent(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Text(text) => text.is_empty(),
            Self::List(list) => list.is_empty(),
            Self::Object(_) | Self::Bool(_) | Self::Number(_) | Self::OtherNumber => false,
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // Neither is ever registered.
            Self::Null | Self::OtherNumber => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => serializer.serialize_u32(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(list) => serializer.collect_seq(list),
            Self::Object(members) => serializer.collect_map(members),
        }
    }
}

/// The members of a request body, without those that count as not sent.
pub(super) fn members(body: &[u8]) -> Result<BTreeMap<String, Json>, Rejection> {
    let refused = |rule: &str| Rejection::at("request body", None, rule);
    let text = std::str::from_utf8(body).map_err(|_| refused("must be UTF-8"))?;
    // Bytes, not text: the crate's one reader, which a second kind would double in the wasm.
    let mut deserializer = serde_json::Deserializer::from_slice(text.as_bytes());
    let value = Level(MAX_LEVELS)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        // Every text of `serde_json` that can come here is fixed, save for line and column.
        .map_err(|error| refused(&format!("must be valid JSON: {error}")))?;
    match value {
        Json::Object(mut members) => {
            members.retain(|_, value| !value.is_absent());
            Ok(members)
        }
        _ => Err(refused("must be a JSON object")),
    }
}

/// Reads a value that may still open this many levels.
#[derive(Clone, Copy)]
struct Level(u32);

impl Level {
    fn inner<E: Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("it is nested over 32 levels"))
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::OtherNumber)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(value.try_into().map_or(Json::OtherNumber, Json::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::OtherNumber)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json, A::Error> {
        let level = self.inner()?;
        let mut list = Vec::new();
        while let Some(value) = sequence.next_element_seed(level)? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let level = self.inner()?;
        let mut members = BTreeMap::new();
        while let Some(name) = map.next_key()? {
            match members.entry(name) {
                Entry::Vacant(place) => place.insert(map.next_value_seed(level)?),
                Entry::Occupied(_) => return Err(A::Error::custom("a member occurs twice in one object")),
            };
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(body: impl AsRef<[u8]>) -> String {
        let rejection = members(body.as_ref()).unwrap_err();
        assert_eq!(rejection.error, super::super::ErrorCode::InvalidClientMetadata);
        rejection.description
    }

    #[test]
    fn a_body_that_is_no_json_object_is_refused_and_the_text_says_why() {
        for (body, why) in [
            (&b""[..], "must be valid JSON: EOF"),
            (b"{", "must be valid JSON: EOF"),
            (b"redirect_uris=x", "must be valid JSON: expected value at line 1 column 1"),
            (b"{\"a\":1,}", "must be valid JSON: trailing comma"),
            (b"{'a':1}", "must be valid JSON: key must be a string"),
            (b"{\"a\":NaN}", "must be valid JSON: expected value"),
            (b"{} {}", "must be valid JSON: trailing characters"),
            (b"{}x", "must be valid JSON: trailing characters"),
            (b"{\"a\":\"\\ud800\"}", "must be valid JSON: unexpected end of hex escape"),
            (b"{\"a\":\"\n\"}", "must be valid JSON: control character"),
            (b"[]", "must be a JSON object"),
            (b"null", "must be a JSON object"),
            (b"\"secret\"", "must be a JSON object"),
            (b"\xef\xbb\xbf{}", "must be valid JSON: expected value"),
            (b"{\"a\":\"\xff\"}", "must be UTF-8"),
            (b"{\"a\":\"\xc0\xaf\"}", "must be UTF-8"),
            (b"{\"a\":\"\xed\xa0\x80\"}", "must be UTF-8"),
        ] {
            let error = error(body);
            assert!(error.starts_with(&format!("request body: {why}")), "{error}");
        }
    }

    #[test]
    fn a_member_that_occurs_twice_is_refused_at_any_depth_and_in_any_spelling() {
        for body in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"b":2,"a":3}}"#,
            r#"{"x":[{"a":null,"a":null}]}"#,
        ] {
            let error = error(body);
            assert!(error.contains("a member occurs twice in one object at line 1 column"), "{error}");
        }
        assert!(members(br#"{"a":{"b":1},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn thirty_two_levels_are_read_and_thirty_three_are_not() {
        let nested = |arrays: usize| format!("{{\"a\":{}1{}}}", "[".repeat(arrays), "]".repeat(arrays));
        assert!(members(nested(31).as_bytes()).is_ok());
        assert!(error(nested(32)).contains("it is nested over 32 levels"));
        assert!(error(nested(30_000)).contains("it is nested over 32 levels"));
        let objects = format!("{}1{}", "{\"a\":".repeat(33), "}".repeat(33));
        assert!(error(objects).contains("it is nested over 32 levels"));
    }

    #[test]
    fn null_and_empty_values_count_as_not_sent() {
        let members = members(br#"{"a":null,"b":"","c":[],"d":{},"e":0,"f":false," ":" "}"#).unwrap();
        assert_eq!(members.into_keys().collect::<Vec<_>>(), [" ", "d", "e", "f"]);
    }
}
