//! The files of a configuration: who reads them is not known here. Includes are put in the place of their directive.

use std::fmt;
use std::sync::Arc;

use super::findings::Place;
use super::grammar::{Directive, GrammarError, parse};

/// Where the texts come from.
pub trait Files {
    fn read(&self, path: &str) -> Result<String, String>;
    /// The files whose paths fit a pattern with `*`, `?` and `[…]`, in the order of their names.
    fn fitting(&self, pattern: &str) -> Result<Vec<String>, String>;
}

/// Why there is nothing to import.
#[derive(Debug)]
pub enum ImportError {
    Read { path: String, from: Option<Place>, reason: String },
    Grammar(GrammarError),
    TooManyFiles { at: Place },
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, from: Some(place), reason } => write!(f, "{place}: {path} cannot be read: {reason}"),
            Self::Read { path, from: None, reason } => write!(f, "{path}: {reason}"),
            Self::Grammar(error) => error.fmt(f),
            Self::TooManyFiles { at } => {
                write!(f, "{at}: more than {FILES_MAX} files, or files that include each other more than {NESTED_MAX} deep")
            }
        }
    }
}

impl std::error::Error for ImportError {}

/// The whole configuration.
pub fn read_whole(files: &dyn Files, path: &str) -> Result<Vec<Directive>, ImportError> {
    let text = files.read(path).map_err(|reason| ImportError::Read { path: path.to_owned(), from: None, reason })?;
    let mut expansion = Expansion { files, folder: folder_of(path), n_files: 1, next_id: 0 };
    let directives = parse(&Arc::from(path), &text, &mut expansion.next_id).map_err(ImportError::Grammar)?;
    expansion.expand(directives, 0)
}

/// Relative paths are from the folder of the first file, whichever file they stand in.
pub fn path_from(folder: &str, path: &str) -> String {
    if path.starts_with('/') || folder.is_empty() { path.to_owned() } else { format!("{}/{path}", folder.trim_end_matches('/')) }
}

pub fn folder_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
        None => "",
    }
}

/// Whether a name fits one segment of a pattern: `*`, `?`, `[a-z]`, `[!a]`; a hidden one only if the pattern begins with a dot.
pub fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    (name.first() != Some(&'.') || pattern.first() == Some(&'.')) && rest_fits(&pattern, &name)
}

/// Goes back only to the last star, so it costs pattern times name at most.
fn rest_fits(pattern: &[char], name: &[char]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match (pattern.get(p), name.get(n)) {
            (None, None) => return true,
            (Some('*'), _) => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            (Some('?'), Some(_)) => Some(1),
            (Some('['), Some(c)) => set_fits(&pattern[p..], *c),
            (Some(wanted), Some(c)) if wanted == c => Some(1),
            _ => None,
        };
        match (step, star) {
            (Some(length), _) => {
                p += length;
                n += 1;
            }
            (None, Some((at, from))) if from < name.len() => {
                star = Some((at, from + 1));
                p = at + 1;
                n = from + 1;
            }
            (None, _) => return false,
        }
    }
}

/// How long the set is, if the character is in it.
fn set_fits(set: &[char], c: char) -> Option<usize> {
    let end = set.iter().skip(2).position(|c| *c == ']')? + 2;
    let is_not = matches!(set.get(1), Some('!' | '^'));
    let members = &set[if is_not { 2 } else { 1 }..end];
    let ranges = members.windows(3).filter(|window| window[1] == '-');
    let is_in = members.contains(&c) || ranges.into_iter().any(|window| (window[0]..=window[2]).contains(&c));
    (is_in != is_not).then_some(end + 1)
}

struct Expansion<'a> {
    files: &'a dyn Files,
    folder: &'a str,
    n_files: usize,
    next_id: usize,
}

impl Expansion<'_> {
    fn expand(&mut self, directives: Vec<Directive>, depth: usize) -> Result<Vec<Directive>, ImportError> {
        let mut expanded = Vec::new();
        for mut directive in directives {
            if directive.name == "include" && directive.block.is_none() {
                expanded.extend(self.include(&directive, depth)?);
                continue;
            }
            if let Some(block) = directive.block.take() {
                directive.block = Some(self.expand(block, depth)?);
            }
            expanded.push(directive);
        }
        Ok(expanded)
    }

    fn include(&mut self, directive: &Directive, depth: usize) -> Result<Vec<Directive>, ImportError> {
        let pattern = path_from(self.folder, directive.arg(0));
        let failed = |reason| ImportError::Read { path: pattern.clone(), from: Some(directive.place.clone()), reason };
        let paths =
            if pattern.contains(['*', '?', '[']) { self.files.fitting(&pattern).map_err(failed)? } else { vec![pattern.clone()] };
        let mut all = Vec::new();
        for path in paths {
            self.n_files += 1;
            if self.n_files > FILES_MAX || depth >= NESTED_MAX {
                return Err(ImportError::TooManyFiles { at: directive.place.clone() });
            }
            let text = self.files.read(&path).map_err(|reason| ImportError::Read {
                path: path.clone(),
                from: Some(directive.place.clone()),
                reason,
            })?;
            let found = parse(&Arc::from(path.as_str()), &text, &mut self.next_id).map_err(ImportError::Grammar)?;
            all.extend(self.expand(found, depth + 1)?);
        }
        Ok(all)
    }
}

/// More than any site has; an include that finds itself ends here.
const FILES_MAX: usize = 2_000;
const NESTED_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns_as_they_do_in_a_shell() {
        for (pattern, name) in
            [("*", "a"), ("*.conf", "a.conf"), ("a?c", "abc"), ("[a-c]*", "bx"), ("[!a]", "b"), ("*a*b", "xaab"), (".*", ".a")]
        {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*.conf", "a.conf.bak"), ("*", ".hidden"), ("a?c", "ac"), ("[a-c]", "d"), ("[!a]", "a"), ("[a", "a"), ("", "a")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }
}
