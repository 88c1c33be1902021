//! How many connections each client address has open, over all workers: one address must not take the room of all others.
//!
//! An IPv6 client has a network of 64 bits to itself and may change its address with each connection, so that network counts.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Holds an entry for each address that has a connection, so never more than there are connections.
#[derive(Debug)]
pub struct Addresses {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// Counts one connection of its address until it is dropped.
#[derive(Debug)]
pub struct Counted {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

/// The address has as many as it may.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

impl Addresses {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    pub fn enter(self: &Arc<Self>, ip: IpAddr) -> Result<Counted, TooMany> {
        let address = network_of(ip);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let n = open.entry(address).or_default();
        if *n >= self.most {
            return Err(TooMany);
        }
        *n += 1;
        Ok(Counted { addresses: self.clone(), address })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.addresses.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = open.get_mut(&self.address) {
            *n -= 1;
            if *n == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// What counts as one client.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections_and_gets_back_what_it_gives_up() {
        let addresses = Addresses::new(2);
        let enter = |ip: &str| addresses.enter(ip.parse().unwrap());
        let (first, second) = (enter("192.0.2.1"), enter("::ffff:192.0.2.1"));
        assert!(first.is_ok() && second.is_ok() && enter("192.0.2.1").is_err(), "one address in two spellings");
        assert!(enter("192.0.2.2").is_ok());
        drop(first);
        assert!(enter("192.0.2.1").is_ok());
        let network = [enter("2001:db8::1"), enter("2001:db8::ffff:2")];
        assert!(network.iter().all(Result::is_ok) && enter("2001:db8::3").is_err() && enter("2001:db8:0:1::3").is_ok());
        drop((second, network));
        assert!(addresses.open.lock().unwrap().is_empty());
    }
}
