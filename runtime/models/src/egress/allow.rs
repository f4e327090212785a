//! Where calls may go: hosts by name, addresses and blocks of addresses, as the operator lists them.
//!
//! Judges the address that a name was resolved to, so that a name cannot lead to where it may not. Never resolves
//! anything itself. Used by the client before it connects.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses from which machines of a cloud read their credentials, and all others that mean something on the local
/// link only. They are never allowed by a name or by `*`, but only by an entry that lies within.
const GUARDED: [Block; 4] = [
    Block { address: IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), bits: 16 },
    Block { address: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), bits: 10 },
    Block { address: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)), bits: 128 },
    Block { address: IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), bits: 32 },
];

/// Where calls may go. Written as a list with commas: `*` for everywhere, `api.example.org`, `*.example.org` for every
/// name below, `10.1.2.3`, `10.0.0.0/8`, `fd00::/8`; an entry that begins with `!` refuses, whatever others allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowList {
    allowed: Vec<Place>,
    refused: Vec<Place>,
}

/// Why a text is no list of places.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no host, address or block; write such as api.example.org, *.example.org, 10.0.0.0/8, or * for all")]
pub struct AllowListError(String);

/// The list allows no such address for this host.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{address} is not allowed by egress.allow")]
pub(super) struct Refused {
    pub(super) address: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Anywhere,
    Name(String),
    /// With its leading dot.
    Below(String),
    Block(Block),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    address: IpAddr,
    bits: u8,
}

impl Default for AllowList {
    /// Everywhere but the guarded addresses.
    fn default() -> Self {
        Self { allowed: vec![Place::Anywhere], refused: vec![] }
    }
}

impl FromStr for AllowList {
    type Err = AllowListError;

    fn from_str(text: &str) -> Result<Self, AllowListError> {
        let mut list = Self { allowed: vec![], refused: vec![] };
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let place = |text: &str| Place::read(text).ok_or_else(|| AllowListError(entry.chars().take(80).collect()));
            match entry.strip_prefix('!') {
                Some(refused) => list.refused.push(place(refused.trim_start())?),
                None => list.allowed.push(place(entry)?),
            }
        }
        Ok(list)
    }
}

impl AllowList {
    /// Judges an address that a host's name was resolved to, or that stands for the host itself.
    pub(super) fn check(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        let (host, address) = (host.trim_end_matches('.'), canonical(address));
        let covers = |place: &Place| place.covers(host, address);
        let guard = GUARDED.iter().find(|guard| guard.holds(address));
        let allowed = match guard {
            None => self.allowed.iter().any(covers),
            Some(guard) => self.allowed.iter().any(|place| match place {
                Place::Block(block) => block.bits >= guard.bits && block.holds(address),
                _ => false,
            }),
        };
        if allowed && !self.refused.iter().any(covers) { Ok(()) } else { Err(Refused { address }) }
    }
}

impl Place {
    fn read(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Anywhere);
        }
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        if let Ok(address) = bare.parse::<IpAddr>() {
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|bits| *bits <= most))?;
            return Some(Self::Block(Block { address, bits }));
        }
        let (below, name) = text.strip_prefix('*').map_or((false, text), |rest| (true, rest));
        let label = |label: &str| {
            (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        let dotted = if below { name.strip_prefix('.')? } else { name };
        // What ends in a number is an address to every parser of URLs.
        let is_number = dotted.rsplit('.').next()?.bytes().all(|b| b.is_ascii_digit());
        if is_number || dotted.len() > 253 || !dotted.split('.').all(label) {
            return None;
        }
        let name = name.to_ascii_lowercase();
        Some(if below { Self::Below(name) } else { Self::Name(name) })
    }

    fn covers(&self, host: &str, address: IpAddr) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Name(name) => host.eq_ignore_ascii_case(name),
            Self::Below(name) => {
                host.len() > name.len()
                    && host.is_char_boundary(host.len() - name.len())
                    && host[host.len() - name.len()..].eq_ignore_ascii_case(name)
            }
            Self::Block(block) => block.holds(address),
        }
    }
}

impl Block {
    fn holds(self, address: IpAddr) -> bool {
        let same = |one: u128, other: u128, width: u32| {
            let shift = width - u32::from(self.bits).min(width);
            one.checked_shr(shift).unwrap_or(0) == other.checked_shr(shift).unwrap_or(0)
        };
        match (self.address, address) {
            (IpAddr::V4(one), IpAddr::V4(other)) => same(u32::from(one).into(), u32::from(other).into(), 32),
            (IpAddr::V6(one), IpAddr::V6(other)) => same(one.into(), other.into(), 128),
            _ => false,
        }
    }
}

impl fmt::Display for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allowed = self.allowed.iter().map(ToString::to_string);
        let refused = self.refused.iter().map(|place| format!("!{place}"));
        f.write_str(&allowed.chain(refused).collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anywhere => f.write_str("*"),
            Self::Name(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*{name}"),
            Self::Block(Block { address, bits }) => write!(f, "{address}/{bits}"),
        }
    }
}

/// The address that a connection really goes to: one version inside the other, and "no address", which systems take
/// for their own.
fn canonical(address: IpAddr) -> IpAddr {
    let address = match address {
        IpAddr::V6(v6) => match v6.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
            // Mapped (RFC 4291), compatible (the same, deprecated) and translated (RFC 6052).
            [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                let [a, b, c, d] = (u32::from(high) << 16 | u32::from(low)).to_be_bytes();
                Ipv4Addr::new(a, b, c, d).into()
            }
            _ => address,
        },
        IpAddr::V4(_) => address,
    };
    match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_by_table() {
        for (list, host, address, allowed) in [
            ("*", "api.example.org", "93.184.216.34", true),
            ("*", "localhost", "127.0.0.1", true),
            ("*", "metadata", "169.254.169.254", false),
            ("*", "x", "::ffff:169.254.169.254", false),
            ("*", "x", "64:ff9b::a9fe:a9fe", false),
            ("*", "x", "fe80::1", false),
            ("*", "x", "fd00:ec2::254", false),
            ("*", "x", "fd00:ec2::255", true),
            ("*", "x", "100.100.100.200", false),
            ("0.0.0.0/0", "x", "169.254.169.254", false),
            ("metadata", "metadata", "169.254.169.254", false),
            ("169.254.169.254", "x", "169.254.169.254", true),
            ("169.254.0.0/16", "x", "169.254.1.1", true),
            ("fe80::/10", "x", "fe80::1", true),
            ("*, !10.0.0.0/8", "x", "10.1.2.3", false),
            ("*, !10.0.0.0/8", "x", "11.1.2.3", true),
            ("!10.0.0.0/8, 10.1.2.3", "x", "10.1.2.3", false),
            ("*, !127.0.0.0/8", "x", "0.0.0.0", false),
            ("*, !127.0.0.0/8", "x", "::ffff:127.0.0.1", false),
            ("*, !127.0.0.0/8, !::1", "x", "::", false),
            ("*, !evil.example", "EVIL.example.", "93.184.216.34", false),
            ("api.example.org", "API.example.org", "10.0.0.1", true),
            ("api.example.org", "api.example.org.", "10.0.0.1", true),
            ("api.example.org", "b.example.org", "10.0.0.1", false),
            ("*.example.org", "a.b.example.org", "10.0.0.1", true),
            ("*.example.org", "example.org", "10.0.0.1", false),
            ("*.example.org", "evilexample.org", "10.0.0.1", false),
            ("10.0.0.0/8", "anything", "10.255.0.1", true),
            ("10.0.0.0/8", "anything", "11.0.0.1", false),
            ("10.0.0.0/8", "anything", "::ffff:10.0.0.1", true),
            ("10.0.0.0/0", "anything", "203.0.113.1", true),
            ("[2001:db8::]/32", "anything", "2001:db8:1::1", true),
            ("2001:db8::/32", "anything", "2001:db9::1", false),
            ("", "anything", "203.0.113.1", false),
        ] {
            let parsed: AllowList = list.parse().unwrap();
            let checked = parsed.check(host, address.parse().unwrap());
            assert_eq!(checked.is_ok(), allowed, "{host} at {address} by '{list}'");
            assert_eq!(parsed.to_string().parse::<AllowList>().unwrap(), parsed, "{list}");
        }
    }

    #[test]
    fn what_is_no_place_is_told() {
        for (list, entry) in [
            ("10.0.0.0/33", "10.0.0.0/33"),
            ("*, 10.0.0/8", "10.0.0/8"),
            ("::1/129", "::1/129"),
            ("a b", "a b"),
            ("https://api.example.org", "https://api.example.org"),
            ("api.example.org:443", "api.example.org:443"),
            ("*example.org", "*example.org"),
            ("a..b", "a..b"),
            ("! ", "!"),
            ("1.2.3.400", "1.2.3.400"),
        ] {
            let error = list.parse::<AllowList>().unwrap_err();
            assert!(error.to_string().contains(&format!("'{entry}'")), "{error}");
        }
    }
}
