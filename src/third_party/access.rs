//! What both endpoints hold a request to: which API a token may be for, and with which scopes.

use fluent_uri::Uri;

use super::parameters::Parameters;
use super::{Denial, OAuthError};
use crate::edge_api::{ClientRecord, EffectiveGrant, Permissions};
use crate::management::{SubjectType, is_scope_token, is_system_api};
use crate::sorted::sorted;
use crate::tenant::Settings;

/// The server's other word for the API (RFC 8707).
const RESOURCE: &str = "resource";

/// Scopes of OpenID Connect itself (Core §5.4), which no API's grant allows.
const OIDC_SCOPES: [&str; 5] = ["openid", "profile", "email", "address", "phone"];

/// The scope that asks for a refresh token (OpenID Connect Core §11).
const OFFLINE_ACCESS: &str = "offline_access";

/// What a server goes by if a request has no scope.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum WithoutScope {
    /// Its own defaults, which could exceed the grant.
    Defaults,
    /// The scopes of the code or of the refresh token (RFC 6749 §6), which were held to the grant for their API.
    Origin,
}

/// Whose token is asked for, and what may be in it.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    /// The client.
    pub client: &'a ClientRecord,
    /// What it may ask for.
    pub permissions: &'a Permissions,
    /// The tenant's.
    pub settings: &'a Settings,
    /// Whose behalf the token is on.
    pub subject_type: SubjectType,
    /// What the server does if nobody says a scope.
    pub without_scope: WithoutScope,
}

impl<'a> Ask<'a> {
    /// Holds a request to the grants: names the API in the server's words and leaves the scopes that the client may have.
    ///
    /// # Errors
    /// There is no API that the client may have a token for, or none of the scopes is left.
    pub fn hold(self, parameters: &mut Parameters) -> Result<(), Denial> {
        let apis = self.apis(parameters)?;
        self.scopes(parameters, &apis)
    }

    /// The grants of the APIs that the request names, or of the one that stands for none; the parameters name them by
    /// their identifiers.
    fn apis(self, parameters: &mut Parameters) -> Result<Vec<&'a EffectiveGrant>, Denial> {
        let word = self.settings.dcr_edge.parameters.audience.as_str();
        let resource = parameters.get(RESOURCE);
        if resource.is_some_and(|resource| !is_resource(resource)) {
            let description = "resource must be an absolute URI without a fragment";
            return Err(Denial::new(OAuthError::InvalidTarget, description));
        }
        let mut apis = Vec::new();
        for name in [audience_name(word), RESOURCE] {
            let Some(identifier) = parameters.get(name) else { continue };
            let grant = self.grant(identifier).ok_or_else(|| {
                let description = format!("the client has no grant for the API that {name} names");
                Denial::new(OAuthError::UnauthorizedClient, description)
            })?;
            parameters.set(name, &grant.audience);
            apis.push(grant);
        }
        if apis.is_empty() {
            apis.push(self.unnamed()?);
        }
        if let Some(first) = apis.first().filter(|_| parameters.get(word).is_none()) {
            parameters.set(word, &first.audience);
        }
        Ok(apis)
    }

    /// The grant of the API that a request means that names none.
    fn unnamed(self) -> Result<&'a EffectiveGrant, Denial> {
        if let Some(audience) = &self.settings.default_audience {
            let description = "the client has no grant for the default API: name another one with audience or resource";
            return self.grant(audience).ok_or_else(|| Denial::new(OAuthError::UnauthorizedClient, description));
        }
        let mut grants = self.grants();
        match (grants.next(), grants.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(Denial::new(OAuthError::InvalidRequest, "name the API with audience or resource")),
        }
    }

    fn grant(self, identifier: &str) -> Option<&'a EffectiveGrant> {
        let same = |grant: &&EffectiveGrant| without_root(&grant.audience) == without_root(identifier);
        self.grants().find(|grant| grant.audience == identifier).or_else(|| self.grants().find(same))
    }

    /// The grants that count. The store never says that a system API is granted, and is not trusted with that alone.
    fn grants(self) -> impl Iterator<Item = &'a EffectiveGrant> {
        let counts =
            move |grant: &&EffectiveGrant| grant.subject_type == self.subject_type && !is_system_api(&grant.audience);
        self.permissions.grants.iter().filter(counts)
    }

    /// Leaves of the scopes those that are allowed for every one of the APIs, in the order sent: which of them the server
    /// takes is its own business.
    fn scopes(self, parameters: &mut Parameters, apis: &[&EffectiveGrant]) -> Result<(), Denial> {
        let Some((first, others)) = apis.split_first() else { return Ok(()) };
        let sent: Option<Vec<&str>> = parameters.get("scope").map(|scope| scope.split(' ').collect());
        if sent.iter().flatten().any(|scope| !is_scope_token(scope)) {
            let description = "scope must be a list of scopes with one space between two of them";
            return Err(Denial::new(OAuthError::InvalidScope, description));
        }
        let asked: Vec<&str> = sent.clone().unwrap_or_else(|| first.scope.iter().map(String::as_str).collect());
        let distinct = sorted(asked.clone());
        let mut granted = distinct.clone();
        for api in apis {
            let of_api = api.scope.iter().map(String::as_str);
            granted = sorted(of_api.filter(|scope| granted.binary_search(scope).is_ok()).collect());
        }
        if sent.is_none() && self.is_held_by_its_origin(&granted) {
            return Ok(());
        }
        let may_have_oidc_scopes =
            self.subject_type == SubjectType::User && self.settings.dcr_edge.third_party_oidc_scopes;
        let may_refresh = self.may_refresh(apis);
        let is_allowed = |scope: &&str| match *scope {
            OFFLINE_ACCESS => may_refresh,
            scope if OIDC_SCOPES.contains(&scope) => may_have_oidc_scopes,
            scope => granted.binary_search(&scope).is_ok(),
        };
        let mut taken = vec![false; distinct.len()];
        let is_new = |scope: &&str| {
            let index = distinct.binary_search(scope).ok();
            index.and_then(|index| taken.get_mut(index)).is_some_and(|taken| !std::mem::replace(taken, true))
        };
        let left: Vec<&str> = asked.into_iter().filter(is_allowed).filter(is_new).collect();
        if !left.is_empty() {
            let left = left.join(" ");
            parameters.set("scope", &left);
            return Ok(());
        }
        // A grant without scopes is one of all scopes of an API that has none: no default of a server exceeds it.
        if sent.is_none() && first.scope.is_empty() && others.iter().all(|api| api.scope.is_empty()) {
            return Ok(());
        }
        let description = "the client may have none of these scopes: ask for one that it has a grant for";
        Err(Denial::new(OAuthError::InvalidScope, description))
    }

    /// Whether a token without a scope has no scope but these: the server goes by the origin, and no grant that the origin
    /// may be from allows another one.
    fn is_held_by_its_origin(self, scopes: &[&str]) -> bool {
        let is_among = |scope: &String| scopes.binary_search(&scope.as_str()).is_ok();
        let is_within = |grant: &EffectiveGrant| grant.scope.iter().all(is_among);
        self.without_scope == WithoutScope::Origin && self.grants().all(is_within)
    }

    fn may_refresh(self, apis: &[&EffectiveGrant]) -> bool {
        let registered = self.client.grant_types.iter().any(|grant| &**grant == "refresh_token");
        registered && self.subject_type == SubjectType::User && apis.iter().all(|api| api.allow_offline_access)
    }
}

/// The parameter beside `resource` that may name the API.
pub(super) fn audience_name(word: &str) -> &str {
    if word == RESOURCE { "audience" } else { word }
}

/// Gives a parameter the name that the server has for it.
///
/// # Errors
/// It is sent under both names.
pub(super) fn use_word(parameters: &mut Parameters, standard: &str, word: &str) -> Result<(), Denial> {
    let Some(value) = parameters.get(standard).filter(|_| standard != word).map(str::to_owned) else { return Ok(()) };
    if parameters.get(word).is_some() {
        let description = format!("{standard} and {word} mean the same: send one of them");
        return Err(Denial::new(OAuthError::InvalidRequest, description));
    }
    parameters.remove(standard);
    parameters.set(word, &value);
    Ok(())
}

/// Whether text is fit for a `code_verifier` or a `code_challenge`: 43 to 128 unreserved characters (RFC 7636 §4.1, §4.2).
pub(super) fn is_for_pkce(text: &str) -> bool {
    let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    (43..=128).contains(&text.len()) && text.bytes().all(is_unreserved)
}

/// RFC 8707 §2.
fn is_resource(text: &str) -> bool {
    Uri::parse(text).is_ok_and(|uri| uri.fragment().is_none())
}

/// The identifier without its last slash, if that is the whole path of a URI: `https://api.example/` and
/// `https://api.example` are one (RFC 3986 §6.2.3), and URL libraries add it.
fn without_root(identifier: &str) -> &str {
    let is_bare = |text: &&str| {
        Uri::parse(*text).is_ok_and(|uri| {
            let has_host = uri.authority().is_some_and(|authority| !authority.as_str().is_empty());
            has_host && uri.path().as_str().is_empty() && uri.query().is_none() && uri.fragment().is_none()
        })
    };
    identifier.strip_suffix('/').filter(is_bare).unwrap_or(identifier)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{client, grant, parameters, permissions};
    use super::*;
    use serde_json::json;

    const A: &str = "https://a.example";
    const B: &str = "https://b.example/v1";

    struct Case {
        client: ClientRecord,
        permissions: Permissions,
        settings: serde_json::Value,
        without_scope: WithoutScope,
        subject_type: SubjectType,
    }

    impl Case {
        fn new(grants: impl Into<Vec<EffectiveGrant>>) -> Self {
            Self {
                client: client(),
                permissions: permissions(grants),
                settings: json!({}),
                without_scope: WithoutScope::Defaults,
                subject_type: SubjectType::User,
            }
        }

        fn with(self, settings: serde_json::Value) -> Self {
            Self { settings, ..self }
        }

        fn hold(&self, sent: &[(&str, &str)]) -> Result<Parameters, &'static str> {
            let sent: Vec<_> = sent.iter().map(|(name, value)| (*name, Some(*value))).collect();
            let mut parameters = parameters(&sent);
            let ask = Ask {
                client: &self.client,
                permissions: &self.permissions,
                settings: &serde_json::from_value(self.settings.clone()).unwrap(),
                subject_type: self.subject_type,
                without_scope: self.without_scope,
            };
            ask.hold(&mut parameters).map(|()| parameters).map_err(|denial| denial.error.as_str())
        }

        /// The scopes that go on.
        fn scope(&self, sent: &[(&str, &str)]) -> Result<Option<String>, &'static str> {
            self.hold(sent).map(|parameters| parameters.get("scope").map(str::to_owned))
        }

        /// The API that goes on under `audience`.
        fn audience(&self, sent: &[(&str, &str)]) -> Result<String, &'static str> {
            self.hold(sent).map(|parameters| parameters.get("audience").unwrap().to_owned())
        }
    }

    fn two() -> Case {
        Case::new([grant(A, "read write"), grant(B, "read delete")])
    }

    fn refreshing(audience: &str, scope: &str) -> EffectiveGrant {
        EffectiveGrant { allow_offline_access: true, ..grant(audience, scope) }
    }

    #[test]
    fn audience_and_resource_must_name_an_api_with_a_grant() {
        for name in ["audience", "resource"] {
            assert_eq!(two().audience(&[(name, B)]).as_deref(), Ok(B));
            for other in ["https://c.example", "https://A.example", "https://b.example/v1/", "https://b.example"] {
                assert_eq!(two().hold(&[(name, other)]), Err("unauthorized_client"), "{name}={other}");
            }
        }
        assert_eq!(two().hold(&[("audience", "https://a.example https://b.example/v1")]), Err("unauthorized_client"));
    }

    #[test]
    fn a_grant_on_the_clients_own_behalf_is_no_user_grant() {
        let own = EffectiveGrant { subject_type: SubjectType::Client, ..grant(A, "read") };
        let case = Case::new([own]);
        assert_eq!(case.hold(&[("audience", A)]), Err("unauthorized_client"));
        assert_eq!(case.hold(&[]), Err("invalid_request"));
        let case = Case { subject_type: SubjectType::Client, ..case };
        assert_eq!(case.audience(&[]).as_deref(), Ok(A));
    }

    #[test]
    fn system_apis_are_never_granted() {
        let system = "https://tenant.example/api/v2/";
        let case = Case::new([grant(system, "read:clients"), grant(A, "read")]);
        assert_eq!(case.hold(&[("audience", system)]), Err("unauthorized_client"));
        assert_eq!(case.hold(&[("resource", system)]), Err("unauthorized_client"));
        // Nor are they an API that stands for none.
        assert_eq!(case.audience(&[]).as_deref(), Ok(A));
        let case = case.with(json!({"default_audience": system}));
        assert_eq!(case.hold(&[]), Err("unauthorized_client"));
    }

    #[test]
    fn without_audience_the_default_one_counts_then_the_only_one_and_else_it_is_an_invalid_request() {
        assert_eq!(two().with(json!({"default_audience": B})).audience(&[]).as_deref(), Ok(B));
        assert_eq!(two().with(json!({"default_audience": B})).audience(&[("audience", A)]).as_deref(), Ok(A));
        assert_eq!(Case::new([grant(A, "read")]).audience(&[]).as_deref(), Ok(A));
        assert_eq!(two().hold(&[]), Err("invalid_request"));
        assert_eq!(Case::new([]).hold(&[]), Err("invalid_request"));
        let of_another = Case::new([grant(A, "read")]).with(json!({"default_audience": B}));
        assert_eq!(of_another.hold(&[]), Err("unauthorized_client"));
    }

    #[test]
    fn with_audience_and_resource_both_must_be_granted_and_each_scope_in_both() {
        assert_eq!(two().scope(&[("audience", A), ("resource", B)]), Ok(Some("read".into())));
        let all = ("scope", "delete write read");
        assert_eq!(two().scope(&[("audience", A), ("resource", B), all]), Ok(Some("read".into())));
        assert_eq!(two().hold(&[("audience", A), ("resource", B), ("scope", "write")]), Err("invalid_scope"));
        assert_eq!(two().hold(&[("audience", A), ("resource", "https://c.example")]), Err("unauthorized_client"));
        assert_eq!(two().hold(&[("audience", "c"), ("resource", B)]), Err("unauthorized_client"));
        let disjoint = Case::new([grant(A, "read"), grant(B, "delete")]);
        assert_eq!(disjoint.hold(&[("audience", A), ("resource", B)]), Err("invalid_scope"));
    }

    #[test]
    fn one_trailing_slash_on_an_empty_path_is_ignored_both_ways() {
        for (identifier, sent) in [
            ("https://a.example", "https://a.example/"),
            ("https://a.example/", "https://a.example"),
            ("https://a.example:8443", "https://a.example:8443/"),
            ("https://a.example/", "https://a.example/"),
        ] {
            for name in ["audience", "resource"] {
                let going = Case::new([grant(identifier, "read")]).hold(&[(name, sent)]).unwrap();
                assert_eq!(going.get(name), Some(identifier), "{sent}");
            }
        }
        for (identifier, sent) in [
            ("https://a.example", "https://a.example//"),
            ("https://a.example/b", "https://a.example/b/"),
            ("https://a.example/b/", "https://a.example/b"),
            ("https://a.example?b", "https://a.example?b/"),
            ("my-api", "my-api/"),
            ("urn:a", "urn:a/"),
        ] {
            assert_eq!(Case::new([grant(identifier, "read")]).hold(&[("audience", sent)]), Err("unauthorized_client"));
        }
        // Of two that differ in it each is itself.
        let both = Case::new([grant("https://a.example", "read"), grant("https://a.example/", "write")]);
        assert_eq!(both.scope(&[("audience", "https://a.example/")]), Ok(Some("write".into())));
    }

    #[test]
    fn a_bad_resource_is_an_invalid_target() {
        let case = Case::new([grant("api", "read"), grant("https://a.example/#b", "read")]);
        for bad in
            ["api", "/api", "//a.example", "https://a.example/#b", "https://a.example#", "https://a b", "é:a", "1:a"]
        {
            assert_eq!(case.hold(&[("resource", bad)]), Err("invalid_target"), "{bad}");
        }
        assert_eq!(case.audience(&[("audience", "api")]).as_deref(), Ok("api"));
    }

    #[test]
    fn what_was_sent_stays_and_the_servers_word_is_added() {
        for (word, sent, adds) in
            [("audience", "resource", "audience"), ("resource", "audience", "resource"), ("api", "resource", "api")]
        {
            let case = two().with(json!({"dcr_edge": {"parameters": {"audience": word}}}));
            let going = case.hold(&[(sent, A)]).unwrap();
            assert_eq!((going.get(sent), going.get(adds)), (Some(A), Some(A)), "{word}");
        }
        let by_resource =
            two().with(json!({"dcr_edge": {"parameters": {"audience": "resource"}}, "default_audience": B}));
        let going = by_resource.hold(&[]).unwrap();
        assert_eq!((going.get("resource"), going.get("audience")), (Some(B), None));
    }

    #[test]
    fn scopes_outside_the_grant_are_removed_and_none_left_is_an_invalid_scope() {
        let case = Case::new([grant(A, "read write")]);
        assert_eq!(case.scope(&[("scope", "write admin read")]), Ok(Some("write read".into())));
        for outside in ["admin", "Read", "read,write", "rea", "read:write"] {
            assert_eq!(case.hold(&[("scope", outside)]), Err("invalid_scope"), "{outside}");
        }
    }

    #[test]
    fn scopes_keep_their_order_and_are_sent_once() {
        let case = Case::new([grant(A, "read write")]);
        assert_eq!(case.scope(&[("scope", "write read write read")]), Ok(Some("write read".into())));
    }

    #[test]
    fn a_scope_that_is_no_list_of_scopes_is_an_invalid_scope() {
        let case = Case::new([grant(A, "read write")]);
        for bad in ["read  write", " read", "read ", " ", "read\twrite", "read\nwrite", "read \"", "read \\", "read é"]
        {
            assert_eq!(case.hold(&[("scope", bad)]), Err("invalid_scope"), "{bad:?}");
        }
    }

    #[test]
    fn without_scope_that_of_the_grant_is_written() {
        assert_eq!(Case::new([grant(A, "write read")]).scope(&[]), Ok(Some("write read".into())));
    }

    #[test]
    fn a_grant_of_all_scopes_of_an_api_that_has_none_allows_a_request_without_scope_and_no_other() {
        let case = Case::new([grant(A, "")]);
        assert_eq!(case.scope(&[]), Ok(None));
        assert_eq!(case.scope(&[("scope", "read")]), Err("invalid_scope"));
        // The scopes of another API do not become its own.
        let case = Case::new([grant(A, ""), grant(B, "read")]);
        assert_eq!(case.scope(&[("audience", A), ("resource", B)]), Err("invalid_scope"));
    }

    #[test]
    fn offline_access_needs_the_registered_grant_and_an_api_that_allows_it() {
        let scope = ("scope", "read offline_access");
        let case = Case::new([refreshing(A, "read")]);
        assert_eq!(case.scope(&[scope]), Ok(Some("read offline_access".into())));
        assert_eq!(case.scope(&[("scope", "offline_access")]), Ok(Some("offline_access".into())));
        // Nobody gets one without asking.
        assert_eq!(case.scope(&[]), Ok(Some("read".into())));
        let codes_only = ClientRecord { grant_types: Box::new(["authorization_code".into()]), ..client() };
        assert_eq!(Case { client: codes_only, ..case }.scope(&[scope]), Ok(Some("read".into())));
        // An API's own scope of that name is no way around.
        let without = Case::new([grant(A, "read offline_access")]);
        assert_eq!(without.scope(&[scope]), Ok(Some("read".into())));
        assert_eq!(without.scope(&[]), Ok(Some("read".into())));
        let one_of_two = Case::new([refreshing(A, "read"), grant(B, "read")]);
        assert_eq!(one_of_two.scope(&[("audience", A), ("resource", B), scope]), Ok(Some("read".into())));
        let for_itself = EffectiveGrant { subject_type: SubjectType::Client, ..refreshing(A, "read") };
        let for_itself = Case { subject_type: SubjectType::Client, ..Case::new([for_itself]) };
        assert_eq!(for_itself.scope(&[scope]), Ok(Some("read".into())));
    }

    #[test]
    fn oidc_scopes_follow_the_tenants_setting() {
        let on = json!({"dcr_edge": {"third_party_oidc_scopes": true}});
        let all = ("scope", "openid profile email address phone read");
        let case = || Case::new([grant(A, "read openid")]);
        assert_eq!(case().scope(&[all]), Ok(Some("read".into())));
        assert_eq!(case().scope(&[]), Ok(Some("read".into())));
        assert_eq!(case().scope(&[("scope", "openid")]), Err("invalid_scope"));
        assert_eq!(case().with(on.clone()).scope(&[all]), Ok(Some(all.1.into())));
        assert_eq!(case().with(on.clone()).scope(&[("scope", "openid")]), Ok(Some("openid".into())));
        let for_itself = EffectiveGrant { subject_type: SubjectType::Client, ..grant(A, "read openid") };
        let for_itself = Case { subject_type: SubjectType::Client, ..Case::new([for_itself]).with(on) };
        assert_eq!(for_itself.scope(&[all]), Ok(Some("read".into())));
    }

    #[test]
    fn where_a_code_has_scopes_they_are_written_only_if_it_may_be_of_an_api_with_more() {
        let redeemed = |case: Case| Case { without_scope: WithoutScope::Origin, ..case };
        // A refresh token with fewer scopes than the grant must not be asked for all of them (RFC 6749 §6).
        assert_eq!(redeemed(Case::new([grant(A, "read write")])).scope(&[("resource", A)]), Ok(None));
        assert_eq!(redeemed(two()).scope(&[("resource", A)]), Ok(Some("read write".into())));
        let smaller = redeemed(Case::new([grant(A, "read write"), grant(B, "read")]));
        assert_eq!(smaller.scope(&[("resource", A)]), Ok(None));
        assert_eq!(smaller.scope(&[("resource", B)]), Ok(Some("read".into())));
        assert_eq!(smaller.scope(&[("audience", A), ("resource", B)]), Ok(Some("read".into())));
        assert_eq!(smaller.scope(&[("resource", B), ("scope", "write")]), Err("invalid_scope"));
    }

    #[test]
    fn a_grant_with_many_scopes_holds_a_request_with_many() {
        let many: Vec<String> = (0..1_000).map(|n| format!("s{n}")).collect();
        let case = Case::new([grant(A, &many.join(" "))]);
        assert_eq!(case.scope(&[]), Ok(Some(many.join(" "))));
        assert_eq!(case.scope(&[("scope", &format!("x {}", many.join(" ")))]), Ok(Some(many.join(" "))));
    }
}
