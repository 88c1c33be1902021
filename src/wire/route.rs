//! `/routes/NAME` and the file's `[[route]]`, both directions.

use serde_json::{Map, Value as Json, json};

use crate::model::{Action, FieldMatch, HostPattern, PathMatch, RouteName, RouteSpec, ValueMatch};

use super::ParseResult;
use super::edit;
use super::fields::{Fields, Read};
use super::node::{Node, Table, Value, quoted};
use super::rate_limit::{rate_limit_json, read_rate_limit};
use super::record::{VERSION, read_json};
use super::scalar::{header_name, method, named, number, regex, text};

/// Only `service`, or what is in its place, is needed; what is absent matches anything and changes nothing.
pub fn parse_route(name: &RouteName, value: &[u8]) -> ParseResult<RouteSpec> {
    read_json(value, BYTES_MAX, |fields| read_route(name, fields))
}

pub(crate) fn read_route(name: &RouteName, fields: &mut Fields<'_>) -> Option<RouteSpec> {
    let hosts = fields.list("hosts", named(HostPattern::parse)).unwrap_or_default();
    let path = path_match(fields);
    let methods = fields.list("methods", method).unwrap_or_default();
    let headers = conditions(fields, "headers", header_name);
    let query = conditions(fields, "query", parameter_name);
    let priority = fields.or("priority", 0, number(i32::MIN..=i32::MAX));
    let rate_limit = fields.section("rate_limit").and_then(|mut limit| read_rate_limit(&mut limit));
    let action = edit::action(fields);
    let rewrite = edit::rewrite(fields, &path, action.as_ref());
    let request_headers = edit::field_edits(fields, "request_headers", true);
    let response_headers = edit::field_edits(fields, "response_headers", false);
    if !request_headers.is_empty() && !matches!(action, None | Some(Action::Forward(_))) {
        fields.wrong("request_headers", "stands in a route that forwards nothing");
    }
    let name = name.clone();
    Some(RouteSpec {
        name,
        hosts,
        path,
        methods,
        headers,
        query,
        priority,
        rate_limit,
        action: action?,
        rewrite,
        request_headers,
        response_headers,
    })
}

/// The record without what matches anything; `parse_route` reads the same route back.
pub fn route_json(route: &RouteSpec) -> Json {
    let mut record = Map::from_iter([("v".to_owned(), VERSION.into())]);
    let mut say = |key: &str, differs: bool, value: Json| {
        if differs {
            record.insert(key.to_owned(), value);
        }
    };
    say("hosts", !route.hosts.is_empty(), route.hosts.iter().map(ToString::to_string).collect());
    match &route.path {
        PathMatch::Any => {}
        PathMatch::Exact(path) => say("path", true, json!(&**path)),
        PathMatch::Prefix(prefix) => say("path_prefix", true, json!(&**prefix)),
        PathMatch::Regex(regex) => say("path_regex", true, regex.as_str().into()),
    }
    say("methods", !route.methods.is_empty(), route.methods.iter().map(|m| m.as_str()).collect());
    say("headers", !route.headers.is_empty(), conditions_json(&route.headers));
    say("query", !route.query.is_empty(), conditions_json(&route.query));
    say("priority", route.priority != 0, route.priority.into());
    if let Some(limit) = &route.rate_limit {
        say("rate_limit", true, rate_limit_json(limit));
    }
    edit::say(&route.action, &route.rewrite, [&route.request_headers, &route.response_headers], &mut record);
    Json::Object(record)
}

fn path_match(fields: &mut Fields<'_>) -> PathMatch {
    let exact = fields.optional("path", plain_path).map(|path| PathMatch::Exact(path.into()));
    let prefix = fields.optional("path_prefix", plain_path).map(|prefix| match prefix.trim_end_matches('/') {
        "" => PathMatch::Prefix("/".into()),
        prefix => PathMatch::Prefix(prefix.into()),
    });
    let regex = fields.optional("path_regex", regex).map(PathMatch::Regex);
    let said: Vec<&str> = ["path", "path_prefix", "path_regex"].into_iter().filter(|key| fields.has(key)).collect();
    if let [first, second, ..] = said[..] {
        fields.wrong(second, format!("stands beside {first}; a route has at most one of path, path_prefix and path_regex"));
    }
    exact.or(prefix).or(regex).unwrap_or_default()
}

fn plain_path(node: &Node) -> Read<&str> {
    let said = text(node)?;
    let right = said.starts_with('/') && !said.chars().any(|c| c.is_whitespace() || c.is_control() || c == '?' || c == '#');
    if right { Ok(said) } else { Err(format!("{} is not a path: it starts with / and has no query", quoted(said))) }
}

/// `{"x-version":"2"}`, or a list with the name inside, for more than one condition on the same name.
fn conditions(fields: &mut Fields<'_>, key: &'static str, name: fn(&str) -> Read<String>) -> Vec<FieldMatch> {
    let of_list = |node: &Node| {
        let table = node.table().ok_or_else(|| format!("{} is not a condition such as {EXAMPLE}", node.shown()))?;
        let named = table.get("name").ok_or_else(|| format!("has no name, as {EXAMPLE} has one"))?;
        Ok(FieldMatch { name: name(text(&named.node)?)?, value: value_match(table)? })
    };
    let is_list = fields.table().get(key).is_some_and(|e| matches!(e.node.value, Value::List(_)));
    let found = if is_list {
        fields.list(key, of_list).unwrap_or_default()
    } else {
        fields.entries(key, |entry| {
            let value = match &entry.node.value {
                Value::Text(exact) => ValueMatch::Exact(exact.clone()),
                Value::Table(table) => value_match(table)?,
                _ => return Err(format!("{} is neither a text nor one of {FORMS}", entry.node.shown())),
            };
            Ok(FieldMatch { name: name(&entry.key)?, value })
        })
    };
    if found.len() > CONDITIONS_MAX {
        fields.wrong(key, format!("has {} conditions; at most {CONDITIONS_MAX} are allowed", found.len()));
    }
    found
}

/// Exactly one of `exact`, `regex` and `present`, beside the name that the list form has.
fn value_match(table: &Table) -> Read<ValueMatch> {
    let mut said = table.entries.iter().filter(|e| e.key != "name");
    let (Some(entry), None) = (said.next(), said.next()) else {
        return Err(format!("a condition has exactly one of {FORMS}"));
    };
    match (entry.key.as_str(), &entry.node.value) {
        ("exact", Value::Text(exact)) => Ok(ValueMatch::Exact(exact.clone())),
        ("regex", _) => regex(&entry.node).map(ValueMatch::Regex),
        ("present", Value::Bool(true)) => Ok(ValueMatch::Present),
        (key, _) => Err(format!("{key} = {} is not one of {FORMS}", entry.node.shown())),
    }
}

fn parameter_name(said: &str) -> Read<String> {
    if said.is_empty() { Err("a query parameter has a name".to_owned()) } else { Ok(said.to_owned()) }
}

/// As a table where that says the same, in the list form otherwise.
fn conditions_json(conditions: &[FieldMatch]) -> Json {
    let value = |c: &FieldMatch| match &c.value {
        ValueMatch::Present => ("present", json!(true)),
        ValueMatch::Exact(exact) => ("exact", json!(exact)),
        ValueMatch::Regex(regex) => ("regex", json!(regex.as_str())),
    };
    if conditions.windows(2).all(|pair| pair[0].name < pair[1].name) {
        let entry = |c: &FieldMatch| match value(c) {
            ("exact", exact) => (c.name.clone(), exact),
            (form, said) => (c.name.clone(), json!({ form: said })),
        };
        return Json::Object(conditions.iter().map(entry).collect());
    }
    let item = |c: &FieldMatch| {
        let (form, said) = value(c);
        json!({"name": c.name, form: said})
    };
    conditions.iter().map(item).collect()
}

const BYTES_MAX: usize = 64 * 1024;
/// Conditions on headers, and again on the query: each may hold a compiled pattern, and each costs every request.
const CONDITIONS_MAX: usize = 32;
const FORMS: &str = "{\"exact\":\"…\"}, {\"regex\":\"…\"}, {\"present\":true}";
const EXAMPLE: &str = "{\"name\":\"x-version\",\"exact\":\"2\"}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceName;

    fn parse(value: &str) -> ParseResult<RouteSpec> {
        parse_route(&RouteName::parse("shop").unwrap(), value.as_bytes())
    }

    fn problems(value: &str) -> Vec<String> {
        parse(value).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_whole_route_reads() {
        let route = parse(
            r#"{"v":1,"hosts":["Shop.example","*.shop.example"],"path_prefix":"/v1/","methods":["GET"],"priority":-5,"service":"api",
                "headers":{"X-Version":"2","x-beta":{"present":true}},"query":{"lang":{"regex":"^(de|en)$"}}}"#,
        );
        let route = route.unwrap().value;
        assert_eq!(route.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), ["shop.example", "*.shop.example"]);
        assert_eq!(route.path, PathMatch::Prefix("/v1".into()));
        assert_eq!(
            (route.methods.clone(), route.priority, route.service().map(ServiceName::as_str)),
            (vec![http::Method::GET], -5, Some("api"))
        );
        let header = |name: &str, value| FieldMatch { name: name.into(), value };
        let mut headers = route.headers;
        headers.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(headers, [header("x-beta", ValueMatch::Present), header("x-version", ValueMatch::Exact("2".into()))]);
        assert!(route.query[0].value.matches("de") && !route.query[0].value.matches("fr"));
    }

    #[test]
    fn a_route_to_a_service_alone_matches_everything() {
        let route = parse(r#"{"service":"api"}"#).unwrap().value;
        assert_eq!((route.hosts.len(), route.path, route.priority), (0, PathMatch::Any, 0));
    }

    #[test]
    fn the_list_form_allows_two_conditions_on_one_header() {
        let route =
            parse(r#"{"service":"a","headers":[{"name":"Via","regex":"x"},{"name":"via","present":true}]}"#).unwrap().value;
        assert_eq!(route.headers.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["via", "via"]);
    }

    #[test]
    fn every_problem_is_named_at_once_with_its_path() {
        let route = r#"{"hosts":["http://a","*a"],"path":"/a?b","path_regex":"(","methods":"GET","service":"a/b",
            "headers":{"x y":"1","x":{"present":false},"y":{"exact":"1","regex":"2"},"z":3},"query":[{"exact":"1"},4]}"#;
        assert_eq!(
            problems(route),
            [
                "hosts[0]: \"http://a\": a host is a DNS name or an IP address, without scheme, port or path",
                "hosts[1]: \"*a\": a wildcard is *. followed by a domain, as in *.shop.example",
                "path: \"/a?b\" is not a path: it starts with / and has no query",
                "path_regex: \"(\" is not a regular expression: unclosed group",
                "path_regex: stands beside path; a route has at most one of path, path_prefix and path_regex",
                "methods: \"GET\" is not a list",
                &format!("headers.x: present = false is not one of {FORMS}"),
                "headers.x y: \"x y\" cannot be the name of a header",
                &format!("headers.y: a condition has exactly one of {FORMS}"),
                &format!("headers.z: 3 is neither a text nor one of {FORMS}"),
                &format!("query[0]: has no name, as {EXAMPLE} has one"),
                &format!("query[1]: 4 is not a condition such as {EXAMPLE}"),
                "service: \"a/b\": the name has '/' at position 1; only [A-Za-z0-9._:@+-] are allowed",
            ]
        );
        assert_eq!(problems("{}"), ["service: is missing; a route has exactly one of service, redirect and respond"]);
    }

    #[test]
    fn a_route_has_a_bounded_number_of_conditions() {
        let many: Vec<Json> = (0..33).map(|n| json!({"name": format!("h{n}"), "regex": "a"})).collect();
        let route = json!({"service": "a", "headers": many}).to_string();
        assert_eq!(problems(&route), ["headers: has 33 conditions; at most 32 are allowed"]);
    }
}
