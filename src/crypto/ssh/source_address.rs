//! The `source-address` option of certificates: addresses and networks in CIDR notation, between
//! commas (`ssh-keygen(1)`, "CERTIFICATES").

use std::net::IpAddr;
use std::str::FromStr;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{entry}` is neither an address nor a network: write `10.0.0.5`, `10.0.0.0/24` or `2001:db8::/32`, \
     several with commas between them"
)]
pub struct MalformedSource {
    entry: String,
}

/// One network or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceAddresses(Vec<Network>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl SourceAddresses {
    pub fn contain(&self, client: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(client.to_canonical()))
    }
}

impl FromStr for SourceAddresses {
    type Err = MalformedSource;

    fn from_str(text: &str) -> Result<Self, MalformedSource> {
        let malformed = |entry: &str| MalformedSource { entry: entry.chars().take(80).collect() };
        let networks = text.split(',').map(|entry| Network::parse(entry).ok_or_else(|| malformed(entry)));
        networks.collect::<Result<_, _>>().map(Self)
    }
}

impl Network {
    fn parse(entry: &str) -> Option<Self> {
        let (address, bits) = match entry.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (entry, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = width(address);
        let bits = match bits {
            // `u32::from_str` takes a sign, which has no place here.
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
            None => width,
        };
        if bits > width {
            return None;
        }
        let network = Self { address, bits }.canonical();
        // As OpenSSH does: bits beside the mask are a mistake that must not widen anything.
        (network.masked(network.address) == network.value()).then_some(network)
    }

    /// IPv4 in IPv6 is IPv4.
    fn canonical(self) -> Self {
        match self.address.to_canonical() {
            v4 @ IpAddr::V4(_) if self.address.is_ipv6() && self.bits >= 96 => {
                Self { address: v4, bits: self.bits - 96 }
            }
            _ => self,
        }
    }

    fn contains(self, client: IpAddr) -> bool {
        client.is_ipv4() == self.address.is_ipv4() && self.masked(client) == self.value()
    }

    fn value(self) -> u128 {
        number(self.address)
    }

    fn masked(self, address: IpAddr) -> u128 {
        let free = width(self.address) - self.bits;
        let mask = u128::MAX.checked_shl(free).unwrap_or(0);
        number(address) & mask
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(list: &str, client: &str) -> bool {
        list.parse::<SourceAddresses>().unwrap().contain(client.parse().unwrap())
    }

    #[test]
    fn an_address_is_in_its_networks_and_in_no_other() {
        for (list, client) in [
            ("10.0.0.5", "10.0.0.5"),
            ("10.0.0.5/32", "::ffff:10.0.0.5"),
            ("::ffff:10.0.0.0/120", "10.0.0.77"),
            ("192.0.2.0/24,10.0.0.0/8", "10.255.0.1"),
            ("0.0.0.0/0", "203.0.113.9"),
            ("2001:db8::/32", "2001:db8:1::1"),
            ("::/0", "2001:db8::1"),
        ] {
            assert!(contains(list, client), "{client} in {list}");
        }
        for (list, client) in [
            ("10.0.0.5", "10.0.0.4"),
            ("10.0.0.0/25", "10.0.0.128"),
            ("::/0", "10.0.0.1"),
            ("0.0.0.0/0", "2001:db8::1"),
            ("2001:db8::/32", "2001:db9::1"),
        ] {
            assert!(!contains(list, client), "{client} not in {list}");
        }
    }

    #[test]
    fn what_is_no_list_of_networks_is_refused() {
        for list in [
            "",
            ",",
            "10.0.0.5,",
            " 10.0.0.5",
            "10.0.0.5 ",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.1/24",
            "!10.0.0.1",
            "host",
            "10.0.0",
            "2001:db8::/129",
            "10.0.0.0/8/8",
            "*",
            "10.0.0.0/999999999999",
        ] {
            assert!(list.parse::<SourceAddresses>().is_err(), "{list}");
        }
    }
}
