//! What a request asks for: one word, and the numbers that go with it.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use http::{StatusCode, Uri};

#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub what: &'a str,
    /// `name=value&…`
    pub query: &'a str,
}

/// Says which number could not be read, and why.
pub struct Malformed(pub String);

impl<'a> Asked<'a> {
    /// The **last** segment of the path counts, so the service works the same behind `/`, `/users` or `/shop/users`:
    /// a proxy need not take the prefix away.
    pub fn of(uri: &'a Uri) -> Self {
        Self { what: uri.path().rsplit('/').next().unwrap_or_default(), query: uri.query().unwrap_or_default() }
    }

    pub fn word(&self, name: &str) -> Option<&'a str> {
        self.query.split('&').filter_map(|field| field.split_once('=')).find(|(field, _)| *field == name).map(|(_, said)| said)
    }

    pub fn number<T>(&self, name: &str, default: T) -> Result<T, Malformed>
    where
        T: FromStr<Err: Display>,
    {
        let Some(said) = self.word(name) else { return Ok(default) };
        said.parse().map_err(|error| Malformed(format!("{name}: {said:?}: {error}\n")))
    }

    pub fn millis(&self, name: &str, default: u64) -> Result<Duration, Malformed> {
        self.number(name, default).map(Duration::from_millis)
    }

    pub fn status(&self, default: StatusCode) -> Result<StatusCode, Malformed> {
        let code = self.number("status", default.as_u16())?;
        // 1xx are not final answers, so nobody could be answered with one.
        StatusCode::from_u16(code)
            .ok()
            .filter(|status| !status.is_informational())
            .ok_or_else(|| Malformed(format!("status: {code} is not in 200..=999\n")))
    }
}
