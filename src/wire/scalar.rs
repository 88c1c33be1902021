//! Single values: what a field may say, and how a wrong one is answered. Every message names what was said and what
//! would be right.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::closest;
use super::fields::Read;
use super::node::{Node, Value, quoted};

pub(crate) fn text(node: &Node) -> Read<&str> {
    match &node.value {
        Value::Text(text) | Value::Word(text) => Ok(text),
        _ => Err(format!("{} is not a text", node.shown())),
    }
}

/// A text with something in it.
pub(crate) fn word(node: &Node) -> Read<String> {
    match text(node)? {
        "" => Err("is empty; leave it out to have none".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// A text as `parse` understands it, whose error says what would be right.
pub(crate) fn parsed<T, E: Display>(parse: impl Fn(&str) -> Result<T, E>) -> impl Fn(&Node) -> Read<T> {
    move |node| parse(text(node)?).map_err(|e| e.to_string())
}

/// The same for a parser whose error does not repeat what was said.
pub(crate) fn named<T, E: Display>(parse: impl Fn(&str) -> Result<T, E>) -> impl Fn(&Node) -> Read<T> {
    move |node| text(node).and_then(|said| parse(said).map_err(|e| format!("{}: {e}", quoted(said))))
}

pub(crate) fn boolean(node: &Node) -> Read<bool> {
    match &node.value {
        Value::Bool(b) => Ok(*b),
        Value::Word(w) if w == "true" => Ok(true),
        Value::Word(w) if w == "false" => Ok(false),
        _ => Err(format!("{} is not true or false", node.shown())),
    }
}

pub(crate) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&Node) -> Read<T>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    move |node| {
        let said = match &node.value {
            Value::Integer(n) => Some(*n),
            Value::Word(word) => word.parse().ok(),
            _ => None,
        };
        let Some(said) = said else {
            let kind = if matches!(node.value, Value::Float(_)) { "whole number" } else { "number" };
            return Err(format!("{} is not a {kind} in {}..={}", node.shown(), range.start(), range.end()));
        };
        let within = T::try_from(said).ok().filter(|n| range.contains(n));
        within.ok_or_else(|| format!("{said} is not in {}..={}", range.start(), range.end()))
    }
}

pub(crate) fn percent(node: &Node) -> Read<u8> {
    number(0..=100)(node)
}

/// One of a few names.
pub(crate) fn one_of<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str) -> impl Fn(&Node) -> Read<T> {
    move |node| {
        let said = text(node)?;
        if let Some(found) = all.iter().find(|t| name(**t) == said) {
            return Ok(*found);
        }
        let names: Vec<&str> = all.iter().map(|t| name(*t)).collect();
        let meant = closest(said, names.iter().copied()).map(|meant| format!("; did you mean {meant:?}?"));
        Err(format!("{} is not one of {}{}", quoted(said), names.join(", "), meant.unwrap_or_default()))
    }
}

/// `"250ms"`, `"10s"`, `"5m"`, `"1h 30m"`; never a bare number, whose unit would be a guess.
pub(crate) fn duration(node: &Node) -> Read<Duration> {
    let wrong = || format!("{} is not a duration such as \"250ms\", \"10s\" or \"5m\"", node.shown());
    let (Value::Text(said) | Value::Word(said)) = &node.value else { return Err(wrong()) };
    let duration = humantime::parse_duration(said).map_err(|_| wrong())?;
    if duration > DURATION_MAX {
        return Err(format!("{} is longer than a year", quoted(said)));
    }
    Ok(duration)
}

/// A duration that is not zero.
pub(crate) fn duration_above_zero(node: &Node) -> Read<Duration> {
    match duration(node)? {
        Duration::ZERO => Err(format!("{} is not longer than zero", node.shown())),
        duration => Ok(duration),
    }
}

pub(crate) fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Bytes: `"512B"`, `"64KiB"`, `"1MiB"`, `"2GiB"`; never a bare number but 0.
pub(crate) fn size(range: RangeInclusive<u64>) -> impl Fn(&Node) -> Read<u64> {
    move |node| {
        let wrong = || format!("{} is not a size such as \"512B\", \"64KiB\" or \"1MiB\"", node.shown());
        let (Value::Text(said) | Value::Word(said)) = &node.value else { return Err(wrong()) };
        let digits = said.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = said.split_at(digits);
        let Some((_, bytes)) = UNITS.iter().find(|(name, _)| *name == unit.trim_start()) else { return Err(wrong()) };
        let size = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*bytes)).ok_or_else(wrong)?;
        if !range.contains(&size) {
            let (start, end) = (show_size(*range.start()), show_size(*range.end()));
            return Err(format!("{} is not within {start} and {end}", quoted(said)));
        }
        Ok(size)
    }
}

/// In the largest unit that needs no fraction.
pub(crate) fn show_size(bytes: u64) -> String {
    let (name, unit) = UNITS.iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit)).unwrap_or(&("B", 1));
    format!("{}{name}", bytes / unit)
}

/// A method as HTTP writes it: case counts, and all there are have capitals.
pub(crate) fn method(node: &Node) -> Read<http::Method> {
    let said = text(node)?;
    let right = || format!("{} is not a method such as \"GET\"", quoted(said));
    if said.len() > METHOD_MAX || said.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err(right());
    }
    http::Method::from_bytes(said.as_bytes()).map_err(|_| right())
}

/// The name of a header, in lower case.
pub(crate) fn header_name(said: &str) -> Read<String> {
    match http::HeaderName::from_bytes(said.as_bytes()) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => Err(format!("{} cannot be the name of a header", quoted(said))),
    }
}

/// What is sent as `Host`.
pub(crate) fn host_field(node: &Node) -> Read<String> {
    match text(node)? {
        host if http::uri::Authority::try_from(host).is_ok_and(|a| !a.as_str().contains('@')) => Ok(host.to_owned()),
        host => Err(format!("{} is not a host such as \"shop.example\" or \"shop.example:8080\"", quoted(host))),
    }
}

/// A pattern in the syntax of the `regex` crate: linear in time, and bounded in memory.
pub(crate) fn regex(node: &Node) -> Read<regex::Regex> {
    let said = text(node)?;
    if said.len() > PATTERN_MAX {
        return Err(format!("the pattern has {} bytes; at most {PATTERN_MAX} are allowed", said.len()));
    }
    regex::RegexBuilder::new(said).size_limit(REGEX_MAX).dfa_size_limit(REGEX_MAX).build().map_err(|e| match e {
        regex::Error::CompiledTooBig(_) => format!("{} needs more than {} of memory", quoted(said), show_size(REGEX_MAX as u64)),
        e => {
            let lines = e.to_string();
            let reason = lines.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("{} is not a regular expression: {reason}", quoted(said))
        }
    })
}

/// Nothing here may last longer, so that adding one to a clock never overflows.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Pingora and others refuse longer ones.
const METHOD_MAX: usize = 32;
/// Bytes of a pattern; longer ones are lists that belong into several routes.
const PATTERN_MAX: usize = 4096;
/// Bytes a compiled pattern may take; enough for `\w{100}`, far from what could exhaust a machine.
const REGEX_MAX: usize = 1024 * 1024;
const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Balance;
    use crate::wire::node::Place;

    fn said(json: serde_json::Value) -> Node {
        Node::of_json(json)
    }

    fn word_of(text: &str) -> Node {
        Node { value: Value::Word(text.into()), place: Place::Named("--flag".into()) }
    }

    #[test]
    fn numbers_keep_to_their_range_and_their_type() {
        let weight = number(0..=65535u16);
        assert_eq!((weight(&said(0.into())), weight(&said(65535.into()))), (Ok(0), Ok(65535)));
        assert_eq!(weight(&word_of("7")), Ok(7));
        for (wrong, reason) in [
            (said(70000.into()), "70000 is not in 0..=65535"),
            (said((-1).into()), "-1 is not in 0..=65535"),
            (word_of("70000"), "70000 is not in 0..=65535"),
            (said(1.5.into()), "1.5 is not a whole number in 0..=65535"),
            (said(7.0.into()), "7.0 is not a whole number in 0..=65535"),
            (said("7".into()), "\"7\" is not a number in 0..=65535"),
            (said(true.into()), "true is not a number in 0..=65535"),
            (word_of("four"), "\"four\" is not a number in 0..=65535"),
        ] {
            assert_eq!(weight(&wrong), Err(reason.to_owned()));
        }
        assert_eq!(number(-5..=5i32)(&said((-5).into())), Ok(-5));
    }

    #[test]
    fn durations_need_a_unit_and_end_within_a_year() {
        for (text, millis) in [("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("1h 30m", 5_400_000), ("0s", 0)] {
            assert_eq!(duration(&said(text.into())), Ok(Duration::from_millis(millis)));
        }
        for wrong in [said("10".into()), said(10.into()), said("ten".into()), said("-1s".into()), said("".into())] {
            assert!(duration(&wrong).unwrap_err().contains("is not a duration such as"));
        }
        assert!(duration(&said("2y".into())).unwrap_err().contains("longer than a year"));
        assert!(duration_above_zero(&said("0s".into())).unwrap_err().contains("not longer than zero"));
    }

    #[test]
    fn sizes_need_a_binary_unit_and_show_as_they_were_said() {
        for text in ["0B", "512B", "64KiB", "1MiB", "1500B", "2GiB"] {
            assert_eq!(size(0..=u64::MAX)(&said(text.into())).map(show_size), Ok(text.to_owned()));
        }
        for wrong in ["64KB", "64", "KiB", "-1B", "99999999999999999999GiB", "18446744073709551615KiB"] {
            assert!(size(0..=u64::MAX)(&said(wrong.into())).unwrap_err().contains("is not a size"), "{wrong}");
        }
        assert_eq!(size(1024..=2048)(&said("4KiB".into())), Err("\"4KiB\" is not within 1KiB and 2KiB".into()));
        assert!(size(0..=9)(&said(5.into())).is_err());
    }

    #[test]
    fn a_name_out_of_a_few_suggests_the_near_one() {
        let balance = one_of(&Balance::ALL, Balance::as_str);
        assert_eq!(balance(&said("least_conn".into())), Ok(Balance::LeastConn));
        let error = balance(&said("leastconn".into())).unwrap_err();
        assert!(error.ends_with("did you mean \"least_conn\"?") && error.contains("p2c, peak_ewma"), "{error}");
    }

    #[test]
    fn patterns_are_bounded_and_methods_have_capitals() {
        assert!(regex(&said("^/a/[0-9]+$".into())).is_ok());
        assert_eq!(regex(&said("(".into())).unwrap_err(), "\"(\" is not a regular expression: unclosed group");
        assert!(regex(&said("(\\w{50}){50}".into())).unwrap_err().contains("more than 1MiB"));
        assert!(regex(&said("a".repeat(5000).into())).unwrap_err().contains("5000 bytes"));
        assert_eq!(method(&said("PROPFIND".into())).unwrap().as_str(), "PROPFIND");
        assert!(method(&said("get".into())).is_err() && method(&said("GE T".into())).is_err());
    }
}
