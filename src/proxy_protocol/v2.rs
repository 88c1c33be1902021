//! Version 2: a signature, one byte each for command and family, a length, addresses, and fields of who knows what
//! (TLVs: a type, a length, a value), of which only the checksum means something to us.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::crc32c::crc32c;
use super::{Header, LENGTH_MAX, NONE, Parsed, Said, Wrong, address};

pub fn parse(bytes: &[u8]) -> Result<Parsed, Wrong> {
    let begun = bytes.len().min(SIGNATURE.len());
    if bytes[..begun] != SIGNATURE[..begun] {
        return Err(NONE);
    }
    // What is wrong is told as soon as it is seen, so that nobody waits for the rest of it.
    let rest = &bytes[begun..];
    let command = rest.first().map(|byte| command(*byte)).transpose()?;
    let family = rest.get(1).map(|byte| family(*byte)).transpose()?;
    let (Some(command), Some(family), Some([high, low])) = (command, family, rest.get(2..4)) else {
        return Ok(Parsed::Incomplete);
    };
    let length = START + usize::from(u16::from_be_bytes([*high, *low]));
    if length > LENGTH_MAX {
        return Err("it is longer than 4096 bytes");
    }
    if command == Command::Proxy && length < START + family.size() {
        return Err("it has no room for its addresses");
    }
    let Some(header) = bytes.get(..length) else { return Ok(Parsed::Incomplete) };
    let said = match command {
        // Whatever else it says is to be ignored.
        Command::Local => Said::Local,
        Command::Proxy => {
            check_fields(header, START + family.size())?;
            family.read(&header[START..])
        }
    };
    Ok(Parsed::Whole(Header { length, said }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Command {
    Local,
    Proxy,
}

fn command(byte: u8) -> Result<Command, Wrong> {
    match byte {
        0x20 => Ok(Command::Local),
        0x21 => Ok(Command::Proxy),
        _ if byte >> 4 != 2 => Err("its version is not 2"),
        _ => Err("its command is neither LOCAL nor PROXY"),
    }
}

#[derive(Clone, Copy)]
enum Family {
    Tcp4,
    Tcp6,
    /// Unspecified, or sockets of the file system: addresses that mean nothing here.
    Other {
        size: usize,
    },
}

fn family(byte: u8) -> Result<Family, Wrong> {
    match byte {
        0x00 => Ok(Family::Other { size: 0 }),
        0x11 => Ok(Family::Tcp4),
        0x21 => Ok(Family::Tcp6),
        0x31 => Ok(Family::Other { size: 216 }),
        0x12 | 0x22 | 0x32 => Err("it is about datagrams"),
        _ => Err("its family of addresses is unknown"),
    }
}

impl Family {
    fn size(self) -> usize {
        match self {
            Self::Tcp4 => 12,
            Self::Tcp6 => 36,
            Self::Other { size } => size,
        }
    }

    /// `bytes` are at least as many as `size`.
    fn read(self, bytes: &[u8]) -> Said {
        let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let v4 = |at: usize| IpAddr::from([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let v6 = |at: usize| Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|n| bytes[at + n]));
        match self {
            Self::Tcp4 => Said::Proxied { client: SocketAddr::new(v4(0), port(8)), local: SocketAddr::new(v4(4), port(10)) },
            Self::Tcp6 => Said::Proxied { client: address(v6(0), port(32)), local: address(v6(16), port(34)) },
            Self::Other { .. } => Said::Local,
        }
    }
}

/// The fields fill the header exactly, and if there is a checksum, it is that of the header.
fn check_fields(header: &[u8], begin: usize) -> Result<(), Wrong> {
    let mut at = begin;
    let mut checksum = None;
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + FIELD_START) else { return Err("a field of it is cut off") };
        let value = at + FIELD_START;
        let end = value + usize::from(u16::from_be_bytes([high, low]));
        if end > header.len() {
            return Err("a field of it is longer than the header");
        }
        if kind == CRC32C && (end - value != 4 || checksum.replace(value).is_some()) {
            return Err("its checksum is not one of four bytes");
        }
        at = end;
    }
    let Some(at) = checksum else { return Ok(()) };
    let (before, rest) = header.split_at(at);
    let (said, after) = rest.split_at(4);
    // Of the header as it is with zeros in the checksum's place.
    if crc32c([before, &[0; 4], after]).to_be_bytes() == said { Ok(()) } else { Err("its checksum is wrong") }
}

pub fn write(said: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some((client, local)) = said else {
        header.extend([0x20, 0x00, 0, 0]);
        return header;
    };
    match (client.ip(), local.ip()) {
        (IpAddr::V4(client), IpAddr::V4(local)) => {
            header.extend([0x21, 0x11, 0, 12]);
            header.extend(client.octets());
            header.extend(local.octets());
        }
        (client, local) => {
            header.extend([0x21, 0x21, 0, 36]);
            [client, local].map(v6_of).iter().for_each(|ip| header.extend(ip.octets()));
        }
    }
    header.extend(client.port().to_be_bytes());
    header.extend(local.port().to_be_bytes());
    header
}

fn v6_of(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Up to the addresses.
const START: usize = 16;
/// Type and length of a field.
const FIELD_START: usize = 3;
const CRC32C: u8 = 0x03;

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    const TCP4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 1, 187];

    fn said() -> Said {
        Said::Proxied { client: "192.0.2.1:56324".parse().unwrap(), local: "198.51.100.7:443".parse().unwrap() }
    }

    fn check(header: &[u8], expected: Result<Said, &str>) {
        match (parse(header), expected) {
            (Ok(Parsed::Whole(found)), Ok(said)) => assert_eq!(found, Header { length: header.len(), said }),
            (Err(found), Err(part)) => assert!(found.contains(part), "{found}"),
            (found, _) => panic!("{found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn addresses_are_read_and_fields_are_passed_over() {
        check(&header(0x21, 0x11, &TCP4), Ok(said()));
        let noop = [&TCP4[..], &[0x04, 0, 2, 9, 9], &[0xea, 0, 1, 1]].concat();
        check(&header(0x21, 0x11, &noop), Ok(said()));
        check(&header(0x20, 0x11, &TCP4), Ok(Said::Local));
        check(&header(0x20, 0x00, &[1, 2, 3]), Ok(Said::Local));
        check(&header(0x21, 0x00, &[]), Ok(Said::Local));
        check(&header(0x21, 0x31, &[0; 216]), Ok(Said::Local));
    }

    #[test]
    fn what_is_not_allowed_is_refused() {
        check(&header(0x11, 0x11, &TCP4), Err("version"));
        check(&header(0x22, 0x11, &TCP4), Err("command"));
        check(&header(0x21, 0x12, &TCP4), Err("datagrams"));
        check(&header(0x21, 0x41, &TCP4), Err("family"));
        check(&header(0x21, 0x11, &TCP4[..11]), Err("no room"));
        check(&header(0x21, 0x21, &TCP4), Err("no room"));
        check(&header(0x21, 0x11, &[&TCP4[..], &[4, 0]].concat()), Err("cut off"));
        check(&header(0x21, 0x11, &[&TCP4[..], &[4, 0, 2, 9]].concat()), Err("longer than the header"));
        check(&[&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat(), Err("longer than 4096"));
        check(b"\r\n\r\n\0\r\nQUIX", Err("no PROXY header"));
        check(&[&SIGNATURE[..], &[0x31]].concat(), Err("version"));
    }

    #[test]
    fn a_checksum_is_checked_where_there_is_one() {
        let mut good = header(0x21, 0x11, &[&TCP4[..], &[CRC32C, 0, 4, 0, 0, 0, 0], &[4, 0, 0]].concat());
        let sum = crc32c([&good[..], &[], &[]]).to_be_bytes();
        good[31..35].copy_from_slice(&sum);
        check(&good, Ok(said()));
        for at in [16, 20, 31, 34] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            check(&bad, Err("checksum is wrong"));
        }
        check(&header(0x21, 0x11, &[&TCP4[..], &[CRC32C, 0, 3, 0, 0, 0]].concat()), Err("four bytes"));
    }
}
