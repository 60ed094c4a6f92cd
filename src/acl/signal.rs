//! What is known of a request, and what can be known at all.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::rule::{Rule, Signals};

/// What kind of request it is, as far as scopes tell requests apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestKind {
    /// To the Management API or SCIM.
    Management,
    /// A registration.
    Registration,
    /// Everything else.
    Other,
}

impl RequestKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Management, Self::Registration, Self::Other];
}

/// What is known of a request. A value that is not there, or that is no value, is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The direct peer's address.
    pub connecting_address: Option<IpAddr>,
    /// The autonomous system of the client's address.
    pub asn: Option<u32>,
    /// The country of the client's address: ISO 3166-1 alpha-2.
    pub country: Option<&'a str>,
    /// The subdivision of the client's address, without the country: the second part of an ISO 3166-2 code.
    pub subdivision: Option<&'a str>,
    /// The JA3 fingerprint of the client's TLS.
    pub ja3: Option<&'a str>,
    /// The JA4 fingerprint of the client's TLS.
    pub ja4: Option<&'a str>,
    /// The `user-agent`.
    pub user_agent: Option<&'a [u8]>,
    /// The host of the `:authority`: lower case, without port.
    pub authority: Option<&'a str>,
    /// The name in the client's TLS hello (RFC 6066 §3): lower case.
    pub server_name: Option<&'a str>,
}

impl<'a> Facts<'a> {
    /// The hosts that the request names, once each.
    pub(super) fn hosts(&self) -> (Option<&'a str>, Option<&'a str>) {
        match (self.server_name, self.authority) {
            (None, authority) => (authority, None),
            (server_name, authority) if authority == server_name => (server_name, None),
            both => both,
        }
    }
}

/// A signal by which rules tell requests apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// The client's address.
    Address,
    /// The direct peer's address.
    ConnectingAddress,
    /// The autonomous system.
    Asn,
    /// The country.
    Country,
    /// The subdivision.
    Subdivision,
    /// The JA3 fingerprint.
    Ja3,
    /// The JA4 fingerprint.
    Ja4,
    /// The user agent.
    UserAgent,
    /// The host.
    Host,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Address,
        Self::ConnectingAddress,
        Self::Asn,
        Self::Country,
        Self::Subdivision,
        Self::Ja3,
        Self::Ja4,
        Self::UserAgent,
        Self::Host,
    ];

    /// Its name, as serde has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::ConnectingAddress => "connecting_address",
            Self::Asn => "asn",
            Self::Country => "country",
            Self::Subdivision => "subdivision",
            Self::Ja3 => "ja3",
            Self::Ja4 => "ja4",
            Self::UserAgent => "user_agent",
            Self::Host => "host",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// Some signals.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SignalSet(pub(super) u16);

impl SignalSet {
    /// Those that every proxy knows of every request.
    pub const BUILT_IN: Self = Self(Signal::Address.bit() | Signal::UserAgent.bit() | Signal::Host.bit());

    /// Whether the signal is one of them.
    pub fn has(self, signal: Signal) -> bool {
        self.0 & signal.bit() != 0
    }

    /// Those of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether it has none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their names, with commas between them.
    pub fn names(self) -> String {
        let names: Vec<_> = self.iter().map(Signal::as_str).collect();
        names.join(",")
    }

    /// The signals.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        Signal::ALL.into_iter().filter(move |signal| self.has(*signal))
    }
}

impl From<Signal> for SignalSet {
    fn from(signal: Signal) -> Self {
        Self(signal.bit())
    }
}

impl FromIterator<Signal> for SignalSet {
    fn from_iter<I: IntoIterator<Item = Signal>>(signals: I) -> Self {
        signals.into_iter().fold(Self::default(), |set, signal| set.union(signal.into()))
    }
}

impl Signals {
    /// The signals that have values here.
    pub fn named(&self) -> SignalSet {
        let [v4, v6, connecting_v4, connecting_v6] = self.cidr_lists();
        let has = |signal, is_empty: bool| (!is_empty).then_some(signal);
        [
            has(Signal::Address, v4.is_empty() && v6.is_empty()),
            has(Signal::ConnectingAddress, connecting_v4.is_empty() && connecting_v6.is_empty()),
            has(Signal::Asn, self.asns.is_empty()),
            has(Signal::Country, self.geo_country_codes.is_empty()),
            has(Signal::Subdivision, self.geo_subdivision_codes.is_empty()),
            has(Signal::Ja3, self.ja3_fingerprints.is_empty()),
            has(Signal::Ja4, self.ja4_fingerprints.is_empty()),
            has(Signal::UserAgent, self.user_agents.is_empty()),
            has(Signal::Host, self.hostnames.is_empty()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Rule {
    /// The signals that the condition names.
    pub fn named_signals(&self) -> SignalSet {
        self.condition.signals().map(Signals::named).fold(SignalSet::default(), SignalSet::union)
    }
}
