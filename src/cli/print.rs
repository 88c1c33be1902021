//! How answers look: tables and a little colour for people, JSON for programs.

use std::io::{self, IsTerminal, Write};

use serde_json::Value as Json;

/// Rows under headings, each column as wide as it must be.
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

pub struct Cell {
    text: String,
    tone: Tone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Warning,
    Bad,
    Faint,
}

impl Table {
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub fn print(&self) {
        out(&self.render(is_coloured()));
    }

    pub fn render(&self, coloured: bool) -> String {
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|n| {
                let cells = self.rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.text.chars().count());
                cells.chain([self.headings[n].len()]).max().unwrap_or(0)
            })
            .collect();
        let heading: Vec<Cell> = self.headings.iter().map(|h| Cell { text: (*h).to_owned(), tone: Tone::Faint }).collect();
        let mut text = String::new();
        for row in [&heading].into_iter().chain(&self.rows) {
            let line: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| {
                    let pad = " ".repeat(width - cell.text.chars().count());
                    format!("{}{pad}", cell.tone.paint(&cell.text, coloured))
                })
                .collect();
            text += line.join("  ").trim_end();
            text.push('\n');
        }
        text
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.to_string(), tone: Tone::Plain }
    }
}

impl Cell {
    pub fn toned(text: impl ToString, tone: Tone) -> Self {
        Self { text: text.to_string(), tone }
    }
}

impl Tone {
    pub fn paint(self, text: &str, coloured: bool) -> String {
        let code = match self {
            _ if !coloured => return text.to_owned(),
            Self::Plain => return text.to_owned(),
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "31",
            Self::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// On a terminal, unless it or its owner does not want it (no-color.org).
pub fn is_coloured() -> bool {
    let wanted =
        std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
    wanted && io::stdout().is_terminal()
}

/// To stdout. A reader that has gone away (`| head`) has read enough, which is no failure of ours.
pub fn out(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

pub fn json(value: &Json) {
    out(&format!("{value:#}\n"));
}

/// To stderr, where it does not get into what a program reads.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(vec!["orders/a1".into(), Cell::toned("ready", Tone::Good)]);
        table.row(vec!["é".into(), "draining".into()]);
        assert_eq!(table.render(false), "NAME       STATE\norders/a1  ready\né          draining\n");
    }

    #[test]
    fn colours_do_not_count_as_width() {
        let mut table = Table::new(&["A", "B"]);
        table.row(vec![Cell::toned("x", Tone::Bad), "y".into()]);
        assert_eq!(table.render(true), "\x1b[2mA\x1b[0m  \x1b[2mB\x1b[0m\n\x1b[31mx\x1b[0m  y\n");
    }
}
