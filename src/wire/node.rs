//! A record or a file as a tree, so that each record has one reader. JSON becomes one here, the file's TOML in `config`.

use std::borrow::Cow;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub value: Value,
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    /// A date of TOML, which no field of ours takes; kept for the message.
    Date(String),
    /// What a variable or a flag says: it has no type, so it is read as whatever its field wants.
    Word(String),
    List(Vec<Node>),
    Table(Table),
}

/// Keys in the order of the source as far as its parser keeps it; each once.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Table {
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub key: String,
    /// Where the key stands; its value may begin lines later.
    pub place: Place,
    pub node: Node,
}

/// Where something was said.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Place {
    /// In a record, which is short enough to need no line; or nowhere in particular.
    #[default]
    Record,
    /// In the file; counted from 1.
    Line(usize),
    /// By this variable or flag.
    Named(Arc<str>),
}

impl Node {
    pub fn of_json(json: serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(b),
            Json::Number(n) => match n.as_i128() {
                Some(integer) => Value::Integer(integer),
                None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Text(text),
            Json::Array(items) => Value::List(items.into_iter().map(Self::of_json).collect()),
            Json::Object(map) => {
                let entry = |(key, json)| Entry { key, place: Place::Record, node: Self::of_json(json) };
                Value::Table(Table { entries: map.into_iter().map(entry).collect() })
            }
        };
        Self { value, place: Place::Record }
    }

    /// What was said, short enough for a message. Never called for secrets.
    pub fn shown(&self) -> Cow<'static, str> {
        match &self.value {
            Value::Null => "null".into(),
            Value::Bool(b) => b.to_string().into(),
            Value::Integer(n) => n.to_string().into(),
            Value::Float(x) => format!("{x:?}").into(),
            Value::Text(text) | Value::Word(text) => quoted(text).into(),
            Value::Date(date) => date.clone().into(),
            Value::List(_) => "a list".into(),
            Value::Table(_) => "a table".into(),
        }
    }

    pub fn table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }
}

impl Table {
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.key == key)
    }

    /// Whether something is said there, which null is not.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some_and(|e| e.node.value != Value::Null)
    }

    /// Overwrites what was there.
    pub fn set(&mut self, key: &str, node: Node) {
        self.remove(key);
        self.entries.push(Entry { key: key.to_owned(), place: node.place.clone(), node });
    }

    pub fn remove(&mut self, key: &str) {
        self.entries.retain(|e| e.key != key);
    }

    /// The table within, made if there is none; `None` where something else stands.
    pub fn section_mut(&mut self, key: &str) -> Option<&mut Table> {
        let at = self.entries.iter().position(|e| e.key == key).unwrap_or_else(|| {
            self.set(key, Node { value: Value::Table(Table::default()), place: Place::Record });
            self.entries.len() - 1
        });
        match &mut self.entries[at].node.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }
}

/// The text in quotes, cut where a message would become unreadable.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// Characters of a value that a message repeats.
const SHOWN_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_between_characters() {
        assert_eq!(quoted("a\"b"), r#""a\"b""#);
        assert_eq!(quoted(&"ü".repeat(81)), format!("\"{}\"…", "ü".repeat(80)));
    }
}
