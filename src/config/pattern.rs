//! The keys of one `[[registry.source]]`: which of another program's keys are instances, and what they are called.
//!
//! A pattern is plain segments with `{service}` and `{instance}` in place of one whole segment each. What stands before
//! the first of them is the folder that is read, and no two readers may share a key.

use std::fmt;
use std::sync::Arc;

use crate::model::ServiceName;
use crate::wire::node::quoted;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPattern {
    text: Arc<str>,
    /// Bytes up to and with the slash before the first placeholder.
    folder: usize,
    segments: Arc<[Segment]>,
    /// Of all its instances, where the keys name none.
    service: Option<ServiceName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Plain(String),
    Service,
    Instance,
}

impl KeyPattern {
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |right: &str| Err(format!("{} is no pattern of keys: {right}, as in {EXAMPLE}", quoted(text)));
        let mut segments = Vec::new();
        for (at, said) in text.split('/').enumerate() {
            segments.push(match said {
                "{service}" => Segment::Service,
                "{instance}" => Segment::Instance,
                // Keys of others may begin without a slash.
                "" if at > 0 => return wrong("a segment is empty"),
                plain if plain.contains(['{', '}']) => {
                    return wrong("{service} and {instance} stand for whole segments, and there are no others");
                }
                plain if plain.chars().any(|c| c.is_whitespace() || c.is_control()) => {
                    return wrong("a segment has a space in it");
                }
                plain => Segment::Plain(plain.to_owned()),
            });
        }
        let count = |wanted: Segment| segments.iter().filter(|segment| **segment == wanted).count();
        if count(Segment::Instance) != 1 {
            return wrong("{instance} stands in it once");
        }
        if count(Segment::Service) > 1 {
            return wrong("{service} stands in it at most once");
        }
        let Some(folder @ 1..) = text.find('{') else {
            return wrong("something plain stands before the first placeholder");
        };
        Ok(Self { text: text.into(), folder, segments: segments.into(), service: None })
    }

    pub fn names_service(&self) -> bool {
        self.segments.contains(&Segment::Service)
    }

    /// All instances are this service's.
    pub fn of_service(self, service: Option<ServiceName>) -> Self {
        Self { service, ..self }
    }

    /// What every key that it reads begins with; ends in a slash.
    pub fn folder(&self) -> &str {
        &self.text[..self.folder]
    }

    /// Service and instance, as far as the key fits; whether they can be names is for their readers to say.
    pub fn find<'a>(&'a self, key: &'a str) -> Option<(&'a str, &'a str)> {
        let (mut service, mut instance) = (self.service.as_ref().map(ServiceName::as_str), None);
        let mut said = key.split('/');
        for segment in &*self.segments {
            let said = said.next()?;
            match segment {
                Segment::Plain(plain) if plain == said => {}
                Segment::Service if !said.is_empty() => service = Some(said),
                Segment::Instance if !said.is_empty() => instance = Some(said),
                _ => return None,
            }
        }
        said.next().is_none().then_some(())?;
        service.zip(instance)
    }
}

impl fmt::Display for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

const EXAMPLE: &str = "\"/services/{service}/{instance}\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_fits_segment_by_segment() {
        let check = |pattern: &str, key: &str, expected: Option<(&str, &str)>| {
            let pattern = KeyPattern::parse(pattern).unwrap();
            assert_eq!(pattern.find(key), expected, "{key} in {pattern}");
            assert!(expected.is_none() || key.starts_with(pattern.folder()));
        };
        let usual = "/services/{service}/{instance}";
        check(usual, "/services/orders/a1", Some(("orders", "a1")));
        check(usual, "/services/orders/host:web:80:udp", Some(("orders", "host:web:80:udp")));
        check(usual, "/services/a b/c%", Some(("a b", "c%")));
        for other in ["/services/orders", "/services/orders/", "/services//a1", "/services/orders/a1/b", "services/orders/a1", ""]
        {
            check(usual, other, None);
        }
        check("vulcand/backends/{service}/servers/{instance}", "vulcand/backends/b1/servers/s1", Some(("b1", "s1")));
        check("vulcand/backends/{service}/servers/{instance}", "vulcand/backends/b1/backend", None);
        check("/hosts/{instance}/{service}", "/hosts/h1/orders", Some(("orders", "h1")));
        assert_eq!(KeyPattern::parse("/a/b/{service}/c/{instance}").unwrap().folder(), "/a/b/");
    }

    #[test]
    fn keys_that_name_no_service_are_all_of_one() {
        let service = ServiceName::parse("myapp").ok();
        let pattern = KeyPattern::parse("/myapp/upstream/{instance}").unwrap();
        assert!(!pattern.names_service() && pattern.find("/myapp/upstream/app1").is_none());
        let pattern = pattern.of_service(service);
        assert_eq!(pattern.find("/myapp/upstream/app1"), Some(("myapp", "app1")));
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        let said = |text: &str| KeyPattern::parse(text).unwrap_err();
        assert_eq!(
            said("/services/{service}"),
            "\"/services/{service}\" is no pattern of keys: {instance} stands in it once, as in \"/services/{service}/{instance}\""
        );
        for (text, part) in [
            ("", "{instance} stands in it once"),
            ("/a/{instance}/{instance}", "{instance} stands in it once"),
            ("/a/{service}/{service}/{instance}", "{service} stands in it at most once"),
            ("/a/x{service}/{instance}", "stand for whole segments"),
            ("/a/{name}/{instance}", "there are no others"),
            ("/a//{service}/{instance}", "a segment is empty"),
            ("/a/{service}/{instance}/", "a segment is empty"),
            ("/a b/{service}/{instance}", "has a space"),
            ("{service}/{instance}", "something plain stands before"),
        ] {
            assert!(said(text).contains(part), "{text}: {}", said(text));
        }
    }
}
