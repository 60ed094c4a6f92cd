//! Rules as they are searched: compiled once for each change.
//!
//! Evaluation looks at the rules of a request's kind in order. Within a rule each list is a sorted one, so that its
//! length costs a logarithm; only user agents with a `*` are compared one by one. Nothing is allocated.

use super::rule::{Condition, Effect, Rule, Scope, Signals};
use super::signal::{Facts, RequestKind, Signal, SignalSet};
use crate::cidr::CidrSet;
use crate::sorted::sorted;

/// Longest user agent that is compared, in bytes. A longer one is an unknown one.
const MAX_USER_AGENT: usize = 1_024;

/// What the rules say to a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict<'i> {
    /// No rule decides.
    NoMatch,
    /// It passes.
    Allow,
    /// It is refused.
    Block,
    /// It is sent elsewhere.
    Redirect {
        /// Where to.
        uri: &'i str,
        /// The host of that, lower case, without port.
        host: &'i str,
    },
}

/// Rules as they are searched. A rule goes by its place in the list that it was compiled from.
#[derive(Debug, Default)]
pub struct Index {
    rules: Box<[Compiled]>,
    by_kind: [ForKind; 3],
}

/// The rules that look at one kind of request.
#[derive(Debug, Default)]
struct ForKind {
    places: Box<[u16]>,
    needs: SignalSet,
}

#[derive(Debug)]
struct Compiled {
    effect: Option<Effect>,
    monitors: bool,
    matches: Option<Matcher>,
    not_matches: Option<Matcher>,
}

impl Index {
    /// Compiles rules, which are in the order of evaluation. There are no more than [`super::rule::MAX_RULES`].
    pub fn new<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> Self {
        let (mut compiled, mut by_kind) = (Vec::new(), [const { (Vec::new(), SignalSet(0)) }; 3]);
        for rule in rules {
            let Ok(place) = u16::try_from(compiled.len()) else { break };
            for ((places, needs), kind) in by_kind.iter_mut().zip(RequestKind::ALL) {
                if covers(rule.scope, kind) {
                    places.push(place);
                    *needs = needs.union(rule.named_signals());
                }
            }
            compiled.push(Compiled::new(rule));
        }
        let by_kind = by_kind.map(|(places, needs)| ForKind { places: places.into(), needs });
        Self { rules: compiled.into(), by_kind }
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The signals without which requests of this kind cannot be judged.
    pub fn needs(&self, kind: RequestKind) -> SignalSet {
        self.for_kind(kind).needs
    }

    /// Whether the rule at this place only monitors.
    pub fn monitors(&self, place: usize) -> bool {
        self.rules.get(place).is_some_and(|rule| rule.monitors)
    }

    /// Judges a request. `looked_at` hears of each rule that was evaluated, by its place, and whether it matched.
    pub fn evaluate(&self, kind: RequestKind, facts: &Facts, mut looked_at: impl FnMut(usize, bool)) -> Verdict<'_> {
        for place in &self.for_kind(kind).places {
            let place = usize::from(*place);
            let Some(rule) = self.rules.get(place) else { continue };
            let matched = rule.holds(facts);
            looked_at(place, matched);
            if matched && !rule.monitors {
                match &rule.effect {
                    None => {}
                    Some(Effect::Allow) => return Verdict::Allow,
                    Some(Effect::Block) => return Verdict::Block,
                    Some(Effect::Redirect(to)) => return Verdict::Redirect { uri: to.as_str(), host: to.host() },
                }
            }
        }
        Verdict::NoMatch
    }

    fn for_kind(&self, kind: RequestKind) -> &ForKind {
        let [management, registration, other] = &self.by_kind;
        match kind {
            RequestKind::Management => management,
            RequestKind::Registration => registration,
            RequestKind::Other => other,
        }
    }
}

/// Whether rules of the scope look at requests of the kind.
pub(super) fn covers(scope: Scope, kind: RequestKind) -> bool {
    match scope {
        Scope::Tenant => true,
        Scope::Management => kind == RequestKind::Management,
        Scope::Authentication => kind != RequestKind::Management,
        Scope::DynamicClientRegistration => kind == RequestKind::Registration,
    }
}

impl Compiled {
    fn new(rule: &Rule) -> Self {
        let (matches, not_matches) = match &rule.condition {
            Condition::MatchAll => (None, None),
            Condition::Signals { matches, not_matches } => (matches.as_deref(), not_matches.as_deref()),
        };
        Self {
            effect: rule.action.effect.clone(),
            monitors: rule.action.log,
            matches: matches.map(Matcher::new),
            not_matches: not_matches.map(Matcher::new),
        }
    }

    /// Whether the condition holds. Where the request names two hosts, one is enough for a rule that refuses, and a
    /// rule that allows needs both.
    fn holds(&self, facts: &Facts) -> bool {
        let (host, other) = facts.hosts();
        let allows = matches!(self.effect, Some(Effect::Allow));
        let first = self.holds_for(facts, host, allows);
        match other {
            Some(_) if first == allows => self.holds_for(facts, other, allows),
            _ => first,
        }
    }

    fn holds_for(&self, facts: &Facts, host: Option<&str>, allows: bool) -> bool {
        self.matches.as_ref().is_none_or(|matcher| matcher.matches(facts, host))
            && self.not_matches.as_ref().is_none_or(|matcher| matcher.matches_not(facts, host, allows))
    }
}

/// The values of one `match` or `not_match`.
#[derive(Debug)]
struct Matcher {
    lists: Box<[List]>,
}

/// The values of one signal, sorted. Texts that compare without case are in lower case.
#[derive(Debug)]
enum List {
    Addresses(CidrSet),
    ConnectingAddresses(CidrSet),
    Asns(Box<[u32]>),
    Countries(Texts),
    Subdivisions(Texts),
    Ja3s(Texts),
    Ja4s(Texts),
    Hosts(Texts),
    UserAgents { whole: Texts, patterns: Box<[Pattern]> },
}

/// Sorted texts.
#[derive(Debug)]
struct Texts(Box<[Box<[u8]>]>);

impl Texts {
    fn new<'t>(texts: impl Iterator<Item = &'t str>) -> Self {
        Self(sorted(texts.map(|text| text.as_bytes().into()).collect()))
    }

    fn in_lower_case(texts: &[String]) -> Self {
        Self(sorted(texts.iter().map(|text| text.to_ascii_lowercase().into_bytes().into()).collect()))
    }

    fn has(&self, text: &[u8]) -> bool {
        self.0.binary_search_by(|entry| (**entry).cmp(text)).is_ok()
    }

    /// Whether a text in any case is there.
    fn has_in_lower_case(&self, text: &str) -> bool {
        let same_case = |entry: &[u8]| entry.iter().copied().cmp(text.bytes().map(|b| b.to_ascii_lowercase()));
        self.0.binary_search_by(|entry| same_case(entry)).is_ok()
    }

    /// Whether an ISO 3166-2 code in any case is there, of which `rest` is the part after the country's.
    fn has_subdivision(&self, country: &str, rest: &str) -> bool {
        let code = || country.bytes().chain([b'-']).chain(rest.bytes()).map(|b| b.to_ascii_lowercase());
        self.0.binary_search_by(|entry| entry.iter().copied().cmp(code())).is_ok()
    }
}

impl Matcher {
    fn new(signals: &Signals) -> Self {
        let [v4, v6, connecting_v4, connecting_v6] = signals.cidr_lists();
        let list = |signal| match signal {
            Signal::Address => List::Addresses(v4.iter().chain(v6).collect()),
            Signal::ConnectingAddress => List::ConnectingAddresses(connecting_v4.iter().chain(connecting_v6).collect()),
            Signal::Asn => List::Asns(sorted(signals.asns.to_vec())),
            Signal::Country => List::Countries(Texts::in_lower_case(&signals.geo_country_codes)),
            Signal::Subdivision => List::Subdivisions(Texts::in_lower_case(&signals.geo_subdivision_codes)),
            Signal::Ja3 => List::Ja3s(Texts::in_lower_case(&signals.ja3_fingerprints)),
            Signal::Ja4 => List::Ja4s(Texts::in_lower_case(&signals.ja4_fingerprints)),
            Signal::Host => List::Hosts(Texts::new(signals.hostnames.iter().map(|host| host.as_str()))),
            Signal::UserAgent => {
                let (patterns, whole): (Vec<_>, Vec<_>) =
                    signals.user_agents.iter().map(String::as_str).partition(|entry| entry.contains('*'));
                List::UserAgents {
                    whole: Texts::new(whole.into_iter()),
                    patterns: patterns.into_iter().map(Pattern::new).collect(),
                }
            }
        };
        Self { lists: signals.named().iter().map(list).collect() }
    }

    /// Whether each signal has one of its values.
    fn matches(&self, facts: &Facts, host: Option<&str>) -> bool {
        self.lists.iter().all(|list| list.has(facts, host) == Some(true))
    }

    /// Whether no signal has one of its values. An unknown one has none; if all must be `known`, it does not do.
    fn matches_not(&self, facts: &Facts, host: Option<&str>, known: bool) -> bool {
        self.lists.iter().all(|list| match list.has(facts, host) {
            Some(has) => !has,
            None => !known,
        })
    }
}

impl List {
    /// Whether the request's value is in the list; `None` if it has none.
    fn has(&self, facts: &Facts, host: Option<&str>) -> Option<bool> {
        Some(match self {
            Self::Addresses(set) => set.contains(facts.address?),
            Self::ConnectingAddresses(set) => set.contains(facts.connecting_address?),
            Self::Asns(asns) => asns.binary_search(&facts.asn?).is_ok(),
            Self::Countries(codes) => codes.has_in_lower_case(facts.country.filter(|code| code.len() == 2)?),
            Self::Subdivisions(codes) => {
                codes.has_subdivision(facts.country.filter(|code| code.len() == 2)?, facts.subdivision?)
            }
            Self::Ja3s(prints) => prints.has_in_lower_case(facts.ja3?),
            Self::Ja4s(prints) => prints.has_in_lower_case(facts.ja4?),
            Self::Hosts(hosts) => hosts.has(host?.as_bytes()),
            Self::UserAgents { whole, patterns } => {
                let agent = facts.user_agent.filter(|agent| agent.len() <= MAX_USER_AGENT)?;
                whole.has(agent)
                    || (!patterns.is_empty() && {
                        let agent = String::from_utf8_lossy(agent);
                        patterns.iter().any(|pattern| pattern.matches(&agent))
                    })
            }
        })
    }
}

/// A text in which `*` stands for any characters, also for none.
#[derive(Debug)]
struct Pattern {
    start: Box<str>,
    middle: Box<[Box<str>]>,
    end: Box<str>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        let mut pieces: Vec<Box<str>> = text.split('*').map(Box::from).collect();
        let end = pieces.pop().unwrap_or_default();
        let mut pieces = pieces.into_iter();
        let start = pieces.next().unwrap_or_default();
        Self { start, middle: pieces.filter(|piece| !piece.is_empty()).collect(), end }
    }

    /// Each piece is taken where it comes first, which leaves most room for the next ones. The time grows with the lengths
    /// of text and pattern, never with their product, whatever a client sends.
    fn matches(&self, text: &str) -> bool {
        let inner = text.strip_prefix(&*self.start).and_then(|rest| rest.strip_suffix(&*self.end));
        let Some(mut rest) = inner else { return false };
        for piece in &self.middle {
            let Some((_, after)) = rest.split_once(&**piece) else { return false };
            rest = after;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn rule(value: Value) -> Rule {
        serde_json::from_value(value).unwrap_or_else(|error| panic!("{error}"))
    }

    fn block(condition: Value) -> Rule {
        with_action(json!({"block": true}), condition)
    }

    fn allow(condition: Value) -> Rule {
        with_action(json!({"allow": true}), condition)
    }

    fn with_action(action: Value, condition: Value) -> Rule {
        let mut value = condition;
        value["action"] = action;
        if value.get("scope").is_none() {
            value["scope"] = json!("tenant");
        }
        rule(value)
    }

    fn verdict(rules: &[Rule], facts: &Facts) -> String {
        match Index::new(rules).evaluate(RequestKind::Registration, facts, |_, _| {}) {
            Verdict::NoMatch => "no match".to_owned(),
            Verdict::Allow => "allow".to_owned(),
            Verdict::Block => "block".to_owned(),
            Verdict::Redirect { uri, .. } => uri.to_owned(),
        }
    }

    fn blocks(rule: &Rule, facts: &Facts) -> bool {
        verdict(std::slice::from_ref(rule), facts) != "no match"
    }

    fn from(address: &str) -> Facts<'static> {
        Facts { address: Some(address.parse().unwrap()), ..Facts::default() }
    }

    /// For each signal: a value in a rule, facts that have it, and facts that have another.
    fn each_signal() -> Vec<(Value, Facts<'static>, Facts<'static>)> {
        const UNKNOWN: Facts = Facts {
            address: None,
            connecting_address: None,
            asn: None,
            country: None,
            subdivision: None,
            ja3: None,
            ja4: None,
            user_agent: None,
            authority: None,
            server_name: None,
        };
        let peer = |text: &str| Facts { connecting_address: Some(text.parse().unwrap()), ..UNKNOWN };
        let at = |country, subdivision| Facts { country: Some(country), subdivision: Some(subdivision), ..UNKNOWN };
        let ja3 = |text| Facts { ja3: Some(text), ..UNKNOWN };
        let ja4 = |text| Facts { ja4: Some(text), ..UNKNOWN };
        let agent = |text: &'static str| Facts { user_agent: Some(text.as_bytes()), ..UNKNOWN };
        let host = |text| Facts { authority: Some(text), ..UNKNOWN };
        vec![
            (json!({"asns": [64500, 7]}), Facts { asn: Some(64500), ..UNKNOWN }, Facts { asn: Some(64501), ..UNKNOWN }),
            (json!({"ipv4_cidrs": ["198.51.100.0/24"]}), from("198.51.100.7"), from("203.0.113.7")),
            (json!({"ipv6_cidrs": ["2001:db8::/32"]}), from("2001:db8::7"), from("2001:db9::7")),
            (json!({"connecting_ipv4_cidrs": ["198.51.100.7"]}), peer("198.51.100.7"), peer("198.51.100.8")),
            (json!({"connecting_ipv6_cidrs": ["2001:db8::7"]}), peer("2001:db8::7"), peer("2001:db8::8")),
            (json!({"hostnames": ["A.test", "b.test"]}), host("a.test"), host("aa.test")),
            (json!({"geo_country_codes": ["ch", "DE"]}), at("CH", "ZH"), at("US", "NY")),
            (json!({"geo_subdivision_codes": ["ch-zh", "DE-BE"]}), at("CH", "ZH"), at("US", "ZH")),
            (
                json!({"ja3_fingerprints": ["773906B0EFDEFA24A7F2B8EB6985BF37"]}),
                ja3("773906b0efdefa24a7f2b8eb6985bf37"),
                ja3("00000000000000000000000000000000"),
            ),
            (
                json!({"ja4_fingerprints": ["T13D1516H2_8daaf6152771_02713d6af862"]}),
                ja4("t13d1516h2_8daaf6152771_02713d6af862"),
                ja4("t13d1516h1_8daaf6152771_02713d6af862"),
            ),
            (json!({"user_agents": ["curl/8.5.0", "bad*"]}), agent("badger/1"), agent("CURL/8.5.0")),
        ]
    }

    #[test]
    fn each_signal_matches_its_value_and_no_other() {
        for (signals, same, other) in each_signal() {
            let (matching, not_matching) = (block(json!({"match": signals})), block(json!({"not_match": signals})));
            assert!(blocks(&matching, &same) && !blocks(&not_matching, &same), "{signals}");
            assert!(!blocks(&matching, &other) && blocks(&not_matching, &other), "{signals}");
        }
    }

    #[test]
    fn an_unknown_value_matches_nothing_and_satisfies_no_rule_that_allows() {
        for (signals, same, other) in each_signal() {
            let unknown = Facts::default();
            assert!(!blocks(&block(json!({"match": signals})), &unknown), "{signals}");
            assert!(blocks(&block(json!({"not_match": signals})), &unknown), "{signals}");
            let (matching, not_matching) = (allow(json!({"match": signals})), allow(json!({"not_match": signals})));
            assert!(!blocks(&matching, &unknown) && !blocks(&not_matching, &unknown), "{signals}");
            assert!(blocks(&matching, &same) && blocks(&not_matching, &other), "{signals}");
        }
    }

    #[test]
    fn one_entry_of_a_signal_is_enough_and_every_signal_has_to_match() {
        let both = block(json!({"match": {"asns": [1, 2], "geo_country_codes": ["CH", "DE"]}}));
        let facts = |asn, country| Facts { asn: Some(asn), country: Some(country), ..Facts::default() };
        assert!(blocks(&both, &facts(2, "CH")) && blocks(&both, &facts(1, "DE")));
        assert!(!blocks(&both, &facts(3, "CH")) && !blocks(&both, &facts(1, "US")));
    }

    #[test]
    fn of_the_lists_for_ipv4_and_ipv6_one_is_enough() {
        for prefix in ["", "connecting_"] {
            let mut signals = json!({"asns": [1]});
            signals[format!("{prefix}ipv4_cidrs")] = json!(["198.51.100.0/24"]);
            signals[format!("{prefix}ipv6_cidrs")] = json!(["2001:db8::/32"]);
            let rule = block(json!({"match": signals}));
            let facts = |address: &str| {
                let address = Some(address.parse().unwrap());
                Facts { address, connecting_address: address, asn: Some(1), ..Facts::default() }
            };
            for (address, is_in) in
                [("198.51.100.1", true), ("2001:db8::1", true), ("::ffff:198.51.100.1", true), ("203.0.113.1", false)]
            {
                assert_eq!(blocks(&rule, &facts(address)), is_in, "{prefix}{address}");
            }
        }
    }

    #[test]
    fn not_match_holds_only_if_none_of_the_values_of_any_signal_matches() {
        let rule = block(json!({"not_match": {"asns": [1], "geo_country_codes": ["CH"]}}));
        let facts = |asn, country| Facts { asn: Some(asn), country: Some(country), ..Facts::default() };
        assert!(blocks(&rule, &facts(2, "US")));
        assert!(!blocks(&rule, &facts(1, "US")) && !blocks(&rule, &facts(2, "CH")) && !blocks(&rule, &facts(1, "CH")));
    }

    #[test]
    fn with_match_and_not_match_both_have_to_hold() {
        let rule =
            block(json!({"match": {"ipv4_cidrs": ["10.0.0.0/8"]}, "not_match": {"ipv4_cidrs": ["10.1.0.0/16"]}}));
        assert!(blocks(&rule, &from("10.2.0.1")));
        assert!(!blocks(&rule, &from("10.1.0.1")) && !blocks(&rule, &from("11.0.0.1")));
    }

    #[test]
    fn match_all_holds_whatever_is_known() {
        assert!(blocks(&block(json!({"match_all": true})), &Facts::default()));
        assert!(blocks(&allow(json!({"match_all": true})), &Facts::default()));
    }

    #[test]
    fn the_first_match_ends_it() {
        let inside = json!({"match": {"ipv4_cidrs": ["10.0.0.0/8"]}});
        let everything = json!({"match_all": true});
        let rules = [allow(inside.clone()), block(everything.clone())];
        assert_eq!(verdict(&rules, &from("10.0.0.1")), "allow");
        assert_eq!(verdict(&rules, &from("11.0.0.1")), "block");
        assert_eq!(verdict(&[block(everything), allow(inside.clone())], &from("10.0.0.1")), "block");
        let away = with_action(json!({"redirect": true, "redirect_uri": "https://x.example/"}), inside.clone());
        assert_eq!(verdict(&[away, block(inside)], &from("10.0.0.1")), "https://x.example/");
    }

    #[test]
    fn a_monitoring_rule_is_counted_and_evaluation_goes_on() {
        let monitored = |action: Value| with_action(action, json!({"match_all": true}));
        let rules = [
            monitored(json!({"block": true, "log": true})),
            monitored(json!({"log": true})),
            monitored(json!({"allow": true})),
            monitored(json!({"block": true})),
        ];
        let mut seen = Vec::new();
        let index = Index::new(&rules);
        let verdict =
            index.evaluate(RequestKind::Other, &Facts::default(), |place, matched| seen.push((place, matched)));
        assert_eq!(verdict, Verdict::Allow);
        assert_eq!(seen, [(0, true), (1, true), (2, true)]);
    }

    #[test]
    fn a_scope_covers_what_it_says() {
        use RequestKind::{Management, Other, Registration};
        for (scope, covered) in [
            ("tenant", &[Management, Registration, Other][..]),
            ("management", &[Management]),
            ("authentication", &[Registration, Other]),
            ("dynamic_client_registration", &[Registration]),
            ("dcr", &[Registration]),
        ] {
            let index = Index::new(&[block(json!({"match": {"asns": [1]}, "scope": scope}))]);
            for kind in RequestKind::ALL {
                let facts = Facts { asn: Some(1), ..Facts::default() };
                let is_covered = covered.contains(&kind);
                assert_eq!(index.evaluate(kind, &facts, |_, _| {}) == Verdict::Block, is_covered, "{scope} {kind:?}");
                assert_eq!(index.needs(kind).has(Signal::Asn), is_covered);
            }
        }
    }

    #[test]
    fn of_two_hosts_one_is_enough_to_refuse_and_both_are_needed_to_allow() {
        let named = |authority, server_name| Facts {
            authority: Some(authority),
            server_name: Some(server_name),
            ..Facts::default()
        };
        let (a, b) = (json!({"match": {"hostnames": ["a.test"]}}), json!({"not_match": {"hostnames": ["a.test"]}}));
        for facts in [named("a.test", "b.test"), named("b.test", "a.test")] {
            assert!(blocks(&block(a.clone()), &facts) && blocks(&block(b.clone()), &facts));
            assert!(!blocks(&allow(a.clone()), &facts) && !blocks(&allow(b.clone()), &facts));
        }
        let same = named("a.test", "a.test");
        assert!(blocks(&allow(a), &same) && !blocks(&block(b), &same));
    }

    #[test]
    fn a_user_agent_is_compared_as_a_whole_and_a_star_stands_for_anything() {
        for (pattern, agent, matches) in [
            ("curl/8", "curl/8", true),
            ("curl/8", "curl/8.1", false),
            ("curl/8", "Curl/8", false),
            ("curl/*", "curl/", true),
            ("*bot*", "a bot b", true),
            ("*bot*", "a bo t", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ab*ba", "aba", false),
            ("*", "", true),
            ("a**b", "ab", true),
        ] {
            let rule = block(json!({"match": {"user_agents": [pattern]}}));
            let facts = Facts { user_agent: Some(agent.as_bytes()), ..Facts::default() };
            assert_eq!(blocks(&rule, &facts), matches, "{pattern} {agent}");
        }
        let rule = block(json!({"match": {"user_agents": ["*"]}}));
        let facts = |agent| Facts { user_agent: Some(agent), ..Facts::default() };
        assert!(blocks(&rule, &facts(&[0xff; 1_024])) && !blocks(&rule, &facts(&[b'a'; 1_025])));
    }

    #[test]
    fn what_is_no_value_is_unknown() {
        let country = |country| Facts { country: Some(country), subdivision: Some("ZH"), ..Facts::default() };
        for facts in [country(""), country("-"), country("CHE")] {
            assert!(blocks(&block(json!({"not_match": {"geo_country_codes": ["CH"]}})), &facts));
            assert!(!blocks(&allow(json!({"not_match": {"geo_country_codes": ["US"]}})), &facts));
        }
    }
}
