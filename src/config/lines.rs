//! The file's TOML as a tree, in which everything has its line.

use toml::de::{DeTable, DeValue};

use crate::wire::Problem;
use crate::wire::node::{Entry, Node, Place, Table, Value};

/// `Err` is everything that is wrong with the syntax.
pub(super) fn tree_of(text: &str) -> Result<Table, Vec<Problem>> {
    let lines = Lines::of(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(lines.table(document.get_ref()));
    }
    let problem = |e: &toml::de::Error| Problem {
        path: String::new(),
        line: Some(lines.at(e.span().map_or(0, |s| s.start))),
        message: e.message().replace('\n', ", "),
    };
    Err(errors.iter().map(problem).collect())
}

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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_values_and_tables_keep_their_lines() {
        let text =
            "# first\n[[listener]]\naddress = 'a'\n\n[[listener]]\nlist = [\n  1,\n  2,\n]\n[proxy.limits]\nfields = 0x10\n";
        let root = tree_of(text).unwrap();
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
        let problems = tree_of("a = 1\nb = \nc = 2\nc = 3\n").unwrap_err();
        assert_eq!(problems.iter().map(|p| p.line).collect::<Vec<_>>(), [Some(2), Some(4)], "{problems:?}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r#"(\[{0,2}[a-c.]{0,3}\]{0,2} ?=? ?[\PC"'\[\]{},:0-9-]{0,9}\n?){0,6}"#) {
            let _ = tree_of(&text);
        }
    }
}
