//! The two text forms that Prometheus reads. They differ in the names of counters, in units, and in how they end.
//!
//! It writes straight into text and never holds a family as a whole, so that the metrics of 100,000 instances can leave
//! in pieces: whoever walks the snapshot takes what was written so far whenever it is enough.

use std::fmt::{Display, Write};

use super::families::{Family, Kind};
use crate::pool::HistogramReading;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics text 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What the `Accept` field prefers; OpenMetrics has to be asked for by name.
    pub fn accepted(accept: &str) -> Self {
        let (mut text, mut open) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default();
            let quality = parts.find_map(|p| p.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse::<f32>().ok());
            let preferred = match range {
                "application/openmetrics-text" => &mut open,
                "text/plain" | "text/*" | "*/*" => &mut text,
                _ => continue,
            };
            *preferred = quality.unwrap_or(0.0).max(*preferred);
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Text in the making. `family` begins one; every sample after it belongs to it.
#[derive(Debug)]
pub struct Exposition {
    format: Format,
    family: &'static Family,
    text: String,
}

impl Exposition {
    /// With `first` begun.
    pub fn new(format: Format, first: &'static Family) -> Self {
        let mut new = Self { format, family: first, text: String::new() };
        new.family(first);
        new
    }

    /// Its samples must follow before the next family begins: a family may not be told in two parts.
    pub fn family(&mut self, family: &'static Family) {
        self.family = family;
        let (name, help) = (self.family_name(), family.help);
        let kind = match (self.format, family.kind) {
            (Format::Text, Kind::Info) => Kind::Gauge,
            (_, kind) => kind,
        };
        put(&mut self.text, format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.as_str()));
        if self.format == Format::OpenMetrics
            && let Some(unit) = UNITS.into_iter().find(|unit| name.strip_suffix(unit).is_some_and(|n| n.ends_with('_')))
        {
            put(&mut self.text, format_args!("# UNIT {name} {unit}\n"));
        }
    }

    /// One value; `labels` in the order in which the family names them.
    pub fn sample(&mut self, labels: &[&str], value: impl Display) {
        self.text.push_str(self.family.name);
        self.labels(labels, None);
        put(&mut self.text, format_args!(" {value}\n"));
    }

    pub fn histogram(&mut self, labels: &[&str], reading: &HistogramReading) {
        let mut n_until = 0;
        for (bound_us, n) in &reading.buckets {
            n_until += n;
            self.text.push_str(self.family.name);
            self.text.push_str("_bucket");
            if *bound_us == u64::MAX {
                self.labels(labels, Some("+Inf"));
            } else {
                self.labels(labels, Some(&seconds(*bound_us).to_string()));
            }
            put(&mut self.text, format_args!(" {n_until}\n"));
        }
        for (suffix, value) in [("_sum", seconds(reading.sum_us)), ("_count", n_until as f64)] {
            self.text.push_str(self.family.name);
            self.text.push_str(suffix);
            self.labels(labels, None);
            put(&mut self.text, format_args!(" {value}\n"));
        }
    }

    /// Without it an OpenMetrics text counts as cut off.
    pub fn end(&mut self) {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
    }

    /// Not yet taken, in bytes.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    fn family_name(&self) -> &'static str {
        let Family { name, kind, .. } = self.family;
        let suffix = match (self.format, kind) {
            (Format::OpenMetrics, Kind::Counter) => "_total",
            (Format::OpenMetrics, Kind::Info) => "_info",
            _ => "",
        };
        name.strip_suffix(suffix).unwrap_or(name)
    }

    fn labels(&mut self, values: &[&str], bound: Option<&str>) {
        debug_assert_eq!(self.family.labels.len(), values.len(), "{}", self.family.name);
        let named = self.family.labels.iter().copied().zip(values.iter().copied());
        let mut before = '{';
        for (name, value) in named.chain(bound.map(|bound| ("le", bound))) {
            self.text.push(before);
            self.text.push_str(name);
            self.text.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
    }
}

/// Writing to a `String` cannot fail.
fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(what);
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

const UNITS: [&str; 2] = ["seconds", "bytes"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Histogram;
    use crate::telemetry::families;
    use std::time::Duration;

    #[test]
    fn openmetrics_is_used_when_it_is_asked_for_and_not_liked_less() {
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/html,*/*;q=0.8", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("application/openmetrics-text; q=0.1, text/plain", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=much", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    fn told(format: Format) -> String {
        let histogram = Histogram::default();
        for us in [200, 900, 900, 70_000_000] {
            histogram.record(Duration::from_micros(us));
        }
        let mut text = Exposition::new(format, &families::BUILD_INFO);
        text.sample(&["0.1.0", "a\"b\\c\nd"], 1);
        text.family(&families::BYTES);
        text.sample(&["in"], 7);
        text.family(&families::HTTP_REQUEST_SECONDS);
        text.histogram(&["orders"], &histogram.read());
        text.family(&families::DRAINS_ACTIVE);
        text.sample(&[], 0);
        text.end();
        text.take()
    }

    fn check(format: Format, expected: &[&str], absent: &[&str]) {
        let told = told(format);
        for line in expected {
            assert!(told.lines().any(|l| l == *line), "no line {line} in\n{told}");
        }
        for line in absent {
            assert!(!told.lines().any(|l| l.starts_with(line)), "a line {line} in\n{told}");
        }
    }

    #[test]
    fn the_text_form() {
        check(
            Format::Text,
            &[
                "# TYPE pointsman_build_info gauge",
                r#"pointsman_build_info{version="0.1.0",revision="a\"b\\c\nd"} 1"#,
                "# TYPE pointsman_bytes_total counter",
                r#"pointsman_bytes_total{direction="in"} 7"#,
                r#"pointsman_http_request_seconds_bucket{service="orders",le="0.00025"} 1"#,
                r#"pointsman_http_request_seconds_bucket{service="orders",le="0.001"} 3"#,
                r#"pointsman_http_request_seconds_bucket{service="orders",le="65.536"} 3"#,
                r#"pointsman_http_request_seconds_bucket{service="orders",le="+Inf"} 4"#,
                r#"pointsman_http_request_seconds_sum{service="orders"} 70.002"#,
                r#"pointsman_http_request_seconds_count{service="orders"} 4"#,
                "pointsman_drains_active 0",
            ],
            &["# UNIT", "# EOF"],
        );
    }

    #[test]
    fn the_openmetrics_form() {
        check(
            Format::OpenMetrics,
            &[
                "# TYPE pointsman_build info",
                r#"pointsman_build_info{version="0.1.0",revision="a\"b\\c\nd"} 1"#,
                "# TYPE pointsman_bytes counter",
                "# UNIT pointsman_bytes bytes",
                r#"pointsman_bytes_total{direction="in"} 7"#,
                "# UNIT pointsman_http_request_seconds seconds",
            ],
            &["# TYPE pointsman_bytes_total", "# UNIT pointsman_build"],
        );
        assert!(told(Format::OpenMetrics).ends_with("\n# EOF\n"));
    }

    #[test]
    fn names_say_their_kind_and_no_family_is_there_twice() {
        let mut names = std::collections::BTreeSet::new();
        for family in families::ALL {
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
            assert_eq!(family.name.ends_with("_info"), family.kind == Kind::Info, "{}", family.name);
            assert!(family.kind != Kind::Histogram || family.name.ends_with("_seconds"), "{}", family.name);
            assert!(names.insert(family.name), "{} is there twice", family.name);
        }
    }
}
