//! What an instance was told to do with every request, whatever its path: so that a whole instance can hang, fail or
//! refuse, and whoever stands before it can be watched. Health, `/drain` and `/behave` itself are spared.

use std::fmt;
use std::str::FromStr;

use super::asked::Asked;

/// One of [`KNOWN`] and its numbers, as in `fail&status=502`.
#[derive(Clone, Debug)]
pub struct Behaviour {
    what: &'static str,
    query: String,
}

impl Behaviour {
    pub fn asked(&self) -> Asked<'_> {
        Asked { what: self.what, query: &self.query }
    }

    /// No listening socket, and no connection that is kept.
    pub fn refuses(&self) -> bool {
        self.what == REFUSE
    }
}

impl FromStr for Behaviour {
    type Err = String;

    fn from_str(said: &str) -> Result<Self, String> {
        let (what, query) = said.split_once('&').unwrap_or((said, ""));
        match KNOWN.iter().find(|known| **known == what) {
            Some(what) => Ok(Self { what, query: query.to_owned() }),
            None => Err(format!("{what:?} is none of {}", KNOWN.join(", "))),
        }
    }
}

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.what, if self.query.is_empty() { "" } else { "&" }, self.query)
    }
}

pub const REFUSE: &str = "refuse";
/// Each but the last is what a path of this name does to one request.
const KNOWN: [&str; 8] = ["slow", "fail", "flaky", "flap", "hang", "break", "close", REFUSE];
