//! The members of RFC 7591 §2, and in the permissive mode others of IANA's registry: which are registered, in which form. A
//! member that is not named here is ignored, as RFC 7591 §2 allows. An empty one counts as not sent.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Rejection;
use super::json::{self, Json};
use super::redirect_uri::{self, Target};
use crate::tenant::{DcrEdge, InvalidRedirectUris, SecurityMode};

/// Most redirect URIs.
pub const MAX_REDIRECT_URIS: usize = 50;
const MAX_CONTACTS: usize = 10;
/// Most members with a language tag.
const MAX_TAGGED: usize = 50;
/// Longest language tag, in bytes. RFC 5646 §4.4.1: 35 hold every tag without extensions.
const MAX_TAG_BYTES: usize = 64;
/// Longest name, contact, software id and version, in characters.
pub const MAX_TEXT_CHARACTERS: usize = 255;
/// Longest scope, in bytes.
const MAX_SCOPE_BYTES: usize = 2_048;

const AUTHORIZATION_CODE: &str = "authorization_code";
const REFRESH_TOKEN: &str = "refresh_token";
const IMPLICIT: &str = "implicit";
const CLIENT_CREDENTIALS: &str = "client_credentials";
const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The grant types of the strict mode, in the order in which they are registered.
const STRICT_GRANTS: &[&str] = &[AUTHORIZATION_CODE, REFRESH_TOKEN];
/// Those of the permissive mode. `password` is in neither.
const PERMISSIVE_GRANTS: &[&str] = &[AUTHORIZATION_CODE, REFRESH_TOKEN, CLIENT_CREDENTIALS, IMPLICIT, DEVICE_CODE];

/// The response types, each with the grant types that it needs (RFC 7591 §2.1, and OpenID Connect
/// Dynamic Client Registration 1.0 §2). The first that fits is the default.
const RESPONSE_TYPES: &[(&str, &[&str])] = &[
    ("code", &[AUTHORIZATION_CODE]),
    ("token", &[IMPLICIT]),
    ("id_token", &[IMPLICIT]),
    ("id_token token", &[IMPLICIT]),
    ("code token", &[AUTHORIZATION_CODE, IMPLICIT]),
    ("code id_token", &[AUTHORIZATION_CODE, IMPLICIT]),
    ("code id_token token", &[AUTHORIZATION_CODE, IMPLICIT]),
];

/// What a member has for a value.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Text,
    Texts,
    /// Of a page, or of what a server may fetch.
    Uri,
    Uris,
    /// Where users are sent.
    RedirectUris,
    Flag,
    Number,
    Keys,
}

/// The members that are registered in the permissive mode only, of IANA's registry "OAuth Dynamic Client Registration
/// Metadata": those of OpenID Connect's registration and logouts, and flags of RFC 8705, 9101, 9126 and 9449.
///
/// Without effect here, and left out: `sector_identifier_uri`, which a server must fetch and compare before it believes it,
/// and what belongs to other grants and methods of authentication.
const PERMISSIVE_MEMBERS: &[(Kind, &str, &str)] = &[
    (
        Kind::Text,
        "must be a string",
        "id_token_signed_response_alg id_token_encrypted_response_alg id_token_encrypted_response_enc \
         userinfo_signed_response_alg userinfo_encrypted_response_alg userinfo_encrypted_response_enc \
         request_object_signing_alg request_object_encryption_alg request_object_encryption_enc subject_type",
    ),
    (Kind::Texts, MANY_STRINGS, "default_acr_values"),
    (Kind::Uri, "must be a string", "jwks_uri initiate_login_uri backchannel_logout_uri frontchannel_logout_uri"),
    (Kind::Uris, MANY_STRINGS, "request_uris"),
    (Kind::RedirectUris, MANY_STRINGS, "post_logout_redirect_uris"),
    (
        Kind::Flag,
        "must be true or false",
        "require_auth_time backchannel_logout_session_required frontchannel_logout_session_required \
         require_signed_request_object require_pushed_authorization_requests dpop_bound_access_tokens \
         tls_client_certificate_bound_access_tokens",
    ),
    (Kind::Number, "must be a whole number of 32 bits", "default_max_age"),
    (Kind::Keys, "must be a set of public keys (RFC 7517) with nothing else in it", "jwks"),
];

const MANY_STRINGS: &str = "must be an array of at most 50 strings";

/// The members of a public key (RFC 7517 §4, RFC 7518 §6). What makes a key private is not among them, nor `x5u`, an address.
const PUBLIC_KEY: &str = "kty use key_ops alg kid x5c x5t x5t#S256 crv x y n e";

/// Metadata that passed every check, as it is registered, stored and echoed.
///
/// It serialises to the registered members and nothing else, none of them `null` or empty (save for `redirect_uris` and
/// `response_types` of a permissive client that redirects nobody), and always in the same order; [`check`] reads what it
/// serialises to as an equal value.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ClientMetadata {
    redirect_uris: Vec<String>,
    token_endpoint_auth_method: AuthMethod,
    grant_types: Vec<&'static str>,
    response_types: Vec<&'static str>,
    application_type: ApplicationType,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contacts: Vec<String>,
    /// Members whose value is one text, by name, which may end in a language tag; and those of the permissive mode alone.
    #[serde(flatten)]
    others: BTreeMap<String, Json>,
    /// The mode that it was checked under.
    #[serde(skip)]
    mode: SecurityMode,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum AuthMethod {
    None,
    ClientSecretPost,
    ClientSecretBasic,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ApplicationType {
    Native,
    Web,
}

impl ClientMetadata {
    /// Whether the client gets a secret (RFC 6749 §2.1).
    pub fn is_confidential(&self) -> bool {
        self.token_endpoint_auth_method != AuthMethod::None
    }

    /// How it authenticates at the token endpoint (RFC 7591 §2).
    pub fn token_endpoint_auth_method(&self) -> &'static str {
        match self.token_endpoint_auth_method {
            AuthMethod::None => "none",
            AuthMethod::ClientSecretPost => "client_secret_post",
            AuthMethod::ClientSecretBasic => "client_secret_basic",
        }
    }

    /// Whether it acts on its own behalf only, so that no user is ever sent to it.
    pub fn is_without_users(&self) -> bool {
        self.grant_types.iter().all(|grant| [CLIENT_CREDENTIALS, REFRESH_TOKEN].contains(grant))
    }

    /// What the client calls itself.
    pub fn client_name(&self) -> Option<&str> {
        match self.others.get("client_name") {
            Some(Json::Text(name)) => Some(name),
            _ => None,
        }
    }

    /// Whether it is an application on the user's own device.
    pub fn is_native(&self) -> bool {
        self.application_type == ApplicationType::Native
    }

    /// The redirect URIs, each byte for byte as it was sent, without duplicates.
    pub fn redirect_uris(&self) -> &[String] {
        &self.redirect_uris
    }

    /// SHA-256 of the metadata in canonical form: two registrations of one public client have the same.
    ///
    /// Every registered member counts, with its default if it was not sent, byte for byte. The order of the members,
    /// the order and repetition of what is in their arrays, the whitespace of the JSON and around `client_name`, and
    /// members that are not registered do not count. The same metadata in another mode is another client's.
    ///
    /// # Errors
    /// Serialisation of this type does not fail; the error is `serde_json`'s, passed on because a hash of less than
    /// everything would fold different clients.
    pub fn fingerprint(&self) -> Result<[u8; 32], serde_json::Error> {
        let mut canonical = self.clone();
        for list in [&mut canonical.redirect_uris, &mut canonical.contacts] {
            list.sort_unstable();
            list.dedup();
        }
        let mut hash = Sha256::new();
        if self.mode == SecurityMode::Permissive {
            hash.update(self.mode.as_str());
        }
        hash.update(serde_json::to_vec(&canonical)?);
        Ok(hash.finalize().into())
    }
}

/// Checks a registration request's body against RFC 7591 and the tenant's mode and rules.
///
/// # Errors
/// The first rule that the body breaks, as RFC 7591 §3.2.2 reports it.
pub fn check(body: &[u8], mode: SecurityMode, rules: &DcrEdge) -> Result<ClientMetadata, Rejection> {
    let mut members = Members(json::members(body)?);
    if members.0.contains_key("software_statement") {
        return Err(Rejection::at("software_statement", None, "is not supported; register without it"));
    }
    let (redirect_uris, targets) = redirect_uris(&mut members, mode, rules)?;
    let token_endpoint_auth_method = auth_method(&mut members, mode)?;
    let grant_types = grant_types(&mut members, mode, token_endpoint_auth_method)?;
    if redirect_uris.is_empty() && redirects(&grant_types) {
        return Err(Rejection::at(REDIRECT_URIS, None, NUMBER_OF_REDIRECT_URIS));
    }
    Ok(ClientMetadata {
        redirect_uris,
        token_endpoint_auth_method,
        response_types: response_types(&mut members, mode, &grant_types)?,
        grant_types,
        application_type: application_type(&mut members, &targets)?,
        contacts: contacts(&mut members)?,
        others: others(members, mode, rules)?,
        mode,
    })
}

/// Checks one redirect URI as [`check`] does.
///
/// # Errors
/// The rule that it breaks.
pub fn check_redirect_uri(uri: &str, rules: &DcrEdge) -> Result<(), &'static str> {
    redirect_uri::check(uri, rules).map(|_| ())
}

/// The members that were sent and not looked at yet.
struct Members(BTreeMap<String, Json>);

impl Members {
    fn text(&mut self, member: &str) -> Result<Option<String>, Rejection> {
        match self.0.remove(member) {
            None => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text)),
            Some(_) => Err(Rejection::at(member, None, "must be a string")),
        }
    }

    /// The strings of an array; none if the member was not sent.
    fn list(&mut self, member: &str) -> Result<Vec<String>, Rejection> {
        let list = match self.0.remove(member) {
            None => Vec::new(),
            Some(Json::List(list)) => list,
            Some(_) => return Err(Rejection::at(member, None, "must be an array of strings")),
        };
        let text = |(index, value)| match value {
            Json::Text(text) => Ok(text),
            _ => Err(Rejection::at(member, Some(index), "must be a string")),
        };
        list.into_iter().enumerate().map(text).collect()
    }
}

const REDIRECT_URIS: &str = "redirect_uris";
const NUMBER_OF_REDIRECT_URIS: &str = "1 to 50 are required";

/// The URIs to which users are sent. Whether a client of the permissive mode needs some depends on its grant types.
fn redirect_uris(
    members: &mut Members,
    mode: SecurityMode,
    rules: &DcrEdge,
) -> Result<(Vec<String>, Vec<Target>), Rejection> {
    let sent = members.list(REDIRECT_URIS)?;
    if sent.len() > MAX_REDIRECT_URIS || (sent.is_empty() && mode == SecurityMode::Strict) {
        return Err(Rejection::at(REDIRECT_URIS, None, NUMBER_OF_REDIRECT_URIS));
    }
    let (mut uris, mut targets) = (Vec::new(), Vec::new());
    let mut refused = None;
    for (index, uri) in sent.into_iter().enumerate() {
        match redirect_uri::check(&uri, rules) {
            Ok(_) if uris.contains(&uri) => {}
            Ok(target) => {
                uris.push(uri);
                targets.push(target);
            }
            Err(rule) => {
                let rejection = Rejection::at(REDIRECT_URIS, Some(index), rule);
                match rules.invalid_redirect_uris {
                    InvalidRedirectUris::Reject => return Err(rejection),
                    InvalidRedirectUris::Skip => refused = refused.or(Some(rejection)),
                }
            }
        }
    }
    match refused {
        Some(rejection) if uris.is_empty() => Err(rejection),
        _ => Ok((uris, targets)),
    }
}

/// The method that was sent, or else the default: that of RFC 7591 §2 where it is allowed.
fn auth_method(members: &mut Members, mode: SecurityMode) -> Result<AuthMethod, Rejection> {
    const MEMBER: &str = "token_endpoint_auth_method";
    match (members.text(MEMBER)?.as_deref(), mode) {
        (None, SecurityMode::Strict) | (Some("client_secret_post"), _) => Ok(AuthMethod::ClientSecretPost),
        (None | Some("client_secret_basic"), SecurityMode::Permissive) => Ok(AuthMethod::ClientSecretBasic),
        (Some("none"), _) => Ok(AuthMethod::None),
        (Some(_), SecurityMode::Strict) => Err(Rejection::at(MEMBER, None, "must be none or client_secret_post")),
        (Some(_), SecurityMode::Permissive) => {
            Err(Rejection::at(MEMBER, None, "must be none, client_secret_post or client_secret_basic"))
        }
    }
}

/// Keeps the grant types that a client of the mode may have. Clients ask for all they know, so the others are no error.
fn grant_types(members: &mut Members, mode: SecurityMode, method: AuthMethod) -> Result<Vec<&'static str>, Rejection> {
    const MEMBER: &str = "grant_types";
    let sent = members.list(MEMBER)?;
    if sent.is_empty() {
        return Ok(vec![AUTHORIZATION_CODE]);
    }
    let (known, rule) = match mode {
        SecurityMode::Strict => {
            (STRICT_GRANTS, "must include authorization_code; beside it only refresh_token is registered")
        }
        SecurityMode::Permissive => (
            PERMISSIVE_GRANTS,
            "must include authorization_code, implicit, device_code or, with a secret, client_credentials",
        ),
    };
    let mut kept = Vec::new();
    for known in known {
        // RFC 6749 §4.4: only for confidential clients.
        let may_have = *known != CLIENT_CREDENTIALS || method != AuthMethod::None;
        if may_have && sent.iter().any(|sent| sent == known) {
            kept.push(*known);
        }
    }
    // Alone it is of no use.
    if kept.iter().all(|grant| *grant == REFRESH_TOKEN) { Err(Rejection::at(MEMBER, None, rule)) } else { Ok(kept) }
}

/// Whether users are sent to a client with these grant types.
fn redirects(grants: &[&str]) -> bool {
    grants.contains(&AUTHORIZATION_CODE) || grants.contains(&IMPLICIT)
}

/// Keeps the response types that belong to the grant types; of a client that redirects nobody: none.
fn response_types(members: &mut Members, mode: SecurityMode, grants: &[&str]) -> Result<Vec<&'static str>, Rejection> {
    const MEMBER: &str = "response_types";
    let sent = members.list(MEMBER)?;
    let mut kept = Vec::new();
    for (response_type, needed) in RESPONSE_TYPES {
        let belongs = needed.iter().all(|grant| grants.contains(grant));
        let is_wanted =
            if sent.is_empty() { kept.is_empty() } else { sent.iter().any(|sent| has_same_words(sent, response_type)) };
        if belongs && is_wanted {
            kept.push(*response_type);
        }
    }
    if kept.is_empty() && redirects(grants) {
        let rule = match mode {
            SecurityMode::Strict => "must include code; no other is registered",
            SecurityMode::Permissive => "must include one that belongs to the grant types",
        };
        return Err(Rejection::at(MEMBER, None, rule));
    }
    Ok(kept)
}

/// Whether two response types are one: the order of their words does not count (RFC 6749 §3.1.1). No word of `known` is in
/// it twice.
fn has_same_words(sent: &str, known: &str) -> bool {
    sent.len() == known.len() && known.split(' ').all(|word| is_one_of(sent, word))
}

/// Whether a name is one of some, with a space between two.
fn is_one_of(names: &str, name: &str) -> bool {
    names.split(' ').any(|one| one == name)
}

/// What was sent, or else what the redirect URIs show.
fn application_type(members: &mut Members, targets: &[Target]) -> Result<ApplicationType, Rejection> {
    const MEMBER: &str = "application_type";
    match members.text(MEMBER)?.as_deref() {
        Some("native") => Ok(ApplicationType::Native),
        Some("web") if targets.contains(&Target::PrivateUse) => {
            Err(Rejection::at(MEMBER, None, "web does not go with private-use redirect URIs; native does"))
        }
        Some("web") => Ok(ApplicationType::Web),
        Some(_) => Err(Rejection::at(MEMBER, None, "must be web or native")),
        None if targets.iter().all(|target| *target == Target::Https) => Ok(ApplicationType::Web),
        None => Ok(ApplicationType::Native),
    }
}

fn contacts(members: &mut Members) -> Result<Vec<String>, Rejection> {
    const MEMBER: &str = "contacts";
    let sent = members.list(MEMBER)?;
    let mut contacts = Vec::new();
    // Forms that were left empty send empty strings, which count as not sent.
    for (index, contact) in sent.into_iter().enumerate().filter(|(_, contact)| !contact.is_empty()) {
        check_text(&contact).map_err(|rule| Rejection::at(MEMBER, Some(index), rule))?;
        contacts.push(contact);
    }
    if contacts.len() > MAX_CONTACTS {
        return Err(Rejection::at(MEMBER, None, "must be at most 10"));
    }
    Ok(contacts)
}

/// Checks a text and gives the part of it that is registered, or the rule it breaks.
type TextRule = fn(&str) -> Result<&str, &'static str>;

/// The rule of a member whose value is one text, and whether it may have a language tag (RFC 7591 §2.2).
fn text_rule(member: &str) -> Option<(TextRule, bool)> {
    match member {
        "client_name" => Some((|text| check_text(text.trim()), true)),
        "client_uri" | "logo_uri" | "policy_uri" | "tos_uri" => Some((redirect_uri::check_page, true)),
        "scope" => Some((check_scope, false)),
        "software_id" | "software_version" => Some((check_text, false)),
        _ => None,
    }
}

fn others(members: Members, mode: SecurityMode, rules: &DcrEdge) -> Result<BTreeMap<String, Json>, Rejection> {
    let mut others = BTreeMap::<String, Json>::new();
    let mut tagged: usize = 0;
    for (name, value) in members.0 {
        let (member, tag) = name.split_once('#').map_or((name.as_str(), None), |(member, tag)| (member, Some(tag)));
        let Some((rule, _)) = text_rule(member).filter(|(_, may_be_tagged)| tag.is_none() || *may_be_tagged) else {
            let kind = PERMISSIVE_MEMBERS.iter().find(|(_, _, names)| is_one_of(names, &name));
            if let Some((kind, rule, _)) = kind.filter(|_| mode == SecurityMode::Permissive) {
                let checked = check_permissive(*kind, rule, &name, &value, rules);
                checked.map_err(|rule| Rejection::at(&name, None, rule))?;
                others.insert(name, value);
            }
            continue;
        };
        // The tag is the client's own text, so a description says only that there is one.
        let place = if tag.is_some() { format!("{member} with a language tag") } else { member.to_owned() };
        let broken = |rule| Rejection::at(&place, None, rule);
        if let Some(tag) = tag {
            tagged = tagged.saturating_add(1);
            if tagged > MAX_TAGGED {
                return Err(broken("there are more than 50 language-tagged members"));
            }
            if !is_language_tag(tag) {
                return Err(broken("the tag must be one of BCP 47, such as client_name#ja-Jpan-JP"));
            }
            if others.keys().any(|other| other.eq_ignore_ascii_case(&name)) {
                return Err(broken("one language occurs twice (case does not count)"));
            }
        }
        let Json::Text(text) = value else { return Err(broken("must be a string")) };
        let text = rule(&text).map_err(broken)?.to_owned();
        others.insert(name, Json::Text(text));
    }
    if others.contains_key("jwks") && others.contains_key("jwks_uri") {
        return Err(Rejection::at("jwks", None, "must not be sent together with jwks_uri"));
    }
    Ok(others)
}

/// Checks a member of the permissive mode alone; one of another type breaks `type_rule`.
fn check_permissive(
    kind: Kind,
    type_rule: &'static str,
    member: &str,
    value: &Json,
    rules: &DcrEdge,
) -> Result<(), &'static str> {
    let list = match value {
        Json::List(list) if list.len() <= MAX_REDIRECT_URIS => list,
        Json::Text(_) => std::slice::from_ref(value),
        _ => &[],
    };
    let is_of_kind = match kind {
        Kind::Text | Kind::Uri => matches!(value, Json::Text(_)),
        Kind::Texts | Kind::Uris | Kind::RedirectUris => matches!(value, Json::List(_)) && !list.is_empty(),
        Kind::Flag => matches!(value, Json::Bool(_)),
        Kind::Number => matches!(value, Json::Number(_)),
        Kind::Keys => is_public_key_set(value),
    };
    if !is_of_kind {
        return Err(type_rule);
    }
    for entry in list {
        let Json::Text(text) = entry else { return Err(type_rule) };
        match kind {
            Kind::Uri | Kind::Uris => _ = redirect_uri::check_page(text)?,
            Kind::RedirectUris => _ = redirect_uri::check(text, rules)?,
            // OpenID Connect Dynamic Client Registration 1.0 §2: only where no id token passes the browser.
            _ if text == "none" && member == "id_token_signed_response_alg" => return Err("none is not allowed"),
            _ => _ = check_text(text)?,
        }
    }
    Ok(())
}

fn is_public_key_set(value: &Json) -> bool {
    let Json::Object(set) = value else { return false };
    let Some(Json::List(keys)) = set.get("keys") else { return false };
    let is_text = |value: &Json| matches!(value, Json::Text(text) if check_readable(text).is_ok());
    let is_key = |key: &Json| match key {
        Json::Object(key) => key.iter().all(|(name, value)| {
            is_one_of(PUBLIC_KEY, name)
                && match value {
                    Json::List(list) => list.iter().all(is_text),
                    value => is_text(value),
                }
        }),
        _ => false,
    };
    set.len() == 1 && keys.iter().all(is_key)
}

/// The characters and lengths of RFC 5646 §2.1, not the registry behind them.
fn is_language_tag(tag: &str) -> bool {
    let is_subtag = |text: &str| (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    tag.len() <= MAX_TAG_BYTES
        && tag.starts_with(|first: char| first.is_ascii_alphabetic())
        && tag.split('-').all(is_subtag)
}

/// A name, contact, software id or version.
fn check_text(text: &str) -> Result<&str, &'static str> {
    if text.is_empty() || text.chars().nth(MAX_TEXT_CHARACTERS).is_some() {
        Err("must be 1 to 255 characters")
    } else {
        check_readable(text)
    }
}

/// A text that people read, perhaps on a consent page: nothing in it may hide, reverse or break what surrounds it.
///
/// # Errors
/// The rule that it breaks.
pub fn check_readable(text: &str) -> Result<&str, &'static str> {
    let misleads = |c: char| {
        c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.contains(misleads) {
        Err("control, line-break and text-direction characters are not allowed")
    } else if text.chars().all(is_invisible) {
        Err("must have a character that can be seen")
    } else {
        Ok(text)
    }
}

/// Whether a character shows nothing by itself: blanks and Unicode's default ignorable code points. Within a text some of
/// them are needed, by emoji and by scripts that join letters.
fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

/// RFC 6749 §3.3: tokens with one space between them.
fn check_scope(scope: &str) -> Result<&str, &'static str> {
    let is_token_byte = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    let is_token = |token: &str| !token.is_empty() && token.bytes().all(is_token_byte);
    if scope.len() > MAX_SCOPE_BYTES {
        Err("must be at most 2048 bytes")
    } else if !scope.split(' ').all(is_token) {
        Err("must be RFC 6749 scope tokens with one space between them")
    } else {
        Ok(scope)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ErrorCode;
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const URI: &str = "https://a.example/cb";

    fn check_with(members: &Value, rules: Value) -> Result<ClientMetadata, Rejection> {
        check(members.to_string().as_bytes(), SecurityMode::Strict, &serde_json::from_value(rules).unwrap())
    }

    /// What a body with one redirect URI and `members` is registered as.
    fn registered(members: Value) -> Result<Value, String> {
        let mut body = json!({"redirect_uris": [URI]});
        body.as_object_mut().unwrap().append(&mut members.as_object().unwrap().clone());
        match check_with(&body, json!({})) {
            Ok(metadata) => Ok(serde_json::to_value(metadata).unwrap()),
            Err(rejection) => {
                assert_eq!(rejection.error, ErrorCode::InvalidClientMetadata, "{}", rejection.description);
                Err(rejection.description)
            }
        }
    }

    fn redirect_error(redirect_uris: Value) -> String {
        let rejection = check_with(&json!({"redirect_uris": redirect_uris}), json!({})).unwrap_err();
        assert_eq!(rejection.error, ErrorCode::InvalidRedirectUri);
        rejection.description
    }

    #[test]
    fn the_least_registration_gets_the_defaults_of_the_standard() {
        assert_eq!(
            registered(json!({})).unwrap(),
            json!({
                "redirect_uris": [URI], "token_endpoint_auth_method": "client_secret_post",
                "grant_types": ["authorization_code"], "response_types": ["code"], "application_type": "web"
            })
        );
    }

    #[test]
    fn everything_registered_comes_back_as_it_was_sent() {
        let everything = json!({
            "redirect_uris": ["https://a.example/cb", "http://127.0.0.1:33418/", "cursor://a/cb"],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "application_type": "native",
            "client_name": "Bücher 📚",
            "client_name#ja-Jpan-JP": "本",
            "client_uri": "https://a.example/#about", "client_uri#de": "https://a.example/de",
            "logo_uri": "http://localhost:8080/logo.png", "logo_uri#de": "https://a.example/de.png",
            "policy_uri": "https://a.example/policy", "policy_uri#de": "https://a.example/de/policy",
            "tos_uri": "https://a.example/tos", "tos_uri#de": "https://a.example/de/tos",
            "contacts": ["ops@a.example", "+49 30 1234"],
            "scope": "openid offline_access read:a",
            "software_id": "4NRB1-0XZABZI9E6-5SM3R",
            "software_version": "1.0 (beta)"
        });
        assert_eq!(registered(everything.clone()).unwrap(), everything);
    }

    #[test]
    fn null_empty_strings_and_empty_arrays_count_as_not_sent() {
        for empty in [Value::Null, json!(""), json!([])] {
            let members: serde_json::Map<String, Value> = [
                "client_name",
                "client_name#de",
                "client_name#no tag",
                "token_endpoint_auth_method",
                "grant_types",
                "response_types",
                "application_type",
                "client_uri",
                "logo_uri",
                "policy_uri",
                "tos_uri",
                "contacts",
                "scope",
                "software_id",
                "software_version",
                "software_statement",
                "jwks",
            ]
            .into_iter()
            .map(|member| (member.to_owned(), empty.clone()))
            .collect();
            assert_eq!(registered(Value::Object(members)), registered(json!({})), "{empty}");
        }
    }

    #[test]
    fn empty_contacts_count_as_not_sent() {
        assert_eq!(registered(json!({"contacts": ["", "a", ""]})).unwrap()["contacts"], json!(["a"]));
        assert_eq!(registered(json!({"contacts": [""]})), registered(json!({})));
    }

    #[test]
    fn what_is_unknown_or_not_supported_is_ignored() {
        let ignored = json!({
            "jwks": {"keys": []}, "jwks_uri": "javascript:1", "sector_identifier_uri": 1, "request_uris": ["x"],
            "id_token_signed_response_alg": "none", "subject_type": "public", "default_max_age": 1e3,
            "post_logout_redirect_uris": ["x"], "client_id": "tpc_mine", "client_secret": "mine",
            "scope#de": 1, "software_id#de": 1, "redirect_uris#de": 1, "#": 1, "": 1, "CLIENT_NAME": 1
        });
        assert_eq!(registered(ignored), registered(json!({})));
    }

    #[test]
    fn a_member_that_breaks_its_rule_is_refused_by_name() {
        let text_rule = "must be 1 to 255 characters";
        let misleading = "control, line-break and text-direction characters are not allowed";
        let tag_rule = "client_name with a language tag: the tag must be one of BCP 47, such as client_name#ja-Jpan-JP";
        let scope_rule = "scope: must be RFC 6749 scope tokens with one space between them";
        let long = "a".repeat(256);
        for (members, description) in [
            (json!({"client_name": 1}), "client_name: must be a string".to_owned()),
            (json!({"client_name": {"a": 1}}), "client_name: must be a string".to_owned()),
            (json!({"client_name": " \t "}), format!("client_name: {text_rule}")),
            (json!({"client_name": long}), format!("client_name: {text_rule}")),
            (
                json!({"client_name": "\u{200b}\u{3164}"}),
                "client_name: must have a character that can be seen".to_owned(),
            ),
            (json!({"client_name": "a\u{0}b"}), format!("client_name: {misleading}")),
            (json!({"client_name": "a\nb"}), format!("client_name: {misleading}")),
            (json!({"client_name": "a\u{85}b"}), format!("client_name: {misleading}")),
            (json!({"client_name": "a\u{202e}b"}), format!("client_name: {misleading}")),
            (json!({"client_name": "\u{2066}b"}), format!("client_name: {misleading}")),
            (json!({"client_name": "a\u{2028}b"}), format!("client_name: {misleading}")),
            (json!({"client_name#de": 1}), "client_name with a language tag: must be a string".to_owned()),
            (json!({"client_name#de": "a\u{202e}"}), format!("client_name with a language tag: {misleading}")),
            (json!({"client_name#": "a"}), tag_rule.to_owned()),
            (json!({"client_name#de_DE": "a"}), tag_rule.to_owned()),
            (json!({"client_name#de-": "a"}), tag_rule.to_owned()),
            (json!({"client_name#de#at": "a"}), tag_rule.to_owned()),
            (json!({"client_name#1de": "a"}), tag_rule.to_owned()),
            (json!({"client_name#dé": "a"}), tag_rule.to_owned()),
            (json!({"client_name#abcdefghi": "a"}), tag_rule.to_owned()),
            (json!({"client_name#<script>": "a"}), tag_rule.to_owned()),
            (json!({format!("client_name#de{}", "-abcdefgh".repeat(7)): "a"}), tag_rule.to_owned()),
            (
                json!({"client_name#de": "a", "client_name#DE": "b"}),
                "client_name with a language tag: one language occurs twice (case does not count)".to_owned(),
            ),
            (
                json!({"token_endpoint_auth_method": "client_secret_basic"}),
                "token_endpoint_auth_method: must be none or client_secret_post".to_owned(),
            ),
            (
                json!({"token_endpoint_auth_method": "private_key_jwt"}),
                "token_endpoint_auth_method: must be none or client_secret_post".to_owned(),
            ),
            (
                json!({"token_endpoint_auth_method": ["none"]}),
                "token_endpoint_auth_method: must be a string".to_owned(),
            ),
            (json!({"grant_types": "authorization_code"}), "grant_types: must be an array of strings".to_owned()),
            (json!({"grant_types": ["authorization_code", null]}), "grant_types[1]: must be a string".to_owned()),
            (
                json!({"grant_types": ["refresh_token"]}),
                "grant_types: must include authorization_code; beside it only refresh_token is registered".to_owned(),
            ),
            (
                json!({"grant_types": ["client_credentials", "implicit", "password"]}),
                "grant_types: must include authorization_code; beside it only refresh_token is registered".to_owned(),
            ),
            (
                json!({"response_types": ["token", "code id_token"]}),
                "response_types: must include code; no other is registered".to_owned(),
            ),
            (json!({"response_types": [7]}), "response_types[0]: must be a string".to_owned()),
            (json!({"application_type": "browser"}), "application_type: must be web or native".to_owned()),
            (json!({"application_type": "Web"}), "application_type: must be web or native".to_owned()),
            (
                json!({"application_type": "web", "redirect_uris": ["cursor://a"]}),
                "application_type: web does not go with private-use redirect URIs; native does".to_owned(),
            ),
            (json!({"client_uri": "javascript:alert(1)"}), "client_uri: must be an https URI".to_owned()),
            (
                json!({"logo_uri": "http://a.example/"}),
                "logo_uri: http is allowed only for localhost, 127.0.0.0/8 and [::1]".to_owned(),
            ),
            (
                json!({"policy_uri": "https://u:p@a.example/"}),
                "policy_uri: user information (before @) is not allowed".to_owned(),
            ),
            (json!({"tos_uri": "/tos"}), "tos_uri: must be an absolute URI (RFC 3986)".to_owned()),
            (json!({"tos_uri": ["https://a.example/"]}), "tos_uri: must be a string".to_owned()),
            (json!({"tos_uri#de": "x:"}), "tos_uri with a language tag: must be an https URI".to_owned()),
            (
                json!({"client_uri": format!("https://a.example/{}", "a".repeat(2_048))}),
                "client_uri: must be at most 2048 bytes".to_owned(),
            ),
            (json!({"contacts": "ops@a.example"}), "contacts: must be an array of strings".to_owned()),
            (json!({"contacts": vec!["a"; 11]}), "contacts: must be at most 10".to_owned()),
            (json!({"contacts": ["a", 1]}), "contacts[1]: must be a string".to_owned()),
            (json!({"contacts": ["", long]}), format!("contacts[1]: {text_rule}")),
            (json!({"contacts": ["a\r\nb"]}), format!("contacts[0]: {misleading}")),
            (json!({"scope": "a  b"}), scope_rule.to_owned()),
            (json!({"scope": " a"}), scope_rule.to_owned()),
            (json!({"scope": "a\tb"}), scope_rule.to_owned()),
            (json!({"scope": "a\"b"}), scope_rule.to_owned()),
            (json!({"scope": "a\\b"}), scope_rule.to_owned()),
            (json!({"scope": "é"}), scope_rule.to_owned()),
            (json!({"scope": ["a"]}), "scope: must be a string".to_owned()),
            (json!({"scope": "a".repeat(2_049)}), "scope: must be at most 2048 bytes".to_owned()),
            (json!({"software_id": long}), format!("software_id: {text_rule}")),
            (json!({"software_version": "1\u{7f}"}), format!("software_version: {misleading}")),
            (json!({"software_version": 1.0}), "software_version: must be a string".to_owned()),
        ] {
            assert_eq!(registered(members.clone()), Err(description), "{members}");
        }
    }

    #[test]
    fn a_name_is_trimmed_and_counted_in_characters() {
        let name = |name: &str| registered(json!({"client_name": name})).unwrap()["client_name"].clone();
        assert_eq!(name("  My Client\n"), "My Client");
        assert_eq!(name(&"ü".repeat(255)), "ü".repeat(255));
        assert_eq!(name(&format!(" {} ", "📚".repeat(255))), "📚".repeat(255));
    }

    #[test]
    fn fifty_language_tags_are_kept_and_fifty_one_are_refused() {
        let tagged = |count: usize| (0..count).map(|n| (format!("client_name#de-x-{n}"), json!("A"))).collect();
        let count = registered(Value::Object(tagged(50))).unwrap().as_object().unwrap().len();
        assert_eq!(count, 50 + 5);
        assert!(registered(Value::Object(tagged(51))).unwrap_err().contains("more than 50 language-tagged members"));
    }

    #[test]
    fn grant_and_response_types_are_filtered_and_folded() {
        for (sent, kept) in [
            (json!(["authorization_code"]), json!(["authorization_code"])),
            (json!(["refresh_token", "authorization_code"]), json!(["authorization_code", "refresh_token"])),
            (json!(["authorization_code", "authorization_code"]), json!(["authorization_code"])),
            (
                json!([
                    "client_credentials",
                    "implicit",
                    "authorization_code",
                    "password",
                    "urn:ietf:params:oauth:grant-type:device_code",
                    "x"
                ]),
                json!(["authorization_code"]),
            ),
        ] {
            assert_eq!(registered(json!({"grant_types": sent})).unwrap()["grant_types"], kept);
        }
        for sent in [json!(["code"]), json!(["token", "code", "code id_token", "code"])] {
            assert_eq!(registered(json!({"response_types": sent})).unwrap()["response_types"], json!(["code"]));
        }
    }

    #[test]
    fn the_application_type_follows_the_redirect_uris_unless_it_is_sent() {
        for (uris, sent, kept) in [
            (json!(["https://a.example/"]), Value::Null, "web"),
            (json!(["https://localhost/"]), Value::Null, "web"),
            (json!(["http://localhost/"]), Value::Null, "native"),
            (json!(["cursor://a"]), Value::Null, "native"),
            (json!(["https://a.example/", "http://[::1]/", "com.a:/"]), Value::Null, "native"),
            (json!(["http://localhost/"]), json!("web"), "web"),
            (json!(["https://a.example/"]), json!("native"), "native"),
            (json!(["cursor://a"]), json!("native"), "native"),
        ] {
            let members = json!({"redirect_uris": uris, "application_type": sent});
            assert_eq!(registered(members.clone()).unwrap()["application_type"], kept, "{members}");
        }
    }

    #[test]
    fn a_software_statement_of_any_kind_is_refused_with_its_own_code() {
        for statement in [json!("a.b.c"), json!({"a": 1}), json!(1)] {
            let body = json!({"redirect_uris": [URI], "software_statement": statement});
            let rejection = check_with(&body, json!({})).unwrap_err();
            assert_eq!(rejection.error.as_str(), "invalid_software_statement");
            assert_eq!(rejection.description, "software_statement: is not supported; register without it");
        }
    }

    #[test]
    fn one_to_fifty_redirect_uris_are_required() {
        for none in [Value::Null, json!([]), json!("")] {
            assert_eq!(redirect_error(none), "redirect_uris: 1 to 50 are required");
        }
        assert_eq!(redirect_error(json!(vec![URI; 51])), "redirect_uris: 1 to 50 are required");
        assert!(check(b"{}", SecurityMode::Strict, &DcrEdge::default()).is_err());
        let fifty: Vec<String> = (0..50).map(|n| format!("https://a.example/{n}")).collect();
        assert_eq!(registered(json!({"redirect_uris": fifty})).unwrap()["redirect_uris"], json!(fifty));
    }

    #[test]
    fn a_wrong_redirect_uri_is_named_by_its_index() {
        assert_eq!(redirect_error(json!("https://a.example/")), "redirect_uris: must be an array of strings");
        assert_eq!(redirect_error(json!([URI, 1])), "redirect_uris[1]: must be a string");
        assert_eq!(redirect_error(json!([URI, null])), "redirect_uris[1]: must be a string");
        assert_eq!(redirect_error(json!([URI, ""])), "redirect_uris[1]: must be an absolute URI (RFC 3986)");
        assert_eq!(
            redirect_error(json!([URI, "cursor://a", "https://b/#x"])),
            "redirect_uris[2]: fragment is not allowed"
        );
    }

    #[test]
    fn duplicate_redirect_uris_are_folded_byte_for_byte() {
        let body = json!({"redirect_uris": [URI, "https://A.example/cb", URI, "http://localhost/"]});
        let metadata = check_with(&body, json!({})).unwrap();
        assert_eq!(metadata.redirect_uris(), [URI, "https://A.example/cb", "http://localhost/"]);
    }

    #[test]
    fn a_tenant_that_skips_wrong_redirect_uris_never_skips_all() {
        let skip = json!({"invalid_redirect_uris": "skip", "custom_schemes": []});
        let body = json!({"redirect_uris": ["cursor://a", URI, "https://b/#x"], "application_type": "web"});
        assert_eq!(check_with(&body, skip.clone()).unwrap().redirect_uris(), [URI]);
        let rejection =
            check_with(&json!({"redirect_uris": ["https://b/#x", "cursor://a"]}), skip.clone()).unwrap_err();
        assert_eq!(rejection.description, "redirect_uris[0]: fragment is not allowed");
        assert!(check_with(&json!({"redirect_uris": [URI, 1]}), skip).is_err());
    }

    #[test]
    fn a_client_is_confidential_unless_it_asks_for_no_authentication() {
        let confidential = |method: Value| {
            let body = json!({"redirect_uris": ["cursor://a"], "token_endpoint_auth_method": method});
            check_with(&body, json!({})).unwrap().is_confidential()
        };
        assert!(confidential(Value::Null));
        assert!(confidential(json!("client_secret_post")));
        assert!(!confidential(json!("none")));
    }

    /// What a registration in the permissive mode is registered as.
    fn permissive(body: Value) -> Result<Value, String> {
        check(body.to_string().as_bytes(), SecurityMode::Permissive, &DcrEdge::default())
            .map(|metadata| serde_json::to_value(metadata).unwrap())
            .map_err(|rejection| rejection.description)
    }

    #[test]
    fn in_the_permissive_mode_the_least_registration_gets_the_defaults_of_the_standard() {
        assert_eq!(
            permissive(json!({"redirect_uris": [URI]})).unwrap(),
            json!({
                "redirect_uris": [URI], "token_endpoint_auth_method": "client_secret_basic",
                "grant_types": ["authorization_code"], "response_types": ["code"], "application_type": "web"
            })
        );
    }

    #[test]
    fn in_the_permissive_mode_the_members_of_the_registry_are_kept_and_no_others() {
        let kept = json!({
            "redirect_uris": [URI], "token_endpoint_auth_method": "client_secret_post",
            "grant_types": ["authorization_code", "implicit"], "response_types": ["token", "code id_token"],
            "application_type": "web", "client_name": "A", "client_name#de": "B", "contacts": ["a"], "scope": "openid",
            "jwks_uri": "https://a.example/jwks", "initiate_login_uri": "https://a.example/login",
            "backchannel_logout_uri": "https://a.example/b", "frontchannel_logout_uri": "http://localhost:1/f",
            "default_max_age": 3600, "require_auth_time": true, "default_acr_values": ["1", "2"],
            "post_logout_redirect_uris": ["cursor://a"], "request_uris": ["https://a.example/r#hash"],
            "id_token_signed_response_alg": "RS256", "id_token_encrypted_response_alg": "RSA-OAEP",
            "id_token_encrypted_response_enc": "A128GCM", "userinfo_signed_response_alg": "none",
            "userinfo_encrypted_response_alg": "a", "userinfo_encrypted_response_enc": "b",
            "request_object_signing_alg": "ES256", "request_object_encryption_alg": "c",
            "request_object_encryption_enc": "d", "subject_type": "pairwise",
            "backchannel_logout_session_required": true, "frontchannel_logout_session_required": false,
            "require_signed_request_object": true, "require_pushed_authorization_requests": false,
            "dpop_bound_access_tokens": true, "tls_client_certificate_bound_access_tokens": true
        });
        let mut sent = kept.clone();
        let left_out = json!({
            "client_id": "mine", "client_secret": "mine", "client_id_issued_at": 1, "client_secret_expires_at": 1,
            "registration_access_token": "a", "registration_client_uri": "https://a.example/", "policy": {},
            "is_first_party": true, "third_party_security_mode": "strict", "tenant": "a", "client_metadata": {"a": "b"},
            "sector_identifier_uri": "https://a.example/", "tls_client_auth_subject_dn": "a", "x-own": {"a": [1.5]},
            "backchannel_client_notification_endpoint": "https://a.example/", "token_endpoint_auth_signing_alg": "a",
            "REDIRECT_URIS": ["javascript:1"], "Jwks_uri": 1, "jwks_uri ": 1, "request_uris subject_type": 1, "": 1,
            "jwks_uri#de": 1, "initiate_login_uri#de": "javascript:1", "scope#de": 1, "__proto__": {"policy": 1},
            "nothing": null, "none": []
        });
        sent.as_object_mut().unwrap().append(&mut left_out.as_object().unwrap().clone());
        assert_eq!(permissive(sent), Ok(kept.clone()));
        assert_eq!(permissive(kept.clone()), Ok(kept));
    }

    #[test]
    fn a_set_of_keys_has_public_keys_and_nothing_else() {
        let with = |jwks: Value| permissive(json!({"redirect_uris": [URI], "jwks": jwks}));
        let keys = json!({"keys": [
            {"kty": "EC", "crv": "P-256", "x": "a", "y": "b", "use": "sig", "alg": "ES256", "kid": "1"},
            {"kty": "RSA", "n": "a".repeat(700), "e": "AQAB", "key_ops": ["verify"], "x5c": ["a"], "x5t": "b"}
        ]});
        assert_eq!(with(keys.clone()).unwrap()["jwks"], keys);
        assert_eq!(with(json!({"keys": []})).unwrap()["jwks"], json!({"keys": []}));
        for bad in [
            json!("a"),
            json!([1]),
            json!({}),
            json!({"keys": {}}),
            json!({"keys": ["a"]}),
            json!({"keys": [], "x": 1}),
            json!({"keys": [{"kty": "EC", "d": "secret"}]}),
            json!({"keys": [{"kty": "oct", "k": "secret"}]}),
            json!({"keys": [{"kty": "RSA", "x5u": "https://10.0.0.1/"}]}),
            json!({"keys": [{"kty": 1}]}),
            json!({"keys": [{"kty": "EC", "x": null}]}),
            json!({"keys": [{"key_ops": [["a"]]}]}),
            json!({"keys": [{"kid": "a\u{202e}"}]}),
            json!({"keys": [{"__proto__": "a"}]}),
            json!({"keys": [{"x": {"constructor": {}}}]}),
        ] {
            let rule = "jwks: must be a set of public keys (RFC 7517) with nothing else in it";
            assert_eq!(with(bad.clone()), Err(rule.to_owned()), "{bad}");
        }
        let both = json!({"redirect_uris": [URI], "jwks": keys, "jwks_uri": "https://a.example/jwks"});
        assert_eq!(permissive(both), Err("jwks: must not be sent together with jwks_uri".to_owned()));
    }

    #[test]
    fn the_permissive_mode_has_most_grants_and_the_response_types_that_belong_to_them() {
        let device = "urn:ietf:params:oauth:grant-type:device_code";
        for (method, grants, sent, kept, response_types) in [
            ("none", json!(["implicit"]), json!([]), json!(["implicit"]), json!(["token"])),
            (
                "none",
                json!(["password", "authorization_code"]),
                json!([]),
                json!(["authorization_code"]),
                json!(["code"]),
            ),
            ("none", json!([device, "client_credentials"]), json!(["code"]), json!([device]), json!([])),
            ("client_secret_post", json!(["client_credentials"]), json!([]), json!(["client_credentials"]), json!([])),
            (
                "client_secret_basic",
                json!([device, "implicit", "client_credentials", "refresh_token", "authorization_code", "x"]),
                json!(["token id_token", "token code id_token", "none", "code", "code code", "token  code"]),
                json!(["authorization_code", "refresh_token", "client_credentials", "implicit", device]),
                json!(["code", "id_token token", "code id_token token"]),
            ),
            (
                "none",
                json!(["authorization_code"]),
                json!(["token", "code", "code token"]),
                json!(["authorization_code"]),
                json!(["code"]),
            ),
        ] {
            let registered = permissive(json!({
                "redirect_uris": [URI], "token_endpoint_auth_method": method, "grant_types": grants,
                "response_types": sent
            }))
            .unwrap();
            assert_eq!((&registered["grant_types"], &registered["response_types"]), (&kept, &response_types));
            assert_eq!(permissive(registered.clone()), Ok(registered));
        }
    }

    #[test]
    fn only_a_client_that_redirects_nobody_needs_no_redirect_uris() {
        for (grants, is_enough) in [
            (json!(["client_credentials"]), true),
            (json!(["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"]), true),
            (json!(["client_credentials", "implicit"]), false),
            (json!(["client_credentials", "authorization_code"]), false),
            (Value::Null, false),
        ] {
            let registered = permissive(json!({"grant_types": grants}));
            assert_eq!(registered.is_ok(), is_enough, "{grants}");
            match registered {
                Ok(registered) => assert_eq!(registered["redirect_uris"], json!([])),
                Err(description) => assert_eq!(description, "redirect_uris: 1 to 50 are required"),
            }
        }
        let wrong = json!({"grant_types": ["client_credentials"], "redirect_uris": ["https://b/#x"]});
        assert_eq!(permissive(wrong).unwrap_err(), "redirect_uris[0]: fragment is not allowed");
    }

    #[test]
    fn the_permissive_mode_has_bounds_too() {
        let misleading = "control, line-break and text-direction characters are not allowed";
        let many = "must be an array of at most 50 strings";
        let [jwks_uri, flag, number, text] = [
            "jwks_uri: http is allowed only for localhost, 127.0.0.0/8 and [::1]",
            "require_auth_time: must be true or false",
            "default_max_age: must be a whole number of 32 bits",
            "subject_type: must be a string",
        ];
        let grants =
            "grant_types: must include authorization_code, implicit, device_code or, with a secret, client_credentials";
        for (members, description) in [
            (
                json!({"client_name": "a\u{202e}"}),
                "client_name: control, line-break and text-direction characters are not allowed",
            ),
            (json!({"scope": "a  b"}), "scope: must be RFC 6749 scope tokens with one space between them"),
            (json!({"software_statement": "a.b.c"}), "software_statement: is not supported; register without it"),
            (
                json!({"token_endpoint_auth_method": "private_key_jwt"}),
                "token_endpoint_auth_method: must be none, client_secret_post or client_secret_basic",
            ),
            (json!({"grant_types": ["password"]}), grants),
            (json!({"grant_types": ["refresh_token"]}), grants),
            (json!({"grant_types": ["client_credentials"], "token_endpoint_auth_method": "none"}), grants),
            (json!({"response_types": ["token"]}), "response_types: must include one that belongs to the grant types"),
            (json!({"jwks_uri": "http://10.0.0.1/"}), jwks_uri),
            (json!({"jwks_uri": ["https://a.example/"]}), "jwks_uri: must be a string"),
            (json!({"initiate_login_uri": "javascript:1"}), "initiate_login_uri: must be an https URI"),
            (json!({"backchannel_logout_uri": 1}), "backchannel_logout_uri: must be a string"),
            (json!({"post_logout_redirect_uris": URI}), &format!("post_logout_redirect_uris: {many}")),
            (
                json!({"post_logout_redirect_uris": ["javascript:1"]}),
                "post_logout_redirect_uris: this scheme is never allowed",
            ),
            (
                json!({"post_logout_redirect_uris": ["https://a.example/#x"]}),
                "post_logout_redirect_uris: fragment is not allowed",
            ),
            (json!({"request_uris": ["cursor://a"]}), "request_uris: must be an https URI"),
            (json!({"request_uris": vec![URI; 51]}), &format!("request_uris: {many}")),
            (json!({"default_acr_values": ["a", 1]}), &format!("default_acr_values: {many}")),
            (json!({"default_acr_values": ["a\u{0}"]}), &format!("default_acr_values: {misleading}")),
            (json!({"default_acr_values": ["a".repeat(256)]}), "default_acr_values: must be 1 to 255 characters"),
            (json!({"default_max_age": 1.5}), number),
            (json!({"default_max_age": -1}), number),
            (json!({"default_max_age": 4_294_967_296_u64}), number),
            (json!({"default_max_age": "1"}), number),
            (json!({"require_auth_time": "true"}), flag),
            (json!({"require_auth_time": 1}), flag),
            (json!({"subject_type": {"a": 1}}), text),
            (json!({"subject_type": ["public"]}), text),
            (json!({"subject_type": "a\u{202e}"}), &format!("subject_type: {misleading}")),
            (json!({"id_token_signed_response_alg": "none"}), "id_token_signed_response_alg: none is not allowed"),
            (
                json!({"client_name#de_DE": "a"}),
                "client_name with a language tag: the tag must be one of BCP 47, such as client_name#ja-Jpan-JP",
            ),
        ] {
            let mut body = json!({"redirect_uris": [URI]});
            body.as_object_mut().unwrap().append(&mut members.as_object().unwrap().clone());
            assert_eq!(permissive(body), Err(description.to_owned()), "{members}");
        }
    }

    #[test]
    fn equal_metadata_in_another_mode_has_another_fingerprint() {
        let body = json!({"redirect_uris": [URI], "token_endpoint_auth_method": "none"}).to_string();
        let [strict, permissive] = [SecurityMode::Strict, SecurityMode::Permissive]
            .map(|mode| check(body.as_bytes(), mode, &DcrEdge::default()).unwrap());
        assert_eq!(serde_json::to_value(&strict).unwrap(), serde_json::to_value(&permissive).unwrap());
        assert_ne!(strict.fingerprint().unwrap(), permissive.fingerprint().unwrap());
    }

    #[test]
    fn the_fingerprint_tells_metadata_apart_and_not_its_notation() {
        let fingerprint = |body: &str| {
            check(body.as_bytes(), SecurityMode::Strict, &DcrEdge::default()).unwrap().fingerprint().unwrap()
        };
        let one = fingerprint(
            r#"{"redirect_uris":["https://a/1","https://a/2"],"client_name":"A","contacts":["a","b"],"grant_types":["authorization_code","refresh_token"]}"#,
        );
        for same in [
            r#"{"contacts":["b","a","b"],"client_name":" A ","grant_types":["refresh_token","authorization_code"],"redirect_uris":["https://a/2","https://a/1","https://a/2"]}"#,
            r#"{ "redirect_uris" : ["https:\/\/a\/1", "https://a/2"], "client_name": "\u0041", "contacts": ["a","b"], "response_types": ["code"], "application_type": "web", "grant_types": ["authorization_code","refresh_token","implicit"], "unknown": 1}"#,
        ] {
            assert_eq!(fingerprint(same), one, "{same}");
        }
        for other in [
            r#"{"redirect_uris":["https://a/1","https://a/2"],"client_name":"A","contacts":["a","b"]}"#,
            r#"{"redirect_uris":["https://a/1"],"client_name":"A","contacts":["a","b"],"grant_types":["authorization_code","refresh_token"]}"#,
            r#"{"redirect_uris":["https://a/1","https://a/2"],"client_name":"B","contacts":["a","b"],"grant_types":["authorization_code","refresh_token"]}"#,
            r#"{"redirect_uris":["https://a/1","https://a/2"],"client_name#de":"A","contacts":["a","b"],"grant_types":["authorization_code","refresh_token"]}"#,
        ] {
            assert_ne!(fingerprint(other), one, "{other}");
        }
    }

    #[test]
    fn a_description_is_ascii_and_has_nothing_of_the_client_in_it() {
        // RFC 7591 §3.2.2 wants ASCII; RFC 6749 §5.2 leaves out the two that would need an escape.
        let is_clean = |text: &str| {
            text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\') && !text.contains("MARK")
        };
        let marked = json!("MARK\u{0}");
        for body in [
            json!({"redirect_uris": ["MARK"]}),
            json!({"redirect_uris": ["https://MARK*"]}),
            json!({"redirect_uris": ["https://MARK:0"]}),
            json!({"redirect_uris": ["https://MARK..a"]}),
            json!({"redirect_uris": ["https://MARK@a"]}),
            json!({"redirect_uris": ["https://a/MARK/.."]}),
            json!({"redirect_uris": ["http://MARK"]}),
            json!({"redirect_uris": ["ms-MARK:a"]}),
            json!({"redirect_uris": ["MARK:"]}),
            json!({"redirect_uris": ["MARK://a"], "application_type": "web"}),
            json!({"redirect_uris": [URI], "client_name": marked}),
            json!({"redirect_uris": [URI], "client_name#MARK": marked}),
            json!({"redirect_uris": [URI], "client_name#MARK_": "a"}),
            json!({"redirect_uris": [URI], "logo_uri": marked}),
            json!({"redirect_uris": [URI], "contacts": [marked]}),
            json!({"redirect_uris": [URI], "scope": marked}),
            json!({"redirect_uris": [URI], "software_statement": marked}),
            json!({"redirect_uris": [URI], "token_endpoint_auth_method": marked}),
            json!({"redirect_uris": [URI], "grant_types": [marked]}),
            json!({"redirect_uris": [URI], "response_types": [marked]}),
            json!({"redirect_uris": [URI], "application_type": marked}),
            marked.clone(),
        ] {
            let description = check_with(&body, json!({})).unwrap_err().description;
            assert!(is_clean(&description), "{description}");
        }
        for body in ["{\"MARK\":1,\"MARK\":2}", "{\"MARK\" MARK", "MARK", "{\"a\":\"MARK\\x\"}"] {
            let description =
                check(body.as_bytes(), SecurityMode::Strict, &DcrEdge::default()).unwrap_err().description;
            assert!(is_clean(&description), "{description}");
        }
    }

    /// Bodies of which some are accepted and some are not.
    fn bodies() -> impl Strategy<Value = Value> {
        use proptest::collection::vec;
        use proptest::option::of;
        use proptest::sample::select;
        let uri = prop_oneof![
            3 => "(https://[a-z]{1,8}\\.example|http://localhost|com\\.[a-z]{1,4}:)(:[1-9][0-9]{0,3})?/[a-zA-Z0-9/%._~-]{0,12}",
            1 => any::<String>(),
        ];
        let text = prop_oneof!["[ a-zA-Zé\u{202e}]{0,20}", any::<String>()];
        let grants = select(vec!["authorization_code", "refresh_token", "implicit"]);
        let method = select(vec!["none", "client_secret_post", ""]);
        let tag = prop_oneof!["", "#[a-z]{1,9}(-[A-Z0-9]{1,9})?"];
        (vec(uri, 0..5), text.clone(), text.clone(), tag, of(vec(grants, 0..4)), of(method), vec(text, 0..3)).prop_map(
            |(uris, name, scope, tag, grants, method, contacts)| {
                json!({
                    "redirect_uris": uris, format!("client_name{tag}"): name, "scope": scope, "grant_types": grants,
                    "token_endpoint_auth_method": method, "contacts": contacts
                })
            },
        )
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in any::<Vec<u8>>()) {
            let _ = check(&body, SecurityMode::Strict, &DcrEdge::default());
        }

        #[test]
        fn no_value_in_any_member_makes_it_panic(
            member in proptest::sample::select(vec![
                "redirect_uris", "client_name", "client_name#de", "contacts", "scope", "jwks", "request_uris", "jwks_uri",
            ]),
            value in "[\\[\\]{}\",:0-9a\\\\u ]{0,30}",
        ) {
            let body = format!("{{\"redirect_uris\":[\"{URI}\"],\"{member}\":{value}}}");
            for mode in [SecurityMode::Strict, SecurityMode::Permissive] {
                let _ = check(body.as_bytes(), mode, &DcrEdge::default());
            }
        }

        #[test]
        fn what_is_accepted_comes_back_byte_for_byte_and_is_accepted_again_as_it_is(body in bodies()) {
            for rules in [json!({}), json!({"invalid_redirect_uris": "skip"})] {
                let Ok(metadata) = check_with(&body, rules.clone()) else { continue };
                for uri in metadata.redirect_uris() {
                    prop_assert!(body["redirect_uris"].as_array().unwrap().contains(&json!(uri)));
                }
                let sent = serde_json::to_value(&metadata).unwrap();
                prop_assert!(sent.as_object().unwrap().values().all(|v| *v != json!(null) && *v != json!("") && *v != json!([])));
                prop_assert_eq!(check_with(&sent, rules), Ok(metadata));
            }
        }
    }
}
