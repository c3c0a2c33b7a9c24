//! The addresses an API key may be used from.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::address::{canonical, canonical_range};

/// More ranges than anyone lists by hand. Each call compares its address with all of them.
pub const RANGES_MAX: usize = 100;

/// CIDR ranges; an empty list allows every address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Box<[IpNet]>);

/// Why a list was not accepted. The text is shown to the user who wrote the list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAllowList {
    #[error("`{0}` is not an IP address or CIDR range")]
    NotARange(String),
    #[error("`{given}` has bits set after its prefix; did you mean `{meant}`?")]
    HostBits { given: String, meant: IpNet },
    #[error("more than {RANGES_MAX} ranges")]
    TooMany,
}

impl AllowList {
    /// Takes addresses and CIDR ranges, and drops duplicates. The error names the first bad entry.
    pub fn parse<S: AsRef<str>>(ranges: &[S]) -> Result<Self, BadAllowList> {
        if ranges.len() > RANGES_MAX {
            return Err(BadAllowList::TooMany);
        }
        let mut list = Vec::with_capacity(ranges.len());
        for text in ranges {
            let range = parse_range(text.as_ref().trim())?;
            if !list.contains(&range) {
                list.push(range);
            }
        }
        Ok(Self(list.into()))
    }

    pub fn allows(&self, ip: IpAddr) -> bool {
        let ip = canonical(ip);
        self.0.is_empty() || self.0.iter().any(|range| range.contains(&ip))
    }

    pub fn ranges(&self) -> &[IpNet] {
        &self.0
    }

    pub fn to_strings(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl Serialize for AllowList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.to_strings())
    }
}

fn parse_range(text: &str) -> Result<IpNet, BadAllowList> {
    let range = match IpAddr::from_str(text) {
        Ok(ip) => IpNet::from(canonical(ip)),
        Err(_) => IpNet::from_str(text)
            .ok()
            .and_then(canonical_range)
            .ok_or_else(|| BadAllowList::NotARange(text.chars().take(64).collect()))?,
    };
    if range.trunc() == range {
        Ok(range)
    } else {
        // 203.0.113.7/24 may mean 203.0.113.7/32 or 203.0.113.0/24. We do not guess: the user decides.
        Err(BadAllowList::HostBits { given: text.to_owned(), meant: range.trunc() })
    }
}
