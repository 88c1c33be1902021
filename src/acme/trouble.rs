//! What an order can fail of.

use std::fmt;

use instant_acme::{Error, Problem};

use crate::registry::HoldError;

#[derive(Debug)]
pub enum Trouble {
    /// Said by the directory, or on the way to it; the order has failed.
    Directory(String),
    /// The directory does not know our account (any more).
    NoAccount(String),
    /// The turn is over.
    Registry(HoldError),
    /// The turn is over: somebody else is the renewer.
    NotOurs,
}

impl Trouble {
    /// What the directory said of each name that it refused.
    pub fn refused(said: &[String]) -> Self {
        Self::Directory(bounded(said.join("; ")))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(said) | Self::NoAccount(said) => f.write_str(said),
            Self::Registry(error) => error.fmt(f),
            Self::NotOurs => f.write_str("another proxy orders certificates now"),
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match &error {
            Error::Api(problem) if problem.r#type.as_deref() == Some(NO_ACCOUNT) => Self::NoAccount(in_words(problem)),
            Error::Api(problem) => Self::Directory(in_words(problem)),
            Error::Timeout(_) => Self::Directory("the directory did not decide in time".to_owned()),
            error => Self::Directory(bounded(error.to_string())),
        }
    }
}

impl From<HoldError> for Trouble {
    fn from(error: HoldError) -> Self {
        Self::Registry(error)
    }
}

/// A problem document in a line: its type, which can be looked up, and what it says.
pub fn in_words(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("a problem without a type");
    let mut said = format!("{kind}: {}", problem.detail.as_deref().unwrap_or("without a word"));
    for part in &problem.subproblems {
        said.push_str(&format!("; {part}"));
    }
    bounded(said)
}

/// It is logged, and kept in the registry, and its writer may be anybody.
fn bounded(said: String) -> String {
    let plain: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LENGTH_MAX).collect();
    if said.chars().nth(LENGTH_MAX).is_some() { plain + "…" } else { plain }
}

const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
const LENGTH_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_with_its_type() {
        let problem = |detail: &str| -> Problem {
            serde_json::from_value(serde_json::json!({
                "type": "urn:ietf:params:acme:error:connection", "detail": detail, "status": 400,
            }))
            .unwrap()
        };
        assert_eq!(in_words(&problem("no\nanswer\u{1b}[0m")), "urn:ietf:params:acme:error:connection: no answer [0m");
        assert_eq!(in_words(&problem(&"x".repeat(5000))).chars().count(), LENGTH_MAX + 1);
    }

    #[test]
    fn an_account_that_is_not_known_is_told_apart() {
        let problem: Problem = serde_json::from_value(serde_json::json!({ "type": NO_ACCOUNT, "detail": "who?" })).unwrap();
        assert!(matches!(Trouble::from(Error::Api(problem)), Trouble::NoAccount(said) if said.ends_with("who?")));
    }
}
