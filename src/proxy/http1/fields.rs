//! A list of fields between the message it was read from and the one it is written to: what stays is borrowed, what is ours
//! lies in one piece of memory.

use std::ops::Range;

use http::HeaderName;

use crate::proxy::edit::EditFields;
use crate::proxy::forward::FieldsMut;
use crate::routing::Fields;

pub struct FieldList<'a> {
    fields: Vec<(&'a str, Value<'a>)>,
    ours: Vec<u8>,
}

enum Value<'a> {
    Theirs(&'a [u8]),
    Ours(Range<usize>),
}

impl<'a> FieldList<'a> {
    pub fn of(fields: impl ExactSizeIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut list = Vec::with_capacity(fields.len() + OURS);
        list.extend(fields.map(|(name, value)| (name, Value::Theirs(value))));
        Self { fields: list, ours: Vec::with_capacity(OURS_SIZE) }
    }

    /// Beside others of that name.
    pub fn append(&mut self, name: &'a str, value: &[u8]) {
        let value = self.keep(value);
        self.fields.push((name, value));
    }

    fn keep(&mut self, value: &[u8]) -> Value<'a> {
        let start = self.ours.len();
        self.ours.extend_from_slice(value);
        Value::Ours(start..self.ours.len())
    }

    fn replace(&mut self, name: &'a str, value: &[u8]) {
        let value = self.keep(value);
        match self.fields.iter().position(|(other, _)| other.eq_ignore_ascii_case(name)) {
            None => self.fields.push((name, value)),
            Some(first) => {
                let mut at = 0;
                self.fields.retain(|(other, _)| {
                    at += 1;
                    at <= first + 1 || !other.eq_ignore_ascii_case(name)
                });
                self.fields[first] = (name, value);
            }
        }
    }

    /// As they stand on the wire.
    pub fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in &self.fields {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(self.value(value));
            out.extend_from_slice(b"\r\n");
        }
    }

    fn value<'s>(&'s self, value: &'s Value<'a>) -> &'s [u8] {
        match value {
            Value::Theirs(value) => value,
            Value::Ours(range) => &self.ours[range.clone()],
        }
    }
}

impl Fields for FieldList<'_> {
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
        self.fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).nth(n).map(|(_, value)| self.value(value))
    }

    fn each(&self, show: &mut dyn FnMut(&str, &[u8])) {
        self.fields.iter().for_each(|(name, value)| show(name, self.value(value)));
    }
}

impl FieldsMut for FieldList<'_> {
    fn set(&mut self, name: &'static str, value: &[u8]) {
        self.replace(name, value);
    }

    fn remove(&mut self, name: &str) {
        self.fields.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
    }
}

impl<'a> EditFields<'a> for FieldList<'a> {
    fn put(&mut self, name: &'a HeaderName, value: &[u8]) {
        self.replace(name.as_str(), value);
    }

    fn add(&mut self, name: &'a HeaderName, value: &[u8]) {
        self.append(name.as_str(), value);
    }
}

/// Fields that a request gets from us, and their values.
const OURS: usize = 8;
const OURS_SIZE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_stands_once_and_in_the_place_of_the_first() {
        let fields = [("A", "1"), ("via", "x"), ("b", "2"), ("Via", "y")].map(|(n, v)| (n, v.as_bytes()));
        let mut list = FieldList::of(fields.into_iter());
        assert_eq!((list.nth("via", 1), list.nth("a", 0), list.nth("c", 0)), (Some(&b"y"[..]), Some(&b"1"[..]), None));
        list.set("via", b"z");
        list.set("c", b"3");
        list.remove("a");
        let mut out = Vec::new();
        list.write(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "via: z\r\nb: 2\r\nc: 3\r\n");
    }
}
