//! Takes the fields of a table one by one and notes everything that is wrong or odd on the way.
//!
//! A wrong field yields `None` (or its default) and a note, so reading goes on and every problem is found at once;
//! `Report::close` then refuses the whole. Fields nobody asked for are noted when the table goes out of scope.

use std::cell::RefCell;
use std::fmt::Display;
use std::sync::Arc;

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
    /// In records that others write for others.
    Ignored,
    Warning,
    Error,
}

#[derive(Default)]
pub(crate) struct Notes {
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
    /// Paths of all fields that were asked for; only kept where unknown fields are errors.
    pub known: Vec<String>,
    /// Variables that set a field nobody asked for.
    pub strangers: Vec<Arc<str>>,
}

impl Report {
    pub fn new(unknown: Unknown) -> Self {
        Self { unknown, notes: RefCell::default() }
    }

    pub fn problem(&self, path: String, place: &Place, message: String) {
        note(&mut self.notes.borrow_mut().problems, placed(path, place, message));
    }

    pub fn warning(&self, path: String, place: &Place, message: String) {
        note(&mut self.notes.borrow_mut().warnings, placed(path, place, message));
    }

    /// The value, unless something was wrong. A reader that has no value has noted why.
    pub fn close<T>(self, value: Option<T>) -> ParseResult<T> {
        let notes = self.notes.into_inner();
        match value {
            Some(value) if notes.problems.is_empty() => Ok(Parsed { value, warnings: notes.warnings }),
            _ => Err(notes.problems),
        }
    }

    pub fn into_notes(self) -> Notes {
        self.notes.into_inner()
    }
}

fn note(notes: &mut Vec<Problem>, problem: Problem) {
    if notes.len() < NOTES_MAX {
        notes.push(problem);
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

    /// A list whose items are read one by one; wrong items are noted and left out. A variable separates them by commas.
    pub fn list<T>(&mut self, key: &'static str, read: impl Fn(&Node) -> Read<T>) -> Option<Vec<T>> {
        self.each(key, |node, path, report| read(node).map_err(|message| report.problem(path, &node.place, message)).ok())
    }

    /// The same for items that have parts of their own; `read` notes what is wrong itself.
    pub fn each<T>(&mut self, key: &'static str, read: impl Fn(&Node, String, &Report) -> Option<T>) -> Option<Vec<T>> {
        let node = self.said(key)?;
        let split;
        let items = match &node.value {
            Value::List(items) => items,
            Value::Word(word) => {
                split = words(word, &node.place);
                &split
            }
            _ => {
                self.wrong(key, format!("{} is not a list", node.shown()));
                return None;
            }
        };
        let path = self.path_of(key);
        Some(items.iter().enumerate().filter_map(|(at, item)| read(item, format!("{path}[{at}]"), self.report)).collect())
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
        self.table.has(key)
    }

    pub fn report(&self) -> &'a Report {
        self.report
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

/// Problems, and again warnings, of one record or file: a record of nothing but unknown fields shall not fill a log.
const NOTES_MAX: usize = 100;

static EMPTY: Table = Table { entries: Vec::new() };

fn words(word: &str, place: &Place) -> Vec<Node> {
    let items = word.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| Node { value: Value::Word(item.to_owned()), place: place.clone() }).collect()
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        if self.report.unknown == Unknown::Ignored {
            return;
        }
        let strict = self.report.unknown == Unknown::Error;
        for entry in self.table.entries.iter().filter(|e| !self.known.contains(&e.key.as_str())) {
            let meant = match closest(&entry.key, self.known.iter().copied()) {
                Some(key) => format!("did you mean {}?", quoted(key)),
                None => format!("known here: {}", self.known.join(", ")),
            };
            let path = self.path_of(&entry.key);
            match (&entry.place, strict) {
                (Place::Named(name), _) => self.report.notes.borrow_mut().strangers.push(name.clone()),
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
