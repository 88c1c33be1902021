//! JSON for people: what contains something is indented, the rest stands on a line each.

use serde_json::{Map, Value as Json};

pub fn render(value: &Json) -> String {
    let mut text = String::new();
    match value {
        Json::Object(fields) => write_fields(fields, 0, &mut text),
        Json::Array(items) => write_items(items, 0, &mut text),
        scalar => text += &format!("{}\n", word(scalar)),
    }
    text
}

fn write_fields(fields: &Map<String, Json>, depth: usize, text: &mut String) {
    let width = fields.iter().filter(|(_, v)| is_flat(v)).map(|(k, _)| k.len()).max().unwrap_or(0);
    for (key, value) in fields {
        let indent = "  ".repeat(depth);
        match value {
            value if is_flat(value) => *text += &format!("{indent}{key:width$}  {}\n", word(value)),
            Json::Object(fields) => {
                *text += &format!("{indent}{key}\n");
                write_fields(fields, depth + 1, text);
            }
            Json::Array(items) => {
                *text += &format!("{indent}{key}\n");
                write_items(items, depth + 1, text);
            }
            _ => {}
        }
    }
}

fn write_items(items: &[Json], depth: usize, text: &mut String) {
    for item in items {
        let indent = "  ".repeat(depth);
        match item {
            Json::Object(fields) => {
                let mut inner = String::new();
                write_fields(fields, depth + 1, &mut inner);
                // The dash takes the place of the first line's indentation.
                *text += &format!("{indent}- {}", inner.trim_start());
            }
            other => *text += &format!("{indent}- {}\n", word(other)),
        }
    }
}

/// It fits on a line.
fn is_flat(value: &Json) -> bool {
    match value {
        Json::Object(fields) => fields.is_empty(),
        Json::Array(items) => !items.iter().any(|item| item.is_object() || item.is_array()),
        _ => true,
    }
}

fn word(value: &Json) -> String {
    match value {
        Json::Null => "-".to_owned(),
        Json::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Json::String(text) => text.clone(),
        Json::Array(items) if items.is_empty() => "none".to_owned(),
        Json::Object(fields) if fields.is_empty() => "none".to_owned(),
        Json::Array(items) => items.iter().map(word).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nested_answers_become_indented_lines() {
        let answer = json!({
            "route": "shop",
            "instances": [{"id": "a1", "eligible": true}, {"id": "a2", "eligible": false}],
            "policy": {"retry": {"attempts": 1}, "hosts": ["a", "b"], "sticky": null},
            "warnings": [],
        });
        let expected = "\
instances
  - eligible  yes
    id        a1
  - eligible  no
    id        a2
policy
  hosts   a, b
  retry
    attempts  1
  sticky  -
route     shop
warnings  none
";
        assert_eq!(render(&answer), expected);
    }
}
