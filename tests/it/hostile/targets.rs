//! Paths: what is matched is what is forwarded, and what could still be read in two ways is refused (`docs/requests.md`).

use super::Case;

pub fn cases() -> Vec<Case> {
    let target = |(target, expected): &(&[u8], &str)| {
        let expected = if expected.starts_with('/') { format!("GET {expected}") } else { (*expected).to_owned() };
        Case::new([b"GET ", *target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat(), &expected)
    };
    TARGETS.iter().map(target).collect()
}

const TARGETS: &[(&[u8], &str)] = &[
    (b"/", "/"),
    (b"/a/b", "/a/b"),
    (b"/a/b/", "/a/b/"),
    (b"//", "//"),
    (b"//a//b/", "//a//b/"),
    (b"/a/./b", "/a/b"),
    (b"/./a", "/a"),
    (b"/a/.", "/a/"),
    (b"/a/../b", "/b"),
    (b"/a/..", "/"),
    (b"/a/b/..", "/a/"),
    (b"/..", "/"),
    (b"/../../etc/passwd", "/etc/passwd"),
    (b"/a//../b", "/a/b"),
    (b"/a/%2e/b", "/a/b"),
    (b"/a/%2e%2e/b", "/b"),
    (b"/a/%2E%2e/b", "/b"),
    (b"/a/.%2e/b", "/b"),
    (b"/a/%2e./b", "/b"),
    (b"/a/...", "/a/..."),
    (b"/a/..b", "/a/..b"),
    (b"/.well-known/x", "/.well-known/x"),
    (b"http://a/b/../c", "/c"),
    (b"http://a/%2e%2e/c", "/c"),
    // Kept: a name is a name.
    (b"/a%2fb", "/a%2fb"),
    (b"/a%2Fb%5Cc", "/a%2Fb%5Cc"),
    (b"/%41", "/%41"),
    (b"/a;b=c/d", "/a;b=c/d"),
    (b"/a%20b", "/a%20b"),
    (b"/a%252e%252e/b", "/a%252e%252e/b"),
    (b"/%c0%ae%c0%ae/b", "/%c0%ae%c0%ae/b"),
    (b"/caf\xc3\xa9", "/caf\u{e9}"),
    (b"/a?b/../c", "/a?b/../c"),
    (b"/a?b%00", "/a?b%00"),
    (b"/a?%", "/a?%"),
    (b"/a?b\\c", "/a?b\\c"),
    (b"/a??", "/a??"),
    (b"/a?", "/a?"),
    (b"/~a!$&'()*+,=:@", "/~a!$&'()*+,=:@"),
    // Dot segments to somebody who decodes once more, or takes other signs for a slash.
    (b"/a/..%2fb", "400"),
    (b"/a/%2e%2e%2Fb", "400"),
    (b"/a/..%5cb", "400"),
    (b"/a%2f../b", "400"),
    (b"/a%2f..%2fb", "400"),
    (b"/a%5c..%5cb", "400"),
    (b"/a/.%2fb", "400"),
    (b"/a/..;/b", "400"),
    (b"/a/..;x=y/b", "400"),
    (b"/a/%2e%2e;/b", "400"),
    (b"/a/.;/b", "400"),
    (b"/a\\b", "400"),
    (b"/a/..\\b", "400"),
    (b"\\a", "400"),
    // Escapes that are none, and NUL.
    (b"/a%", "400"),
    (b"/a%2", "400"),
    (b"/a%zz", "400"),
    (b"/a%2g", "400"),
    (b"/a%u002e", "400"),
    (b"/%%2e", "400"),
    (b"/a%00", "400"),
    (b"/a%00/../b", "400"),
    // Bytes that belong in no target.
    (b"/a\x00", "400"),
    (b"/a\x01", "400"),
    (b"/a\x7f", "400"),
    (b"/a\x0bb", "400"),
    (b"/a\xff", "400"),
    (b"/a\xc3", "400"),
    (b"/a?b\xfe", "400"),
    (b"/a#b", "400"),
    (b"/a?b#c", "400"),
    (b"a", "400"),
    (b"../a", "400"),
    (b"", "400"),
];
