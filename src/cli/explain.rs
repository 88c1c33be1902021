//! `pointsman explain`: what a proxy would do with a request, and why, without sending it.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value as Json};

use super::admin::{self, Admin};
use super::failure::Failure;
use super::global::{Global, block_on};
use super::outline;
use super::print::{self, Cell, Table, Tone, is_coloured};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pointsman explain GET http://shop.example/api/cart
  pointsman explain POST https://shop.example/api/orders -H 'X-Tenant: a' -H 'Cookie: id=7'")]
pub struct ExplainArgs {
    /// GET, POST, …
    method: String,
    /// With its host: http://shop.example/api?x=1
    url: String,
    /// A header of the request; several times for several
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<String>,
}

impl ExplainArgs {
    pub fn execute(self, global: &Global) -> Result<ExitCode, Failure> {
        let admin = Admin::of(global)?;
        block_on(async {
            let answer = admin.ask(&self.path()).await?;
            if global.json {
                print::json(&answer);
            } else {
                print::out(&self.told(&answer, is_coloured()));
            }
            Ok(ExitCode::SUCCESS)
        })
    }

    fn told(&self, answer: &Json, coloured: bool) -> String {
        let mut text = format!("{} {} {}\n", self.method, self.url, outcome(answer, coloured));
        let why: Vec<&str> = match &answer["why"] {
            Json::Array(reasons) => reasons.iter().filter_map(Json::as_str).collect(),
            reason => reason.as_str().into_iter().collect(),
        };
        text += &format!("because {}\n", why.join(", and "));
        if let Some(rate) = answer["rate"].as_str() {
            text += &format!("within a rate of {rate}\n");
        }
        if let Some(target) = answer["rewritten"].as_str() {
            text += &format!("where it is asked for as {target}\n");
        }
        let acts: Map<String, Json> = match &answer["route"] {
            Json::Object(route) => route.iter().filter(|(k, _)| !SAID_OTHERWISE.contains(&k.as_str())).map(owned).collect(),
            _ => Map::new(),
        };
        if !acts.is_empty() {
            text += &format!("\nThe route\n{}", outline::render(&Json::Object(acts)));
        }
        if let (Some(total), Some(candidates)) = (answer["counts"]["total"].as_u64(), answer["counts"]["candidates"].as_u64()) {
            let panic = if answer["panic"] == true { ", in panic: too few are well, so health is not asked" } else { "" };
            text += &format!("\n{} among {candidates} of {total} instances{panic}\n", word(&answer["balance"]));
            text += &instances(answer).render(coloured);
        }
        text
    }

    fn path(&self) -> String {
        let headers: String = self.headers.iter().map(|header| format!("&header={}", admin::escaped(header))).collect();
        format!("/api/v1/explain?method={}&url={}{headers}", admin::escaped(&self.method), admin::escaped(&self.url))
    }
}

/// Of a route, what is said in words, or belongs to its counters. The rest is what it does to a request.
const SAID_OTHERWISE: [&str; 15] = [
    "v",
    "name",
    "origin",
    "hosts",
    "path",
    "path_prefix",
    "path_regex",
    "methods",
    "headers",
    "query",
    "priority",
    "rate_limit",
    "service",
    "service_exists",
    "requests",
];

fn outcome(answer: &Json, coloured: bool) -> String {
    let service = word(&answer["service"]);
    let by = format!("the route {} at revision {}", word(&answer["route"]["name"]), word(&answer["revision"]));
    match answer["outcome"].as_str() {
        Some("forward") => format!("{} {service}, by {by},", Tone::Good.paint("goes to", coloured)),
        Some("no_route") => format!("{}: no route takes it,", Tone::Bad.paint("is answered 404", coloured)),
        Some(refused @ ("no_instances" | "none_healthy")) => {
            format!("{}: it is for {service}, by {by},", Tone::Bad.paint(&format!("is answered 503 {refused}"), coloured))
        }
        Some(own @ ("redirect" | "respond" | "malformed")) => {
            let answer = &answer["answer"];
            let tone = if own == "malformed" { Tone::Bad } else { Tone::Good };
            let said = tone.paint(&format!("is answered {}", word(&answer["status"])), coloured);
            match (&answer["location"], &answer["why"]) {
                (Json::String(location), _) => format!("{said} and sent to {location}, by {by},"),
                (_, Json::String(why)) => format!("{said}: {why}, by {by},"),
                _ => format!("{said} by {by} itself,"),
            }
        }
        // A proxy may be newer than this command.
        other => format!("ends as {}, by {by},", other.unwrap_or("nobody knows")),
    }
}

/// Those it may go to first, then those it may not, with the reason.
fn instances(answer: &Json) -> Table {
    let mut table = Table::new(&["INSTANCE", "ADDRESS", "WEIGHT", "SHARE", "IN FLIGHT", "WHY"]);
    let rows = |list: &str| answer[list].as_array().into_iter().flatten().cloned().collect::<Vec<_>>();
    for (instance, tone) in
        rows("candidates").into_iter().map(|i| (i, Tone::Good)).chain(rows("others").into_iter().map(|i| (i, Tone::Bad)))
    {
        let share = instance["share_percent"].as_f64().map_or_else(|| "-".to_owned(), |percent| format!("{percent:.0} %"));
        let name = format!("{}/{}", word(&answer["service"]), word(&instance["id"]));
        table.row(vec![
            Cell::toned(name, tone),
            word(&instance["address"]).into(),
            word(&instance["weight"]).into(),
            share.into(),
            word(&instance["in_flight"]).into(),
            instance["reason"].as_str().unwrap_or_default().to_owned().into(),
        ]);
    }
    table
}

fn word(value: &Json) -> String {
    value.as_str().map_or_else(|| if value.is_null() { "-".to_owned() } else { value.to_string() }, str::to_owned)
}

fn owned((key, value): (&String, &Json)) -> (String, Json) {
    (key.clone(), value.clone())
}

fn header(said: &str) -> Result<String, String> {
    match said.split_once(':') {
        Some((name, _)) if !name.trim().is_empty() => Ok(said.to_owned()),
        _ => Err("a header is NAME: VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(answer: &Json) -> String {
        ExplainArgs { method: "GET".into(), url: "http://a/x".into(), headers: vec![] }.told(answer, false)
    }

    #[test]
    fn who_may_get_it_comes_first_and_who_may_not_says_why() {
        let text = told(&json!({
            "outcome": "forward", "revision": 7, "service": "shop", "balance": "p2c", "panic": false,
            "why": ["it names the host a", "it is for any path"], "rate": "2 in 1h, 2 at once, of each client address",
            "route": {"name": "all", "hosts": ["a"], "service": "shop", "requests": {"2xx": 3}, "rate_limit": {"requests": 2}, "fault": {"percent": 5}},
            "counts": {"total": 2, "candidates": 1},
            "candidates": [{"id": "one", "address": "10.0.0.1:80", "weight": 100, "share_percent": 100.0, "in_flight": 2}],
            "others": [{"id": "two", "address": "10.0.0.2:80", "reason": "draining: declared by the instance"}],
        }));
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "GET http://a/x goes to shop, by the route all at revision 7,",
                "because it names the host a, and it is for any path",
                "within a rate of 2 in 1h, 2 at once, of each client address",
                "",
                "The route",
                "fault",
                "percent 5",
                "",
                "p2c among 1 of 2 instances",
                "INSTANCE ADDRESS WEIGHT SHARE IN FLIGHT WHY",
                "shop/one 10.0.0.1:80 100 100 % 2",
                "shop/two 10.0.0.2:80 - - - draining: declared by the instance",
            ]
        );
    }

    #[test]
    fn what_a_route_does_is_said_first() {
        let answered = |outcome: &str, answer: Json| {
            let told = told(&json!({"outcome": outcome, "revision": 7, "route": {"name": "r"}, "why": ["x"], "answer": answer}));
            told.lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(
            answered("redirect", json!({"status": 301, "location": "https://b/"})),
            "GET http://a/x is answered 301 and sent to https://b/, by the route r at revision 7,"
        );
        assert_eq!(
            answered("respond", json!({"status": 204})),
            "GET http://a/x is answered 204 by the route r at revision 7 itself,"
        );
        assert_eq!(
            answered("malformed", json!({"status": 400, "why": "it leads elsewhere"})),
            "GET http://a/x is answered 400: it leads elsewhere, by the route r at revision 7,"
        );
        let rewritten = told(&json!({"outcome": "forward", "service": "s", "route": {}, "why": ["x"], "rewritten": "/y?z"}));
        assert!(rewritten.contains("because x\nwhere it is asked for as /y?z\n"), "{rewritten}");
    }

    #[test]
    fn a_refusal_says_its_status() {
        let lost = told(&json!({"outcome": "no_route", "revision": 7, "why": "there are no routes"}));
        assert_eq!(lost, "GET http://a/x is answered 404: no route takes it,\nbecause there are no routes\n");
        let empty = json!({"outcome": "no_instances", "revision": 7, "service": "shop", "route": {"name": "all"}, "why": ["it is for any host"]});
        assert!(
            told(&empty)
                .starts_with("GET http://a/x is answered 503 no_instances: it is for shop, by the route all at revision 7,\n")
        );
    }

    #[test]
    fn nothing_of_the_request_gets_loose_in_the_query() {
        let args = ExplainArgs {
            method: "GET".into(),
            url: "http://a/é?x=1&y=2#z".into(),
            headers: vec!["X-Tenant: a&b".into(), "Cookie: id=7".into()],
        };
        assert_eq!(
            args.path(),
            "/api/v1/explain?method=GET&url=http%3A%2F%2Fa%2F%C3%A9%3Fx%3D1%26y%3D2%23z&header=X-Tenant%3A%20a%26b&header=Cookie%3A%20id%3D7"
        );
    }
}
