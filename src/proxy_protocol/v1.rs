//! Version 1: one line of text, `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Header, NONE, Parsed, Said, Wrong, address};

pub fn parse(bytes: &[u8]) -> Result<Parsed, Wrong> {
    let begun = bytes.len().min(START.len());
    if bytes[..begun] != START[..begun] {
        return Err(NONE);
    }
    let line = &bytes[..bytes.len().min(LENGTH_MAX)];
    let Some(end) = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if line.len() == LENGTH_MAX { Err("its line is longer than 107 bytes") } else { Ok(Parsed::Incomplete) };
    };
    match line[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if line.len() < LENGTH_MAX => return Ok(Parsed::Incomplete),
        _ => return Err("its line does not end with CR LF"),
    }
    let said = said(line.get(START.len()..end).ok_or(NONE)?)?;
    Ok(Parsed::Whole(Header { length: end + 2, said }))
}

/// What stands between `PROXY ` and the end of the line.
fn said(line: &[u8]) -> Result<Said, Wrong> {
    let line = std::str::from_utf8(line).map_err(|_| "its line is not ASCII")?;
    // Whatever else it says is to be ignored.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Said::Local);
    }
    let mut parts = line.split(' ');
    let mut next = || parts.next().ok_or("it has too few parts");
    let (family, client, local) = (next()?, next()?, next()?);
    let ports = (port(next()?)?, port(next()?)?);
    if parts.next().is_some() {
        return Err("it has too many parts");
    }
    let (client, local) = match family {
        "TCP4" => (v4(client, ports.0)?, v4(local, ports.1)?),
        "TCP6" => (v6(client, ports.0)?, v6(local, ports.1)?),
        _ => return Err("its protocol is none of TCP4, TCP6 and UNKNOWN"),
    };
    Ok(Said::Proxied { client, local })
}

fn v4(text: &str, port: u16) -> Result<SocketAddr, Wrong> {
    text.parse::<Ipv4Addr>().map(|ip| SocketAddr::new(ip.into(), port)).map_err(|_| "it has no IPv4 address where TCP4 has one")
}

fn v6(text: &str, port: u16) -> Result<SocketAddr, Wrong> {
    text.parse::<Ipv6Addr>().map(|ip| address(ip, port)).map_err(|_| "it has no IPv6 address where TCP6 has one")
}

/// Digits only, and no zero before them: the library would take a sign.
fn port(text: &str) -> Result<u16, Wrong> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or("a port of it is no number in 0..=65535")
}

pub fn write(said: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let line = |family: &str, ips: [&dyn Display; 2], ports: [u16; 2]| {
        format!("PROXY {family} {} {} {} {}\r\n", ips[0], ips[1], ports[0], ports[1])
    };
    match said {
        None => "PROXY UNKNOWN\r\n".to_owned(),
        Some((client, local)) => {
            let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
            line(family, [&client.ip(), &local.ip()], [client.port(), local.port()])
        }
    }
    .into_bytes()
}

const START: &[u8] = b"PROXY ";
/// Its end included, as the specification has it.
const LENGTH_MAX: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Parsed, Wrong> {
        parse(line.as_bytes())
    }

    fn check(line: &str, client: &str, local: &str) {
        let said = Said::Proxied { client: client.parse().unwrap(), local: local.parse().unwrap() };
        assert_eq!(read(line), Ok(Parsed::Whole(Header { length: line.len(), said })));
    }

    #[test]
    fn the_examples_of_the_specification_read() {
        check("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535", "255.255.255.255:65535");
        check("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "192.168.0.1:56324", "192.168.0.11:443");
        check("PROXY TCP6 2001:db8::1 ::1 1 0\r\n", "[2001:db8::1]:1", "[::1]:0");
        check("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "192.0.2.1:1", "[::1]:2");
        let longest = format!("PROXY UNKNOWN {0} {0} 65535 65535\r\n", ["ffff"; 8].join(":"));
        assert_eq!(longest.len(), LENGTH_MAX);
        for local in ["PROXY UNKNOWN\r\n", &longest] {
            assert_eq!(read(local), Ok(Parsed::Whole(Header { length: local.len(), said: Said::Local })));
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (line, why) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", "CR LF"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rX", "CR LF"),
            ("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", ""),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", "too many"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "too few"),
            ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", "IPv4"),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", "IPv4"),
            ("PROXY TCP6 192.0.2.1 ::1 1 2\r\n", "IPv6"),
            ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "IPv6"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", "port"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", "port"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", "port"),
            ("PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n", "protocol"),
            ("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", "protocol"),
            ("PROXY UNKNOWNS\r\n", ""),
            ("PROXY \r\n", ""),
            ("PROXYTCP4 ", "no PROXY header"),
        ] {
            let error = read(line).expect_err(line);
            assert!(error.contains(why), "{line:?}: {error}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(107));
        assert_eq!(read(&long[..106]), Ok(Parsed::Incomplete));
        assert!(read(&long[..107]).is_err() && read(&format!("{}\r\n", &long[..106])).is_err());
    }
}
