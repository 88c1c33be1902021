//! Dot segments (RFC 3986 §5.2.4) taken out of a path, also where they are written with `%2e`: a route for `/public`
//! must not open `/public/../admin`. What others might still read as a dot segment is refused. Everything else stays as the
//! client wrote it, empty segments and escapes too: what is matched is what is forwarded.

use std::borrow::Cow;

/// Borrowed when there is nothing to take out, which is nearly always. `Err` says what is wrong with it.
pub fn plain_path(path: &str) -> Result<Cow<'_, str>, &'static str> {
    if !path.starts_with('/') {
        return Err("the path does not start with a slash");
    }
    if path.bytes().any(|b| b.is_ascii_control() || b == b' ' || b == b'#') {
        return Err("the path holds characters that must be escaped");
    }
    if path.contains('\\') || !escapes_are_plain(path) {
        return Err("the path holds a backslash, NUL, or an escape that is none");
    }
    if path[1..].split('/').any(hides_dots) {
        return Err("the path holds dot segments that only some would see");
    }
    if !path[1..].split('/').any(|segment| dots(segment) > 0) {
        return Ok(Cow::Borrowed(path));
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in path[1..].split('/') {
        let dots = dots(segment);
        ends_open = dots > 0;
        match dots {
            0 => kept.push(segment),
            1 => {}
            _ => {
                kept.pop();
            }
        }
    }
    let mut plain = String::with_capacity(path.len());
    kept.iter().for_each(|segment| {
        plain.push('/');
        plain.push_str(segment);
    });
    if ends_open {
        plain.push('/');
    }
    Ok(Cow::Owned(plain))
}

/// Each `%` has its two digits, and none of them means NUL.
fn escapes_are_plain(path: &str) -> bool {
    path.as_bytes().iter().enumerate().filter(|(_, b)| **b == b'%').all(|(at, _)| match path.as_bytes().get(at + 1..at + 3) {
        Some(b"00") | None => false,
        Some(digits) => digits.iter().all(u8::is_ascii_hexdigit),
    })
}

/// Dots beside an escaped slash or before path parameters: a name to us, a dot segment to whoever decodes once more or drops
/// the parameters.
fn hides_dots(segment: &str) -> bool {
    if !segment.contains(['%', ';']) {
        return false;
    }
    let plain = segment.to_ascii_lowercase().replace("%5c", "%2f");
    let names: Vec<&str> = plain.split("%2f").collect();
    let has_slash = names.len() > 1;
    names.iter().any(|name| {
        let bare = name.split_once(';');
        dots(bare.map_or(name, |(bare, _)| bare)) > 0 && (has_slash || bare.is_some())
    })
}

/// 1 for `.`, 2 for `..`, 0 for a name.
fn dots(segment: &str) -> usize {
    let bytes = segment.as_bytes();
    let (mut at, mut dots) = (0, 0);
    while at < bytes.len() {
        at += match &bytes[at..] {
            [b'.', ..] => 1,
            [b'%', b'2', b'e' | b'E', ..] => 3,
            _ => return 0,
        };
        dots += 1;
    }
    if dots <= 2 { dots } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_go_and_all_else_stays() {
        for (path, plain) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("//a//b/", "//a//b/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/..", "/"),
            ("/../../etc", "/etc"),
            ("/public/%2e%2E/admin", "/admin"),
            ("/public/.%2e/admin", "/admin"),
            ("/...", "/..."),
            ("/.hidden/a..b", "/.hidden/a..b"),
            ("/%2f/%20", "/%2f/%20"),
            ("/a;b/c%3b", "/a;b/c%3b"),
        ] {
            assert_eq!(plain_path(path).unwrap(), plain, "{path}");
        }
        for odd in ["a", "/a b", "/a#b", "/a\\b", "/a%", "/a%2", "/%zz", "/%00", "/..%2fa", "/a%5C%2e%2E", "/..;/a", "/a/.;x"] {
            assert!(plain_path(odd).is_err(), "{odd}");
        }
    }
}
