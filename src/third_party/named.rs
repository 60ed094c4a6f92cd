//! Which clients a request names, in the most generous reading: a third party's client must not hide from the edge what
//! the server could find. Naming one too many only costs a look.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::media_type;

/// Most ids that are told apart. No honest request names more than two.
const MAX_IDS: usize = 8;

/// Most segments of a path that are told apart.
const MAX_SEGMENTS: usize = 16;

/// Longest text that can be an id, in bytes.
const MAX_ID: usize = 255;

/// Longest name of a parameter that is looked at, in bytes.
const MAX_NAME: usize = 512;

/// How often a name or a value is decoded.
const MAX_DECODINGS: usize = 3;

/// The parts of a request that can name a client.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Whether the segments of the path may be ids.
    pub is_named_by_path: bool,
    /// Path and query.
    pub path_and_query: &'a [u8],
    /// The values of all `authorization` headers.
    pub authorization: &'a [Vec<u8>],
    /// The values of all `content-type` headers.
    pub content_types: &'a [Vec<u8>],
    /// The body.
    pub body: &'a [u8],
}

/// The clients that a request names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NamedClients {
    /// The ids, each once.
    pub ids: Vec<String>,
    /// Whether something could not be read that may name others.
    pub uncertain: bool,
    /// Whether there are more ids than these: whoever is looked for may be among the others.
    pub too_many: bool,
    /// Whether there is something that names a client where nobody here can read it. Where an id is named besides, it has
    /// to be the same (RFC 7521 §4.2, RFC 9101 §5, RFC 9126 §4).
    is_indirect: bool,
    /// Most ids that are kept.
    room: usize,
}

/// The clients that a request names in its query, its body and its credentials.
pub fn named_clients(message: &Message) -> NamedClients {
    let mut named = NamedClients { room: MAX_IDS, ..NamedClients::default() };
    if let Some(query) = message.path_and_query.splitn(2, |byte| *byte == b'?').nth(1) {
        named.add_pairs(query);
    }
    for value in message.authorization {
        named.add_credentials(value);
        if value.contains(&b',') {
            // Two credentials, joined by a proxy.
            value.split(|byte| *byte == b',').for_each(|credentials| named.add_credentials(credentials));
        }
    }
    let types = || message.content_types.iter().map(Vec::as_slice);
    match message.body {
        [] => {}
        body if media_type::is_form(types()) => named.add_pairs(body),
        body if media_type::is_json_in_utf8(types()) => named.add_json(body),
        _ => named.uncertain = true,
    }
    named.uncertain |= named.is_indirect && named.ids.is_empty();
    if message.is_named_by_path {
        named.room = named.ids.len().saturating_add(MAX_SEGMENTS);
        let path = message.path_and_query.split(|byte| *byte == b'?').next().unwrap_or_default();
        path.split(|byte| matches!(byte, b'/' | b';')).for_each(|segment| named.add_encoded(segment));
    }
    named
}

impl NamedClients {
    /// Takes text for an id, as a server could that drops what no id has.
    fn add(&mut self, text: &str) {
        if (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return self.add_id(text.to_owned());
        }
        let id: String = text.chars().filter(char::is_ascii_graphic).take(MAX_ID.saturating_add(1)).collect();
        if id.len() > MAX_ID {
            // A server may cut it.
            self.uncertain = true;
        } else if !id.is_empty() {
            self.add_id(id);
        }
    }

    fn add_id(&mut self, id: String) {
        if self.ids.contains(&id) {
            return;
        }
        if self.ids.len() < self.room {
            self.ids.push(id);
        } else {
            self.too_many = true;
        }
    }

    /// Takes the value of a parameter for an id. Where there is more than an id in it, a server may cut, skip or decode it.
    fn add_value_of_id(&mut self, value: &[u8]) {
        let decoded = decoded(value);
        self.uncertain |= decoded.iter().any(|byte| !byte.is_ascii_graphic() || *byte == b'%');
        self.add_encoded(value);
    }

    /// Takes encoded text for an id, however often it has to be decoded.
    fn add_encoded(&mut self, text: &[u8]) {
        let is_encoded = text.iter().any(|byte| matches!(byte, b'%' | b'+'));
        if let Some(plain) = std::str::from_utf8(text).ok().filter(|_| !is_encoded) {
            return self.add(plain);
        }
        for reading in readings(text).into_iter().skip(1) {
            self.add(&reading);
        }
    }

    /// The parameters of a query or a form, separated by `&` or `;`.
    fn add_pairs(&mut self, encoded: &[u8]) {
        for pair in encoded.split(|byte| matches!(byte, b'&' | b';' | b'\n' | b'\r')) {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let (name, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
            // A server may drop or cut what makes it so long.
            self.uncertain |= name.len() > MAX_NAME;
            // Most names are none of these in any reading, and cost no allocation.
            let Some(kind) = Kind::of(name) else { continue };
            if kind == Kind::ClientId {
                self.add_value_of_id(value);
            } else if let Some(value) = readings(value).get(1) {
                self.add_value(kind, value);
            }
        }
    }

    /// A value that a parameter, a member or a header has.
    fn add_value(&mut self, kind: Kind, value: &str) {
        let members: &[&str] = match kind {
            Kind::ClientId => return self.add(value),
            Kind::RequestUri => return self.is_indirect = true,
            Kind::Assertion => &["sub", "iss", "client_id"],
            Kind::RequestObject => &["client_id", "iss"],
            Kind::IdToken => &["azp", "aud"],
            Kind::AccessToken => &["azp", "client_id", "cid"],
        };
        let Some(claims) = claims(value) else {
            // A token that is opaque names nobody to anybody but the server.
            self.is_indirect |= matches!(kind, Kind::Assertion | Kind::RequestObject);
            return;
        };
        for value in members.iter().filter_map(|member| claims.get(*member)) {
            match value {
                Value::String(text) => self.add(text),
                Value::Array(texts) => texts.iter().filter_map(Value::as_str).for_each(|text| self.add(text)),
                _ => {}
            }
        }
        if kind == Kind::AccessToken
            && let Some(id) = claims.get("sub").and_then(Value::as_str).and_then(|sub| sub.strip_suffix("@clients"))
        {
            // A client's token on its own behalf, in the hosted product's form.
            self.add(id);
        }
    }

    fn add_credentials(&mut self, credentials: &[u8]) {
        let text = String::from_utf8_lossy(credentials);
        let Some((scheme, value)) = text.trim().split_once(|c: char| c.is_ascii_whitespace()) else { return };
        if scheme.eq_ignore_ascii_case("basic") {
            let decoded = BASE64.decode(in_base64(value));
            let user = decoded.ok().map(|pair| pair.split(|byte| *byte == b':').next().unwrap_or_default().to_vec());
            match user {
                Some(user) => {
                    self.add(&String::from_utf8_lossy(&user));
                    // Encoded as in a form (RFC 6749 §2.3.1).
                    self.add_encoded(&user);
                }
                None => self.uncertain = true,
            }
        } else if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("dpop") {
            self.add_value(Kind::AccessToken, value);
        }
    }

    fn add_json(&mut self, body: &[u8]) {
        let Ok(Members(members)) = serde_json::from_slice(body) else {
            self.uncertain = true;
            return;
        };
        for (name, value) in members {
            let Some(kind) = Kind::of(name.as_bytes()) else { continue };
            match value {
                Value::String(text) => self.add_value(kind, &text),
                Value::Null => {}
                // A list or an object, of which a server may take the first, or a number.
                _ => self.uncertain = true,
            }
        }
    }
}

/// What a parameter, a member or a credential has to do with a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// It is the client's id.
    ClientId,
    /// It proves who the client is (RFC 7521 §4.2).
    Assertion,
    /// It has parameters in it (RFC 9101).
    RequestObject,
    /// It leads to parameters (RFC 9101 §5.2, RFC 9126).
    RequestUri,
    /// It was issued to the client (OpenID Connect Core §2).
    IdToken,
    /// It was issued to the client (RFC 9068).
    AccessToken,
}

impl Kind {
    const ALL: [(&str, Self); 6] = [
        ("clientid", Self::ClientId),
        ("clientassertion", Self::Assertion),
        ("request", Self::RequestObject),
        ("requesturi", Self::RequestUri),
        ("idtokenhint", Self::IdToken),
        ("accesstoken", Self::AccessToken),
    ];

    /// That of a name of which only the letters count.
    fn of_letters(name: &[u8]) -> Option<Self> {
        const LONGEST: usize = 16;
        let mut letters = [0; LONGEST];
        let mut places = letters.iter_mut();
        for byte in name.iter().filter(|byte| byte.is_ascii_alphabetic()) {
            *places.next()? = byte.to_ascii_lowercase();
        }
        let free = places.len();
        let letters = letters.get(..LONGEST.saturating_sub(free))?;
        Self::ALL.into_iter().find(|(known, _)| known.as_bytes() == letters).map(|(_, kind)| kind)
    }

    /// That of a name, as a server could read it that minds no case, takes a dot or a blank for an underscore, cuts a
    /// name at a bracket or a NUL, or decodes more than once.
    fn of(name: &[u8]) -> Option<Self> {
        let name = name.get(..MAX_NAME).unwrap_or(name);
        let kind = |reading: &[u8]| {
            let cut = reading.split(|byte| matches!(byte, b'[' | 0)).next().unwrap_or_default();
            Self::of_letters(cut).or_else(|| if cut.len() < reading.len() { Self::of_letters(reading) } else { None })
        };
        kind(name).or_else(|| {
            let is_encoded = name.contains(&b'%');
            is_encoded.then(|| readings(name).iter().find_map(|reading| kind(reading.as_bytes()))).flatten()
        })
    }
}

/// The members of a JSON object, repeated ones too.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if Kind::of(name.as_bytes()).is_some() {
                        members.push((name, map.next_value()?));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// What is sent, and what it is after each decoding of `%XX` and `+`, as long as that changes something. The first
/// decoding is always there.
fn readings(text: &[u8]) -> Vec<String> {
    let mut readings = vec![String::from_utf8_lossy(text).into_owned()];
    let mut bytes = text.to_vec();
    for times in 0..MAX_DECODINGS {
        let decoded = decoded(&bytes);
        if decoded == bytes && times > 0 {
            break;
        }
        readings.push(String::from_utf8_lossy(&decoded).into_owned());
        bytes = decoded;
    }
    readings
}

/// Every `%XX` as its byte and every `+` as a blank; what is no such triple stays.
fn decoded(text: &[u8]) -> Vec<u8> {
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        decoded.push(match (first, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, behind @ ..]) => match hex(*high).zip(hex(*low)) {
                Some((high, low)) => {
                    rest = behind;
                    high << 4 | low
                }
                None => b'%',
            },
            (other, _) => *other,
        });
    }
    decoded
}

/// Base64 of both alphabets, once [`in_base64`] has made them one; the padding and the last bits do not matter.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

fn in_base64(text: &str) -> String {
    let standard = |character| match character {
        '-' => '+',
        '_' => '/',
        other => other,
    };
    text.trim().trim_end_matches('=').chars().map(standard).collect()
}

/// The claims of a JWT (RFC 7519), whose signature nobody checks here.
fn claims(token: &str) -> Option<Map<String, Value>> {
    let payload = token.trim().split('.').nth(1)?;
    serde_json::from_slice(&BASE64.decode(in_base64(payload)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const ID: &str = "tpc_0123456789abcdefghijklmnopqrstuv";
    const FORM: &str = "application/x-www-form-urlencoded";

    fn of(path: &str, authorization: &[&str], content_types: &[&str], body: &str) -> NamedClients {
        let bytes = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
        let (authorization, content_types) = (bytes(authorization), bytes(content_types));
        named_clients(&Message {
            is_named_by_path: path.starts_with("/samlp/"),
            path_and_query: path.as_bytes(),
            authorization: &authorization,
            content_types: &content_types,
            body: body.as_bytes(),
        })
    }

    fn in_query(query: &str) -> Vec<String> {
        of(&format!("/x?{query}"), &[], &[], "").ids
    }

    fn encode(text: &str) -> String {
        BASE64.encode(text)
    }

    fn jwt(claims: &Value) -> String {
        format!("e30.{}.c2ln", encode(&claims.to_string()).replace('+', "-").replace('/', "_"))
    }

    #[test]
    fn a_client_is_named_by_client_id_in_whatever_form_a_server_could_read_it() {
        for query in [
            "client_id=@",
            "a=b&client_id=@",
            "a=b;client_id=@",
            "client_id=first&client_id=@",
            "Client_ID=@",
            "client%5fid=@",
            "client%255fid=@",
            "client.id=@",
            "client+id=@",
            "+client_id=@",
            "client_id%00=@",
            "client_id%00x=@",
            "%00client_id=@",
            "client_id[]=@",
            "client_id%5B0%5D=@",
            "client_id=%20@%0a",
            "client_id=%74pc_0123456789abcdefghijklmnopqrstuv",
            "client_id=%2574pc_0123456789abcdefghijklmnopqrstuv",
            "client_id=@%00",
            "client_id=@%c2%a0",
        ] {
            assert!(in_query(&query.replace('@', ID)).contains(&ID.to_owned()), "{query}");
        }
        assert_eq!(in_query("state=x&redirect_uri=https%3A%2F%2Fa%2F%3Fclient_id%3Dx&nonce=client_id"), [""; 0]);
        assert_eq!(in_query("client_id=&client_id=%20"), [""; 0]);
        // So may what has more than an id in it, and what is too long.
        let long = [format!("client_id={}", "x".repeat(256)), format!("{}client_id=x", "+".repeat(MAX_NAME))];
        let odd = ["a%00b", "a%20b", "%c3%a4", "%ff", "%u0074pc_x", "%2574pc_x"].map(|id| format!("client_id={id}"));
        for query in long.iter().chain(&odd) {
            assert!(of(&format!("/x?{query}"), &[], &[], "").uncertain, "{query}");
        }
        assert_eq!(in_query(&format!("client_id={ID}&scope=a+b")), [ID]);
    }

    #[test]
    fn a_body_names_clients_by_its_type_and_one_of_another_type_is_uncertain() {
        let form = format!("a=b&client_id={ID}");
        for content_type in [FORM, "application/x-www-form-urlencoded;charset=UTF-8"] {
            let named = of("/x", &[], &[content_type], &form);
            assert_eq!((named.ids, named.uncertain), (vec![ID.to_owned()], false), "{content_type}");
        }
        for body in [r#"{"client_id":"@"}"#, r#"{"a":[1],"client_id":"x","client_id":"@"}"#, r#"{"Client_Id":"@"}"#] {
            let named = of("/x", &[], &["application/json"], &body.replace('@', ID));
            assert!(named.ids.contains(&ID.to_owned()) && !named.uncertain, "{body}");
        }
        for body in [r#"{"client_id":["@"]}"#, r#"[{"client_id":"@"}]"#, r#"{"client_id":"@""#, r#""@""#] {
            let named = of("/x", &[], &["application/json"], &body.replace('@', ID));
            assert!(named.uncertain, "{body}");
        }
        let multipart = format!("--x\r\ncontent-disposition: form-data; name=client_id\r\n\r\n{ID}\r\n--x--");
        for (content_types, body) in [
            (&["multipart/form-data; boundary=x"][..], multipart.as_str()),
            (&["application/x-www-form-urlencoded; charset=utf-16"], &form),
            (&["text/plain"], &form),
            (&[FORM, FORM], &form),
            (&[], &form),
            (&["text/json"], &json!({"client_id": ID}).to_string()),
            (&["application/json; charset=utf-7"], &json!({"client_id": ID}).to_string()),
        ] {
            let named = of("/x", &[], content_types, body);
            assert!(named.uncertain, "{content_types:?}");
        }
        assert_eq!(of("/x", &[], &["text/plain"], "").ids, [""; 0]);
    }

    #[test]
    fn a_client_is_named_by_its_credentials() {
        let basic = |user: &str| format!("Basic {}", encode(user));
        for authorization in [
            basic(&format!("{ID}:secret")),
            basic(&format!("{ID}:se:cret")).replace("Basic ", "bAsIc   "),
            basic("%74pc_0123456789abcdefghijklmnopqrstuv:x"),
            basic(ID).replace('=', ""),
            format!("Bearer {}", jwt(&json!({"azp": ID}))),
            format!("bearer {}", jwt(&json!({"client_id": ID, "aud": "x"}))),
            format!("DPoP {}", jwt(&json!({"cid": ID}))),
            format!("Bearer {}", jwt(&json!({"sub": format!("{ID}@clients")}))),
            format!("Bearer opaque, {}", basic(ID)),
        ] {
            assert!(of("/x", &[&authorization], &[], "").ids.contains(&ID.to_owned()), "{authorization}");
        }
        let opaque = of("/x", &["Bearer opaque"], &[], "");
        assert_eq!((opaque.ids.len(), opaque.uncertain), (0, false));
        // Some decoders skip what is none of base64.
        for odd in ["Basic \u{1}", "Basic dHBj,XzAx", "Basic dHBj XzAx", "basic dHBj*XzAx"] {
            assert!(of("/x?client_id=x", &[odd], &[], "").uncertain, "{odd}");
        }
        for (name, claims) in [
            ("client_assertion", json!({"sub": ID})),
            ("client_assertion", json!({"iss": ID})),
            ("request", json!({"client_id": ID})),
            ("id_token_hint", json!({"azp": ID})),
            ("id_token_hint", json!({"aud": [ID]})),
            ("access_token", json!({"azp": ID})),
        ] {
            assert_eq!(in_query(&format!("{name}={}", jwt(&claims))), [ID], "{name} {claims}");
        }
        // What cannot be read may name anybody, where nobody is named besides.
        for indirect in ["client_assertion=x", "request=a.b.c.d.e", "request_uri=urn:x"] {
            assert!(of(&format!("/x?{indirect}"), &[], &[], "").uncertain, "{indirect}");
            assert!(!of(&format!("/x?{indirect}&client_id=first"), &[], &[], "").uncertain, "{indirect}");
            assert!(of(&format!("/samlp/x?{indirect}"), &[], &[], "").uncertain, "{indirect}");
        }
    }

    #[test]
    fn a_path_may_name_a_client_in_each_segment() {
        for path in ["/samlp/@", "/samlp/@/metadata?x", "/samlp/x;@", "/samlp/%74pc_0123456789abcdefghijklmnopqrstuv"] {
            assert!(of(&path.replace('@', ID), &[], &[], "").ids.contains(&ID.to_owned()), "{path}");
        }
    }

    #[test]
    fn more_ids_than_anybody_needs_are_too_many_wherever_they_stand() {
        let query: Vec<_> = (0..9).map(|number| format!("client_id=c{number}")).collect();
        let named = of(&format!("/x?{}", query.join("&")), &[], &[], "");
        assert_eq!((named.ids.len(), named.too_many), (MAX_IDS, true));
        assert!(!of(&format!("/x?{}", query[..8].join("&")), &[], &[], "").too_many);
        let path = |segments: usize| (0..segments).map(|number| format!("/s{number}")).collect::<String>();
        assert!(of(&format!("/samlp{}", path(16)), &[], &[], "").too_many);
        assert!(!of(&format!("/samlp{}?{}", path(15), query[..8].join("&")), &[], &[], "").too_many);
        assert!(of(&format!("/x?{}", query[..8].join("&")), &[], &[FORM], "client_id=c9").too_many);
    }

    proptest! {
        #[test]
        fn whom_a_form_parser_finds_is_named(
            before in "[a-z=&%0-9;+]{0,12}", name in "(c|%63)lient(_|%5f|%5F)id", after in "([&;][a-z=&%0-9;]{0,12})?",
        ) {
            let query = format!("{before}&{name}={ID}{after}");
            for (key, value) in form_urlencoded::parse(query.as_bytes()) {
                if key == "client_id" && !value.contains(';') {
                    prop_assert!(in_query(&query).contains(&value.chars().filter(char::is_ascii_graphic).collect()));
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(path in any::<Vec<u8>>(), header in any::<Vec<u8>>(), body in any::<Vec<u8>>()) {
            for content_types in [&[][..], &[FORM.as_bytes().to_vec()], &[b"application/json".to_vec()]] {
                named_clients(&Message {
                    is_named_by_path: true,
                    path_and_query: &path,
                    authorization: &[header.clone(), [b"Basic ", header.as_slice()].concat()],
                    content_types,
                    body: &body,
                });
            }
        }
    }
}
