//! Everything that is wrong with what the process was told, or odd about it, one line each.

use std::fmt;
use std::path::PathBuf;

use crate::wire::Problem;

/// Shows as `pointsman.toml:12: proxy.workers: "four" is not a number in 0..=1024`, a line for each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems {
    /// The file that the line numbers are those of.
    pub file: Option<PathBuf>,
    pub list: Vec<Problem>,
}

impl Problems {
    /// In the order of the file; what variables and flags said comes last.
    pub(super) fn sorted(file: Option<PathBuf>, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|p| p.line.unwrap_or(usize::MAX));
        Self { file, list }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.list.iter().map(|problem| match (&self.file, problem.line) {
            (Some(file), Some(line)) => format!("{}:{line}: {problem}", file.display()),
            _ => problem.to_string(),
        })
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, line) in self.lines().enumerate() {
            write!(f, "{}{line}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
