//! The query of a request, decoded.

use super::reply::Refusal;

/// `name=value` pairs in their order, as a form or `URLSearchParams` writes them: `+` is a space.
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Fails on escapes that are none, and on names beside `known`: a typing mistake must not be taken for silence.
    pub fn parse(query: Option<&str>, known: &[&str]) -> Result<Self, Refusal> {
        let mut pairs = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| {
                percent_decode(&text.replace('+', " "))
                    .ok_or_else(|| Refusal::Query(format!("{text:?} is not percent-encoded UTF-8")))
            };
            let (name, value) = (decode(name)?, decode(value)?);
            if !known.contains(&name.as_str()) {
                return Err(Refusal::Query(format!("{name:?} is not a parameter of this; {} is", known.join(", "))));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    /// The first of its name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

pub fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        (bytes, rest) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |b: &u8| char::from(*b).to_digit(16);
                let byte = digit(high)? * 16 + digit(low)?;
                bytes.push(byte as u8);
                (bytes, after)
            }
            (b'%', _) => return None,
            (plain, after) => {
                bytes.push(*plain);
                (bytes, after)
            }
        };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_in_their_order() {
        let query = Query::parse(
            Some("url=http%3A%2F%2Fa%2Fb%3Fx%3D1&header=A:%20b&header=C:+d%2Be&method"),
            &["url", "header", "method"],
        );
        let query = query.unwrap_or_else(|_| panic!("it is well-formed"));
        assert_eq!(query.get("url"), Some("http://a/b?x=1"));
        assert_eq!(query.all("header").collect::<Vec<_>>(), ["A: b", "C: d+e"]);
        assert_eq!((query.get("method"), query.get("since")), (Some(""), None));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in ["url=%", "url=%4", "url=%zz", "url=%ff", "rul=a"] {
            assert!(matches!(Query::parse(Some(wrong), &["url"]), Err(Refusal::Query(_))), "{wrong}");
        }
    }
}
