//! What an upstream says that it was asked.

use serde_json::Value;

use super::Answer;

/// What the upstream saw of a request.
pub struct Seen(Value);

impl Seen {
    pub fn of(answer: &Answer) -> Self {
        Self(answer.json())
    }

    pub fn in_body(body: &str) -> Self {
        Self(serde_json::from_str(body).expect("JSON"))
    }

    /// `path`, `query`, …
    pub fn text(&self, what: &str) -> &str {
        self.0[what].as_str().unwrap_or_default()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.0["fields"].as_array().into_iter().flatten();
        fields.filter(|field| field[0] == name).filter_map(|field| field[1].as_str()).collect()
    }

    /// The field's one value.
    pub fn one(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in {}", self.0);
        all[0]
    }
}
