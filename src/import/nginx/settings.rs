//! What holds for the whole proxy: `[proxy]` and its limits. nginx says most of it for a server or a location; where they
//! disagree the most generous counts, so that nothing that worked is refused, and the others are told.

use std::collections::BTreeMap;
use std::time::Duration;

use super::units;
use crate::import::findings::{Ledger, Place, Weight};
use crate::import::grammar::Directive;

#[derive(Debug, Default)]
pub struct Settings {
    pub workers: Option<u16>,
    pub trusted_proxies: Vec<String>,
    /// Keys of `[proxy.limits]` that are durations.
    pub limits: BTreeMap<&'static str, Duration>,
    /// Bytes.
    pub head_size: Option<u64>,
    pub drain: Option<Duration>,
    /// Of each location that is open; 0 is no limit.
    body_sizes: Vec<(u64, Place)>,
}

impl Settings {
    pub fn reads(name: &str) -> bool {
        LIMITS.iter().any(|(known, _)| *known == name) || OTHERS.contains(&name)
    }

    pub fn take(&mut self, directive: &Directive, ledger: &mut Ledger) {
        let said = directive.arg(0);
        match directive.name.as_str() {
            "worker_processes" => match said.parse() {
                Ok(n @ 1..=1024) => {
                    self.workers = Some(n);
                    ledger.carried(directive);
                }
                _ if said == "auto" => ledger.carried(directive),
                _ => ledger.lost(directive, "is not a number of 1 to 1024", "proxy.workers"),
            },
            "worker_shutdown_timeout" => match units::time(said).filter(|time| *time <= DRAIN_MAX) {
                Some(time) => {
                    self.drain = Some(time);
                    ledger.carried(directive);
                }
                None => ledger.lost(directive, "is not a time of at most an hour", "proxy.shutdown.drain"),
            },
            "set_real_ip_from" => self.trust(directive, ledger),
            "large_client_header_buffers" => self.head(directive, ledger),
            name => {
                let Some((_, key)) = LIMITS.iter().find(|(known, _)| *known == name) else { return };
                match units::time(said).filter(|time| !time.is_zero()) {
                    Some(time) => self.limit(key, time, directive, ledger),
                    None => ledger.lost(directive, "is not a time above zero", format!("proxy.limits.{key}")),
                }
            }
        }
    }

    /// A location that requests get through, and how long their bodies may be.
    pub fn body_size(&mut self, bytes: u64, place: &Place) {
        self.body_sizes.push((bytes, place.clone()));
    }

    /// Bytes; `None` is no limit. What is stricter than the whole proxy will be is told.
    pub fn whole_body_size(&self, ledger: &mut Ledger) -> Option<u64> {
        let unlimited = self.body_sizes.iter().any(|(bytes, _)| *bytes == 0);
        let longest = self.body_sizes.iter().map(|(bytes, _)| *bytes).max().filter(|_| !unlimited);
        for (bytes, place) in &self.body_sizes {
            let is_stricter = *bytes != 0 && longest != Some(*bytes);
            if is_stricter {
                let why = "a body may be longer here than nginx allows: proxy.limits.body_size holds for the whole proxy";
                let said = format!("client_max_body_size {bytes}");
                ledger.say(Weight::Differs, place, said, why.to_owned(), None);
            }
        }
        longest
    }

    fn trust(&mut self, directive: &Directive, ledger: &mut Ledger) {
        let said = directive.arg(0);
        let (address, bits) = said.split_once('/').map_or((said, None), |(address, bits)| (address, Some(bits)));
        let bits_max = |address: &std::net::IpAddr| if address.is_ipv4() { 32_u8 } else { 128 };
        let fits = address
            .parse()
            .is_ok_and(|address| bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= bits_max(&address))));
        if !fits {
            ledger.lost(directive, "is not a network", "proxy.trusted_proxies, by their addresses");
            return;
        }
        if !self.trusted_proxies.iter().any(|known| known == said) {
            self.trusted_proxies.push(said.to_owned());
        }
        ledger.carried(directive);
    }

    fn head(&mut self, directive: &Directive, ledger: &mut Ledger) {
        let n: Option<u64> = directive.arg(0).parse().ok();
        let bytes = n.zip(units::size(directive.arg(1))).and_then(|(n, size)| n.checked_mul(size));
        let Some(bytes) = bytes.filter(|bytes| HEAD_SIZES.contains(bytes)) else {
            ledger.lost(directive, "comes to less than 1 KiB or more than 1 MiB", "proxy.limits.head_size");
            return;
        };
        self.head_size = Some(self.head_size.map_or(bytes, |known| known.max(bytes)));
        ledger.differs(directive, "proxy.limits.head_size is for line and fields together, all buffers in one");
    }

    fn limit(&mut self, key: &'static str, time: Duration, directive: &Directive, ledger: &mut Ledger) {
        let known = self.limits.get(key).copied();
        self.limits.insert(key, known.map_or(time, |known| known.max(time)));
        match known {
            Some(known) if known != time => {
                ledger.differs(directive, format!("proxy.limits.{key} holds for the whole proxy; the longest of them counts"));
            }
            _ => ledger.carried(directive),
        }
    }
}

/// Directives that are one duration of `[proxy.limits]`.
const LIMITS: [(&str, &str); 4] = [
    ("client_header_timeout", "head_timeout"),
    ("client_body_timeout", "body_progress"),
    ("send_timeout", "answer_progress"),
    ("keepalive_timeout", "keep_alive"),
];
const OTHERS: [&str; 4] = ["worker_processes", "worker_shutdown_timeout", "set_real_ip_from", "large_client_header_buffers"];
/// What `proxy.limits.head_size` may be.
const HEAD_SIZES: std::ops::RangeInclusive<u64> = 1024..=1024 * 1024;
const DRAIN_MAX: Duration = Duration::from_secs(60 * 60);
