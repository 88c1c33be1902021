//! Which addresses the registry may name. Whoever may write there says where requests go, but must not make the proxy a
//! way into its own host, or into what a cloud shows to its machines only.
//!
//! Asked with every address that did not come from the file: once as it is declared, and again when a name was looked up.
//! Pure, but for one question to the kernel: whether an address is one of this host, asked only about ports of our own.
//!
//! What holds:
//! - An IPv4 address is the same however it is wrapped into an IPv6 one.
//! - Nobody's words allow the addresses of no one (unspecified, multicast, broadcast), nor those this process listens on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Config, EtcdConfig, Network, RegistryKind};
use crate::model::InstanceSpec;

#[derive(Debug, Default)]
pub struct AddressGuard {
    /// `None`: every address but those that are refused below.
    allowed: Option<Vec<Network>>,
    own: Vec<Own>,
    n_refused: [AtomicU64; 2],
}

#[derive(Debug)]
struct Own {
    listens: SocketAddr,
    words: &'static str,
}

/// Where a refused address came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It stood in a record.
    Record,
    /// A name in a record was found to have it.
    Name,
}

/// Why an address may not be named, as the end of a sentence about it.
pub type Refused = &'static str;

impl AddressGuard {
    pub fn new(allowed: Option<Vec<Network>>) -> Self {
        Self { allowed, ..Self::default() }
    }

    /// As far as the configuration says where this process listens; a port that the system is to choose stays unknown.
    pub fn of(config: &Config) -> Self {
        let mut guard = Self::new(config.registry.allow_addresses.clone());
        guard.own(&config.registry.client(), config.admin.address, config.listeners.iter().map(|l| l.address));
        if let RegistryKind::Embedded(embedded) = &config.registry.kind {
            guard.around(embedded.listen, OWN_REGISTRY);
        }
        guard
    }

    /// Takes in where a running process listens, and where its registry is.
    pub fn own(&mut self, registry: &EtcdConfig, admin: SocketAddr, listeners: impl Iterator<Item = SocketAddr>) {
        let endpoint = |url: &String| url.split_once("://").and_then(|(_, address)| address.parse().ok());
        registry.endpoints.iter().filter_map(endpoint).for_each(|address| self.around(address, OWN_REGISTRY));
        self.around(admin, OWN_ADMIN);
        listeners.for_each(|address| self.around(address, OWN_LISTENER));
    }

    fn around(&mut self, listens: SocketAddr, words: &'static str) {
        self.own.push(Own { listens, words });
    }

    /// An instance as it is declared. A name is judged when it has been looked up.
    pub fn judge_declared(&self, spec: &InstanceSpec) -> Result<(), String> {
        let Some(address) = spec.address.socket_addr() else { return Ok(()) };
        self.judge(address, spec).map_err(|refused| format!("address: {} {refused}", spec.address))
    }

    /// Where an instance is connected to, and where it is probed.
    pub fn judge(&self, address: SocketAddr, spec: &InstanceSpec) -> Result<(), Refused> {
        self.judge_ip(address.ip())?;
        let probed = spec.probe.port.map(|port| SocketAddr::new(address.ip(), port.get()));
        match [Some(address), probed].into_iter().flatten().find_map(|address| self.own.iter().find(|own| own.is(address))) {
            Some(own) => Err(own.words),
            None => Ok(()),
        }
    }

    /// Whatever the port.
    pub fn judge_ip(&self, ip: IpAddr) -> Result<(), Refused> {
        let ip = unwrapped(ip);
        if let Some((_, words)) = NOBODY.iter().find(|(network, _)| network.contains(ip)) {
            return Err(words);
        }
        let allowed = self.allowed.iter().flatten().filter(|network| network.contains(ip)).map(|n| n.length()).max();
        match (allowed, DANGEROUS.iter().find(|(network, _)| network.contains(ip))) {
            // The more exact of the two has thought of it: 0.0.0.0/0 means no metadata service, 169.254.10.0/24 does.
            (Some(length), Some((network, words))) if length < network.length() => Err(words),
            (None, Some((_, words))) => Err(words),
            (None, None) if self.allowed.is_some() => Err(UNLISTED),
            _ => Ok(()),
        }
    }

    pub fn count(&self, said: Said) {
        self.n_refused[said as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many addresses were refused, by where they came from.
    pub fn refused(&self) -> [(&'static str, u64); 2] {
        [("record", Said::Record), ("name", Said::Name)]
            .map(|(word, said)| (word, self.n_refused[said as usize].load(Ordering::Relaxed)))
    }
}

impl Own {
    fn is(&self, address: SocketAddr) -> bool {
        let (ours, theirs) = (unwrapped(self.listens.ip()), unwrapped(address.ip()));
        // `[::]` takes IPv4 as well.
        let takes_all = ours.is_unspecified() && (ours.is_ipv6() || theirs.is_ipv4());
        self.listens.port() == address.port() && (ours == theirs || takes_all && is_of_this_host(theirs))
    }
}

/// Without what only carries an IPv4 address: mapped, compatible, 6to4 and NAT64 forms.
fn unwrapped(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => v4(g, h),
        // `::` and `::1` are themselves.
        [0, 0, 0, 0, 0, 0] if v6.to_bits() > 1 => v4(g, h),
        [0x2002, ..] => v4(b, c),
        _ => ip,
    }
}

/// The kernel lets only addresses of this host be bound.
fn is_of_this_host(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Addresses where no instance can be.
const NOBODY: [(Network, Refused); 5] = [
    (v4([0, 0, 0, 0], 8), "is unspecified, which the kernel takes for this host"),
    (v6([0; 8], 128), "is unspecified, which the kernel takes for this host"),
    (v4([224, 0, 0, 0], 4), "is a multicast address"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "is a multicast address"),
    (v4([255, 255, 255, 255], 32), "is the broadcast address"),
];

/// Addresses behind which clouds keep what only the machine itself should see.
const DANGEROUS: [(Network, Refused); 7] = [
    (v4([169, 254, 0, 0], 16), LINK_LOCAL),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), LINK_LOCAL),
    // Alibaba, Azure and Oracle.
    (v4([100, 100, 100, 200], 32), METADATA),
    (v4([168, 63, 129, 16], 32), METADATA),
    (v4([192, 0, 0, 192], 32), METADATA),
    // Amazon and Google.
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32), METADATA),
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), METADATA),
];

const LINK_LOCAL: Refused =
    "is link-local, where clouds keep their metadata; if it is meant, its network has to stand in registry.allow_addresses";
const METADATA: Refused = "is a cloud's metadata service; if it is meant, its network has to stand in registry.allow_addresses";
const UNLISTED: Refused = "is in no network of registry.allow_addresses";
const OWN_ADMIN: Refused = "is this proxy's own admin endpoint";
const OWN_REGISTRY: Refused = "is the registry of this proxy, which nobody may reach through it";
const OWN_LISTENER: Refused = "is where this proxy itself listens, so requests would go in circles";

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Network {
    Network { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Network {
    Network { address: IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)), prefix }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Address;

    fn guard(allowed: Option<&[&str]>) -> AddressGuard {
        let networks = |list: &[&str]| list.iter().map(|n| Network::parse(n).unwrap()).collect();
        let mut guard = AddressGuard::new(allowed.map(networks));
        let address = |text: &str| text.parse().unwrap();
        guard.around(address("127.0.0.1:9900"), OWN_ADMIN);
        guard.around(address("0.0.0.0:8080"), OWN_LISTENER);
        guard
    }

    fn said(guard: &AddressGuard, address: &str) -> String {
        let spec = InstanceSpec::at(Address::parse(address).unwrap());
        guard.judge_declared(&spec).err().unwrap_or_default()
    }

    #[test]
    fn without_a_list_only_dangerous_addresses_are_refused() {
        let guard = guard(None);
        for good in
            ["10.0.0.1:80", "127.0.0.1:3000", "[::1]:80", "[fd00::1]:80", "8.8.8.8:443", "127.0.0.2:9900", "10.9.9.9:8080"]
        {
            assert_eq!(said(&guard, good), "");
        }
        for (bad, why) in [
            ("169.254.169.254:80", "link-local"),
            ("[::ffff:169.254.169.254]:80", "link-local"),
            ("[::169.254.169.254]:80", "link-local"),
            ("[64:ff9b::a9fe:a9fe]:80", "link-local"),
            ("[2002:a9fe:a9fe::1]:80", "link-local"),
            ("[fe80::1]:80", "link-local"),
            ("[fd00:ec2::254]:80", "metadata"),
            ("100.100.100.200:80", "metadata"),
            ("0.0.0.0:3000", "unspecified"),
            ("[::]:3000", "unspecified"),
            ("[::ffff:0.0.0.0]:3000", "unspecified"),
            ("224.0.0.1:80", "multicast"),
            ("[ff02::1]:80", "multicast"),
            ("255.255.255.255:80", "broadcast"),
            ("127.0.0.1:9900", "admin endpoint"),
            ("[::ffff:127.0.0.1]:9900", "admin endpoint"),
            ("127.0.0.1:8080", "in circles"),
            ("127.9.9.9:8080", "in circles"),
        ] {
            let said = said(&guard, bad);
            assert!(said.starts_with("address: ") && said.contains(why), "{bad}: {said}");
        }
    }

    #[test]
    fn a_list_allows_its_networks_and_the_dangerous_only_by_name() {
        let ours = guard(Some(&["10.0.0.0/8", "169.254.10.0/24"]));
        assert_eq!(said(&ours, "10.0.0.1:80"), "");
        assert_eq!(said(&ours, "169.254.10.1:80"), "");
        assert!(said(&ours, "169.254.169.254:80").contains("link-local"));
        assert!(said(&ours, "192.168.0.1:80").contains("in no network of registry.allow_addresses"));
        let all = guard(Some(&["0.0.0.0/0", "::/0", "127.0.0.1"]));
        for refused in ["169.254.169.254:80", "[fd00:ec2::254]:80", "0.0.0.0:80", "255.255.255.255:80", "127.0.0.1:9900"] {
            assert_ne!(said(&all, refused), "", "{refused}");
        }
        assert_eq!(said(&all, "[2001:db8::1]:80"), "");
        assert_ne!(said(&guard(Some(&[])), "10.0.0.1:80"), "", "an empty list allows nobody");
    }

    #[test]
    fn the_probed_port_is_judged_too() {
        let mut spec = InstanceSpec::at(Address::parse("127.0.0.1:3000").unwrap());
        spec.probe.port = 9900.try_into().ok();
        assert_eq!(guard(None).judge_declared(&spec).unwrap_err(), format!("address: 127.0.0.1:3000 {OWN_ADMIN}"));
    }

    proptest! {
        #[test]
        fn however_it_is_wrapped_an_ipv4_address_is_judged_as_itself(bits: u32) {
            let guard = guard(Some(&["0.0.0.0/0", "::/0"]));
            let plain = Ipv4Addr::from_bits(bits);
            let low = u128::from(bits);
            let wrapped = [0xffff << 32 | low, 0x64_ff9b << 96 | low, 0x2002 << 112 | low << 80];
            for wrapped in wrapped.map(Ipv6Addr::from_bits) {
                prop_assert_eq!(guard.judge_ip(wrapped.into()), guard.judge_ip(plain.into()), "{}", wrapped);
            }
        }

        #[test]
        fn nothing_link_local_or_of_nobody_gets_past_a_list_that_does_not_name_it(low: u16, rest: u128) {
            let guard = guard(Some(&["0.0.0.0/0", "::/0", "169.0.0.0/8", "fe00::/8", "fc00::/7"]));
            let v4 = Ipv4Addr::from_bits(0xa9fe_0000 | u32::from(low));
            prop_assert!(guard.judge_ip(v4.into()).is_err());
            for (network, length) in [(0xfe80u128 << 112, 10), (0xff00 << 112, 8), (0xfd00_0ec2 << 96, 32)] {
                let v6 = Ipv6Addr::from_bits(network | rest >> length);
                prop_assert!(guard.judge_ip(v6.into()).is_err(), "{v6}");
            }
        }
    }
}
