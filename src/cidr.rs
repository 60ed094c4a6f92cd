//! Ranges of IP addresses: as they are written, and as they are searched.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::sorted::sorted;

/// An address, or a range in CIDR notation (RFC 4632, RFC 4291 §2.3). Host bits are cleared.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(schemars::JsonSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schemars(extend("pattern" = "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$")))]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    net: IpNet,
    /// Written without a prefix length, and shown so.
    is_address: bool,
}

impl Cidr {
    /// Whether it is written as an IPv4 address or range.
    pub fn is_ipv4(&self) -> bool {
        matches!(self.net, IpNet::V4(_))
    }
}

impl TryFrom<String> for Cidr {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse()
    }
}

impl std::str::FromStr for Cidr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { net: address.into(), is_address: true });
        }
        let net: IpNet = text
            .parse()
            .map_err(|_| "expected an address or a CIDR range such as 192.0.2.7, 198.51.100.0/24 or 2001:db8::/32")?;
        Ok(Self { net: net.trunc(), is_address: false })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_address { self.net.addr().fmt(f) } else { self.net.fmt(f) }
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

/// An address as it is compared: an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2) is the IPv4 address.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Many ranges as sorted, disjoint intervals: a look takes a number of steps that is the logarithm of theirs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CidrSet {
    v4: Box<[(Ipv4Addr, Ipv4Addr)]>,
    v6: Box<[(Ipv6Addr, Ipv6Addr)]>,
}

impl CidrSet {
    /// Whether one of the ranges has the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match canonical(address) {
            IpAddr::V4(address) => covers(&self.v4, address),
            IpAddr::V6(address) => covers(&self.v6, address),
        }
    }

    /// Whether there is no range.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether the ranges together have every address.
    pub fn is_everything(&self) -> bool {
        let v4 = self.v4.iter().map(|(first, last)| (first.to_bits().into(), last.to_bits().into()));
        let v6 = self.v6.iter().map(|(first, last)| (first.to_bits(), last.to_bits()));
        have_all(v4, u32::MAX.into()) && have_all(v6, u128::MAX)
    }
}

/// Whether sorted, disjoint ranges have every number from 0 to `end`.
fn have_all(ranges: impl Iterator<Item = (u128, u128)>, end: u128) -> bool {
    let mut next = Some(0);
    for (first, last) in ranges {
        if next != Some(first) {
            return false;
        }
        next = last.checked_add(1).filter(|_| last < end);
    }
    next.is_none()
}

impl<'a> FromIterator<&'a Cidr> for CidrSet {
    fn from_iter<I: IntoIterator<Item = &'a Cidr>>(ranges: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for cidr in ranges {
            match cidr.net {
                IpNet::V4(net) => v4.push((net.network(), net.broadcast())),
                IpNet::V6(net) => match as_ipv4(net) {
                    Some(net) => v4.push((net.network(), net.broadcast())),
                    None => v6.push((net.network(), net.broadcast())),
                },
            }
        }
        Self { v4: disjoint(v4), v6: disjoint(v6) }
    }
}

/// The IPv4 range that a range of IPv4-mapped addresses stands for.
fn as_ipv4(net: Ipv6Net) -> Option<Ipv4Net> {
    let prefix = net.prefix_len().checked_sub(96)?;
    Ipv4Net::new(net.network().to_ipv4_mapped()?, prefix).ok()
}

/// Sorted, and without overlaps.
fn disjoint<A: Copy + Ord>(ranges: Vec<(A, A)>) -> Box<[(A, A)]> {
    let mut merged: Vec<(A, A)> = Vec::with_capacity(ranges.len());
    for (first, last) in sorted(ranges) {
        match merged.last_mut() {
            Some((_, end)) if first <= *end => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged.into_boxed_slice()
}

fn covers<A: Copy + Ord>(ranges: &[(A, A)], address: A) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).and_then(|index| ranges.get(index)).is_some_and(|(_, last)| address <= *last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn set(texts: &[&str]) -> CidrSet {
        texts.iter().map(|text| cidr(text)).collect::<Vec<_>>().iter().collect()
    }

    #[test]
    fn host_bits_are_cleared_and_an_address_stays_one() {
        for (written, shown) in [
            ("198.51.100.7/24", "198.51.100.0/24"),
            ("198.51.100.7", "198.51.100.7"),
            ("198.51.100.7/32", "198.51.100.7/32"),
            ("2001:DB8::1/32", "2001:db8::/32"),
            ("2001:db8:0::1", "2001:db8::1"),
            ("0.0.0.1/0", "0.0.0.0/0"),
        ] {
            assert_eq!(cidr(written).to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in ["", "198.51.100.0/33", "198.51.100", "::/129", "198.51.100.0/", "/8", "a", "1.2.3.4:5", " 1.2.3.4"]
        {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let mapped = |text: &str| IpAddr::from(text.parse::<Ipv4Addr>().unwrap().to_ipv6_mapped());
        assert!(set(&["198.51.100.0/24"]).contains(mapped("198.51.100.9")));
        assert!(set(&["::ffff:198.51.100.0/120"]).contains("198.51.100.9".parse().unwrap()));
        assert!(!set(&["::/0"]).contains(mapped("198.51.100.9")));
        assert!(!set(&["0.0.0.0/0"]).contains("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn overlapping_ranges_are_one() {
        let set = set(&["10.0.0.0/8", "10.1.0.0/16", "10.255.0.0/16", "11.0.0.0/32"]);
        assert_eq!(set.v4.len(), 2);
        for (address, is_in) in [("10.255.255.255", true), ("11.0.0.0", true), ("11.0.0.1", false), ("9.9.9.9", false)]
        {
            assert_eq!(set.contains(address.parse().unwrap()), is_in, "{address}");
        }
    }

    #[test]
    fn ranges_that_leave_no_gap_are_everything() {
        let v6 = ["::/0"];
        let halves = ["8000::/1", "::/1"];
        for v4 in [&["0.0.0.0/0"][..], &["128.0.0.0/1", "0.0.0.0/1"], &["0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/1"]] {
            assert!(set(&[v4, &v6].concat()).is_everything() && set(&[v4, &halves].concat()).is_everything());
            assert!(!set(v4).is_everything() && !set(&v6).is_everything());
        }
        for v4 in [&["128.0.0.0/1"][..], &["0.0.0.0/1"], &["0.0.0.0/1", "192.0.0.0/2"], &["0.0.0.1/32", "128.0.0.0/1"]]
        {
            assert!(!set(&[v4, &v6].concat()).is_everything(), "{v4:?}");
        }
        assert!(!set(&[]).is_everything());
    }

    proptest! {
        #[test]
        fn the_search_finds_what_a_look_at_each_range_finds(
            v4 in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..20),
            v6 in proptest::collection::vec((any::<u128>(), 0u8..=128), 0..20),
            inside in any::<proptest::sample::Index>(), address: u32, address6: u128,
        ) {
            let v4 = v4.iter().map(|(bits, prefix)| IpNet::from(Ipv4Net::new((*bits).into(), *prefix).unwrap()));
            let v6 = v6.iter().map(|(bits, prefix)| IpNet::from(Ipv6Net::new((*bits).into(), *prefix).unwrap()));
            let nets: Vec<IpNet> = v4.chain(v6).collect();
            let cidrs: Vec<Cidr> = nets.iter().map(|net| cidr(&net.to_string())).collect();
            let set: CidrSet = cidrs.iter().collect();
            let mut addresses = vec![IpAddr::from(Ipv4Addr::from(address)), IpAddr::from(Ipv6Addr::from(address6))];
            if !nets.is_empty() {
                let net = inside.get(&nets);
                addresses.extend([net.network(), net.broadcast()]);
            }
            for address in addresses {
                let expected = nets.iter().any(|net| net.contains(&canonical(address)));
                prop_assert_eq!(set.contains(address), expected, "{}", address);
            }
        }
    }
}
