//! What nginx does to a request and to its answer, as fields of a route's record: variables become placeholders, `rewrite` and
//! the URI of `proxy_pass` a `rewrite`, `return` a redirect or an answer.
//!
//! Whoever asks gets `None` where a route cannot say it, and holds the location shut.

use serde_json::{Map, Value as Json, json};

use super::location::Matcher;
use super::routes::checked;
use crate::import::grammar::Directive;

/// Fields of a record: one of `service`, `redirect` and `respond`, and what goes with it.
pub type Does = Map<String, Json>;

/// A text with our placeholders in place of nginx's variables.
pub fn text(said: &str) -> Option<String> {
    let said = said.replace("$is_args$args", "${?query}").replace('{', "{{").replace("${{", "${");
    let mut parts = said.split('$');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let (name, rest) = match part.strip_prefix('{') {
            Some(braced) => braced.split_once('}')?,
            None => part.split_at(part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len())),
        };
        let (_, placeholder) = VARIABLES.iter().find(|(variable, _)| *variable == name)?;
        text.push_str(placeholder);
        text.push_str(rest);
    }
    Some(text)
}

/// `return`: where it leads, or what it says. `kind`: the type of what it says.
pub fn answer(directive: &Directive, kind: &str) -> Option<Does> {
    let (status, said) = match directive.args.as_slice() {
        [url] if url.contains("://") => ("302", Some(url)),
        [status] => (&**status, None),
        [status, said] => (&**status, Some(said)),
        _ => return None,
    };
    let status: u16 = status.parse().ok().filter(|status| *status != CLOSES)?;
    let does = match said {
        Some(url) if REDIRECTS.contains(&status) => {
            let to = text(url)?;
            // A listener redirects like this, since a route is one of all listeners.
            let is_loop = to.split_once("://").is_some_and(|(_, rest)| rest == "{host}{path}{?query}");
            (!is_loop).then(|| json!({"redirect": {"status": status, "to": to}}))?
        }
        Some(body) if !body.contains('$') => json!({"respond": {"status": status, "body": body, "content_type": kind}}),
        Some(_) => return None,
        None => json!({"respond": {"status": status}}),
    };
    valid(does)
}

/// A `rewrite` that sends clients elsewhere, for whom its pattern is meant.
pub fn redirect(directive: &Directive) -> Option<Does> {
    let (pattern, to) = (directive.arg(0), directive.arg(1));
    let status = if directive.arg(2) == "permanent" { 301 } else { 302 };
    let path_at = to.find("://").map_or(0, |at| to[at + 3..].find('/').map_or(to.len(), |slash| at + 3 + slash));
    let (origin, path) = to.split_at(path_at);
    let has_group = path.as_bytes().windows(2).any(|pair| pair[0] == b'$' && pair[1].is_ascii_digit());
    if has_group {
        let to = format!("{}{{path}}{{?query}}", text(origin)?);
        let rewrite = json!({"regex": whole(pattern), "to": groups(path)?});
        return valid(json!({"redirect": {"status": status, "to": to}, "rewrite": rewrite}));
    }
    let has_query = to.contains('?') || to.contains("$request_uri");
    let to = text(to.strip_suffix('?').unwrap_or(to))?;
    valid(json!({"redirect": {"status": status, "to": if has_query { to } else { format!("{to}{{?query}}") }}}))
}

/// The path that a `rewrite` makes for instances: a field `rewrite`.
pub fn rewrite(pattern: &str, to: &str) -> Option<Json> {
    sound(json!({"regex": whole(pattern), "to": groups(to)?}))
}

/// What the URI of a `proxy_pass` makes of the paths of a location, and how that differs.
pub fn passed(uri: &str, matcher: &Matcher) -> Option<(Json, Option<&'static str>)> {
    let plain = || (!uri.contains(['$', '?'])).then_some(uri);
    let (rewrite, differs) = match matcher {
        Matcher::Exact(_) => (json!({"path": plain()?}), None),
        Matcher::Prefix { path, .. } if path.ends_with('/') && !uri.ends_with('/') => {
            let bare = path.trim_end_matches('/');
            (json!({"regex": format!("^{}/?", regex::escape(bare)), "to": plain()?}), None)
        }
        Matcher::Prefix { path, .. } => {
            let doubles = !path.ends_with('/') && uri.ends_with('/');
            (json!({"prefix": plain()?}), doubles.then_some("nginx asks for a path with two slashes here; this is one"))
        }
        Matcher::Regex(pattern) => {
            let (uri, keeps_query) = uri.strip_suffix("$is_args$args").map_or((uri, false), |uri| (uri, true));
            let end = if keeps_query { "" } else { "?" };
            (json!({"regex": whole(pattern), "to": format!("{}{end}", groups(uri)?)}), None)
        }
    };
    Some((sound(rewrite)?, differs))
}

/// Whether a pattern of `rewrite` is for everything that a location takes.
pub fn covers(pattern: &str, matcher: &Matcher) -> bool {
    let ends = ["", "(.*)", "(.*)$", ".*", ".*$", "/(.*)", "/(.*)$", "/?(.*)$"];
    let begins = |start: &str| pattern.strip_prefix(start).is_some_and(|end| ends.contains(&end));
    let all = pattern == ".*" || pattern == "(.*)" || begins("^");
    all || match matcher {
        Matcher::Exact(path) => regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(path)),
        Matcher::Prefix { path, .. } => begins(&format!("^{path}")) || begins(&format!("^{}", path.trim_end_matches('/'))),
        Matcher::Regex(taken) => taken == pattern,
    }
}

/// A pattern of `rewrite` inside a location, which here takes its path without the slash, too.
pub fn within(pattern: &str, matcher: &Matcher) -> String {
    match matcher {
        Matcher::Prefix { path, .. } if path.len() > 1 && path.ends_with('/') => {
            let start = format!("^{path}");
            pattern.strip_prefix(&start).map_or(pattern.to_owned(), |end| format!("{start}?{end}"))
        }
        _ => pattern.to_owned(),
    }
}

/// nginx replaces the whole path wherever a pattern matches; ours replaces what matches, so it has to be all.
fn whole(pattern: &str) -> String {
    let plain = pattern.strip_prefix("(?i)").unwrap_or(pattern);
    let begins = plain.starts_with('^');
    let ends = (plain.ends_with('$') && !plain.ends_with("\\$")) || plain.ends_with("(.*)");
    if begins && ends && !plain.contains('|') { pattern.to_owned() } else { format!("^(?s:.*?)(?:{pattern})(?s:.*)$") }
}

/// A text with groups of a pattern, and no other variable.
fn groups(said: &str) -> Option<String> {
    let mut behind = said.split('$').skip(1);
    behind.all(|rest| rest.starts_with(|c: char| c.is_ascii_digit())).then(|| said.to_owned())
}

/// A rewrite that a route may have.
fn sound(rewrite: Json) -> Option<Json> {
    let does = json!({"service": "any", "path_prefix": "/any", "rewrite": rewrite});
    let route = does.as_object()?;
    // What takes the place of a prefix needs one; the others do not care.
    checked("any", route).is_ok().then_some(rewrite)
}

fn valid(does: Json) -> Option<Does> {
    let Json::Object(does) = does else { return None };
    checked("any", &does).is_ok().then_some(does)
}

/// Whether a route may set, add or remove this; else why not.
pub fn is_field(direction: &str, edits: Json) -> Result<(), String> {
    let route = Map::from_iter([("service".to_owned(), json!("any")), (direction.to_owned(), edits)]);
    checked("any", &route)
}

const VARIABLES: [(&str, &str); 11] = [
    ("remote_addr", "{client_address}"),
    ("host", "{host}"),
    ("scheme", "{scheme}"),
    ("request_uri", "{path}{?query}"),
    ("uri", "{path}"),
    ("document_uri", "{path}"),
    ("args", "{query}"),
    ("query_string", "{query}"),
    ("?query", "{?query}"),
    ("request_id", "{request_id}"),
    ("proxy_add_x_forwarded_for", "{client_address}"),
];
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];
/// nginx's own: the connection is closed without an answer.
const CLOSES: u16 = 444;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_become_placeholders() {
        for (said, expected) in [
            ("https://$host$request_uri", Some("https://{host}{path}{?query}")),
            ("$scheme://www.${host}/x$is_args$args", Some("{scheme}://www.{host}/x{?query}")),
            ("a{b}$remote_addr", Some("a{{b}{client_address}")),
            ("$http_host", None),
            ("$hostname", None),
            ("${host", None),
        ] {
            assert_eq!(text(said).as_deref(), expected, "{said}");
        }
    }

    #[test]
    fn a_pattern_replaces_all_of_the_path_as_nginx_does() {
        for (pattern, path, expected) in [
            ("^/a/(.*)$", "/a/b", "/n/b"),
            ("/a/([a-z]+)", "/x/a/b/c", "/n/b"),
            ("^/a/(b)|c", "/a/b/c", "/n/b"),
            ("(?i)^/A/(.*)", "/a/b", "/n/b"),
            ("(b+)$", "/abb", "/n/bb"),
        ] {
            let made = regex::Regex::new(&whole(pattern)).unwrap().replace(path, "/n/$1").into_owned();
            assert_eq!(made, expected, "{pattern} as {}", whole(pattern));
        }
    }

    #[test]
    fn a_pattern_covers_a_location_whose_paths_it_all_matches() {
        let prefix = |path: &str| Matcher::Prefix { path: path.to_owned(), stops: false };
        for (pattern, matcher, expected) in [
            ("^", prefix("/a"), true),
            ("^/(.*)$", prefix("/a"), true),
            ("^/a/(.*)$", prefix("/a/"), true),
            ("^/a/b(.*)$", prefix("/a/"), false),
            ("^/a/(x)$", prefix("/a/"), false),
            ("^/b", Matcher::Exact("/b".to_owned()), true),
            ("^/b$", Matcher::Exact("/c".to_owned()), false),
        ] {
            assert_eq!(covers(pattern, &matcher), expected, "{pattern} {matcher:?}");
        }
        assert_eq!(within("^/a/(.*)$", &prefix("/a/")), "^/a/?(.*)$");
    }
}
