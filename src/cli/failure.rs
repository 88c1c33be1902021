//! Why a command did not do what it was asked, and the exit code that says so.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::Problems;
use crate::fetch::FetchError;
use crate::import::ImportError;
use crate::registrar::RegisterError;
use crate::registry::StoreError;
use crate::wire::Problem;

#[derive(Debug)]
pub enum Failure {
    /// It was called in a way that means nothing.
    Usage(String),
    /// The file, the variables or the flags are wrong; one line for each mistake.
    Config(Problems),
    Registry(StoreError),
    /// What is to be written is wrong, in all these ways.
    Record {
        key: String,
        problems: Vec<Problem>,
    },
    Missing(String),
    /// What was waited for did not come; who is still missing.
    TimedOut {
        after: Duration,
        waiting_for: String,
    },
    Admin {
        address: String,
        source: FetchError,
    },
    /// A token has to be shown; whether one was.
    Unauthorized {
        address: String,
        shown: bool,
    },
    AdminRefused {
        address: String,
        status: u16,
        body: String,
    },
    Io {
        path: PathBuf,
        source: io::Error,
    },
    Register(RegisterError),
    /// What is to be imported cannot be read.
    Import(ImportError),
    /// The proxy cannot start.
    Start(Box<dyn std::error::Error + Send + Sync>),
    Runtime(io::Error),
}

impl Failure {
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Usage(_)) { 2 } else { 1 }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Missing(message) => f.write_str(message),
            Self::Config(problems) => problems.fmt(f),
            Self::Registry(error) => error.fmt(f),
            Self::Record { key, problems } => {
                let problems: Vec<String> = problems.iter().map(|problem| format!("{key}: {problem}")).collect();
                write!(f, "{}\nnothing was written", problems.join("\n"))
            }
            Self::TimedOut { after, waiting_for } => {
                write!(f, "not done after {}: {waiting_for}", humantime::format_duration(*after))
            }
            Self::Admin { address, source } => {
                write!(f, "{address}: {source}; does a proxy run there? (--admin ADDRESS names another)")
            }
            Self::Unauthorized { address, shown: false } => {
                write!(f, "{address} wants to be shown a token: name its file with --token-file or POINTSMAN_ADMIN_TOKEN_FILE")
            }
            Self::Unauthorized { address, shown: true } => {
                write!(f, "{address} does not take this token; is it the first in the proxy's admin.token_file?")
            }
            Self::AdminRefused { address, status, body } => write!(f, "{address} answered {status}: {body}"),
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Register(error) => error.fmt(f),
            Self::Import(error) => error.fmt(f),
            Self::Start(error) => error.fmt(f),
            Self::Runtime(error) => write!(f, "cannot start the runtime: {error}"),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Registry(error)
    }
}
