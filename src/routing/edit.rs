//! What a route makes of the request it was asked for: the path that instances are asked for, and its templates filled in.
//!
//! Invariant: whatever a client says, a path that comes out is one that a client could have asked for, and a text is visible
//! ASCII (with the spaces of its template): it neither ends a line nor names another host than its template does.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;

use regex::Regex;

use crate::model::{
    Part, PathMatch, PathRewrite, Piece, Placeholder, Redirect, RouteSpec, ServiceName, Substitution, Template, plain_path,
};

/// What placeholders stand for.
#[derive(Debug, Clone, Copy)]
pub struct Words<'a> {
    pub client: IpAddr,
    /// Lower case, without port.
    pub host: &'a str,
    pub scheme: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub request_id: &'a str,
}

/// The request target of this path and query where the route rewrites it. `Err` says why nobody can be asked for it.
pub fn rewritten(spec: &RouteSpec, path: &str, query: Option<&str>) -> Result<Option<String>, &'static str> {
    let Some(rewrite) = spec.rewrite.path.as_ref().filter(|_| path.starts_with('/')) else { return Ok(None) };
    let made = match rewrite {
        PathRewrite::Whole(whole) => whole.to_string(),
        PathRewrite::Prefix(prefix) => {
            let matched = match &spec.path {
                PathMatch::Prefix(matched) if &**matched != "/" => matched.len(),
                _ => 0,
            };
            format!("{prefix}{}", path.get(matched..).unwrap_or_default())
        }
        PathRewrite::Regex { pattern, to } => match substituted(path, pattern, to)? {
            Some(made) => made,
            None => return Ok(None),
        },
    };
    let (made, ours) = made.split_once('?').map_or((&*made, None), |(path, query)| (path, Some(query)));
    // More than one slash would be a host to whoever takes it for a URL.
    let made = format!("/{}", made.trim_start_matches('/'));
    if plain_path(&made).is_ok_and(|plain| plain == made) {
        target(made, ours, query).map(Some)
    } else {
        Err("what the route makes of the path is none, or leads elsewhere")
    }
}

/// nginx's rule: the client's query follows ours, unless ours ends with a question mark.
fn target(mut path: String, ours: Option<&str>, query: Option<&str>) -> Result<String, &'static str> {
    let (ours, theirs) = match ours {
        None => ("", query),
        Some("") => ("", None),
        Some(ours) => ours.strip_suffix('?').map_or((ours, query), |ours| (ours, None)),
    };
    let mut join = '?';
    for query in [ours, theirs.unwrap_or_default()] {
        if !query.is_empty() {
            path.push(std::mem::replace(&mut join, '&'));
            path.push_str(query);
        }
    }
    if path.len() > TARGET_LENGTH_MAX { Err("what the route makes of the path is too long") } else { Ok(path) }
}

/// `None`: nothing matches.
fn substituted(path: &str, pattern: &Regex, to: &Substitution) -> Result<Option<String>, &'static str> {
    let mut made = String::new();
    let mut end = 0;
    for captures in pattern.captures_iter(path) {
        let Some(found) = captures.get(0) else { continue };
        made.push_str(&path[end..found.start()]);
        for piece in to.parts() {
            match piece {
                Piece::Text(text) => made.push_str(text),
                Piece::Group(group) => made.push_str(captures.get(*group).map_or("", |group| group.as_str())),
            }
        }
        end = found.end();
        if made.len() > TARGET_LENGTH_MAX {
            return Err("what the route makes of the path is too long");
        }
        if end == path.len() {
            // What a pattern finds behind the end, as `(.*)$` does, is nothing.
            return Ok(Some(made));
        }
    }
    if made.is_empty() && end == 0 {
        return Ok(None);
    }
    made.push_str(&path[end..]);
    Ok(Some(made))
}

/// Where a redirect leads: a path of this host, or what its template says before the first placeholder for a path.
pub fn location(redirect: &Redirect, spec: &RouteSpec, words: Words<'_>) -> Result<String, &'static str> {
    let target = rewritten(spec, words.path, words.query)?;
    let (path, query) = match target.as_deref() {
        Some(target) => target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query))),
        None => (words.path, words.query),
    };
    // `OPTIONS *` asks for no path.
    let path = if path.starts_with('/') { path } else { "/" };
    let location = filled(&redirect.to, spec, Words { path, query, ..words });
    if location.starts_with("//") {
        return Ok(format!("/{}", location.trim_start_matches('/')));
    }
    Ok(location.into_owned())
}

/// A template with its placeholders filled in; borrowed if it has none.
pub fn filled<'t>(template: &'t Template, spec: &RouteSpec, words: Words<'_>) -> Cow<'t, str> {
    if let [Part::Text(text)] = template.parts() {
        return Cow::Borrowed(text);
    }
    let mut text = String::new();
    for part in template.parts() {
        match part {
            Part::Text(said) => text.push_str(said),
            Part::Of(placeholder) => fill(*placeholder, spec, words, &mut text),
        }
    }
    Cow::Owned(text)
}

fn fill(placeholder: Placeholder, spec: &RouteSpec, words: Words<'_>, text: &mut String) {
    match placeholder {
        Placeholder::ClientAddress => {
            // Writing into a text cannot fail.
            let _ = write!(text, "{}", words.client.to_canonical());
        }
        Placeholder::Host => push_visible(words.host, text),
        Placeholder::Scheme => text.push_str(words.scheme),
        Placeholder::Path => push_visible(words.path, text),
        Placeholder::Query => push_visible(words.query.unwrap_or_default(), text),
        Placeholder::QueryIfAny => {
            if let Some(query) = words.query {
                text.push('?');
                push_visible(query, text);
            }
        }
        Placeholder::RequestId => push_visible(words.request_id, text),
        Placeholder::Route => text.push_str(spec.name.as_str()),
        Placeholder::Service => text.push_str(spec.service().map_or("", ServiceName::as_str)),
    }
}

/// What is not visible ASCII is escaped, as is the backslash, which browsers take for a slash.
fn push_visible(said: &str, text: &mut String) {
    for byte in said.bytes() {
        if byte.is_ascii_graphic() && byte != b'\\' {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

/// Of what goes to an instance, as of what comes from a client.
const TARGET_LENGTH_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::model::RouteName;

    fn route(path: PathMatch, rewrite: PathRewrite) -> RouteSpec {
        let mut spec = RouteSpec::to(RouteName::parse("r").unwrap(), ServiceName::parse("s").unwrap());
        (spec.path, spec.rewrite.path) = (path, Some(rewrite));
        spec
    }

    fn prefix(matched: &str, prefix: &str) -> RouteSpec {
        route(PathMatch::Prefix(matched.into()), PathRewrite::Prefix(prefix.into()))
    }

    fn regex(pattern: &str, to: &str) -> RouteSpec {
        let pattern = Regex::new(pattern).unwrap();
        let to = Substitution::parse(to, &pattern).unwrap();
        route(PathMatch::Any, PathRewrite::Regex { pattern, to })
    }

    /// `-` is what is not rewritten, `!` what nobody can be asked for.
    fn check(spec: &RouteSpec, target: &str, expected: &str) {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let made = rewritten(spec, path, query).map_or("!".to_owned(), |made| made.unwrap_or("-".to_owned()));
        assert_eq!(made, expected, "{target} by {:?}", spec.rewrite);
    }

    /// The first eight are the table of Kubernetes' Gateway API for ReplacePrefixMatch.
    #[test]
    fn a_prefix_is_replaced_by_whole_segments() {
        for (matched, by, target, expected) in [
            ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz", "/foo", "/xyz"),
            ("/foo", "/xyz", "/foo/", "/xyz/"),
            ("/foo", "", "/foo/bar", "/bar"),
            ("/foo", "", "/foo/", "/"),
            ("/foo", "", "/foo", "/"),
            ("/", "/xyz", "/foo", "/xyz/foo"),
            ("/", "/xyz", "/", "/xyz/"),
            ("/foo", "", "/foo//evil.example/x", "/evil.example/x"),
            ("/foo", "/xyz", "/foo/a%2Fb?x=%20", "/xyz/a%2Fb?x=%20"),
            ("/foo", "/xyz", "*", "-"),
        ] {
            check(&prefix(matched, by), target, expected);
        }
    }

    #[test]
    fn a_pattern_is_replaced_wherever_it_matches() {
        let users = regex("^/users/(\\d+)$", "/v2/users/$1");
        check(&users, "/users/7?a=b", "/v2/users/7?a=b");
        check(&users, "/users/x", "-");
        check(&regex("a", "b"), "/aca", "/bcb");
        check(&regex("^/api", ""), "/api", "/");
        check(&regex("^/api/", ""), "/api/x", "/x");
        check(&regex("", "/a"), "/b", "/a//ab/a");
        check(&regex("^/f/(.*)$", "/$1"), "/f//evil.example", "/evil.example");
        // What a client could not have asked for, no rewriting asks for.
        check(&regex("^/x(.*)$", "/$1"), "/x../admin", "!");
        check(&regex("^/x(.*)$", "/$1"), "/x%2e%2E/admin", "!");
        check(&regex("^/(.)(.*)$", "/%2$1$2"), "/zz", "!");
        check(&regex("/", "/0123456789"), &"/".repeat(2000), "!");
    }

    #[test]
    fn the_clients_query_follows_that_of_a_substitution() {
        let show = regex("^/u/(.*)$", "/show?user=$1");
        check(&show, "/u/7", "/show?user=7");
        check(&show, "/u/7?a=b", "/show?user=7&a=b");
        check(&regex("^/u/(.*)$", "/show?user=$1?"), "/u/7?a=b", "/show?user=7");
        check(&regex("^/u/(.*)$", "/show?"), "/u/7?a=b", "/show");
    }

    fn words<'a>(path: &'a str, query: Option<&'a str>) -> Words<'a> {
        let client = "::ffff:192.0.2.1".parse().unwrap();
        Words { client, host: "shop.example", scheme: "http", path, query, request_id: "id-1" }
    }

    fn leads(to: &str, path: &str, query: Option<&str>) -> String {
        let redirect = Redirect { status: 301, to: Template::parse(to).unwrap() };
        location(&redirect, &prefix("/", ""), words(path, query)).unwrap()
    }

    #[test]
    fn a_redirect_keeps_to_its_host() {
        for (to, path, query, location) in [
            ("https://{host}{path}{?query}", "/a", Some("b=c"), "https://shop.example/a?b=c"),
            ("https://{host}{path}{?query}", "/a", None, "https://shop.example/a"),
            ("{path}/", "//evil.example", None, "/evil.example/"),
            ("/{query}", "/", Some("/evil.example"), "/evil.example"),
            ("/{query}", "/", Some("\\evil.example"), "/%5Cevil.example"),
            ("https://{host}{path}", "*", None, "https://shop.example/"),
            ("/x?q={query}", "/", Some("a\r\nb: c\u{e9}"), "/x?q=a%0D%0Ab:%20c%C3%A9"),
        ] {
            assert_eq!(leads(to, path, query), location, "{to}");
        }
        let moved = regex("^/old/(.*)$", "/new/$1");
        let redirect = Redirect { status: 301, to: Template::parse("{path}{?query}").unwrap() };
        assert_eq!(location(&redirect, &moved, words("/old/x", Some("y"))).unwrap(), "/new/x?y");
    }

    #[test]
    fn placeholders_are_what_the_proxy_knows() {
        let all = "{client_address} {host} {scheme} {path} {query} {request_id} {route} {service}";
        let text = Template::parse(all).unwrap();
        let filled = filled(&text, &prefix("/", ""), words("/p", Some("q"))).into_owned();
        assert_eq!(filled, "192.0.2.1 shop.example http /p q id-1 r s");
    }

    proptest! {
        #[test]
        fn whatever_is_asked_what_is_sent_could_have_been_asked(
            path in "/[a./%2eE;f~é]{0,12}",
            query in proptest::option::of("[ -~é]{0,8}"),
            which in 0..5usize,
        ) {
            prop_assume!(plain_path(&path).is_ok_and(|plain| plain == path));
            let spec = [
                prefix("/", "/v1"),
                prefix("/a", ""),
                regex("^/(.)(.*)$", "/$2/$1"),
                regex("[a.]", "/"),
                route(PathMatch::Any, PathRewrite::Whole(Arc::from("/x"))),
            ];
            let spec = &spec[which];
            if let Ok(Some(target)) = rewritten(spec, &path, query.as_deref()) {
                let made = target.split('?').next().unwrap_or_default();
                prop_assert!(!made.starts_with("//") && plain_path(made).is_ok_and(|plain| plain == made), "{}", target);
            }
            let redirect = Redirect { status: 302, to: Template::parse("{path}{?query}").unwrap() };
            if let Ok(location) = location(&redirect, spec, words(&path, query.as_deref())) {
                prop_assert!(location.starts_with('/') && !location.starts_with("//"), "{}", location);
                prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'), "{}", location);
            }
        }
    }
}
