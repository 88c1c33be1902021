//! Where a body ends: lengths, codings, chunks.

use super::Case;

pub fn cases() -> Vec<Case> {
    let framed = |(fields, body, expected): &(&[u8], &[u8], &str)| {
        Case::new([&b"POST /x HTTP/1.1\r\nHost: a\r\n"[..], fields, b"\r\n\r\n", body].concat(), expected)
    };
    let chunked = |(body, expected): &(&[u8], &str)| {
        Case::new([&b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"[..], body].concat(), expected)
    };
    FRAMINGS.iter().map(framed).chain(CHUNKS.iter().map(chunked)).chain(large()).chain(other()).collect()
}

/// Fields behind `POST /x` and `Host: a`, and the body.
const FRAMINGS: &[(&[u8], &[u8], &str)] = &[
    (b"Content-Length: 5", b"hello", "POST /x hello"),
    (b"content-length:5", b"hello", "POST /x hello"),
    (b"Content-Length: \t5 \t", b"hello", "POST /x hello"),
    (b"Content-Length: 05", b"hello", "POST /x hello"),
    (b"Content-Length: 0", b"", "POST /x"),
    (b"X: 1", b"", "POST /x"),
    // CL.CL
    (b"Content-Length: 5\r\nContent-Length: 5", b"hello", "400"),
    (b"Content-Length: 5\r\nContent-Length: 0", b"hello", "400"),
    (b"Content-Length: 0\r\nContent-Length: 44", b"GET /smuggled HTTP/1.1\r\nHost: a\r\nX: 12345678\r\n", "400"),
    (b"Content-Length: 5\r\ncontent-LENGTH: 6", b"hello!", "400"),
    (b"Content-Length: 5, 5", b"hello", "400"),
    (b"Content-Length: 5,6", b"hello!", "400"),
    (b"Content-Length: 5,", b"hello", "400"),
    (b"Content-Length: ,5", b"hello", "400"),
    (b"Content-Length: 5\r\n Content-Length: 6", b"hello!", "400"),
    (b"Content-Length: 5\r\nContent-Length:", b"hello", "400"),
    // No numbers.
    (b"Content-Length:", b"", "400"),
    (b"Content-Length: ", b"", "400"),
    (b"Content-Length: +5", b"hello", "400"),
    (b"Content-Length: -5", b"hello", "400"),
    (b"Content-Length: -0", b"", "400"),
    (b"Content-Length: 5.0", b"hello", "400"),
    (b"Content-Length: 5e0", b"hello", "400"),
    (b"Content-Length: 0x5", b"hello", "400"),
    (b"Content-Length: 5;", b"hello", "400"),
    (b"Content-Length: 5 5", b"hello", "400"),
    (b"Content-Length: 5 \t5", b"hello", "400"),
    (b"Content-Length: \"5\"", b"hello", "400"),
    (b"Content-Length: five", b"hello", "400"),
    (b"Content-Length: 5\0", b"hello", "400"),
    (b"Content-Length: \x0b5", b"hello", "400"),
    (b"Content-Length: 5\x0c", b"hello", "400"),
    (b"Content-Length: \xef\xbc\x95", b"hello", "400"),
    (b"Content-Length: 5\r\r\n", b"hello", "400"),
    (b"Content-Length: 9223372036854775808", b"hello", "400"),
    (b"Content-Length: 18446744073709551616", b"hello", "400"),
    (b"Content-Length: 18446744073709551621", b"hello", "400"),
    (b"Content-Length: 99999999999999999999999999999999", b"hello", "400"),
    (b"Content-Length : 5", b"hello", "400"),
    (b"Content-Length\t: 5", b"hello", "400"),
    (b"Content-Length\0: 5", b"hello", "400"),
    (b" Content-Length: 5", b"hello", "400"),
    (b"\rContent-Length: 5", b"hello", "400"),
    (b"X: 1\nContent-Length: 5", b"hello", "400"),
    (b"X: 1\rContent-Length: 5", b"hello", "400"),
    // TE
    (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", "POST /x hello"),
    (b"Transfer-Encoding: CHUNKED", b"5\r\nhello\r\n0\r\n\r\n", "POST /x hello"),
    (b"tRANSFER-eNCODING:chunked", b"5\r\nhello\r\n0\r\n\r\n", "POST /x hello"),
    (b"Transfer-Encoding: \t chunked \t", b"5\r\nhello\r\n0\r\n\r\n", "POST /x hello"),
    // CL.TE and TE.CL
    (b"Content-Length: 4\r\nTransfer-Encoding: chunked", b"1\r\nZ\r\n0\r\n\r\n", "400"),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 4", b"1\r\nZ\r\n0\r\n\r\n", "400"),
    (b"Content-Length: 6\r\nTransfer-Encoding: chunked", b"0\r\n\r\nG", "400"),
    (b"Content-Length: 0\r\nTransfer-Encoding: chunked", b"0\r\n\r\n", "400"),
    (b"Content-Length: 3\r\nTransfer-Encoding: chunked", b"8\r\nSMUGGLED\r\n0\r\n\r\n", "400"),
    (b"Content-Length: 4\r\nTransfer-Encoding: identity", b"5c\r\n", "400"),
    (b"Content-Length: 5\r\nTransfer-Encoding:", b"hello", "400"),
    (b"Content-Length: 5\r\nTransfer-Encoding: x", b"hello", "400"),
    (b"Content-Length: 5\r\nTransfer-Encoding: cow", b"hello", "400"),
    // TE.TE
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: chunked\r\nTransfer-encoding: identity", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding:\r\nTransfer-Encoding: chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: xchunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: chunkedx", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: chunk", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: chunked;q=1", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: chunked; foo", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: chunked,", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: ,chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: chunked, chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: chunked, identity", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: identity, chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: gzip, chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: chunked, gzip", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: gzip", b"", "400"),
    (b"Transfer-Encoding: identity", b"", "400"),
    (b"Transfer-Encoding:", b"", "400"),
    (b"Transfer-Encoding: \"chunked\"", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: 'chunked'", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: [chunked]", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: chunked\0", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: \x00chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: \x0bchunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: chunked\x0c", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: \x08chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: \xa0chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: \xffchunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: ch\xfcnked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: chunKed\r\n Y: x", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding:\r\n chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding:\n chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding\r\n: chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding\n: chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding : chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding\t:chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding\0: chunked", b"0\r\n\r\n", "400"),
    (b" Transfer-Encoding: chunked", b"0\r\n\r\n", "400"),
    (b"\tTransfer-Encoding: chunked", b"0\r\n\r\n", "400"),
    (b"X: 1\nTransfer-Encoding: chunked", b"0\r\n\r\n", "400"),
    (b"X: 1\rTransfer-Encoding: chunked", b"0\r\n\r\n", "400"),
    (b"X: X[\n]Transfer-Encoding: chunked", b"0\r\n\r\n", "400"),
    (b"\"Transfer-Encoding\": chunked", b"0\r\n\r\n", "400"),
    (b"Transfer Encoding: chunked", b"0\r\n\r\n", "400"),
    (b"Transfer-Encoding: chunked\r\r\n", b"0\r\n\r\n", "400"),
    // Names that only look alike frame nothing.
    (b"Transfer_Encoding: chunked\r\nContent-Length: 5", b"hello", "POST /x hello"),
    (b"Content_Length: 500\r\nContent-Length: 5", b"hello", "POST /x hello"),
    (b"X-Transfer-Encoding: chunked\r\nContent-Length: 5", b"hello", "POST /x hello"),
    (b"Content-Encoding: chunked\r\nContent-Length: 5", b"hello", "POST /x hello"),
    (b"TransferEncoding: chunked\r\nContent-Length: 5", b"hello", "POST /x hello"),
    (b"Connection: content-length\r\nContent-Length: 5", b"hello", "POST /x hello"),
    (b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", "POST /x hello"),
    // What changes the way a request is read.
    (b"Expect: 100-continue\r\nContent-Length: 5", b"hello", "POST /x hello"),
    (b"Expect: 100-continue\r\nTransfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", "POST /x hello"),
    (b"Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 5", b"hello", "POST /x hello"),
    (b"Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 5", b"hello", "POST /x hello"),
    (b"Upgrade: websocket\r\nConnection: upgrade\r\nTransfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", "POST /x hello"),
    (b"X-HTTP-Method-Override: GET\r\nContent-Length: 5", b"hello", "POST /x hello"),
];

/// Behind `Transfer-Encoding: chunked`.
const CHUNKS: &[(&[u8], &str)] = &[
    (b"0\r\n\r\n", "POST /x"),
    (b"5\r\nhello\r\n0\r\n\r\n", "POST /x hello"),
    (b"5\r\nhello\r\n000\r\n\r\n", "POST /x hello"),
    (b"0005\r\nhello\r\n0\r\n\r\n", "POST /x hello"),
    (b"A\r\n0123456789\r\n0\r\n\r\n", "POST /x 0123456789"),
    (b"1\r\nh\r\n4\r\nello\r\n0\r\n\r\n", "POST /x hello"),
    (b"5;a=b\r\nhello\r\n0;c\r\n\r\n", "POST /x hello"),
    (b"5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", "POST /x hello"),
    (b"5 ;a\r\nhello\r\n0\r\n\r\n", "POST /x hello"),
    (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", "POST /x 0\r\n\r\n"),
    (b"0\r\nX-Sum: 1\r\n\r\n", "POST /x +x-sum"),
    (b"0\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\nHost: b\r\nX_Forwarded_For: 6\r\nAuthorization: x\r\n\r\n", "POST /x"),
    // No size, or none that everybody reads alike.
    (b"\r\n", "400"),
    (b"\r\n\r\n", "400"),
    (b"\r\n0\r\n\r\n", "400"),
    (b" \r\n0\r\n\r\n", "400"),
    (b";a\r\n0\r\n\r\n", "400"),
    (b" 5\r\nhello\r\n0\r\n\r\n", "400"),
    (b"\t5\r\nhello\r\n0\r\n\r\n", "400"),
    (b"+5\r\nhello\r\n0\r\n\r\n", "400"),
    (b"-5\r\nhello\r\n0\r\n\r\n", "400"),
    (b"-0\r\n\r\n", "400"),
    (b"0x5\r\nhello\r\n0\r\n\r\n", "400"),
    (b"5h\r\nhello\r\n0\r\n\r\n", "400"),
    (b"5_0\r\nhello\r\n0\r\n\r\n", "400"),
    (b"5.0\r\nhello\r\n0\r\n\r\n", "400"),
    (b"5,5\r\nhello\r\n0\r\n\r\n", "400"),
    (b"5 5\r\nhello\r\n0\r\n\r\n", "400"),
    (b"\"5\"\r\nhello\r\n0\r\n\r\n", "400"),
    (b"g\r\nhello\r\n0\r\n\r\n", "400"),
    (b"5\0\r\nhello\r\n0\r\n\r\n", "400"),
    (b"\x005\r\nhello\r\n0\r\n\r\n", "400"),
    (b"5\x0b\r\nhello\r\n0\r\n\r\n", "400"),
    (b"\xb5\r\nhello\r\n0\r\n\r\n", "400"),
    // Too large for one reader or the other.
    (b"10000000000000005\r\nhello\r\n0\r\n\r\n", "400"),
    (b"100000000000000000000000000000005\r\nhello\r\n0\r\n\r\n", "400"),
    (b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n", "400"),
    (b"fffffffffffffffb\r\nhello\r\n0\r\n\r\n", "400"),
    (b"8000000000000000\r\nhello\r\n0\r\n\r\n", "400"),
    (b"00000000000000000000000000000005\r\nhello\r\n0\r\n\r\n", "400"),
    // Line ends.
    (b"5\nhello\r\n0\r\n\r\n", "400"),
    (b"5\rhello\r\n0\r\n\r\n", "400"),
    (b"5\r\r\nhello\r\n0\r\n\r\n", "400"),
    (b"5\n\r\nhello\r\n0\r\n\r\n", "400"),
    (b"5\r\nhello\n0\r\n\r\n", "400"),
    (b"5\r\nhello\r0\r\n\r\n", "400"),
    (b"5\r\nhello\r\r\n0\r\n\r\n", "400"),
    (b"5\r\nhello\n\r\n0\r\n\r\n", "400"),
    (b"5\r\nhello0\r\n\r\n", "400"),
    (b"5\r\nhelloXX0\r\n\r\n", "400"),
    (b"5\r\nhello!\r\n0\r\n\r\n", "400"),
    (b"5\r\nhell\r\n0\r\n\r\n", "400"),
    (b"5\r\nhello\r\n\r\n0\r\n\r\n", "400"),
    (b"0\n\n", "400"),
    (b"0\r\n\n", "400"),
    (b"0\n\r\n", "400"),
    (b"0\r\r\n\r\n", "400"),
    (b"0\r\n\r\r\n", "400"),
    (b"0\r\nX\r\n\r\n", "400"),
    // TERM.EXT, EXT.TERM and their kin: line ends inside an extension.
    (b"5;a\nb\r\nhello\r\n0\r\n\r\n", "400"),
    (b"5;\nhello\r\n0\r\n\r\n", "400"),
    (b"5;a\rb\r\nhello\r\n0\r\n\r\n", "400"),
    (b"5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n", "400"),
    (b"5;a=\"\n\"\r\nhello\r\n0\r\n\r\n", "400"),
    (b"2;\nxx\r\n4c\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n0\r\n\r\n", "400"),
    (b"5;a\0b\r\nhello\r\n0\r\n\r\n", "400"),
    (b"5;a\x01b\r\nhello\r\n0\r\n\r\n", "400"),
    (b"5;a\x7fb\r\nhello\r\n0\r\n\r\n", "400"),
    (b"0;a\nb\r\n\r\n", "400"),
    // Trailers.
    (b"0\r\nX : 1\r\n\r\n", "400"),
    (b"0\r\n X: 1\r\n\r\n", "400"),
    (b"0\r\nX: 1\r\n folded\r\n\r\n", "400"),
    (b"0\r\nX: a\0b\r\n\r\n", "400"),
    (b"0\r\nX: a\rb\r\n\r\n", "400"),
    (b"0\r\nX: a\nb\r\n\r\n", "400"),
    (b"0\r\n: 1\r\n\r\n", "400"),
    (b"0\r\nX Y: 1\r\n\r\n", "400"),
    (b"0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    // A second request where a careless reader sees the body's end.
    (b"0\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n", "POST /x | GET /second"),
    (b"5\r\nhello\r\n0\r\n\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n", "POST /x hello | GET /second"),
];

fn large() -> Vec<Case> {
    let chunked = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let trailers: String = (0..40).map(|n| format!("x-{n}: 1\r\n")).collect();
    vec![
        Case::new(format!("{chunked}5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(10 * 1024)), "400"),
        Case::new(format!("{chunked}0;{}\r\n\r\n", "e".repeat(10 * 1024)), "400"),
        Case::new(format!("{chunked}0\r\nX: {}\r\n\r\n", "v".repeat(16 * 1024)), "400"),
        Case::new(format!("{chunked}0\r\n{trailers}\r\n"), "400"),
        Case::new(format!("{chunked}{}0\r\n\r\n", "1\r\nx\r\n".repeat(2000)), &format!("POST /x {}", "x".repeat(2000))),
    ]
}

/// Methods that usually have no body, and bodies that look like requests (CL.0, 0.CL, GET with a body).
fn other() -> Vec<Case> {
    let inner = "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = inner.len();
    let head = |method: &str, fields: &str| format!("{method} /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    let mut cases: Vec<Case> = ["GET", "HEAD", "DELETE", "OPTIONS", "PUT", "FOO"]
        .iter()
        .flat_map(|method| {
            let by_length = head(method, &format!("Content-Length: {length}"));
            let by_chunks = head(method, "Transfer-Encoding: chunked");
            let heard = format!("{method} /x {inner}");
            [
                Case::new(format!("{by_length}{inner}"), &heard),
                Case::new(format!("{by_chunks}{length:x}\r\n{inner}\r\n0\r\n\r\n"), &heard),
            ]
        })
        .collect();
    cases.extend([
        Case::new(format!("{}{inner}", head("GET", "X: 1")), "GET /x | GET /inner"),
        Case::new(format!("{}{inner}", head("POST", "Content-Length: 0")), "POST /x | GET /inner"),
        Case::new(format!("{}\r\n{inner}", head("POST", "Content-Length: 0")), "POST /x | GET /inner"),
        Case::new(format!("{}GARBAGE\r\n\r\n", head("POST", "Content-Length: 0\r\nConnection: close")), "POST /x !"),
        Case::new(format!("{}{inner}", head("GET", "Expect: 100-continue\r\nContent-Length: 0")), "GET /x | GET /inner"),
        Case::new(
            format!("POST /x HTTP/1.0\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}"),
            &format!("POST /x {inner} !"),
        ),
        Case::new(format!("POST /x HTTP/1.0\r\nHost: a\r\n\r\n{inner}"), "POST /x !"),
        Case::new(format!("GET /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n{inner}"), "GET /x | GET /inner"),
    ]);
    cases
}
