//! What a route does: `service`, `redirect` or `respond`; `rewrite`, `request_headers` and `response_headers`. Both directions.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value as Json, json};

use crate::model::{
    Action, CERTIFICATE_FIELDS, FieldEdit, FieldEdits, PathMatch, PathRewrite, Redirect, Respond, Rewrite, ServiceName,
    Substitution, Template, plain_path,
};

use super::fields::{Fields, Read};
use super::node::{Node, quoted};
use super::scalar::{header_name, host_field, named, number, regex, text};

pub(super) fn action(fields: &mut Fields<'_>) -> Option<Action> {
    let said: Vec<&str> = ACTIONS.into_iter().filter(|key| fields.has(key)).collect();
    match said[..] {
        [] => fields.wrong("service", format!("is missing; {ONE_ACTION}")),
        [first, second, ..] => fields.wrong(second, format!("stands beside {first}; {ONE_ACTION}")),
        [_] => {}
    }
    let service = fields.optional("service", named(ServiceName::parse)).map(Action::Forward);
    let redirect = fields.section("redirect").and_then(redirect).map(Action::Redirect);
    let respond = fields.section("respond").and_then(respond).map(|respond| Action::Respond(Arc::new(respond)));
    service.or(redirect).or(respond)
}

fn redirect(mut fields: Fields<'_>) -> Option<Redirect> {
    let status = fields.or("status", REDIRECT_DEFAULT, redirect_status);
    Some(Redirect { status, to: fields.required("to", location)? })
}

fn respond(mut fields: Fields<'_>) -> Option<Respond> {
    let status = fields.or("status", 200, number(200..=599));
    let body = fields.or("body", String::new(), |node| text(node).map(str::to_owned));
    let content_type = fields.or("content_type", PLAIN, field_text);
    if !body.is_empty() && matches!(status, 204 | 205 | 304) {
        fields.wrong("body", format!("an answer with status {status} has none"));
    }
    Some(Respond { status, body, content_type })
}

fn redirect_status(node: &Node) -> Read<u16> {
    let status = number(300..=399)(node)?;
    if REDIRECTS.contains(&status) { Ok(status) } else { Err(format!("{status} is not one of 301, 302, 303, 307, 308")) }
}

/// `path`: what the route matches.
pub(super) fn rewrite(fields: &mut Fields<'_>, path: &PathMatch, action: Option<&Action>) -> Rewrite {
    let Some(mut inner) = fields.section("rewrite") else { return Rewrite::default() };
    let said: Vec<&str> = ["prefix", "path", "regex"].into_iter().filter(|key| inner.has(key)).collect();
    if let [first, second, ..] = said[..] {
        inner.wrong(
            second,
            format!("stands beside {first}; a path is rewritten in at most one of the ways prefix, path and regex"),
        );
    }
    let whole = inner.optional("path", sent_path).map(|path| PathRewrite::Whole(path.into()));
    let prefix = inner.optional("prefix", sent_path).map(|path| PathRewrite::Prefix(path.trim_end_matches('/').into()));
    if prefix.is_some() && matches!(path, PathMatch::Exact(_) | PathMatch::Regex(_)) {
        inner.wrong("prefix", "takes the place of a path_prefix, which this route has not; path and regex take that of any path");
    }
    let by_regex = by_regex(&mut inner);
    let host = inner
        .optional("host", |node| HeaderValue::try_from(host_field(node)?).map_err(|_| format!("{} is not a host", node.shown())));
    match action {
        Some(Action::Redirect(_)) if host.is_some() => inner.wrong("host", "redirect.to says where a redirect leads"),
        Some(Action::Respond(_)) => fields.wrong("rewrite", "stands beside respond, which asks nobody for a path"),
        _ => {}
    }
    Rewrite { path: whole.or(prefix).or(by_regex), host }
}

fn by_regex(fields: &mut Fields<'_>) -> Option<PathRewrite> {
    let pattern = fields.optional("regex", regex);
    let to = fields.optional("to", text);
    match (fields.has("regex"), fields.has("to")) {
        (true, false) => fields.wrong("to", "is missing; it says what takes the place of what regex matches"),
        (false, true) => fields.wrong("to", "belongs to regex, which is not there"),
        _ => {}
    }
    let (pattern, to) = pattern.zip(to)?;
    match substitution(to, &pattern) {
        Ok(to) => Some(PathRewrite::Regex { pattern, to }),
        Err(why) => {
            fields.wrong("to", why);
            None
        }
    }
}

/// `of_requests`: else of responses.
pub(super) fn field_edits(fields: &mut Fields<'_>, key: &'static str, of_requests: bool) -> FieldEdits {
    let Some(mut inner) = fields.section(key) else { return FieldEdits::default() };
    let name = |said: &str| editable(said, of_requests);
    let mut edits = |key| {
        let mut found = inner.entries(key, |entry| Ok(FieldEdit { name: name(&entry.key)?, value: field_value(&entry.node)? }));
        // In the order of their names, so that file and registry say the same.
        found.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        if let Some(pair) = found.windows(2).find(|pair| pair[0].name == pair[1].name) {
            inner.wrong(key, format!("{:?} stands there twice, in capitals or not", pair[0].name.as_str()));
        }
        found
    };
    let (set, add) = (edits("set"), edits("add"));
    let remove = inner.list("remove", |node| name(text(node)?)).unwrap_or_default();
    let n = set.len() + add.len() + remove.len();
    if n > EDITS_MAX {
        fields.wrong(key, format!("changes {n} fields; at most {EDITS_MAX} are allowed"));
    }
    FieldEdits { set, add, remove }
}

/// The record of it, without what changes nothing.
pub(super) fn say(action: &Action, rewrite: &Rewrite, [requests, responses]: [&FieldEdits; 2], record: &mut Map<String, Json>) {
    let mut say = |key: &str, value: Json| record.insert(key.to_owned(), value);
    match action {
        Action::Forward(service) => say("service", service.as_str().into()),
        Action::Redirect(Redirect { status, to }) => say("redirect", json!({"status": status, "to": to.as_str()})),
        Action::Respond(respond) => {
            let Respond { status, body, content_type } = &**respond;
            say("respond", json!({"status": status, "body": body, "content_type": shown(content_type)}))
        }
    };
    if *rewrite != Rewrite::default() {
        say("rewrite", rewrite_json(rewrite));
    }
    for (key, edits) in [("request_headers", requests), ("response_headers", responses)] {
        if !edits.is_empty() {
            say(key, edits_json(edits));
        }
    }
}

fn rewrite_json(Rewrite { path, host }: &Rewrite) -> Json {
    let mut said = match path {
        None => json!({}),
        Some(PathRewrite::Whole(path)) => json!({"path": **path}),
        Some(PathRewrite::Prefix(prefix)) if prefix.is_empty() => json!({"prefix": "/"}),
        Some(PathRewrite::Prefix(prefix)) => json!({"prefix": **prefix}),
        Some(PathRewrite::Regex { pattern, to }) => json!({"regex": pattern.as_str(), "to": to.as_str()}),
    };
    if let Some(host) = host {
        said["host"] = shown(host).into();
    }
    said
}

fn edits_json(edits: &FieldEdits) -> Json {
    let fields = |edits: &[FieldEdit]| -> Json {
        Json::Object(edits.iter().map(|edit| (edit.name.as_str().to_owned(), edit.value.as_str().into())).collect())
    };
    let mut said = Map::new();
    for (key, edits) in [("set", &edits.set), ("add", &edits.add)] {
        if !edits.is_empty() {
            said.insert(key.to_owned(), fields(edits));
        }
    }
    if !edits.remove.is_empty() {
        said.insert("remove".to_owned(), edits.remove.iter().map(HeaderName::as_str).collect());
    }
    Json::Object(said)
}

/// Read from a text, and so one again.
fn shown(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or_default()
}

/// A path that instances are asked for: as it goes over the wire, and nothing that a proxy of ours would change.
fn sent_path(node: &Node) -> Read<&str> {
    let said = text(node)?;
    let is_sent = said.bytes().all(|byte| byte.is_ascii_graphic()) && !said.contains('?') && !said.starts_with("//");
    let plain = plain_path(said).is_ok_and(|plain| plain == said);
    if is_sent && plain {
        Ok(said)
    } else {
        Err(format!(
            "{} is not a path that can be asked for: it starts with one /, holds visible ASCII, no query and no dot segments",
            quoted(said)
        ))
    }
}

fn substitution(said: &str, pattern: &::regex::Regex) -> Read<Substitution> {
    if said.len() > VALUE_MAX {
        return Err(format!("has {} bytes; at most {VALUE_MAX} are allowed", said.len()));
    }
    if said.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#' || byte == b'\\') {
        return Err(format!(
            "{} is not a path that can be asked for: it holds visible ASCII, and neither # nor \\",
            quoted(said)
        ));
    }
    Substitution::parse(said, pattern).map_err(|why| format!("{}: {why}", quoted(said)))
}

/// Where a redirect leads. What a client says never becomes a part of the host but by `{host}`, which is one.
fn location(node: &Node) -> Read<Template> {
    let said = template(node)?;
    let text = said.as_str();
    let wrong = || format!("{} is neither a URL such as \"https://{{host}}{{path}}{{?query}}\" nor a path", quoted(text));
    if text.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'\\') {
        return Err(wrong());
    }
    let Some(rest) = ["https://", "http://", "{scheme}://"].iter().find_map(|scheme| text.strip_prefix(scheme)) else {
        let is_path = (text.starts_with('/') && !text.starts_with("//")) || text.starts_with("{path}");
        return if is_path { Ok(said) } else { Err(wrong()) };
    };
    let end = ["/", "?", "#", "{path}", "{?query}"].iter().filter_map(|end| rest.find(end)).min();
    let authority = rest[..end.unwrap_or(rest.len())].replace("{host}", "host.example");
    let is_host = host_field(&Node::of_json(authority.into())).is_ok();
    if is_host { Ok(said) } else { Err(wrong()) }
}

fn template(node: &Node) -> Read<Template> {
    let said = text(node)?;
    if said.len() > VALUE_MAX {
        return Err(format!("has {} bytes; at most {VALUE_MAX} are allowed", said.len()));
    }
    Template::parse(said).map_err(|why| format!("{}: {why}", quoted(said)))
}

fn field_value(node: &Node) -> Read<Template> {
    field_text(node)?;
    let value = template(node)?;
    if value.as_str().is_empty() { Err("is empty; remove takes a field away".to_owned()) } else { Ok(value) }
}

/// A text that may stand in a field.
fn field_text(node: &Node) -> Read<HeaderValue> {
    let said = text(node)?;
    let is_plain = said.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') && said.trim() == said;
    let value = HeaderValue::from_str(said).ok().filter(|_| is_plain);
    value.ok_or_else(|| format!("{} is not one of visible ASCII characters, with spaces only between them", quoted(said)))
}

/// The name of a field that is a route's to change.
fn editable(said: &str, of_requests: bool) -> Read<HeaderName> {
    let name = header_name(said)?;
    // CGI and its heirs read `X_Forwarded_For` as the field with dashes.
    let dashed = name.replace('_', "-");
    let is = |names: &[&str]| names.contains(&dashed.as_str());
    if of_requests && dashed == "host" {
        return Err("is said by rewrite.host".to_owned());
    }
    if is(&OF_CONNECTIONS) || (of_requests && is(&["expect"])) {
        return Err("belongs to the connection or the body, which no route can change".to_owned());
    }
    if dashed == "via"
        || dashed.starts_with("x-pointsman-")
        || (of_requests && (is(&OURS) || is(&CERTIFICATE_FIELDS)))
        || (!of_requests && dashed == "x-request-id")
    {
        return Err("is the proxy's own to say".to_owned());
    }
    HeaderName::try_from(name).map_err(|_| format!("{} cannot be the name of a header", quoted(said)))
}

const ACTIONS: [&str; 3] = ["service", "redirect", "respond"];
const ONE_ACTION: &str = "a route has exactly one of service, redirect and respond";
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];
const REDIRECT_DEFAULT: u16 = 302;
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Fields that a route changes in one direction; each costs every request.
const EDITS_MAX: usize = 32;
/// Bytes of a text with placeholders or groups.
const VALUE_MAX: usize = 4096;
/// In either direction.
const OF_CONNECTIONS: [&str; 10] = [
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "http2-settings",
    "host",
];
/// What instances are told by the proxy alone.
const OURS: [&str; 7] =
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-request-id", "traceparent", "tracestate"];

#[cfg(test)]
mod tests {
    use super::super::parse_route;
    use crate::model::{RouteName, RouteSpec};

    use super::*;

    fn parse(value: Json) -> Result<RouteSpec, Vec<String>> {
        let parsed = parse_route(&RouteName::parse("r").unwrap(), value.to_string().as_bytes());
        parsed.map(|parsed| parsed.value).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    /// The only problem of a route to `s` that also says this.
    fn problem(more: Json) -> String {
        let mut route = json!({"service": "s", "path_prefix": "/a"});
        for (key, value) in more.as_object().unwrap() {
            route[key] = value.clone();
        }
        route.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let problems = parse(route).unwrap_err();
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        problem.clone()
    }

    #[test]
    fn a_route_does_one_of_three_things() {
        let redirect = json!({"to": "https://{host}{path}{?query}"});
        let route = parse(json!({"redirect": redirect})).unwrap();
        assert!(matches!(&route.action, Action::Redirect(redirect) if redirect.status == 302), "{:?}", route.action);
        assert_eq!(route.service(), None);
        let respond = parse(json!({"respond": {}})).unwrap().action;
        let Action::Respond(respond) = respond else { panic!("{respond:?}") };
        assert_eq!((respond.status, &*respond.body, &respond.content_type), (200, "", &PLAIN));

        assert_eq!(problem(json!({"redirect": redirect})), format!("redirect: stands beside service; {ONE_ACTION}"));
        assert_eq!(problem(json!({"service": null, "respond": {"status": 99}})), "respond.status: 99 is not in 200..=599");
        assert_eq!(
            problem(json!({"service": null, "respond": {"status": 204, "body": "x"}})),
            "respond.body: an answer with status 204 has none"
        );
        assert_eq!(
            problem(json!({"service": null, "redirect": {"status": 304, "to": "/"}})),
            "redirect.status: 304 is not one of 301, 302, 303, 307, 308"
        );
        assert_eq!(problem(json!({"service": null, "redirect": {}})), "redirect.to: is missing");
        let respond = json!({"service": null, "respond": {}, "rewrite": {"path": "/x"}});
        assert_eq!(problem(respond), "rewrite: stands beside respond, which asks nobody for a path");
        let redirect = json!({"service": null, "redirect": {"to": "/"}, "request_headers": {"remove": ["x-a"]}});
        assert_eq!(problem(redirect), "request_headers: stands in a route that forwards nothing");
    }

    #[test]
    fn a_redirect_leads_to_the_host_that_its_text_says() {
        for to in ["/", "/login?next={path}", "{path}/", "https://{host}{path}", "{scheme}://{host}:8443/", "http://a.example"] {
            assert!(parse(json!({"redirect": {"to": to}})).is_ok(), "{to}");
        }
        for to in [
            "//a",
            "a",
            "",
            "https://{path}",
            "https://{query}.example",
            "https:///x",
            "https://a b/",
            "{query}",
            "ftp://a/",
            "/\\a",
            "https://u@a/",
        ] {
            let problems = parse(json!({"redirect": {"to": to}})).unwrap_err();
            assert!(problems[0].starts_with("redirect.to: ") && problems[0].contains("is neither a URL"), "{to}: {problems:?}");
        }
        let unknown = parse(json!({"redirect": {"to": "/{pth}"}})).unwrap_err();
        assert!(unknown[0].starts_with("redirect.to: \"/{pth}\": {pth} is no placeholder"), "{unknown:?}");
    }

    #[test]
    fn a_path_is_rewritten_in_one_way_and_to_one_that_can_be_asked_for() {
        let route = parse(json!({"path_prefix": "/v1", "rewrite": {"prefix": "/", "host": "api.internal:80"}, "service": "s"}));
        let rewrite = route.unwrap().rewrite;
        assert_eq!(rewrite.path, Some(PathRewrite::Prefix("".into())));
        assert_eq!(rewrite.host.unwrap(), "api.internal:80");
        for (rewrite, expected) in [
            (json!({"prefix": "/", "path": "/x"}), "rewrite.path: stands beside prefix; a path is rewritten in at most one of"),
            (json!({"path": "/a/../b"}), "rewrite.path: \"/a/../b\" is not a path that can be asked for"),
            (json!({"path": "//evil"}), "rewrite.path: \"//evil\" is not a path"),
            (json!({"prefix": "x"}), "rewrite.prefix: \"x\" is not a path"),
            (json!({"path": "/x?y"}), "rewrite.path: \"/x?y\" is not a path"),
            (json!({"regex": "^/"}), "rewrite.to: is missing"),
            (json!({"regex": "^/", "to": "/$1"}), "rewrite.to: \"/$1\": the pattern has no group 1; it has 0"),
            (json!({"regex": "^/", "to": "/ü"}), "rewrite.to: \"/ü\" is not a path"),
            (json!({"regex": "(", "to": "/$1"}), "rewrite.regex: \"(\" is not a regular expression"),
            (json!({"to": "/"}), "rewrite.to: belongs to regex, which is not there"),
            (json!({"host": "a/b"}), "rewrite.host: \"a/b\" is not a host"),
        ] {
            let problem = problem(json!({"rewrite": rewrite}));
            assert!(problem.starts_with(expected), "{problem}");
        }
        let exact = problem(json!({"path_prefix": null, "path": "/a", "rewrite": {"prefix": "/"}}));
        assert!(exact.starts_with("rewrite.prefix: takes the place of a path_prefix"), "{exact}");
    }

    #[test]
    fn fields_that_frame_a_message_or_are_ours_are_nobodys_to_change() {
        let said = json!({"set": {"X-Real-IP": "{client_address}"}, "add": {"x-a": "1 2"}, "remove": ["Authorization"]});
        let route =
            parse(json!({"service": "s", "request_headers": said, "response_headers": {"set": {"Cache-Control": "no-store"}}}));
        let route = route.unwrap();
        assert_eq!(route.request_headers.set[0].name, "x-real-ip");
        assert_eq!(route.request_headers.remove, ["authorization"]);
        assert_eq!(route.response_headers.set[0].value.as_str(), "no-store");
        for (key, name, why) in [
            ("request_headers", "Host", "is said by rewrite.host"),
            ("request_headers", "Content-Length", "belongs to the connection or the body, which no route can change"),
            ("request_headers", "Transfer_Encoding", "belongs to the connection or the body, which no route can change"),
            ("request_headers", "X-Forwarded-For", "is the proxy's own to say"),
            ("request_headers", "x_request_id", "is the proxy's own to say"),
            ("request_headers", "X-Client-Cert-Subject", "is the proxy's own to say"),
            ("request_headers", "client_cert_chain", "is the proxy's own to say"),
            ("request_headers", "a b", "\"a b\" cannot be the name of a header"),
            ("response_headers", "Connection", "belongs to the connection or the body, which no route can change"),
            ("response_headers", "X-Pointsman-Route", "is the proxy's own to say"),
        ] {
            assert_eq!(problem(json!({key: {"set": {name: "1"}}})), format!("{key}.set.{name}: {why}"));
            assert_eq!(problem(json!({key: {"remove": [name]}})), format!("{key}.remove[0]: {why}"));
        }
        for value in ["a\r\nb", "ü", " a", "\u{1}"] {
            assert!(problem(json!({"request_headers": {"set": {"x-a": value}}})).contains("visible ASCII"), "{value:?}");
        }
        assert!(problem(json!({"request_headers": {"set": {"x-a": ""}}})).contains("remove takes a field away"));
        assert!(problem(json!({"request_headers": {"add": {"x-a": "1", "X-A": "2"}}})).contains("stands there twice"));
        let many: Map<String, Json> = (0..33).map(|n| (format!("x-{n}"), "1".into())).collect();
        assert!(problem(json!({"request_headers": {"set": many}})).contains("changes 33 fields; at most 32"));
    }
}
