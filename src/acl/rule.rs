//! The rules as they are written: the Management API's `network_acls` object, checked while it is parsed.

use fluent_uri::Uri;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::cidr::Cidr;
use crate::tenant::Domain;

/// Most rules of one list.
pub const MAX_RULES: usize = 1_000;

/// Most addresses and ranges of one list.
const MAX_RANGES: usize = 100_000;

/// Most values of one list for each other signal.
const MAX_VALUES: usize = 20_000;

/// What one list of rules may have of each, and what it is. Values are searched in a logarithm of their number, but
/// user agents with a `*` are compared one by one with each request, if their rule is active.
const LIMITS: [(usize, &str); 11] = [
    (MAX_RULES, "rules"),
    (MAX_RANGES, "addresses and ranges"),
    (MAX_VALUES, "asns"),
    (MAX_VALUES, "hostnames"),
    (MAX_VALUES, "geo_country_codes"),
    (MAX_VALUES, "geo_subdivision_codes"),
    (MAX_VALUES, "ja3_fingerprints"),
    (MAX_VALUES, "ja4_fingerprints"),
    (1_000, "user_agents with a * in active rules"),
    (16 * 1024, "bytes of user_agents with a * in active rules"),
    (MAX_VALUES, "other user_agents"),
];

/// Longest description, in characters.
const MAX_DESCRIPTION: usize = 255;

/// Longest entry of a text signal, in bytes.
const MAX_TEXT: usize = 512;

/// Longest URI that a redirect leads to, in bytes.
const MAX_REDIRECT_URI: usize = 2_048;

/// Highest priority number.
pub const MAX_PRIORITY: u32 = 2_147_483_647;

/// One rule with what its owner says about it: the body of a request of the Management API, and an entry of the
/// filter's own configuration.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkAcl {
    /// What it is for: 1 to 255 characters.
    #[serde(deserialize_with = "description")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = MAX_DESCRIPTION)))]
    pub description: String,
    /// Whether it is evaluated.
    pub active: bool,
    /// Lower numbers come first, equal ones in the order of creation. Without one a rule comes after those that have
    /// one.
    #[serde(default, deserialize_with = "priority", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(range(max = MAX_PRIORITY)))]
    pub priority: Option<u32>,
    /// What it does to whom.
    pub rule: Rule,
}

/// What a rule does to whom.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(try_from = "RawRule", into = "RawRule")]
pub struct Rule {
    /// What becomes of a request for which the condition holds.
    pub action: Action,
    /// For whom.
    pub condition: Condition,
    /// Which requests it looks at.
    pub scope: Scope,
}

/// Which requests a rule looks at.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All.
    Tenant,
    /// The Management API and SCIM.
    Management,
    /// All that is not `management`.
    Authentication,
    /// Registrations.
    #[serde(alias = "dcr")]
    DynamicClientRegistration,
}

/// What becomes of a request for which the condition holds. With neither an effect nor monitoring there is no action.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(try_from = "RawAction", into = "RawAction")]
pub struct Action {
    /// What is done; `None`: nothing, the rule only counts.
    pub effect: Option<Effect>,
    /// Monitoring mode: the rule is evaluated and counted, nothing is done, and evaluation goes on.
    pub log: bool,
}

/// What is done to a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// It passes.
    Allow,
    /// It is refused.
    Block,
    /// It is sent elsewhere.
    Redirect(RedirectUri),
}

/// Where a redirect leads: an absolute `https` URI.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RedirectUri {
    uri: String,
    host: Domain,
}

impl RedirectUri {
    /// The URI.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// Its host, lower case, without port.
    pub fn host(&self) -> &str {
        self.host.as_str()
    }
}

/// For whom a rule acts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Condition {
    /// For everybody.
    MatchAll,
    /// Where the first signals match and none of the second does; at least one of them is there.
    Signals {
        /// What has to match.
        matches: Option<Box<Signals>>,
        /// What must not match.
        not_matches: Option<Box<Signals>>,
    },
}

impl Condition {
    /// Both sets of signals.
    pub fn signals(&self) -> impl Iterator<Item = &Signals> {
        let (matches, not_matches) = match self {
            Self::MatchAll => (None, None),
            Self::Signals { matches, not_matches } => (matches.as_deref(), not_matches.as_deref()),
        };
        matches.into_iter().chain(not_matches)
    }
}

/// Values of signals. An absent signal is an empty list, and a list that is there is never empty.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schemars(extend("minProperties" = 1)))]
#[serde(deny_unknown_fields, default)]
pub struct Signals {
    /// Autonomous system numbers of the client's address.
    #[serde(deserialize_with = "asns", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = MAX_VALUES)))]
    pub asns: Vec<u32>,
    /// The client's address.
    #[serde(deserialize_with = "ipv4_cidrs", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = MAX_RANGES), inner(regex(pattern = "^[0-9]{1,3}(\\.[0-9]{1,3}){3}(/[0-9]{1,2})?$"))))]
    pub ipv4_cidrs: Vec<Cidr>,
    /// The client's address.
    #[serde(deserialize_with = "ipv6_cidrs", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = MAX_RANGES), inner(regex(pattern = "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"))))]
    pub ipv6_cidrs: Vec<Cidr>,
    /// The address of the direct peer, which may be a proxy of the client.
    #[serde(deserialize_with = "ipv4_cidrs", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = MAX_RANGES), inner(regex(pattern = "^[0-9]{1,3}(\\.[0-9]{1,3}){3}(/[0-9]{1,2})?$"))))]
    pub connecting_ipv4_cidrs: Vec<Cidr>,
    /// The address of the direct peer.
    #[serde(deserialize_with = "ipv6_cidrs", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = MAX_RANGES), inner(regex(pattern = "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"))))]
    pub connecting_ipv6_cidrs: Vec<Cidr>,
    /// The host that the client asks for: SNI and authority.
    #[serde(deserialize_with = "hostnames", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = MAX_VALUES)))]
    pub hostnames: Vec<Domain>,
    /// ISO 3166-1 alpha-2 codes of the client's address.
    #[serde(deserialize_with = "country_codes", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = MAX_VALUES), inner(regex(pattern = "^[A-Za-z]{2}$"))))]
    pub geo_country_codes: Vec<String>,
    /// ISO 3166-2 codes of the client's address, such as `CH-ZH`.
    #[serde(deserialize_with = "subdivision_codes", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = MAX_VALUES), inner(regex(pattern = "^[A-Za-z]{2}-[0-9A-Za-z]{1,3}$"))))]
    pub geo_subdivision_codes: Vec<String>,
    /// JA3 fingerprints of the client's TLS: 32 hexadecimal digits.
    #[serde(deserialize_with = "ja3_fingerprints", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = MAX_VALUES), inner(regex(pattern = "^[0-9A-Fa-f]{32}$"))))]
    pub ja3_fingerprints: Vec<String>,
    /// JA4 fingerprints of the client's TLS, such as `t13d1516h2_8daaf6152771_02713d6af862`.
    #[serde(deserialize_with = "ja4_fingerprints", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = MAX_VALUES), inner(regex(pattern = "^[0-9A-Za-z]{10}_[0-9A-Fa-f]{12}_[0-9A-Fa-f]{12}$"))))]
    pub ja4_fingerprints: Vec<String>,
    /// Whole `user-agent` values; `*` stands for any characters.
    #[serde(deserialize_with = "user_agents", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(min = 1, max = MAX_VALUES), inner(length(max = MAX_TEXT), regex(pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$"))))]
    pub user_agents: Vec<String>,
    /// Known to the SDKs' types, and not supported.
    #[serde(deserialize_with = "unsupported", skip_serializing)]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(skip))]
    auth0_managed: (),
    /// Known to the SDKs' types, and not supported.
    #[serde(deserialize_with = "unsupported", skip_serializing)]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(skip))]
    http_message_signature: (),
}

impl Signals {
    /// The lists of ranges, those of the client's address first.
    pub fn cidr_lists(&self) -> [&[Cidr]; 4] {
        [&self.ipv4_cidrs, &self.ipv6_cidrs, &self.connecting_ipv4_cidrs, &self.connecting_ipv6_cidrs]
    }

    fn is_empty(&self) -> bool {
        self.named().is_empty()
    }
}

/// How much there is in rules, in the order of [`LIMITS`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Size([usize; LIMITS.len()]);

impl Size {
    fn add(&mut self, counts: &[usize; LIMITS.len()]) {
        for (sum, count) in self.0.iter_mut().zip(counts) {
            *sum = sum.saturating_add(*count);
        }
    }

    fn add_signals(&mut self, signals: &Signals, active: bool) {
        let compared = || signals.user_agents.iter().filter(|entry| active && entry.contains('*'));
        let patterns = compared().count();
        self.add(&[
            0,
            signals.cidr_lists().into_iter().map(<[Cidr]>::len).sum(),
            signals.asns.len(),
            signals.hostnames.len(),
            signals.geo_country_codes.len(),
            signals.geo_subdivision_codes.len(),
            signals.ja3_fingerprints.len(),
            signals.ja4_fingerprints.len(),
            patterns,
            compared().map(String::len).sum(),
            signals.user_agents.len().saturating_sub(patterns),
        ]);
    }

    /// Whether one list may have so much.
    ///
    /// # Errors
    /// What there is too much of.
    pub fn check(self) -> Result<(), String> {
        match self.0.into_iter().zip(LIMITS).find(|(count, (most, _))| count > most) {
            Some((count, (most, what))) => {
                Err(format!("{count} {what}, and {most} are the most in all rules together"))
            }
            None => Ok(()),
        }
    }
}

/// How much there is in all of them.
impl<'a> FromIterator<&'a NetworkAcl> for Size {
    fn from_iter<I: IntoIterator<Item = &'a NetworkAcl>>(acls: I) -> Self {
        let mut size = Self::default();
        for acl in acls {
            size.add(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            for signals in acl.rule.condition.signals() {
                size.add_signals(signals, acl.active);
            }
        }
        size
    }
}

/// How much there is in all of them together.
impl FromIterator<Self> for Size {
    fn from_iter<I: IntoIterator<Item = Self>>(sizes: I) -> Self {
        let mut sum = Self::default();
        for Self(counts) in sizes {
            sum.add(&counts);
        }
        sum
    }
}

/// From the counts in their order, as they are serialised; those that are missing are 0.
impl FromIterator<usize> for Size {
    fn from_iter<I: IntoIterator<Item = usize>>(counts: I) -> Self {
        let mut size = Self::default();
        for (sum, count) in size.0.iter_mut().zip(counts) {
            *sum = count;
        }
        size
    }
}

/// The active rules of a list, in the order of evaluation.
///
/// # Errors
/// What there is too much of.
pub fn active_rules(acls: Vec<NetworkAcl>) -> Result<Vec<Rule>, String> {
    acls.iter().collect::<Size>().check()?;
    let mut rules: Vec<(u32, Rule)> = Vec::new();
    for NetworkAcl { priority, rule, .. } in acls.into_iter().filter(|acl| acl.active) {
        let priority = priority.unwrap_or(u32::MAX);
        let place = rules.partition_point(|(other, _)| *other <= priority);
        rules.insert(place, (priority, rule));
    }
    Ok(rules.into_iter().map(|(_, rule)| rule).collect())
}

// ---- parsing ----

#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawRule {
    /// What becomes of a request for which the condition holds.
    action: Action,
    /// Signals that have to match.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    matches: Option<Box<Signals>>,
    /// Signals that must not match.
    #[serde(default, rename = "not_match", skip_serializing_if = "Option::is_none")]
    not_matches: Option<Box<Signals>>,
    /// Whether it acts for everybody; then there is neither `match` nor `not_match`.
    #[serde(default, skip_serializing_if = "is_false")]
    match_all: bool,
    /// Which requests it looks at.
    scope: Scope,
}

impl TryFrom<RawRule> for Rule {
    type Error = &'static str;

    fn try_from(raw: RawRule) -> Result<Self, &'static str> {
        let RawRule { action, matches, not_matches, match_all, scope } = raw;
        let is_empty = |signals: &Option<Box<Signals>>| signals.as_ref().is_some_and(|signals| signals.is_empty());
        let condition = match (match_all, &matches, &not_matches) {
            (true, None, None) => Condition::MatchAll,
            (true, ..) => return Err("match_all excludes match and not_match"),
            (false, None, None) => return Err("expected a condition: match, not_match or match_all: true"),
            _ if is_empty(&matches) => return Err("match has no signal"),
            _ if is_empty(&not_matches) => return Err("not_match has no signal"),
            _ => Condition::Signals { matches, not_matches },
        };
        Ok(Self { action, condition, scope })
    }
}

impl From<Rule> for RawRule {
    fn from(rule: Rule) -> Self {
        let Rule { action, condition, scope } = rule;
        let (match_all, matches, not_matches) = match condition {
            Condition::MatchAll => (true, None, None),
            Condition::Signals { matches, not_matches } => (false, matches, not_matches),
        };
        Self { action, matches, not_matches, match_all, scope }
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
struct RawAction {
    /// Whether it refuses the request.
    #[serde(skip_serializing_if = "is_false")]
    block: bool,
    /// Whether it lets the request pass.
    #[serde(skip_serializing_if = "is_false")]
    allow: bool,
    /// Whether it sends the request to `redirect_uri`.
    #[serde(skip_serializing_if = "is_false")]
    redirect: bool,
    /// Where a redirect leads: an absolute `https` URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(not(target_arch = "wasm32"), schemars(length(max = MAX_REDIRECT_URI), regex(pattern = "^[Hh][Tt][Tt][Pp][Ss]://")))]
    redirect_uri: Option<String>,
    /// Whether it only counts what it would do.
    #[serde(skip_serializing_if = "is_false")]
    log: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl TryFrom<RawAction> for Action {
    type Error = &'static str;

    fn try_from(raw: RawAction) -> Result<Self, &'static str> {
        let effect = match (raw.block, raw.allow, raw.redirect) {
            (false, false, false) => None,
            (true, false, false) => Some(Effect::Block),
            (false, true, false) => Some(Effect::Allow),
            (false, false, true) => {
                let uri = raw.redirect_uri.as_deref().ok_or("redirect needs a redirect_uri")?;
                Some(Effect::Redirect(uri.parse()?))
            }
            _ => return Err("expected one of block, allow and redirect, not several"),
        };
        match effect {
            None if !raw.log => Err("expected an action: block, allow, redirect or log, with the value true"),
            Some(Effect::Redirect(_)) => Ok(Self { effect, log: raw.log }),
            _ if raw.redirect_uri.is_some() => Err("redirect_uri goes with redirect: true only"),
            _ => Ok(Self { effect, log: raw.log }),
        }
    }
}

impl From<Action> for RawAction {
    fn from(action: Action) -> Self {
        let raw = Self { log: action.log, ..Self::default() };
        match action.effect {
            None => raw,
            Some(Effect::Block) => Self { block: true, ..raw },
            Some(Effect::Allow) => Self { allow: true, ..raw },
            Some(Effect::Redirect(to)) => Self { redirect: true, redirect_uri: Some(to.uri), ..raw },
        }
    }
}

impl std::str::FromStr for RedirectUri {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "redirect_uri: expected an absolute https URI such as https://www.example.com/blocked";
        let uri = Uri::parse(text).map_err(|_| EXPECTED)?;
        let authority = uri.authority().filter(|authority| {
            uri.scheme().as_str().eq_ignore_ascii_case("https")
                && authority.userinfo().is_none()
                && text.len() <= MAX_REDIRECT_URI
        });
        let host = authority.and_then(|authority| crate::tenant::authority_host(authority.as_str().as_bytes()));
        let host = plain_host(host.ok_or(EXPECTED)?)
            .ok_or("redirect_uri: expected a host in its plain form, such as www.example.com or [2001:db8::1]")?;
        Ok(Self { uri: text.to_owned(), host })
    }
}

/// The host, if browsers go to no other than the one that is written: then a loop shows in the spelling. They take one
/// whose last label is a hexadecimal number for an IPv4 address.
fn plain_host(host: String) -> Option<Domain> {
    let is_hexadecimal = host.rsplit('.').next().is_some_and(|last| last.starts_with("0x"));
    Domain::try_from(host).ok().filter(|_| !is_hexadecimal)
}

fn description<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if (1..=MAX_DESCRIPTION).contains(&text.chars().count()) {
        Ok(text)
    } else {
        Err(D::Error::custom(format_args!("expected 1 to {MAX_DESCRIPTION} characters")))
    }
}

fn priority<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let expected = || D::Error::custom(format_args!("expected a whole number from 0 to {MAX_PRIORITY}"));
    let number: Option<u32> = Option::deserialize(deserializer).map_err(|_| expected())?;
    if number.is_none_or(|number| number <= MAX_PRIORITY) { Ok(number) } else { Err(expected()) }
}

/// A list that is there has something in it, or a rule would match nobody and look as if it did.
fn filled<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let list: Vec<T> = Vec::deserialize(deserializer)?;
    if list.is_empty() { Err(D::Error::custom("expected at least one entry")) } else { Ok(list) }
}

fn asns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    filled(deserializer)
}

fn hostnames<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Domain>, D::Error> {
    filled(deserializer)
}

fn cidrs<'de, D: Deserializer<'de>>(deserializer: D, are_ipv4: bool) -> Result<Vec<Cidr>, D::Error> {
    let list: Vec<Cidr> = filled(deserializer)?;
    match list.iter().find(|cidr| cidr.is_ipv4() != are_ipv4) {
        None => Ok(list),
        Some(other) if are_ipv4 => {
            Err(D::Error::custom(format_args!("{other} is IPv6; put it into the list for IPv6")))
        }
        Some(other) => Err(D::Error::custom(format_args!("{other} is IPv4; put it into the list for IPv4"))),
    }
}

fn ipv4_cidrs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cidr>, D::Error> {
    cidrs(deserializer, true)
}

fn ipv6_cidrs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cidr>, D::Error> {
    cidrs(deserializer, false)
}

fn texts<'de, D: Deserializer<'de>>(
    deserializer: D,
    expected: &str,
    is_valid: fn(&str) -> bool,
) -> Result<Vec<String>, D::Error> {
    let list: Vec<String> = filled(deserializer)?;
    match list.iter().position(|text| !is_valid(text)) {
        None => Ok(list),
        Some(index) => Err(D::Error::custom(format_args!("entry {index}: expected {expected}"))),
    }
}

fn country_codes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    texts(deserializer, "an ISO 3166-1 alpha-2 code such as CH", is_country_code)
}

fn is_country_code(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|b| b.is_ascii_alphabetic())
}

fn subdivision_codes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    texts(deserializer, "an ISO 3166-2 code such as CH-ZH", |text| {
        text.split_once('-').is_some_and(|(country, subdivision)| {
            is_country_code(country)
                && (1..=3).contains(&subdivision.len())
                && subdivision.bytes().all(|b| b.is_ascii_alphanumeric())
        })
    })
}

fn is_hexadecimal(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn ja3_fingerprints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    texts(deserializer, "32 hexadecimal digits", |text| is_hexadecimal(text, 32))
}

fn ja4_fingerprints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    texts(deserializer, "a JA4 fingerprint such as t13d1516h2_8daaf6152771_02713d6af862", |text| {
        let mut parts = text.split('_');
        let (Some(a), Some(b), Some(c), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return false;
        };
        a.len() == 10 && a.bytes().all(|b| b.is_ascii_alphanumeric()) && is_hexadecimal(b, 12) && is_hexadecimal(c, 12)
    })
}

fn user_agents<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    texts(deserializer, "1 to 512 bytes without control characters", |text| {
        (1..=MAX_TEXT).contains(&text.len()) && !text.contains(|c: char| c.is_control())
    })
}

fn unsupported<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
    Err(D::Error::custom("this signal of the hosted product is not supported"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(value: &Value) -> Result<NetworkAcl, String> {
        serde_path_to_error::deserialize(value).map_err(|error| error.to_string())
    }

    fn acl(rule: Value) -> Value {
        json!({"description": "d", "active": true, "priority": 1, "rule": rule})
    }

    fn with_match(signals: Value) -> Value {
        acl(json!({"action": {"block": true}, "match": signals, "scope": "tenant"}))
    }

    #[test]
    fn the_shape_of_the_sdk_goes_in_and_comes_out() {
        let whole = acl(json!({
            "action": {"redirect": true, "redirect_uri": "https://www.example.com/blocked?x=1", "log": true},
            "match": {
                "asns": [4_294_967_295u32], "ipv4_cidrs": ["198.51.100.0/24", "203.0.113.7"],
                "ipv6_cidrs": ["2001:db8::/32"], "connecting_ipv4_cidrs": ["10.0.0.0/8"],
                "connecting_ipv6_cidrs": ["fd00::/8"], "hostnames": ["login.example.com"],
                "geo_country_codes": ["CH"], "geo_subdivision_codes": ["CH-ZH"],
                "ja3_fingerprints": ["773906b0efdefa24a7f2b8eb6985bf37"],
                "ja4_fingerprints": ["t13d1516h2_8daaf6152771_02713d6af862"], "user_agents": ["bad*"]
            },
            "not_match": {"asns": [7]}, "scope": "dynamic_client_registration"
        }));
        for value in [whole, acl(json!({"action": {"allow": true}, "match_all": true, "scope": "management"}))] {
            assert_eq!(serde_json::to_value(parse(&value).unwrap()).unwrap(), value);
        }
    }

    #[test]
    fn input_is_stored_in_one_form() {
        let shown = |value| serde_json::to_value(parse(&value).unwrap()).unwrap()["rule"].clone();
        let rule = shown(acl(json!({
            "action": {"block": true, "allow": false, "log": false}, "match": {"ipv4_cidrs": ["198.51.100.7/24"]},
            "not_match": null, "match_all": false, "scope": "dcr"
        })));
        let expected = json!({
            "action": {"block": true}, "match": {"ipv4_cidrs": ["198.51.100.0/24"]},
            "scope": "dynamic_client_registration"
        });
        assert_eq!(rule, expected);
    }

    #[test]
    fn bad_input_is_refused_and_the_member_named() {
        let everybody = |action: Value| acl(json!({"action": action, "match_all": true, "scope": "tenant"}));
        let without = |name: &str| {
            let mut value = everybody(json!({"block": true}));
            value.as_object_mut().unwrap().remove(name);
            value
        };
        for (value, says) in [
            (
                with_match(json!({"ipv4_cidrs": ["198.51.100.0/24", "x"]})),
                "rule.match.ipv4_cidrs[1]: expected an address",
            ),
            (with_match(json!({"ipv4_cidrs": ["2001:db8::/32"]})), "rule.match.ipv4_cidrs: 2001:db8::/32 is IPv6"),
            (with_match(json!({"ipv6_cidrs": ["10.0.0.0/8"]})), "rule.match.ipv6_cidrs: 10.0.0.0/8 is IPv4"),
            (with_match(json!({"connecting_ipv4_cidrs": ["::1"]})), "rule.match.connecting_ipv4_cidrs: ::1 is IPv6"),
            (with_match(json!({"asns": []})), "rule.match.asns: expected at least one entry"),
            (with_match(json!({"asns": ["7"]})), "rule.match.asns[0]: "),
            (with_match(json!({"hostnames": ["https://a.test"]})), "rule.match.hostnames[0]: "),
            (
                with_match(json!({"geo_country_codes": ["CHE"]})),
                "rule.match.geo_country_codes: entry 0: expected an ISO",
            ),
            (with_match(json!({"geo_subdivision_codes": ["ZH"]})), "rule.match.geo_subdivision_codes: entry 0"),
            (with_match(json!({"ja3_fingerprints": ["x"]})), "rule.match.ja3_fingerprints: entry 0"),
            (with_match(json!({"ja4_fingerprints": ["x"]})), "rule.match.ja4_fingerprints: entry 0"),
            (with_match(json!({"user_agents": ["a\nb"]})), "rule.match.user_agents: entry 0"),
            (with_match(json!({"countries": ["CH"]})), "rule.match.countries: unknown field `countries`"),
            (
                with_match(json!({"auth0_managed": ["x"]})),
                "rule.match.auth0_managed: this signal of the hosted product",
            ),
            (
                with_match(json!({"http_message_signature": {"keys": []}})),
                "rule.match.http_message_signature: this signal",
            ),
            (with_match(json!({})), "rule: match has no signal"),
            (everybody(json!({})), "rule.action: expected an action"),
            (everybody(json!({"block": false})), "rule.action: expected an action"),
            (
                everybody(json!({"block": true, "allow": true})),
                "rule.action: expected one of block, allow and redirect",
            ),
            (everybody(json!({"deny": true})), "rule.action.deny: unknown field"),
            (everybody(json!({"redirect": true})), "rule.action: redirect needs a redirect_uri"),
            (
                everybody(json!({"block": true, "redirect_uri": "https://a.test/"})),
                "rule.action: redirect_uri goes with",
            ),
            (acl(json!({"action": {"block": true}, "scope": "tenant"})), "rule: expected a condition"),
            (
                acl(json!({"action": {"block": true}, "match": {"asns": [1]}, "match_all": true, "scope": "tenant"})),
                "rule: match_all excludes match and not_match",
            ),
            (acl(json!({"action": {"block": true}, "match_all": true, "scope": "all"})), "rule.scope: unknown variant"),
            (acl(json!({"action": {"block": true}, "match_all": true})), "rule: missing field `scope`"),
            (without("description"), "missing field `description`"),
            (without("active"), "missing field `active`"),
            (without("rule"), "missing field `rule`"),
        ] {
            let error = parse(&value).unwrap_err();
            assert!(error.starts_with(says), "{value}: {error}");
        }
        for uri in ["", "/blocked", "http://a.test/", "https:///x", "https://u@a.test/", "https:a", "https://a.test/ü"]
        {
            let error = parse(&everybody(json!({"redirect": true, "redirect_uri": uri}))).unwrap_err();
            assert!(error.starts_with("rule.action: redirect_uri: expected an absolute https URI"), "{uri}: {error}");
        }
        for (member, bad) in
            [("description", json!("")), ("description", json!("x".repeat(256))), ("priority", json!(-1))]
        {
            let mut value = everybody(json!({"block": true}));
            value[member] = bad;
            assert!(parse(&value).unwrap_err().starts_with(&format!("{member}: expected")));
        }
    }

    #[test]
    fn a_list_has_an_end() {
        let most: Size = LIMITS.into_iter().map(|(most, _)| most).collect();
        assert_eq!(most.check(), Ok(()));
        for (index, (limit, what)) in LIMITS.into_iter().enumerate() {
            let mut more = most;
            more.0[index] += 1;
            assert_eq!(
                more.check(),
                Err(format!("{} {what}, and {limit} are the most in all rules together", limit + 1))
            );
        }
        let signals = json!({
            "asns": [1, 2], "ipv4_cidrs": ["1.1.1.1"], "connecting_ipv6_cidrs": ["::1"],
            "user_agents": ["a", "b*", "*"], "hostnames": ["a.example"], "geo_country_codes": ["CH"], "geo_subdivision_codes": ["CH-ZH"],
            "ja3_fingerprints": ["773906b0efdefa24a7f2b8eb6985bf37"],
            "ja4_fingerprints": ["t13d1516h2_8daaf6152771_02713d6af862"]
        });
        let mut acl = parse(&with_match(signals)).unwrap();
        let size = |acl: &NetworkAcl| [acl, acl].into_iter().collect::<Size>();
        assert_eq!(size(&acl), Size([2, 4, 4, 2, 2, 2, 2, 2, 4, 6, 2]));
        acl.active = false;
        assert_eq!(size(&acl), Size([2, 4, 4, 2, 2, 2, 2, 2, 0, 0, 6]));
    }

    #[test]
    fn a_redirect_names_its_host_in_the_plain_form() {
        let host = |uri: &str| uri.parse::<RedirectUri>().map(|to| to.host().to_owned());
        assert_eq!(host("https://WWW.Example.com.:8443/x").unwrap(), "www.example.com");
        assert_eq!(host("https://[2001:db8::1]/").unwrap(), "[2001:db8::1]");
        for uri in [
            "https://default%2Eexample/x",
            "https://def%61ult.example/",
            "https://default.example../",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://127.0.0.0X1/",
            "https://[0:0:0:0:0:0:0:1]/",
            "https://a,b/",
        ] {
            assert!(host(uri).unwrap_err().starts_with("redirect_uri: expected a host in its plain form"), "{uri}");
        }
    }

    #[test]
    fn rules_stand_in_the_order_of_evaluation_without_those_that_are_not_active() {
        let asn = |asn: u32, priority: Value, active: bool| {
            let rule = json!({"action": {"block": true}, "match": {"asns": [asn]}, "scope": "tenant"});
            json!({"description": "d", "active": active, "priority": priority, "rule": rule})
        };
        let none = Value::Null;
        let list = [
            asn(1, none.clone(), true),
            asn(2, json!(5), true),
            asn(3, json!(1), true),
            asn(4, json!(5), true),
            asn(5, json!(0), false),
            asn(6, none, true),
        ];
        let rules = active_rules(serde_json::from_value(json!(list)).unwrap()).unwrap();
        let order: Vec<_> = rules.iter().flat_map(|rule| rule.condition.signals()).map(|s| s.asns[0]).collect();
        assert_eq!(order, [3, 2, 4, 1, 6]);
    }
}
