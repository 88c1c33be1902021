//! A record or a file as a tree, whether it came as JSON or as TOML, so that each record has one reader.

use std::borrow::Cow;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

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
    /// In a record, which is short enough to need no line.
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

    /// `Err` is what is wrong with the TOML, each with its line.
    pub fn of_toml(text: &str) -> Result<Self, Vec<(usize, String)>> {
        let lines = Lines::of(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            let table = lines.table(document.get_ref());
            return Ok(Self { value: Value::Table(table), place: Place::Line(1) });
        }
        let located = |e: &toml::de::Error| (lines.at(e.span().map_or(0, |s| s.start)), e.message().replace('\n', ", "));
        Err(errors.iter().map(located).collect())
    }

    /// What was said, short enough for a message. Never called for secrets.
    pub fn shown(&self) -> Cow<'static, str> {
        match &self.value {
            Value::Null => "null".into(),
            Value::Bool(b) => b.to_string().into(),
            Value::Integer(n) => n.to_string().into(),
            Value::Float(x) => x.to_string().into(),
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

    /// Overwrites what was there.
    pub fn set(&mut self, key: &str, node: Node) {
        self.entries.retain(|e| e.key != key);
        self.entries.push(Entry { key: key.to_owned(), place: node.place.clone(), node });
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

/// Where each line of a TOML text begins.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at + 1).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|&start| start <= offset) + 1
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                place: Place::Line(self.at(key.span().start)),
                node: self.node(value.get_ref(), value.span().start),
            })
            .collect();
        entries.sort_by_key(|e| match e.place {
            Place::Line(line) => line,
            _ => 0,
        });
        Table { entries }
    }

    fn node(&self, value: &DeValue<'_>, offset: usize) -> Node {
        let value = match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(n) => match i128::from_str_radix(n.as_str(), n.radix()) {
                Ok(integer) => Value::Integer(integer),
                Err(_) => Value::Float(f64::INFINITY),
            },
            DeValue::Float(x) => Value::Float(x.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(b) => Value::Bool(*b),
            DeValue::Datetime(date) => Value::Date(date.to_string()),
            DeValue::Array(items) => Value::List(items.iter().map(|i| self.node(i.get_ref(), i.span().start)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Node { value, place: Place::Line(self.at(offset)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_keeps_the_lines_of_keys_values_and_tables() {
        let text =
            "# first\n[[listener]]\naddress = 'a'\n\n[[listener]]\nlist = [\n  1,\n  2,\n]\n[proxy.limits]\nfields = 0x10\n";
        let root = Node::of_toml(text).unwrap();
        let root = root.table().unwrap();
        let Value::List(listeners) = &root.get("listener").unwrap().node.value else { panic!("not a list") };
        assert_eq!((&listeners[0].place, &listeners[1].place), (&Place::Line(2), &Place::Line(5)));
        assert_eq!(listeners[0].table().unwrap().get("address").unwrap().place, Place::Line(3));
        let Value::List(list) = &listeners[1].table().unwrap().get("list").unwrap().node.value else { panic!("not a list") };
        assert_eq!(list[1], Node { value: Value::Integer(2), place: Place::Line(8) });
        let limits = &root.get("proxy").unwrap().node.table().unwrap().get("limits").unwrap().node;
        assert_eq!(limits.place, Place::Line(10));
        assert_eq!(limits.table().unwrap().get("fields").unwrap().node.value, Value::Integer(16));
    }

    #[test]
    fn every_mistake_of_the_syntax_has_its_line() {
        let errors = Node::of_toml("a = 1\nb = \nc = 2\nc = 3\n").unwrap_err();
        let lines: Vec<usize> = errors.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 4], "{errors:?}");
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        assert_eq!(quoted("a\"b"), r#""a\"b""#);
        assert_eq!(quoted(&"ü".repeat(81)), format!("\"{}\"…", "ü".repeat(80)));
    }
}
