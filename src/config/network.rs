//! Networks in CIDR notation, whose members are trusted.

use std::fmt;
use std::net::IpAddr;

/// `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Network {
    /// `Err` says what a network looks like.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err("a network is an IP address, or one with a prefix as in 10.0.0.0/8 or 2001:db8::/32");
        };
        let whole = bits(address).1;
        let prefix = match prefix.map(str::parse::<u8>) {
            None => whole,
            Some(Ok(prefix)) if prefix <= whole => prefix,
            Some(_) => return Err("the prefix of a network is at most 32 for IPv4 and 128 for IPv6"),
        };
        let network = Self { address, prefix };
        if network.host_bits() != 0 {
            return Err("the address has bits beyond its prefix; 10.0.0.0/8, not 10.1.2.3/8");
        }
        Ok(network)
    }

    /// An IPv4 address that arrived on an IPv6 socket (`::ffff:10.0.0.1`) counts as the IPv4 address it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (network, network_len) = bits(self.address.to_canonical());
        let (address, address_len) = bits(address.to_canonical());
        // A network written in the mapped form has 96 bits that are the mapping's.
        let prefix = if self.address.to_canonical() == self.address { self.prefix } else { self.prefix.saturating_sub(96) };
        let shift = u32::from(network_len.saturating_sub(prefix));
        network_len == address_len && (network ^ address).checked_shr(shift).unwrap_or(0) == 0
    }

    /// How exact it is: the bits that are fixed, of 128; those of an IPv4 network count as in its mapped form.
    pub fn length(&self) -> u8 {
        if self.address.is_ipv4() { 96 + self.prefix } else { self.prefix }
    }

    fn host_bits(&self) -> u128 {
        let (address, whole) = bits(self.address);
        let host_len = u32::from(whole - self.prefix);
        address & 1u128.checked_shl(host_len).map_or(u128::MAX, |bit| bit - 1)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The address as a number, and how many bits of it count.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.0.0.1"),
            ("192.168.1.7", "192.168.1.7", "192.168.1.8"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "fe80::1", "10.0.0.1"),
            ("::1", "::1", "::2"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.1"),
        ] {
            let parsed = Network::parse(network).unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{network} {outside}");
        }
    }

    #[test]
    fn a_wrong_network_says_what_one_looks_like() {
        for (wrong, reason) in [
            ("10.0.0.0/33", "at most 32"),
            ("::/129", "at most 32"),
            ("10.0.0.0/", "at most 32"),
            ("10.1.2.3/8", "beyond its prefix"),
            ("private", "a network is an IP address"),
            ("", "a network is an IP address"),
        ] {
            assert!(Network::parse(wrong).unwrap_err().contains(reason), "{wrong}");
        }
        assert_eq!(Network::parse("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
    }
}
