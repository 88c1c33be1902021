//! From the bytes of a record to the fields of its converter, within the limits of the contract.

use super::fields::{Fields, Report, Unknown};
use super::node::Node;
use super::scalar::number;
use super::{ParseResult, Problem};

/// What we write, and the newest we read.
pub(super) const VERSION: u32 = 1;

/// The value as text, if it is short enough to be looked at.
pub(super) fn text_of(value: &[u8], bytes_max: usize) -> Result<&str, Vec<Problem>> {
    if value.len() > bytes_max {
        return Err(whole(format!("the value has {} bytes; at most {bytes_max} are allowed", value.len())));
    }
    let text =
        std::str::from_utf8(value).map_err(|e| whole(format!("the value is not UTF-8 from byte {} on", e.valid_up_to())))?;
    if text.trim().is_empty() {
        return Err(whole("the value is empty".to_owned()));
    }
    Ok(text)
}

/// Reads one JSON object of at most `bytes_max` bytes.
pub(super) fn read_json<T>(value: &[u8], bytes_max: usize, read: impl FnOnce(&mut Fields<'_>) -> Option<T>) -> ParseResult<T> {
    let node = json_of(text_of(value, bytes_max)?)?;
    read_node(&node, Unknown::Warning, |fields| {
        check_version(fields);
        read(fields)
    })
}

pub(super) fn read_node<T>(node: &Node, unknown: Unknown, read: impl FnOnce(&mut Fields<'_>) -> Option<T>) -> ParseResult<T> {
    let report = Report::new(unknown);
    let value = Fields::of(node, String::new(), &report).and_then(|mut fields| read(&mut fields));
    report.close(value)
}

pub(super) fn json_of(text: &str) -> Result<Node, Vec<Problem>> {
    match serde_json::from_str(text) {
        Ok(json) => Ok(Node::of_json(json)),
        Err(e) => Err(whole(format!("the value is not JSON: {e}"))),
    }
}

pub(super) fn whole(message: String) -> Vec<Problem> {
    vec![Problem { path: String::new(), line: None, message }]
}

/// A newer writer may mean something else by the same fields, so its record is refused rather than half understood.
fn check_version(fields: &mut Fields<'_>) {
    match fields.optional("v", number(1..=u32::MAX)) {
        Some(newer) if newer > VERSION => {
            fields.wrong("v", format!("{newer} is newer than {VERSION}, the newest that this version understands"));
        }
        _ => {}
    }
}
