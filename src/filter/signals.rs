//! Where the signals of a request come from: the proxy's own view of the connection, never what a client says of itself.
//!
//! | signal | source |
//! |---|---|
//! | client's address | `source.address`, as the proxy's trusted-hop settings decided it |
//! | server name | `connection.requested_server_name` |
//! | peer's address, JA3, JA4 | filter state, set by the proxy's configuration from its own view of the connection |
//! | country, subdivision, ASN | request headers that the proxy's geolocation filter sets and a client cannot |
//! | user agent | the request |

use std::net::{IpAddr, SocketAddr};

use super::environment::Environment;
use super::request::Head;
use crate::acl::{Facts, Signal, SignalSet};
use crate::edge_api::{ASN_HEADER, COUNTRY_HEADER, Origin, REGION_HEADER, shortened_user_agent};
use crate::tenant;

/// Path of the filter state with the peer's address.
const CONNECTING_ADDRESS: &str = "filter_state\0dcr_edge.connecting_address";
/// Path of the filter state with the JA3 fingerprint.
const JA3: &str = "filter_state\0dcr_edge.ja3";
/// Path of the filter state with the JA4 fingerprint.
const JA4: &str = "filter_state\0dcr_edge.ja4";

/// The values of the signals that were asked for, as far as the request has them.
#[derive(Debug, Default)]
pub struct Observed {
    address: Option<IpAddr>,
    connecting_address: Option<IpAddr>,
    asn: Option<u32>,
    country: Option<String>,
    subdivision: Option<String>,
    ja3: Option<String>,
    ja4: Option<String>,
    user_agent: Option<Vec<u8>>,
}

impl Observed {
    /// Reads the `wanted` signals of the request at hand. Those without a source are not read.
    pub fn read<E: Environment>(environment: &E, head: &Head, wanted: SignalSet, sources: SignalSet) -> Self {
        let wanted = wanted.intersection(sources.union(SignalSet::BUILT_IN));
        let header = |name| text(head.first(name)?.to_vec());
        let state = |path| text(environment.property(path)?);
        let mut observed = Self::default();
        for signal in wanted.iter() {
            match signal {
                Signal::Address => observed.address = client_address(environment),
                Signal::ConnectingAddress => {
                    observed.connecting_address = state(CONNECTING_ADDRESS).and_then(|text| address(&text));
                }
                Signal::Asn => observed.asn = header(ASN_HEADER).and_then(|text| text.parse().ok()),
                Signal::Country => observed.country = header(COUNTRY_HEADER),
                Signal::Subdivision => {
                    observed.subdivision = header(REGION_HEADER);
                    observed.country = observed.country.take().or_else(|| header(COUNTRY_HEADER));
                }
                Signal::Ja3 => observed.ja3 = state(JA3),
                Signal::Ja4 => observed.ja4 = state(JA4),
                Signal::UserAgent => observed.user_agent = head.first("user-agent").map(<[u8]>::to_vec),
                // It is known already: it leads to the tenant.
                Signal::Host => {}
            }
        }
        observed
    }

    /// As the tenant's log shows them, for a request to `host`.
    pub fn origin(self, host: &str) -> Origin {
        let Self { address, asn, country, subdivision, ja3, ja4, user_agent, .. } = self;
        let user_agent = user_agent.map(|agent| shortened_user_agent(String::from_utf8_lossy(&agent).into_owned()));
        Origin { ip: address, user_agent, hostname: Some(host.to_owned()), asn, country, subdivision, ja3, ja4 }
    }

    /// As the rules look at them, with the hosts that the request names.
    pub fn facts<'a>(&'a self, authority: &'a str, server_name: Option<&'a str>) -> Facts<'a> {
        Facts {
            address: self.address,
            connecting_address: self.connecting_address,
            asn: self.asn,
            country: self.country.as_deref(),
            subdivision: self.subdivision.as_deref(),
            ja3: self.ja3.as_deref(),
            ja4: self.ja4.as_deref(),
            user_agent: self.user_agent.as_deref(),
            authority: (!authority.is_empty()).then_some(authority),
            server_name,
        }
    }
}

/// The client's address. None on a connection without one, such as a UNIX socket's.
pub fn client_address<E: Environment>(environment: &E) -> Option<IpAddr> {
    address(&text(environment.property("source\0address")?)?)
}

/// The name in the client's TLS hello: lower case. None without TLS, or if it names none.
pub fn server_name<E: Environment>(environment: &E) -> Option<String> {
    tenant::authority_host(&environment.property("connection\0requested_server_name")?)
}

/// An address with a port or without.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse().ok().map(|socket: SocketAddr| socket.ip());
    with_port().or_else(|| text.parse().ok())
}

/// Text that says something: the proxy writes `-` where it has nothing.
fn text(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty() && text != "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fake::Fake;

    fn everything() -> SignalSet {
        Signal::ALL.into_iter().collect()
    }

    fn read(fake: &Fake, wanted: SignalSet, sources: SignalSet) -> Observed {
        Observed::read(fake, &fake.request_head(), wanted, sources)
    }

    fn full() -> Fake {
        let fake = Fake::default();
        for (path, value) in [
            ("source.address", "[2001:db8::7]:4711"),
            ("filter_state.dcr_edge.connecting_address", "198.51.100.7"),
            ("filter_state.dcr_edge.ja3", "a3"),
            ("filter_state.dcr_edge.ja4", "a4"),
        ] {
            fake.properties.lock().unwrap().insert(path.to_owned(), value.as_bytes().to_vec());
        }
        let headers = [(COUNTRY_HEADER, "CH"), (REGION_HEADER, "ZH"), (ASN_HEADER, "64500"), ("user-agent", "curl")];
        *fake.headers.lock().unwrap() =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        fake
    }

    #[test]
    fn every_signal_is_read_from_its_source() {
        let observed = read(&full(), everything(), everything());
        let facts = observed.facts("a.test", Some("b.test"));
        assert_eq!(facts.address, Some("2001:db8::7".parse().unwrap()));
        assert_eq!(facts.connecting_address, Some("198.51.100.7".parse().unwrap()));
        assert_eq!((facts.asn, facts.country, facts.subdivision), (Some(64_500), Some("CH"), Some("ZH")));
        assert_eq!((facts.ja3, facts.ja4, facts.user_agent), (Some("a3"), Some("a4"), Some(&b"curl"[..])));
        assert_eq!((facts.authority, facts.server_name), (Some("a.test"), Some("b.test")));
    }

    #[test]
    fn what_the_configuration_names_no_source_for_is_never_read() {
        let observed = read(&full(), everything(), SignalSet::default());
        let facts = observed.facts("", None);
        assert_eq!((facts.connecting_address, facts.asn, facts.country, facts.subdivision), (None, None, None, None));
        assert_eq!((facts.ja3, facts.ja4, facts.authority), (None, None, None));
        assert!(facts.address.is_some() && facts.user_agent.is_some());
    }

    #[test]
    fn nothing_is_read_that_no_rule_needs() {
        let observed = read(&full(), Signal::Subdivision.into(), everything());
        let facts = observed.facts("", None);
        assert_eq!((facts.country, facts.subdivision, facts.address, facts.ja4), (Some("CH"), Some("ZH"), None, None));
    }

    #[test]
    fn an_address_is_one_with_a_port_or_without() {
        for (text, expected) in [
            ("198.51.100.7:1", Some("198.51.100.7")),
            ("198.51.100.7", Some("198.51.100.7")),
            ("[2001:db8::1]:1", Some("2001:db8::1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("/run/socket", None),
            ("", None),
        ] {
            assert_eq!(address(text).map(|address| address.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_says_nothing_is_unknown() {
        let fake = Fake::default();
        for nothing in ["", "-"] {
            fake.properties.lock().unwrap().insert("filter_state.dcr_edge.ja4".to_owned(), nothing.into());
            let observed = read(&fake, everything(), everything());
            assert_eq!(observed.facts("", None).ja4, None);
        }
    }
}
