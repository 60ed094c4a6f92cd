//! The host names that lead to a tenant.

use serde::{Deserialize, Serialize};

/// A host a tenant answers for: a DNS name, an IPv4 address or an IPv6 address in brackets; lower case, no port.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct Domain(String);

impl Domain {
    /// The host as text, lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Domain {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        if is_address(&lower) || is_dns_name(&lower) {
            Ok(Self(lower))
        } else {
            Err("a domain is a host without scheme, port or path, such as login.example.com, 127.0.0.1 or [::1]"
                .to_owned())
        }
    }
}

impl std::str::FromStr for Domain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> Self {
        domain.0
    }
}

impl std::fmt::Display for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The host of an `:authority` or `host` value, lower case, without port and without the root's trailing dot.
///
/// `None` if it has no host or is no text: such a request belongs to no tenant.
pub fn authority_host(authority: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(authority).ok()?;
    let host = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']')?;
            is_port_suffix(after).then(|| format!("[{}]", inside.to_ascii_lowercase()))?
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (host, after) = text.split_at_checked(end)?;
            is_port_suffix(after).then(|| host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase())?
        }
    };
    (!host.is_empty()).then_some(host)
}

fn is_port_suffix(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

fn is_address(text: &str) -> bool {
    match text.strip_prefix('[') {
        // An address has many spellings; only the canonical one can equal what a client sends.
        Some(rest) => rest.strip_suffix(']').is_some_and(|inside| {
            inside.parse::<std::net::Ipv6Addr>().is_ok_and(|address| address.to_string() == inside)
        }),
        None => text.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

/// RFC 1123 §2.1 labels. A last label of digits alone would be a mistyped address.
pub(super) fn is_dns_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    text.len() <= 253
        && text.split('.').all(is_label)
        && text.rsplit('.').next().is_some_and(|last| !last.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_hosts_without_port() {
        for good in ["localhost", "Login.Example.com", "127.0.0.1", "[::1]", "a_b.internal", "xn--bcher-kva.example"] {
            assert_eq!(good.parse::<Domain>().unwrap().as_str(), good.to_ascii_lowercase());
        }
        for bad in [
            "",
            "a:80",
            "http://a",
            "a/b",
            "a..b",
            ".a",
            "a.",
            "127.1",
            "256.1.1.1",
            "::1",
            "[0::1]",
            "-a",
            "ä.de",
            "*",
        ] {
            assert!(bad.parse::<Domain>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_host_of_an_authority_has_no_port_no_case_and_no_root_dot() {
        let host = |text: &str| authority_host(text.as_bytes());
        assert_eq!(host("LocalHost:10000").as_deref(), Some("localhost"));
        assert_eq!(host("localhost").as_deref(), Some("localhost"));
        assert_eq!(host("localhost:").as_deref(), Some("localhost"));
        assert_eq!(host("example.com.:443").as_deref(), Some("example.com"));
        assert_eq!(host("[::1]:10000").as_deref(), Some("[::1]"));
        for bad in ["", ":80", ".", "[::1", "[::1]x", "a:b", "a:80:90"] {
            assert_eq!(host(bad), None, "{bad}");
        }
        assert_eq!(authority_host(b"ex\xa1mple"), None);
    }
}
