//! A client as its tenant's owner sees and changes it: by the Management API's names, under the rules of a registration.
//!
//! Pure. What is registered stays in the form of RFC 7591, whoever says it, so that there is one form to read.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::management::{Abilities, RedirectionPolicy, present};
use crate::registration::{self, ClientMetadata};
use crate::tenant::{DcrEdge, InvalidRedirectUris, SecurityMode};

/// Longest description, in characters.
const MAX_DESCRIPTION: usize = 140;

/// Most members of `client_metadata`.
const MAX_CLIENT_METADATA: usize = 10;

/// Longest name and value of one of them, in characters.
const MAX_CLIENT_METADATA_TEXT: usize = 255;

/// What the name of one may have beside letters and digits.
const CLIENT_METADATA_NAME: &str = ":,-+=_*?\"/\\()<>@\t ";

/// What the API's description says of text that people read: no character that breaks or turns a line.
const READABLE: &str = r"^[^\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]*$";

/// Members that the Management API shows and that nobody changes.
const FIXED: [&str; 6] = [
    "client_id",
    "tenant",
    "is_first_party",
    "third_party_security_mode",
    "token_endpoint_auth_method",
    "registered_metadata",
];

/// What kind of application a client is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AppType {
    /// On the user's own device.
    Native,
    /// On a web server.
    RegularWeb,
    /// In a browser.
    Spa,
    /// Without a user.
    NonInteractive,
}

impl AppType {
    /// Every type.
    pub const ALL: [Self; 4] = [Self::Native, Self::RegularWeb, Self::Spa, Self::NonInteractive];

    /// The type of a client that registered itself, which says `web` or `native` only.
    pub fn registered(metadata: &ClientMetadata) -> Self {
        if metadata.is_without_users() {
            Self::NonInteractive
        } else if metadata.is_native() {
            Self::Native
        } else {
            Self::RegularWeb
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::RegularWeb => "regular_web",
            Self::Spa => "spa",
            Self::NonInteractive => "non_interactive",
        }
    }

    /// The type with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|app_type| app_type.as_str() == name)
    }

    fn application_type(self) -> &'static str {
        if self == Self::Native { "native" } else { "web" }
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AuthMethod {
    None,
    #[default]
    ClientSecretPost,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum GrantType {
    AuthorizationCode,
    RefreshToken,
    ClientCredentials,
    Implicit,
    #[serde(rename = "urn:ietf:params:oauth:grant-type:device_code")]
    DeviceCode,
}

/// What can be changed of a client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientData {
    /// The members of RFC 7591 as JSON. Beside what a registration may have, `grant_types` of a client of the strict mode
    /// may have `client_credentials`.
    pub metadata: String,
    /// What kind of application it is.
    pub app_type: AppType,
    /// What only the owner says.
    pub owner: OwnerData,
}

impl ClientData {
    /// What the client can do by its grant types; `None` if they cannot be read. In the strict mode one that registered
    /// itself never acts on its own behalf.
    pub fn abilities(&self, is_dynamic: bool, mode: SecurityMode) -> Option<Abilities> {
        let may_act = !is_dynamic || mode == SecurityMode::Permissive;
        let grants = Registered::read(&self.metadata)?.grant_types;
        let has = |name: &str| grants.iter().any(|grant| grant == name);
        Some(Abilities {
            has_users: grants.iter().any(|grant| grant != "client_credentials" && grant != "refresh_token"),
            acts_for_itself: may_act && has("client_credentials"),
            refreshes: has("refresh_token"),
        })
    }

    /// The client that another database had, with these registered members. They have to be in the form in which a
    /// registration or the owner's word is kept, under any tenant's rules. An error names the member and the rule.
    pub fn moved(
        members: Map<String, Value>,
        app_type: AppType,
        owner: OwnerData,
        is_dynamic: bool,
        mode: SecurityMode,
    ) -> Result<Self, String> {
        owner.check_description().map_err(|error| format!("owner.{error}"))?;
        owner.check_client_metadata().map_err(|error| format!("owner.{error}"))?;
        let of_metadata = |error: String| format!("metadata.{error}");
        let mut others = members.clone();
        let grants = others.remove("grant_types").unwrap_or_default();
        let grants: Vec<GrantType> =
            serde_json::from_value(grants).map_err(|error| format!("metadata.grant_types: {error}"))?;
        let method = members.get("token_endpoint_auth_method").and_then(Value::as_str);
        let is_confidential = method != Some("none");
        match mode {
            SecurityMode::Strict => check_strict_grants(&grants, is_confidential, !is_dynamic),
            SecurityMode::Permissive => check_permissive_grants(&grants, is_confidential),
        }
        .map_err(of_metadata)?;
        let (metadata, _) = registered_as(mode, others, &grants).map_err(of_metadata)?;
        let kept: Map<String, Value> = serde_json::from_str(&metadata).map_err(|_| unreadable())?;
        let all = members.keys().chain(kept.keys());
        if let Some(member) = all.into_iter().find(|member| members.get(*member) != kept.get(*member)) {
            return Err(format!("metadata.{member}: is not in the form in which it is registered"));
        }
        Ok(Self { metadata, app_type, owner })
    }
}

/// What only the tenant's owner says of a client.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OwnerData {
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Texts by name, which nobody here reads.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub client_metadata: BTreeMap<String, String>,
    /// Where errors go.
    pub redirection_policy: RedirectionPolicy,
}

impl OwnerData {
    fn check_description(&self) -> Result<(), String> {
        let Some(description) = &self.description else { return Ok(()) };
        if is_longer(description, MAX_DESCRIPTION) {
            return Err(format!("description: expected {MAX_DESCRIPTION} characters at most"));
        }
        registration::check_readable(description).map_err(|rule| format!("description: {rule}"))?;
        Ok(())
    }

    fn check_client_metadata(&self) -> Result<(), String> {
        if self.client_metadata.len() > MAX_CLIENT_METADATA {
            return Err(format!("client_metadata: expected {MAX_CLIENT_METADATA} members at most"));
        }
        let is_name = |name: &str| {
            !name.is_empty()
                && !is_longer(name, MAX_CLIENT_METADATA_TEXT)
                && name.chars().all(|c| c.is_ascii_alphanumeric() || CLIENT_METADATA_NAME.contains(c))
        };
        for (name, value) in &self.client_metadata {
            if !is_name(name) {
                return Err(format!(
                    "client_metadata: expected names of 1 to {MAX_CLIENT_METADATA_TEXT} ASCII letters, digits, tabs, \
                     spaces and :,-+=_*?\"/\\()<>@"
                ));
            }
            if is_longer(value, MAX_CLIENT_METADATA_TEXT) {
                return Err(format!("client_metadata.{name}: expected {MAX_CLIENT_METADATA_TEXT} characters at most"));
            }
        }
        Ok(())
    }
}

fn is_longer(text: &str, most: usize) -> bool {
    text.chars().nth(most).is_some()
}

/// Adds to the schema of `client_metadata` what [`OwnerData`] checks of it.
fn limited_client_metadata(schema: &mut schemars::Schema) {
    let text = json!({"type": "string", "maxLength": MAX_CLIENT_METADATA_TEXT});
    // These have a meaning within brackets.
    let escaped = CLIENT_METADATA_NAME.replace('\\', r"\\").replace('-', r"\-");
    let name = json!({
        "minLength": 1,
        "maxLength": MAX_CLIENT_METADATA_TEXT,
        "pattern": format!("^[0-9A-Za-z{escaped}]*$")
    });
    schema.insert("maxProperties".to_owned(), MAX_CLIENT_METADATA.into());
    schema.insert("propertyNames".to_owned(), name);
    schema.insert("additionalProperties".to_owned(), text);
}

/// A client that the tenant's owner makes. It is a third party's like all others, and may be told so.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientRequest {
    /// What people call it.
    #[schemars(length(min = 1, max = registration::MAX_TEXT_CHARACTERS), regex(pattern = READABLE))]
    name: String,
    /// Where users come back to.
    #[schemars(length(max = registration::MAX_REDIRECT_URIS), inner(length(max = registration::MAX_URI_BYTES)))]
    callbacks: Option<Vec<String>>,
    /// What it is for.
    #[schemars(length(max = MAX_DESCRIPTION), regex(pattern = READABLE))]
    description: Option<String>,
    /// The address of its picture.
    #[schemars(length(max = registration::MAX_URI_BYTES))]
    logo_uri: Option<String>,
    /// What it may ask for tokens with; absent: `authorization_code`.
    #[schemars(length(min = 1))]
    grant_types: Option<Vec<GrantType>>,
    /// How it says who it is: `none` for a client without a secret.
    #[serde(default)]
    token_endpoint_auth_method: AuthMethod,
    /// What kind of application it is.
    app_type: Option<AppType>,
    /// Texts by name, which nobody here reads.
    #[schemars(transform = limited_client_metadata)]
    client_metadata: Option<BTreeMap<String, String>>,
    /// Where errors of authorization requests go.
    redirection_policy: Option<RedirectionPolicy>,
    /// Every client is a third party's.
    #[serde(default, rename = "is_first_party", deserialize_with = "no")]
    #[schemars(with = "bool", extend("const" = false))]
    _is_first_party: (),
    /// A client that the owner makes has all third-party controls.
    #[serde(default, rename = "third_party_security_mode", deserialize_with = "strict")]
    #[schemars(with = "String", extend("const" = "strict"))]
    _third_party_security_mode: (),
}

impl ClientRequest {
    /// Whether the client gets a secret.
    pub fn is_confidential(&self) -> bool {
        self.token_endpoint_auth_method == AuthMethod::ClientSecretPost
    }

    /// The client that is asked for, under the tenant's rules. An error names the member and the rule.
    pub fn checked(self, rules: &DcrEdge) -> Result<ClientData, String> {
        let grants = self.grant_types.clone().unwrap_or_else(|| vec![GrantType::AuthorizationCode]);
        check_strict_grants(&grants, self.is_confidential(), true)?;
        let mut members = Map::new();
        set_name(&mut members, self.name)?;
        set_or_remove(&mut members, "logo_uri", self.logo_uri);
        set_callbacks(&mut members, self.callbacks.unwrap_or_default());
        members.insert("token_endpoint_auth_method".to_owned(), value_of(self.token_endpoint_auth_method)?);
        if let Some(app_type) = self.app_type {
            members.insert("application_type".to_owned(), app_type.application_type().into());
        }
        let (metadata, registered_type) = registered(members, &grants, &rejecting(rules)).map_err(renamed)?;
        let owner = OwnerData {
            description: self.description.filter(|text| !text.is_empty()),
            client_metadata: self.client_metadata.unwrap_or_default(),
            redirection_policy: self.redirection_policy.unwrap_or_default(),
        };
        owner.check_description()?;
        owner.check_client_metadata()?;
        Ok(ClientData { metadata, app_type: self.app_type.unwrap_or(registered_type), owner })
    }
}

/// What the tenant's owner changes of a client. A member that is absent stays as it is; `null` and the empty text take
/// one away that a client need not have.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientPatch {
    /// What people call it.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "String", length(min = 1, max = registration::MAX_TEXT_CHARACTERS), regex(pattern = READABLE))]
    name: Option<String>,
    /// What it is for.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "Option<String>", length(max = MAX_DESCRIPTION), regex(pattern = READABLE))]
    description: Option<Option<String>>,
    /// The address of its picture.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "Option<String>", length(max = registration::MAX_URI_BYTES))]
    logo_uri: Option<Option<String>>,
    /// Where users come back to: all of them.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "Vec<String>", length(max = registration::MAX_REDIRECT_URIS), inner(length(max = registration::MAX_URI_BYTES)))]
    callbacks: Option<Vec<String>>,
    /// What it may ask for tokens with: all of them.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "Vec<GrantType>", length(min = 1))]
    grant_types: Option<Vec<GrantType>>,
    /// What kind of application it is.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "AppType")]
    app_type: Option<AppType>,
    /// Texts by name, which nobody here reads. They are replaced as a whole.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "Option<BTreeMap<String, String>>", transform = limited_client_metadata)]
    client_metadata: Option<Option<BTreeMap<String, String>>>,
    /// Where errors of authorization requests go.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "RedirectionPolicy")]
    redirection_policy: Option<RedirectionPolicy>,
}

impl ClientPatch {
    /// A member among these that cannot be changed.
    pub fn fixed(members: &Map<String, Value>) -> Option<&'static str> {
        FIXED.into_iter().find(|member| members.contains_key(*member))
    }

    /// The client after the change. An error names the member and the rule.
    ///
    /// It is checked by the rules of the mode that the client was made under. Callbacks that it did not have are checked
    /// under the tenant's rules; those that it has had since other rules were in force may stay.
    pub fn applied(
        self,
        client: &ClientData,
        is_dynamic: bool,
        mode: SecurityMode,
        rules: &DcrEdge,
    ) -> Result<ClientData, String> {
        let mut members: Map<String, Value> = serde_json::from_str(&client.metadata).map_err(|_| unreadable())?;
        let shown = Registered::read(&client.metadata).ok_or_else(unreadable)?;
        let stored_grants: Vec<GrantType> = members
            .remove("grant_types")
            .and_then(|grants| serde_json::from_value(grants).ok())
            .ok_or_else(unreadable)?;
        let before = members.clone();
        if let Some(grants) = &self.grant_types {
            match mode {
                SecurityMode::Strict => check_strict_grants(grants, shown.is_confidential(), !is_dynamic)?,
                SecurityMode::Permissive => check_permissive_grants(grants, shown.is_confidential())?,
            }
        }
        let grants = self.grant_types.unwrap_or_else(|| stored_grants.clone());
        if let Some(name) = self.name {
            forget_languages(&mut members, "client_name");
            set_name(&mut members, name)?;
        }
        if let Some(logo_uri) = self.logo_uri {
            forget_languages(&mut members, "logo_uri");
            set_or_remove(&mut members, "logo_uri", logo_uri);
        }
        if let Some(app_type) = self.app_type {
            members.insert("application_type".to_owned(), app_type.application_type().into());
        }
        if let Some(callbacks) = self.callbacks {
            check_new_callbacks(&callbacks, &shown.redirect_uris, rules)?;
            set_callbacks(&mut members, callbacks);
        }
        let mut changed = client.clone();
        if members != before || grants != stored_grants {
            let (metadata, registered_type) = registered_as(mode, members, &grants).map_err(renamed)?;
            changed.metadata = metadata;
            // What it was before says nothing of a client that gets users, or has none any more.
            if is_without_users(&grants) != is_without_users(&stored_grants) {
                changed.app_type = registered_type;
            }
        }
        changed.app_type = self.app_type.unwrap_or(changed.app_type);
        let owner = &mut changed.owner;
        if let Some(description) = self.description {
            owner.description = description.filter(|text| !text.is_empty());
            owner.check_description()?;
        }
        if let Some(client_metadata) = self.client_metadata {
            owner.client_metadata = client_metadata.unwrap_or_default();
            owner.check_client_metadata()?;
        }
        owner.redirection_policy = self.redirection_policy.unwrap_or(owner.redirection_policy);
        Ok(changed)
    }
}

/// What the Management API shows of a client's registered members.
#[derive(Debug, Deserialize)]
pub struct Registered {
    /// Its name.
    pub client_name: Option<String>,
    /// The address of its picture.
    pub logo_uri: Option<String>,
    /// Its callbacks. One that only acts on its own behalf has none.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    /// What it may ask for tokens with.
    pub grant_types: Vec<String>,
    /// How it says who it is.
    pub token_endpoint_auth_method: String,
}

impl Registered {
    /// Reads them from [`ClientData::metadata`].
    pub fn read(metadata: &str) -> Option<Self> {
        serde_json::from_str(metadata).ok()
    }

    /// Whether it has a secret.
    pub fn is_confidential(&self) -> bool {
        self.token_endpoint_auth_method != "none"
    }
}

/// The checker leaves out what a public client cannot have; the owner means what is in the list.
fn check_permissive_grants(grants: &[GrantType], is_confidential: bool) -> Result<(), String> {
    if grants.is_empty() {
        Err("grant_types: must not be empty".to_owned())
    } else if grants.contains(&GrantType::ClientCredentials) && !is_confidential {
        Err("grant_types: client_credentials needs a client with a secret".to_owned())
    } else {
        Ok(())
    }
}

fn check_strict_grants(grants: &[GrantType], is_confidential: bool, made_by_owner: bool) -> Result<(), String> {
    let has = |grant| grants.contains(&grant);
    let rule = if has(GrantType::Implicit) || has(GrantType::DeviceCode) {
        "implicit and device_code are only for clients that were registered in the permissive mode"
    } else if has(GrantType::ClientCredentials) && !made_by_owner {
        "client_credentials is not for a client that registered itself"
    } else if has(GrantType::ClientCredentials) && !is_confidential {
        "client_credentials needs a client with a secret: token_endpoint_auth_method client_secret_post"
    } else if !has(GrantType::AuthorizationCode) && !acts_for_itself(grants) {
        "must include authorization_code, unless client_credentials is the only one"
    } else {
        return Ok(());
    };
    Err(format!("grant_types: {rule}"))
}

/// Whether a client with these grants has no users, who would be redirected to it.
fn acts_for_itself(grants: &[GrantType]) -> bool {
    !grants.is_empty() && grants.iter().all(|grant| *grant == GrantType::ClientCredentials)
}

/// Whether nobody logs in with a client with these grants, as [`ClientMetadata::is_without_users`] has it.
fn is_without_users(grants: &[GrantType]) -> bool {
    grants.iter().all(|grant| matches!(grant, GrantType::ClientCredentials | GrantType::RefreshToken))
}

/// The members of a client of this mode as they are registered, as JSON, whatever the tenant's rules are by now, and the
/// type of application that they show.
fn registered_as(
    mode: SecurityMode,
    members: Map<String, Value>,
    grants: &[GrantType],
) -> Result<(String, AppType), String> {
    match mode {
        SecurityMode::Strict => registered(members, grants, &DcrEdge::default()),
        SecurityMode::Permissive => registered_permissively(members, grants),
    }
}

/// The members as they are registered, as JSON, and the type of application that they show.
fn registered(
    mut members: Map<String, Value>,
    grants: &[GrantType],
    rules: &DcrEdge,
) -> Result<(String, AppType), String> {
    if acts_for_itself(grants) {
        return Ok((registered_without_users(members)?, AppType::NonInteractive));
    }
    members.insert("grant_types".to_owned(), value_of(grants)?);
    let metadata = checked(&members, SecurityMode::Strict, rules)?;
    // The checker leaves out what nobody may register for himself.
    let json = if grants.contains(&GrantType::ClientCredentials) {
        let mut json = value_of(&metadata)?;
        if let Some(Value::Array(grants)) = json.get_mut("grant_types") {
            grants.push(value_of(GrantType::ClientCredentials)?);
        }
        json.to_string()
    } else {
        serde_json::to_string(&metadata).map_err(|_| unwritable())?
    };
    Ok((json, AppType::registered(&metadata)))
}

/// The members of a client that only acts on its own behalf: none of those that redirects need.
fn registered_without_users(mut members: Map<String, Value>) -> Result<String, String> {
    if members.contains_key("redirect_uris") {
        return Err("callbacks: a client whose only grant is client_credentials has none; send []".to_owned());
    }
    // The checker knows only clients with redirects, and what it says of the other members holds here, too.
    set_callbacks(&mut members, vec!["https://localhost/".to_owned()]);
    members.remove("application_type");
    let mut json = value_of(checked(&members, SecurityMode::Strict, &DcrEdge::default())?)?;
    if let Value::Object(members) = &mut json {
        for member in ["redirect_uris", "response_types", "application_type"] {
            members.remove(member);
        }
        members.insert("grant_types".to_owned(), value_of([GrantType::ClientCredentials])?);
    }
    Ok(json.to_string())
}

/// The members of a client of the permissive mode as they are registered, as JSON.
fn registered_permissively(mut members: Map<String, Value>, grants: &[GrantType]) -> Result<(String, AppType), String> {
    let (mode, rules) = (SecurityMode::Permissive, DcrEdge::default());
    members.insert("grant_types".to_owned(), value_of(grants)?);
    let metadata = checked(&members, mode, &rules).or_else(|_| {
        // The owner cannot say the response types, so those of other grants give way to the default.
        members.remove("response_types");
        checked(&members, mode, &rules)
    })?;
    let json = serde_json::to_string(&metadata).map_err(|_| unwritable())?;
    Ok((json, AppType::registered(&metadata)))
}

/// The members as a registration's checker has them.
fn checked(members: &Map<String, Value>, mode: SecurityMode, rules: &DcrEdge) -> Result<ClientMetadata, String> {
    let body = serde_json::to_vec(members).map_err(|_| unwritable())?;
    registration::check(&body, mode, rules).map_err(|rejection| rejection.description)
}

/// Checks those callbacks that are not among the `old` ones.
fn check_new_callbacks(callbacks: &[String], old: &[String], rules: &DcrEdge) -> Result<(), String> {
    for (index, callback) in callbacks.iter().enumerate().filter(|(_, callback)| !old.contains(callback)) {
        registration::check_redirect_uri(callback, rules).map_err(|rule| format!("callbacks[{index}]: {rule}"))?;
    }
    Ok(())
}

/// What breaks a rule is refused, even where a registration would leave it out: the owner means what is in the list.
fn rejecting(rules: &DcrEdge) -> DcrEdge {
    DcrEdge { invalid_redirect_uris: InvalidRedirectUris::Reject, ..rules.clone() }
}

/// A registration's error with the Management API's name of the member.
fn renamed(description: String) -> String {
    for (registered, shown) in
        [("redirect_uris", "callbacks"), ("client_name", "name"), ("application_type", "app_type")]
    {
        if let Some(rest) = description.strip_prefix(registered).filter(|rest| rest.starts_with([':', '['])) {
            return format!("{shown}{rest}");
        }
    }
    description
}

fn set_name(members: &mut Map<String, Value>, name: String) -> Result<(), String> {
    // In a registration the empty text counts as not sent.
    if name.is_empty() {
        return Err("name: must be 1 to 255 characters".to_owned());
    }
    members.insert("client_name".to_owned(), name.into());
    Ok(())
}

fn set_callbacks(members: &mut Map<String, Value>, callbacks: Vec<String>) {
    if callbacks.is_empty() {
        members.remove("redirect_uris");
    } else {
        members.insert("redirect_uris".to_owned(), callbacks.into());
    }
}

/// Takes a member's language-tagged forms (RFC 7591 §2.2) away: the owner says what users are to see, and a server
/// would still show them those.
fn forget_languages(members: &mut Map<String, Value>, member: &str) {
    members.retain(|name, _| name.split_once('#').is_none_or(|(tagged, _)| tagged != member));
}

fn set_or_remove(members: &mut Map<String, Value>, member: &str, text: Option<String>) {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => _ = members.insert(member.to_owned(), text.into()),
        None => _ = members.remove(member),
    }
}

fn value_of(value: impl Serialize) -> Result<Value, String> {
    serde_json::to_value(value).map_err(|_| unwritable())
}

fn unwritable() -> String {
    "the client cannot be written as JSON".to_owned()
}

fn unreadable() -> String {
    "the client's stored members cannot be read".to_owned()
}

fn no<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match bool::deserialize(deserializer)? {
        false => Ok(()),
        true => Err(D::Error::custom("expected false: every client here is a third party's")),
    }
}

fn strict<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "strict" => Ok(()),
        _ => Err(D::Error::custom("expected strict")),
    }
}
