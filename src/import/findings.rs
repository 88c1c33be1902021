//! What an import could not carry over, where it stands, and what to do instead. Nothing is dropped without a word: every
//! directive is either carried or has a finding, and [`Ledger::unaccounted`] says which have neither.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::grammar::Directive;

/// A line of a file, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: Arc<str>,
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// What it did is missing.
    Lost,
    /// It was carried over, but acts otherwise in what is said.
    Differs,
    /// Nothing is missing: Pointsman does it by itself, or it concerned nginx alone.
    Note,
}

impl Weight {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "not carried over",
            Self::Differs => "differs",
            Self::Note => "note",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub place: Place,
    /// The directive, shortened.
    pub said: String,
    pub weight: Weight,
    pub why: String,
    /// What to do instead.
    pub instead: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}: {}", self.place, self.weight.as_str(), self.said, self.why)?;
        self.instead.as_ref().map_or(Ok(()), |instead| write!(f, "; instead: {instead}"))
    }
}

/// Findings so far, and which directives were dealt with.
#[derive(Debug, Default)]
pub struct Ledger {
    findings: Vec<Finding>,
    accounted: BTreeSet<usize>,
}

impl Ledger {
    pub fn carried(&mut self, directive: &Directive) {
        self.accounted.insert(directive.id);
    }

    /// With everything inside it.
    pub fn carried_whole(&mut self, directive: &Directive) {
        self.carried(directive);
        directive.block.iter().flatten().for_each(|inner| self.carried_whole(inner));
    }

    /// The directive and everything inside it is missing.
    pub fn lost(&mut self, directive: &Directive, why: impl Into<String>, instead: impl Into<String>) {
        self.carried_whole(directive);
        self.lost_itself(directive, why, instead);
    }

    /// What is inside it is told by itself.
    pub fn lost_itself(&mut self, directive: &Directive, why: impl Into<String>, instead: impl Into<String>) {
        self.carried(directive);
        self.say(Weight::Lost, &directive.place, directive.to_string(), why.into(), Some(instead.into()));
    }

    pub fn is_accounted(&self, directive: &Directive) -> bool {
        self.accounted.contains(&directive.id)
    }

    pub fn differs(&mut self, directive: &Directive, why: impl Into<String>) {
        self.carried(directive);
        self.say(Weight::Differs, &directive.place, directive.to_string(), why.into(), None);
    }

    /// The directive and everything inside it needs no counterpart.
    pub fn note(&mut self, directive: &Directive, why: impl Into<String>) {
        self.carried_whole(directive);
        self.say(Weight::Note, &directive.place, directive.to_string(), why.into(), None);
    }

    pub fn say(&mut self, weight: Weight, place: &Place, said: String, why: String, instead: Option<String>) {
        let instead = instead.filter(|instead| !instead.is_empty()).map(|instead| one_line(&instead));
        let finding = Finding { place: place.clone(), said: one_line(&said), weight, why: one_line(&why), instead };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// The first directive that was neither carried nor found.
    pub fn unaccounted<'a>(&self, directives: &'a [Directive]) -> Option<&'a Directive> {
        directives.iter().find_map(|directive| {
            if !self.is_accounted(directive) {
                Some(directive)
            } else {
                self.unaccounted(directive.block.as_deref().unwrap_or_default())
            }
        })
    }

    pub fn extend(&mut self, other: Self) {
        self.findings.extend(other.findings);
    }

    /// By place, so that they are read beside the files.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        findings.sort_by(|a, b| (&a.place, a.weight).cmp(&(&b.place, b.weight)));
        findings
    }
}

/// Words of a file may have anything in them.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
