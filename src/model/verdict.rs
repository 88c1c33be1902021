//! What probes settled about an instance.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Verdict {
    /// No probe has settled anything yet.
    #[default]
    Unknown,
    Up,
    Down,
}

impl Verdict {
    pub const ALL: [Self; 3] = [Self::Unknown, Self::Up, Self::Down];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
