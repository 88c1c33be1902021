//! `pointsman import`: what nginx or confd were told, in our words.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::failure::Failure;
use super::global::Global;
use super::print;
use crate::import::{Files, Finding, Import, ImportError, Weight, confd, fits, nginx};

#[derive(Debug, Args)]
#[command(after_help = "\
What is printed can be read by pointsman check and pointsman run; what could not be carried over is listed on stderr, each
with its file and line, why, and what to do instead. Exit code 0 if all was carried over, 3 if something was not, 1 if there
was nothing to read.

Examples:
  pointsman import nginx /etc/nginx/nginx.conf > pointsman.toml
  pointsman import nginx /etc/nginx/nginx.conf --confd /etc/confd > pointsman.toml
  pointsman import nginx /etc/nginx/nginx.conf --print records | sh
  pointsman import confd /etc/confd/conf.d/*.toml")]
pub struct ImportArgs {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    /// A configuration of nginx, with all that it includes
    #[command(after_help = "Examples:\n  pointsman import nginx /etc/nginx/nginx.conf > pointsman.toml")]
    Nginx {
        /// The file that nginx begins with
        file: PathBuf,
        /// confd's folder: upstreams that it renders become sources of the registry
        #[arg(long, value_name = "FOLDER")]
        confd: Option<PathBuf>,
        #[command(flatten)]
        shared: Shared,
    },
    /// Template resources of confd, as sources of the registry
    #[command(after_help = "Examples:\n  pointsman import confd /etc/confd/conf.d/*.toml")]
    Confd {
        /// Resources (conf.d/*.toml); their templates are in ../templates
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        shared: Shared,
    },
}

#[derive(Debug, Args)]
struct Shared {
    /// What to print
    #[arg(long, value_enum, default_value_t = Printed::File, value_name = "WHAT")]
    print: Printed,
    /// Print nothing, with exit code 3, unless all was carried over and acts the same
    #[arg(long)]
    strict: bool,
    /// Leave out what needs no counterpart
    #[arg(long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Printed {
    /// One configuration file with everything
    File,
    /// A configuration file without services and routes
    Settings,
    /// Services and routes as commands that put them into the registry
    Records,
}

impl ImportArgs {
    pub fn execute(self, global: &Global) -> Result<ExitCode, Failure> {
        let (import, shared) = match self.from {
            From::Nginx { file, confd: None, shared } => (nginx(&Disk, &shown(&file), &[]), shared),
            From::Nginx { file, confd: Some(folder), shared } => (both(&file, &folder), shared),
            From::Confd { files, shared } => (confd(&Disk, &files.iter().map(|file| shown(file)).collect::<Vec<_>>()), shared),
        };
        let import = import.map_err(Failure::Import)?;
        let findings = import.findings();
        let has = |weight: Weight| findings.iter().any(|finding| finding.weight == weight);
        let is_whole = !(has(Weight::Lost) || shared.strict && has(Weight::Differs));
        if global.json {
            print::json(&import.json());
        } else {
            if is_whole || !shared.strict {
                print::out(&match shared.print {
                    Printed::File => import.file(true),
                    Printed::Settings => import.file(false),
                    Printed::Records => import.commands(),
                });
            }
            tell(&findings, shared.quiet);
        }
        Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::from(NOT_WHOLE) })
    }
}

fn both(file: &Path, folder: &Path) -> Result<Import, ImportError> {
    let resources = Disk.fitting(&format!("{}/conf.d/*.toml", shown(folder))).unwrap_or_default();
    let from_confd = confd(&Disk, &resources)?;
    let import = nginx(&Disk, &shown(file), from_confd.sources())?;
    Ok(import.with(from_confd))
}

fn tell(findings: &[Finding], quiet: bool) {
    let told = findings.iter().filter(|finding| !quiet || finding.weight != Weight::Note);
    told.for_each(|finding| print::note(&finding.to_string()));
    let n = |weight: Weight| findings.iter().filter(|finding| finding.weight == weight).count();
    let (lost, differs, notes) = (n(Weight::Lost), n(Weight::Differs), n(Weight::Note));
    print::note(&format!("{lost} not carried over, {differs} that differ, {notes} that need no counterpart"));
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The files of this machine.
struct Disk;

impl Files for Disk {
    fn read(&self, path: &str) -> Result<String, String> {
        let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
        if size > FILE_MAX {
            return Err(format!("it has {size} bytes; at most {FILE_MAX} are read"));
        }
        fs::read_to_string(path).map_err(|error| error.to_string())
    }

    fn fitting(&self, pattern: &str) -> Result<Vec<String>, String> {
        let mut found: BTreeSet<PathBuf> = BTreeSet::from([PathBuf::from(if pattern.starts_with('/') { "/" } else { "" })]);
        for segment in pattern.split('/').filter(|segment| !segment.is_empty()) {
            found = found.into_iter().flat_map(|folder| inside(&folder, segment)).collect();
        }
        Ok(found.into_iter().filter(|path| path.is_file()).map(|path| shown(&path)).collect())
    }
}

/// What in `folder` fits a segment of a pattern.
fn inside(folder: &Path, segment: &str) -> Vec<PathBuf> {
    if !segment.contains(['*', '?', '[']) {
        return Some(folder.join(segment)).filter(|path| path.exists()).into_iter().collect();
    }
    let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = fs::read_dir(listed).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| fits(segment, name)).map(|name| folder.join(name)).collect()
}

/// Something was not carried over.
const NOT_WHOLE: u8 = 3;
/// Nobody writes more by hand, and a map of redirects may be long.
const FILE_MAX: u64 = 16 * 1024 * 1024;
