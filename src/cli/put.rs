//! `pointsman put`: checks a record as a proxy would, then writes it.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::global::{Global, block_on};
use super::noun::Noun;
use super::print;
use crate::registry::Record;
use crate::wire::Problem;

#[derive(Debug, Args)]
#[command(after_help = "\
Every problem is named, and a record with one is not written. The revision it prints is one to wait for.

Examples:
  echo 10.0.0.5:8080 | pointsman put instance orders/a1 -
  pointsman put service orders orders.json
  echo '{\"hosts\":[\"shop.example\"],\"path_prefix\":\"/api\",\"service\":\"orders\"}' | pointsman put route shop
  cat shop.pem shop.key | pointsman put certificate shop
  pointsman wait --revision $(pointsman put route shop shop.json)")]
pub struct PutArgs {
    /// What to write
    noun: Noun,
    /// Its name; of an instance SERVICE/ID
    name: String,
    /// The record; - or nothing is the standard input
    file: Option<PathBuf>,
}

impl PutArgs {
    pub fn execute(self, global: &Global) -> Result<ExitCode, Failure> {
        let key = self.noun.key(&self.name)?;
        let mut value = match &self.file {
            Some(file) if file != Path::new("-") => read(file)?,
            _ => read_stdin()?,
        };
        // The line end that editors and echo add is not part of the record.
        value.truncate(value.trim_ascii_end().len());
        if self.noun == Noun::Certificate && value.starts_with(b"-----BEGIN ") {
            value = of_pem(&value);
        }
        let warnings = match Record::read(&key, &value) {
            Ok(parsed) => parsed.warnings,
            Err(problems) if global.json => {
                print::json(&json!({"problems": problems.iter().map(problem_json).collect::<Vec<_>>()}));
                return Ok(ExitCode::FAILURE);
            }
            Err(problems) => return Err(Failure::Record { key: self.name, problems }),
        };
        block_on(async {
            let revision = global.store().await?.put(&key, &value).await?;
            if global.json {
                let warnings: Vec<_> = warnings.iter().map(problem_json).collect();
                print::json(&json!({"revision": revision, "warnings": warnings}));
                return Ok(ExitCode::SUCCESS);
            }
            for warning in &warnings {
                print::note(&format!("warning: {}: {warning}", self.name));
            }
            print::out(&format!("{revision}\n"));
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// The record of a PEM text that holds certificates and key, in whatever order.
fn of_pem(text: &[u8]) -> Vec<u8> {
    let (mut chain, mut key, mut is_key) = (String::new(), String::new(), false);
    for line in String::from_utf8_lossy(text).lines() {
        if let Some(kind) = line.trim().strip_prefix("-----BEGIN ") {
            is_key = kind.contains("PRIVATE KEY");
        }
        let part = if is_key { &mut key } else { &mut chain };
        part.push_str(line);
        part.push('\n');
    }
    json!({"chain": chain, "key": key}).to_string().into_bytes()
}

pub fn problem_json(problem: &Problem) -> serde_json::Value {
    json!({"path": problem.path, "line": problem.line, "message": problem.message})
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let opened = std::fs::File::open(file);
    opened.and_then(read_all).map_err(|source| Failure::Io { path: file.to_owned(), source })
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::Usage("what is to be written? name a FILE, or send it to the standard input".to_owned()));
    }
    read_all(stdin).map_err(|source| Failure::Io { path: "standard input".into(), source })
}

fn read_all(from: impl Read) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    from.take(VALUE_MAX).read_to_end(&mut value)?;
    Ok(value)
}

/// Some more than the longest record, so that what is too long is still told so.
const VALUE_MAX: u64 = 1024 * 1024;
