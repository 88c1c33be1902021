//! The header by which a proxy introduces its client.

use crate::model::ProxyProtocol;
use crate::proxy_protocol::{Header, LENGTH_MAX, Parsed, parse, write};

/// What a connection begins with. A header ends where it ends, whatever follows, and means the same written anew.
pub fn proxy_protocol(bytes: &[u8]) {
    let Ok(Parsed::Whole(Header { length, said })) = parse(bytes) else { return };
    assert!(length <= bytes.len() && length <= LENGTH_MAX);
    let header = Ok(Parsed::Whole(Header { length, said }));
    assert_eq!(parse(&bytes[..length]), header);
    (0..length).for_each(|cut| assert_eq!(parse(&bytes[..cut]), Ok(Parsed::Incomplete), "cut at {cut}"));
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        let written = write(version, &said);
        assert_eq!(parse(&written), Ok(Parsed::Whole(Header { length: written.len(), said })), "{version:?}");
    }
}
