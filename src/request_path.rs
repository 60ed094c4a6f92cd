//! Which endpoint a request path leads to, and whether it hides that.
//!
//! A server behind the gateway may read a path more generously than we do: `/OIDC/register`, `/oidc/register;x=1` and
//! `/oidc/%72egister` may all lead it to one endpoint. So every path is looked at as it was sent and in the forms in
//! which a generous server could read it: decoded as often as there is something to decode, and tidied each time. If
//! one of them leads to another endpoint, the path is [`Disguised`].

use std::borrow::Cow;

use crate::tenant::Paths;

/// An endpoint, as far as the edge tells them apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// `/oidc/register`, perhaps with one slash after it: where clients register (RFC 7591 §3).
    Registration,
    /// Below `/oidc/register`, where RFC 7592 would manage a client: no method is allowed.
    BelowRegistration,
    /// `/api/v2` and below: the Management API.
    Management,
    /// `/scim` and below: SCIM, which the authorization server answers.
    Scim,
    /// Where the authorization server authorizes (RFC 6749 §3.1).
    Authorization,
    /// Where the authorization server issues tokens (RFC 6749 §3.2).
    Token,
    /// Where the authorization server says who a user is.
    Userinfo,
    /// An endpoint of the authorization server that is closed to third-party clients.
    Closed,
    /// Where the authorization server registers clients itself: closed to everybody.
    ServerRegistration,
    /// Where the authorization server publishes its metadata (RFC 8414 §3).
    Discovery,
    /// Everything else: passes untouched.
    Other,
}

/// The path leads to another endpoint for a generous reader than for us. The answer is 404.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Disguised;

/// How often a path may be encoded. No honest one comes near.
const MAX_DECODINGS: usize = 8;

const REGISTRATION: &str = "/oidc/register";

/// This product's own paths, each of which stands for everything below it too.
const OWN: [(&str, Endpoint); 3] =
    [(REGISTRATION, Endpoint::BelowRegistration), ("/api/v2", Endpoint::Management), ("/scim", Endpoint::Scim)];

/// Which endpoints paths lead to: this product's own, then those of a tenant's authorization server.
#[derive(Debug)]
pub struct Routes {
    patterns: Box<[Pattern]>,
    /// Whether no pattern has a capital: a path without one leads to the same endpoint then, whether case matters or not.
    are_lower: bool,
}

/// A [`crate::tenant::PathPattern`], taken apart.
#[derive(Debug)]
struct Pattern {
    endpoint: Endpoint,
    segments: Box<[Box<[u8]>]>,
    /// Whether it stands for everything below too.
    is_subtree: bool,
}

impl Pattern {
    fn new(endpoint: Endpoint, pattern: &str) -> Self {
        let (path, is_subtree) = match pattern.strip_suffix("/*") {
            Some(path) => (path, true),
            None => (pattern, false),
        };
        let segments = path.split('/').skip(1).map(|segment| Box::from(segment.as_bytes())).collect();
        Self { endpoint, segments, is_subtree }
    }

    /// Whether `path` is one of these. `equal` compares a segment with one of the pattern that is no star.
    fn has(&self, path: &[u8], equal: fn(&[u8], &[u8]) -> bool) -> bool {
        // Most paths differ in their first letters, which is seen without taking them apart.
        if let Some(first) = self.segments.first().filter(|first| ***first != *b"*") {
            let differs = |(letter, other): (&u8, &u8)| !letter.eq_ignore_ascii_case(other);
            if path.get(1).zip(first.first()).is_some_and(differs) {
                return false;
            }
        }
        let mut names = path.split(|byte| *byte == b'/').skip(1);
        let mut is_next = |segment: &[u8]| {
            names.next().is_some_and(|name| if segment == b"*" { !name.is_empty() } else { equal(name, segment) })
        };
        self.segments.iter().all(|segment| is_next(segment)) && (self.is_subtree || names.next().is_none())
    }
}

/// The entry that a path falls under: its endpoint and, of the server's, its number. `/samlp/../wsfed` leads elsewhere
/// than it says, although to an endpoint of the same kind.
type Place = (Endpoint, Option<usize>);

impl Routes {
    /// Those of a tenant.
    pub fn new(paths: &Paths) -> Self {
        let own_registration = paths.forward_registration.as_str();
        let lists = [
            (Endpoint::Authorization, &paths.authorization),
            (Endpoint::Token, &paths.token),
            (Endpoint::Userinfo, &paths.userinfo),
            (Endpoint::ServerRegistration, &paths.server_registration),
            (Endpoint::Discovery, &paths.discovery),
            (Endpoint::Closed, &paths.closed),
        ];
        let listed = lists.into_iter().flat_map(|(endpoint, patterns)| {
            patterns.iter().map(move |pattern| Pattern::new(endpoint, pattern.as_str()))
        });
        let forward = Pattern::new(Endpoint::ServerRegistration, &format!("{own_registration}/*"));
        let patterns: Box<[_]> = std::iter::once(forward).chain(listed).collect();
        let has_capital = |pattern: &Pattern| pattern.segments.concat().iter().any(u8::is_ascii_uppercase);
        let are_lower = !patterns.iter().any(has_capital);
        Self { patterns, are_lower }
    }

    /// The endpoint of a `:path` value, whose query does not matter.
    ///
    /// # Errors
    /// [`Disguised`] if a generous reader could take the path for another endpoint, or if it is not a path at all
    /// (an absolute-form target that nobody has taken apart).
    pub fn classify(&self, path_and_query: &[u8]) -> Result<Endpoint, Disguised> {
        let path = path_and_query.split(|byte| *byte == b'?').next().unwrap_or_default();
        match path {
            // `OPTIONS *` and `CONNECT` name no path.
            b"" | b"*" => return Ok(Endpoint::Other),
            [b'/', ..] => {}
            _ => return Err(Disguised),
        }
        let place = self.place(path, |name, segment| name == segment);
        // Nobody reads another path in most of them.
        if self.are_lower && is_tidy(path) && without_format(path).is_none() {
            return Ok(place.0);
        }
        self.read_generously(path, place)
    }

    /// The endpoint of `place`, to which `path` leads as it is, if no generous reader takes it elsewhere.
    fn read_generously(&self, path: &[u8], place: Place) -> Result<Endpoint, Disguised> {
        // A tidy path has no case.
        let place_of = |path: &[u8]| self.place(path, <[u8]>::eq_ignore_ascii_case);
        let mut reading = Cow::Borrowed(path);
        for _ in 0..=MAX_DECODINGS {
            // Some servers take a decoded `?`, `#` or NUL for the end of the path, others for a character.
            let end = reading.iter().position(|byte| matches!(byte, b'?' | b'#' | 0)).unwrap_or(reading.len());
            let cut = reading.get(..end).unwrap_or_default();
            let tidied = tidy(cut);
            if place != place_of(&tidied) || (end < reading.len() && place != place_of(&tidy(&reading))) {
                return Err(Disguised);
            }
            // Some servers take what follows a dot for a format, and not for a part of the name.
            if let Some(named) = without_format(&tidied).map(place_of)
                && named != place
                && named.0 != Endpoint::Other
            {
                return Err(Disguised);
            }
            match decode(&reading) {
                Some(decoded) => reading = Cow::Owned(decoded),
                None => return Ok(place.0),
            }
        }
        Err(Disguised)
    }

    fn place(&self, path: &[u8], equal: fn(&[u8], &[u8]) -> bool) -> Place {
        for (entry, endpoint) in OWN {
            match path.strip_prefix(entry.as_bytes()) {
                Some(b"" | b"/") if entry == REGISTRATION => return (Endpoint::Registration, None),
                Some([] | [b'/', ..]) => return (endpoint, None),
                _ => {}
            }
        }
        let mut patterns = self.patterns.iter().enumerate();
        let found = patterns.find(|(_, pattern)| pattern.has(path, equal));
        found.map_or((Endpoint::Other, None), |(number, pattern)| (pattern.endpoint, Some(number)))
    }
}

impl Default for Routes {
    fn default() -> Self {
        Self::new(&Paths::default())
    }
}

/// The path without case, blanks and control bytes, with `\` as `/`, and then without `;` parameters, empty and dot
/// segments, and a slash at the end. Borrowed if it is all that already.
fn tidy(path: &[u8]) -> Cow<'_, [u8]> {
    let without_slash = path.strip_suffix(b"/").unwrap_or(path);
    if is_tidy(without_slash) {
        return Cow::Borrowed(without_slash);
    }
    let folded = fold(path);
    let mut segments = Vec::new();
    for segment in folded.split(|byte| *byte == b'/') {
        match segment.split(|byte| *byte == b';').next().unwrap_or_default() {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    let mut tidied = Vec::with_capacity(folded.len());
    for name in segments {
        tidied.push(b'/');
        tidied.extend_from_slice(name);
    }
    Cow::Owned(tidied)
}

/// A tidy path without what follows the first dot of its last segment; `None` if there is none.
fn without_format(path: &[u8]) -> Option<&[u8]> {
    let last = path.iter().rposition(|byte| *byte == b'/')?.saturating_add(1);
    let dot = path.get(last..)?.iter().position(|byte| *byte == b'.').filter(|dot| *dot > 0)?;
    path.get(..last.saturating_add(dot))
}

/// `path` without case, blanks and control bytes, with `\` as `/`. Two characters beyond ASCII fold to ASCII letters for
/// whoever compares by Unicode's rules (CaseFolding.txt): U+017F to `s` and U+212A to `k`. Bytes that are no text stay.
fn fold(path: &[u8]) -> Vec<u8> {
    let mut folded = Vec::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => folded.push(b'/'),
                '\u{17f}' => folded.push(b's'),
                '\u{212a}' => folded.push(b'k'),
                _ if character.is_whitespace() || character.is_control() => {}
                _ => folded.extend_from_slice(character.to_ascii_lowercase().encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        folded.extend_from_slice(chunk.invalid());
    }
    folded
}

/// Whether `path` is tidy, judged by the few bytes that most paths are made of.
fn is_tidy(path: &[u8]) -> bool {
    let is_plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'/' | b'_' | b'.' | b'-');
    path.iter().all(is_plain)
        && path.split(|byte| *byte == b'/').skip(1).all(|name| !matches!(name, b"" | b"." | b".."))
}

/// The path with every `%xx` decoded once; `None` if there is none.
fn decode(path: &[u8]) -> Option<Vec<u8>> {
    let mut rest = path;
    let mut decoded = Vec::new();
    while let Some(at) = rest.windows(3).position(|triple| triple_value(triple).is_some()) {
        let (before, from) = rest.split_at(at);
        let (triple, after) = from.split_at(3);
        decoded.extend_from_slice(before);
        decoded.extend(triple_value(triple));
        rest = after;
    }
    (rest.len() < path.len()).then(|| {
        decoded.extend_from_slice(rest);
        decoded
    })
}

/// What a `%xx` stands for.
fn triple_value(triple: &[u8]) -> Option<u8> {
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match triple {
        [b'%', high, low] => Some(hex(*high)? << 4 | hex(*low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    thread_local! {
        static DEFAULT: Routes = Routes::default();
    }

    fn endpoint(path: &str) -> Result<Endpoint, Disguised> {
        DEFAULT.with(|routes| routes.classify(path.as_bytes()))
    }

    const EXACT: [(&str, Endpoint); 10] = [
        ("/authorize", Endpoint::Authorization),
        ("/oauth/token", Endpoint::Token),
        ("/userinfo", Endpoint::Userinfo),
        ("/bc-authorize", Endpoint::Closed),
        ("/delegation", Endpoint::Closed),
        ("/oauth/device/code", Endpoint::Closed),
        ("/oauth/par", Endpoint::Closed),
        ("/oauth/ro", Endpoint::Closed),
        ("/oidc/logout", Endpoint::Closed),
        ("/v2/logout", Endpoint::Closed),
    ];

    const SUBTREES: [(&str, Endpoint); 7] = [
        ("/dbconnections", Endpoint::Closed),
        ("/passwordless", Endpoint::Closed),
        ("/samlp", Endpoint::Closed),
        ("/wsfed", Endpoint::Closed),
        ("/reg", Endpoint::ServerRegistration),
        ("/oauth2/register", Endpoint::ServerRegistration),
        ("/connect/register", Endpoint::ServerRegistration),
    ];

    #[test]
    fn every_path_of_the_server_is_known_as_it_is_with_and_without_a_query() {
        for (path, expected) in EXACT {
            assert_eq!(endpoint(path), Ok(expected), "{path}");
            assert_eq!(endpoint(&format!("{path}?a=/../%2e#;")), Ok(expected), "{path}");
            assert_eq!(endpoint(&format!("{path}/below")), Ok(Endpoint::Other), "{path}");
            assert_eq!(endpoint(&format!("{path}x")), Ok(Endpoint::Other), "{path}");
        }
        for (path, expected) in SUBTREES {
            for end in ["", "/", "/start", "/a/b", "/CLIENT%7CID", "?x"] {
                assert_eq!(endpoint(&format!("{path}{end}")), Ok(expected), "{path}{end}");
            }
            assert_eq!(endpoint(&format!("{path}x")), Ok(Endpoint::Other), "{path}");
        }
        for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
            assert_eq!(endpoint(path), Ok(Endpoint::Discovery), "{path}");
        }
        for path in ["/api/v2", "/api/v2/", "/api/v2/clients?a=b", "/api/v2/clients/a%7Cb", "/api/v2/Clients/A;b//c"] {
            assert_eq!(endpoint(path), Ok(Endpoint::Management), "{path}");
        }
    }

    #[test]
    fn a_star_stands_for_one_segment_and_at_the_end_for_all_below() {
        let paths = serde_json::json!({
            "authorization": ["/realms/*/protocol/openid-connect/auth"], "token": ["/OAuth2/Token"], "closed": ["/x/*"],
            "forward_registration": "/own/registration"
        });
        let routes = Routes::new(&serde_json::from_value(paths).unwrap());
        for (path, expected) in [
            ("/realms/a/protocol/openid-connect/auth", Ok(Endpoint::Authorization)),
            ("/realms/My%20Realm/protocol/openid-connect/auth?x", Ok(Endpoint::Authorization)),
            ("/realms/a/b/protocol/openid-connect/auth", Ok(Endpoint::Other)),
            ("/realms/protocol/openid-connect/auth", Ok(Endpoint::Other)),
            ("/realms/%2e/protocol/openid-connect/auth", Err(Disguised)),
            ("/realms/a%2fb/protocol/openid-connect/auth", Err(Disguised)),
            ("/realms/a/x/../protocol/openid-connect/auth", Err(Disguised)),
            ("/realms//protocol/openid-connect/auth", Ok(Endpoint::Other)),
            ("/realms/a/clients-registrations/openid-connect", Ok(Endpoint::ServerRegistration)),
            ("/realms/a/clients-registrations", Ok(Endpoint::ServerRegistration)),
            ("/realms/a/Clients-Registrations/x", Err(Disguised)),
            ("/OAuth2/Token", Ok(Endpoint::Token)),
            ("/oauth2/token", Err(Disguised)),
            ("/OAuth2/Token/", Err(Disguised)),
            ("/x", Ok(Endpoint::Closed)),
            ("/x/y/z", Ok(Endpoint::Closed)),
            ("/own/registration/id", Ok(Endpoint::ServerRegistration)),
            ("/authorize", Ok(Endpoint::Other)),
            ("/oidc/register", Ok(Endpoint::Registration)),
        ] {
            assert_eq!(routes.classify(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn registration_has_one_optional_slash_and_nothing_below() {
        for path in
            ["/oidc/register", "/oidc/register/", "/oidc/register?x=1", "/oidc/register/?x=1", "/oidc/register?"]
        {
            assert_eq!(endpoint(path), Ok(Endpoint::Registration), "{path}");
        }
        for path in ["/oidc/register/x", "/oidc/register/x/", "/oidc/register/tpc_A%20b;c", "/oidc/register/x?y"] {
            assert_eq!(endpoint(path), Ok(Endpoint::BelowRegistration), "{path}");
        }
    }

    #[test]
    fn a_protected_path_in_another_spelling_is_disguised() {
        for path in [
            "/oidc/register//",
            "/oidc//register",
            "//oidc/register",
            "/oidc/./register",
            "/x/../oidc/register",
            "/oidc/register/..",
            "/oidc/register/%20",
            "/oidc/%72egister",
            "/oidc%2fregister",
            "/oidc%5cregister",
            "/oidc\\register",
            "/%6fidc/register",
            "/oidc/%2572egister",
            "/oidc/%252572egister",
            "/%252e%252e/oidc/register",
            "/OIDC/register",
            "/oidc/regi%C5%BFter",
            "/oauth/to%E2%84%AAen",
            "/oidc/register%c2%a0",
            "/oidc/register%E3%80%80",
            "/oidc/Register/",
            "/oidc/register;x=1",
            "/oidc;x/register",
            "/;x/oidc/register",
            "/x/..;/oidc/register",
            "/oidc/register;a%252f..%252f..%252fx",
            "/oidc/register%3bx",
            "/oidc/register%20",
            "/oidc/register%09",
            "/oidc/ register",
            "/oidc/regi%0ast%7Fer",
            "/oidc/register%00",
            "/oidc/register%00.png",
            "/oidc/register%3f",
            "/oidc/register%3fx/y",
            "/oidc/register%23",
            "/oidc/register#x",
            "/a%3f/%252e%252e/oidc/register",
            "/oidc/register%2fx",
            "/authorize/",
            "/authorize//?x",
            "/Authorize",
            "/authorize;jsessionid=1",
            "/authorize%2f",
            "/oauth/token%20",
            "/oauth%2Ftoken",
            "/userinfo/.",
            "/API/v2/clients",
            "/api/%762/clients",
            "/api/v2;x/clients",
            "/api//v2/clients",
            "/api/v2/../../oidc/register",
            "/api/v2/%2e%2e/%2e%2e/authorize",
            "/samlp/../wsfed",
            "/oidc/register.html",
            "/oauth/token.json",
            "/authorize.x.y",
            "/oauth/par%2ejson",
            "/reg.json",
            "/api/v2.json",
            "/SAMLP/id",
        ] {
            assert_eq!(endpoint(path), Err(Disguised), "{path}");
        }
    }

    #[test]
    fn an_innocent_path_passes_in_any_spelling() {
        for path in [
            "/",
            "//",
            "/index.html",
            "/.well-known/jwks.json",
            "/Assets/Logo%20Big.PNG;v=1",
            "/a//b/../c/./d/",
            "/search/caf%C3%A9/%E2%82%AC",
            "/%",
            "/%zz%4",
            "/100%25",
            "/caf\u{e9}",
            "/?next=/oidc/register",
            "/x?/../oidc/register",
            "/oidc",
            "/oidc/registered",
            "/oidc/registered.html",
            "/x/oidc/register",
            "/api/v20/x",
            "/api/v1",
            "/oauth",
            "/oauth/token/x",
        ] {
            assert_eq!(endpoint(path), Ok(Endpoint::Other), "{path}");
        }
    }

    #[test]
    fn what_is_encoded_without_end_is_disguised_wherever_it_leads() {
        let encoded = |times: usize| format!("/x/%{}41", "25".repeat(times));
        assert_eq!(endpoint(&encoded(7)), Ok(Endpoint::Other));
        assert_eq!(endpoint(&encoded(8)), Err(Disguised));
        assert_eq!(endpoint(&encoded(20_000)), Err(Disguised));
    }

    #[test]
    fn a_target_that_is_no_path_is_refused_unless_it_names_none() {
        assert_eq!(endpoint("*"), Ok(Endpoint::Other));
        assert_eq!(endpoint(""), Ok(Endpoint::Other));
        for target in ["http://host/oidc/register", "oidc/register", "host:443", "**", "\\oidc\\register"] {
            assert_eq!(endpoint(target), Err(Disguised), "{target}");
        }
    }

    #[test]
    fn a_plain_path_costs_no_allocation() {
        for path in [&b"/"[..], b"/a/b_c-d.e", b"/.well-known/x/", b"/authorize/"] {
            assert!(matches!(tidy(path), Cow::Borrowed(_)));
            assert!(decode(path).is_none());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(path in any::<Vec<u8>>()) {
            let routes = Routes::default();
            let _ = routes.classify(&path);
            let _ = routes.classify(&[b"/", path.as_slice()].concat());
        }

        #[test]
        fn tidying_twice_is_tidying_once(path in "/[a-zA-C0-9/.;%\\\\ ?#\\x00]{0,24}") {
            let once = tidy(path.as_bytes());
            prop_assert_eq!(tidy(&once), &once[..]);
        }

        #[test]
        fn a_plain_path_is_what_it_says(path in "(/[a-z0-9_-]{1,6}){1,4}") {
            let place = Routes::default().place(path.as_bytes(), |name, segment| name == segment);
            prop_assert_eq!(endpoint(&path), Ok(place.0));
        }

        #[test]
        fn what_nobody_reads_otherwise_needs_no_second_look(
            entry in proptest::sample::select(
                EXACT.iter().chain(&SUBTREES).chain(&OWN).map(|(entry, _)| *entry).chain(["", "/"]).collect::<Vec<_>>()
            ),
            end in "[a-z/._-]{0,4}",
            own in any::<bool>(),
        ) {
            let capital = serde_json::json!({"token": ["/OAuth/Token"], "closed": ["/Reg/*", "/x/*"]});
            let routes = if own { Routes::new(&serde_json::from_value(capital).unwrap()) } else { Routes::default() };
            let path = format!("/{entry}{end}").replacen("//", "/", 1);
            let place = routes.place(path.as_bytes(), |name, segment| name == segment);
            prop_assert_eq!(routes.classify(path.as_bytes()), routes.read_generously(path.as_bytes(), place));
        }

        #[test]
        fn encoding_any_of_a_protected_path_disguises_it(
            (entry, _) in proptest::sample::select([&OWN[..], &EXACT[..], &SUBTREES[..]].concat()),
            at in any::<proptest::sample::Index>(),
            times in 0_usize..5,
        ) {
            let at = at.index(entry.len().saturating_sub(1)).saturating_add(1);
            let (before, from) = entry.split_at(at);
            let path = format!("{before}%{}{:02x}{}", "25".repeat(times), from.as_bytes()[0], &from[1..]);
            prop_assert_eq!(endpoint(&path), Err(Disguised));
        }
    }
}
