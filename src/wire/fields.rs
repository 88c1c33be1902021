//! Takes the fields of a table one by one and notes everything that is wrong or odd on the way.
//!
//! A wrong field yields `None` (or its default) and a note, so reading goes on and every problem is found at once;
//! `Report::close` then refuses the whole. Fields nobody asked for are noted when the table goes out of scope.

use std::cell::RefCell;
use std::fmt::Display;

use super::node::{Entry, Node, Place, Table, Value, quoted};
use super::{ParseResult, Parsed, Problem, closest};

/// Everything noted about one record or one file.
pub(crate) struct Report {
    unknown: Unknown,
    notes: RefCell<Notes>,
}

/// What a field is that nobody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    Warning,
    Error,
}

#[derive(Default)]
struct Notes {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Paths of all fields that were asked for; only kept where unknown fields are errors.
    known: Vec<String>,
    /// Variables that set a field nobody asked for.
    strangers: Vec<Problem>,
}

/// What is left of a report once everything is read.
pub(crate) struct Closed {
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
    pub known: Vec<String>,
    pub strangers: Vec<Problem>,
}

impl Report {
    pub fn new(unknown: Unknown) -> Self {
        Self { unknown, notes: RefCell::default() }
    }

    pub fn problem(&self, path: String, place: &Place, message: String) {
        self.notes.borrow_mut().problems.push(placed(path, place, message));
    }

    pub fn warning(&self, path: String, place: &Place, message: String) {
        self.notes.borrow_mut().warnings.push(placed(path, place, message));
    }

    /// The value, unless something was wrong. A reader that has no value has noted why.
    pub fn close<T>(self, value: Option<T>) -> ParseResult<T> {
        let notes = self.notes.into_inner();
        match value {
            Some(value) if notes.problems.is_empty() => Ok(Parsed { value, warnings: notes.warnings }),
            _ => Err(notes.problems),
        }
    }

    pub fn into_notes(self) -> Closed {
        let Notes { problems, warnings, known, strangers } = self.notes.into_inner();
        Closed { problems, warnings, known, strangers }
    }
}

fn placed(path: String, place: &Place, message: String) -> Problem {
    match place {
        Place::Record => Problem { path, line: None, message },
        Place::Line(line) => Problem { path, line: Some(*line), message },
        Place::Named(name) => Problem { path: name.to_string(), line: None, message },
    }
}

/// One table being read.
pub(crate) struct Fields<'a> {
    report: &'a Report,
    table: &'a Table,
    place: &'a Place,
    /// Of the table itself; empty at the root.
    path: String,
    known: Vec<&'static str>,
}

/// Says what was wrong with a value and what would be right.
pub(crate) type Read<T> = Result<T, String>;

impl<'a> Fields<'a> {
    /// `None`, with a note, of what is no table.
    pub fn of(node: &'a Node, path: String, report: &'a Report) -> Option<Self> {
        match &node.value {
            Value::Table(table) => Some(Self { report, table, place: &node.place, path, known: Vec::new() }),
            _ => {
                report.problem(path, &node.place, format!("{} is not a table of fields", node.shown()));
                None
            }
        }
    }

    /// `None` of what is absent, null, or wrong; the last with a note.
    pub fn optional<T>(&mut self, key: &'static str, read: impl FnOnce(&'a Node) -> Read<T>) -> Option<T> {
        let node = self.said(key)?;
        read(node).map_err(|message| self.report.problem(self.path_of(key), &node.place, message)).ok()
    }

    pub fn or<T>(&mut self, key: &'static str, default: T, read: impl FnOnce(&'a Node) -> Read<T>) -> T {
        self.optional(key, read).unwrap_or(default)
    }

    pub fn required<T>(&mut self, key: &'static str, read: impl FnOnce(&'a Node) -> Read<T>) -> Option<T> {
        if self.said(key).is_none() {
            self.report.problem(self.path_of(key), self.place, "is missing".to_owned());
        }
        self.optional(key, read)
    }

    /// A list whose items are read one by one; wrong items are noted and left out.
    pub fn list<T>(&mut self, key: &'static str, read: impl Fn(&'a Node) -> Read<T>) -> Option<Vec<T>> {
        let node = self.said(key)?;
        let Value::List(items) = &node.value else {
            self.wrong(key, format!("{} is not a list", node.shown()));
            return None;
        };
        let item = |(at, item): (usize, &'a Node)| {
            read(item).map_err(|message| self.report.problem(format!("{}[{at}]", self.path_of(key)), &item.place, message)).ok()
        };
        Some(items.iter().enumerate().filter_map(item).collect())
    }

    /// A table with keys of the writer's choice; wrong entries are noted and left out.
    pub fn entries<T>(&mut self, key: &'static str, read: impl Fn(&'a Entry) -> Read<T>) -> Vec<T> {
        let Some(node) = self.said(key) else { return Vec::new() };
        let Some(table) = node.table() else {
            self.wrong(key, format!("{} is not a table of names and values", node.shown()));
            return Vec::new();
        };
        let entry = |entry: &'a Entry| {
            let path = || format!("{}.{}", self.path_of(key), entry.key);
            read(entry).map_err(|message| self.report.problem(path(), &entry.node.place, message)).ok()
        };
        table.entries.iter().filter_map(entry).collect()
    }

    /// A table within this one; `None` if absent, null, or no table.
    pub fn section(&mut self, key: &'static str) -> Option<Fields<'a>> {
        let node = self.said(key)?;
        Fields::of(node, self.path_of(key), self.report)
    }

    /// The same, but an absent table reads as an empty one, so all of its fields get their defaults.
    pub fn section_or_empty(&mut self, key: &'static str) -> Fields<'a> {
        static EMPTY: Table = Table { entries: Vec::new() };
        let (report, place, path) = (self.report, self.place, self.path_of(key));
        self.section(key).unwrap_or(Fields { report, table: &EMPTY, place, path, known: Vec::new() })
    }

    /// The tables of a list, as `[[listener]]` makes one.
    pub fn sections(&mut self, key: &'static str) -> Vec<Fields<'a>> {
        let Some(node) = self.said(key) else { return Vec::new() };
        let Value::List(items) = &node.value else {
            self.wrong(key, format!("{} is not a list of tables, as [[{key}]] makes one", node.shown()));
            return Vec::new();
        };
        let path = self.path_of(key);
        items.iter().enumerate().filter_map(|(at, item)| Fields::of(item, format!("{path}[{at}]"), self.report)).collect()
    }

    /// A field of the contract that this version cannot honour: better refused than silently ignored.
    pub fn unsupported(&mut self, key: &'static str) {
        if self.said(key).is_some() {
            self.wrong(key, "is not supported in this version");
        }
    }

    /// Notes a problem of a field, or of its absence.
    pub fn wrong(&self, key: &str, message: impl Display) {
        self.report.problem(self.path_of(key), self.place_of(key), message.to_string());
    }

    /// Notes something odd about a field.
    pub fn odd(&self, key: &str, message: impl Display) {
        self.report.warning(self.path_of(key), self.place_of(key), message.to_string());
    }

    /// Whether the field stands there at all, and not as null.
    pub fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|e| e.node.value != Value::Null)
    }

    pub fn table(&self) -> &'a Table {
        self.table
    }

    pub fn place_of(&self, key: &str) -> &'a Place {
        self.table.get(key).map_or(self.place, |e| &e.node.place)
    }

    fn said(&mut self, key: &'static str) -> Option<&'a Node> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.get(key).map(|e| &e.node).filter(|n| n.value != Value::Null)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        let strict = self.report.unknown == Unknown::Error;
        for entry in self.table.entries.iter().filter(|e| !self.known.contains(&e.key.as_str())) {
            let meant = match closest(&entry.key, self.known.iter().copied()) {
                Some(key) => format!("did you mean {}?", quoted(key)),
                None => format!("known here: {}", self.known.join(", ")),
            };
            let path = self.path_of(&entry.key);
            match (&entry.place, strict) {
                (Place::Named(_), _) => {
                    let stranger = placed(path, &entry.place, "no setting has this name".to_owned());
                    self.report.notes.borrow_mut().strangers.push(stranger);
                }
                (place, true) => self.report.problem(path, place, format!("unknown key; {meant}")),
                (place, false) => self.report.warning(path, place, format!("unknown field, ignored; {meant}")),
            }
        }
        if strict {
            let paths = self.known.iter().map(|key| self.path_of(key));
            self.report.notes.borrow_mut().known.extend(paths);
        }
    }
}
