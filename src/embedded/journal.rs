//! What survives the process: one `redb` file with the live keys, the leases and where revisions may continue.
//!
//! - `keys` and `leases` hold the present only; history starts anew with each process.
//! - `meta/reserved` is a revision no process has gone beyond. It is moved on in steps, in a commit, before any
//!   revision above it is handed out. After an unclean stop revisions begin there, so they never go backwards, not even
//!   for who saw a change that had not reached the disk.
//! - `meta/clean` is set by an orderly stop only; then revisions go on where they were and no client has to list again.
//! - `meta/term` counts the processes. It plays the part of etcd's raft term.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use super::kv::Kv;
use super::state::{Saved, Unsaved};

pub struct Journal {
    path: PathBuf,
    database: Database,
    reserved: i64,
}

/// Who we are to clients: they compare these to notice that they talk to another registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster_id: u64,
    pub member_id: u64,
    pub term: u64,
}

impl Identity {
    pub fn random() -> Self {
        Self { cluster_id: fastrand::u64(1..), member_id: fastrand::u64(1..), term: FIRST_TERM }
    }
}

impl Journal {
    /// Opens or creates the file in `dir`, and says what it holds; `None` when it is new.
    pub fn open(dir: &Path) -> Result<(Self, Identity, Option<Saved>), OpenError> {
        let path = dir.join(FILE_NAME);
        std::fs::create_dir_all(dir).map_err(|source| OpenError::Directory { path: dir.into(), source })?;
        let failed = |source| OpenError::Unreadable { path: path.clone(), source };
        let database = open_database(&path).map_err(|source| match source {
            DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.clone() },
            source => failed(source.into()),
        })?;
        let (identity, saved) = match read_meta(&database).map_err(failed)? {
            None => (Identity::random(), None),
            Some(meta) if meta.format != FORMAT => {
                return Err(OpenError::Format { path, found: meta.format });
            }
            Some(meta) => {
                let term = meta.identity.term + 1;
                let saved = read_saved(&database, meta.resume_at).map_err(failed)?;
                (Identity { term, ..meta.identity }, Some(saved))
            }
        };
        let revision = saved.as_ref().map_or(1, |saved| saved.revision);
        let journal = Self { path: path.clone(), database, reserved: revision + RESERVE_STEP };
        journal.begin(identity).map_err(failed)?;
        Ok((journal, identity, saved))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The revision that is durably reserved.
    pub fn reserved(&self) -> i64 {
        self.reserved
    }

    /// Saves changes durably, in one commit, and reserves more revisions when they run low.
    /// With `clean`, the next process goes on at exactly this revision.
    pub fn save(&mut self, unsaved: &Unsaved, clean: bool) -> Result<(), redb::Error> {
        let left = self.reserved - unsaved.revision;
        let reserved = if left < RESERVE_STEP / 2 { unsaved.revision + RESERVE_STEP } else { self.reserved };
        let write = self.database.begin_write()?;
        {
            let mut keys = write.open_table(KEYS)?;
            for (key, kv) in &unsaved.kvs {
                if kv.is_tombstone() {
                    keys.remove(&**key)?;
                } else {
                    let record = (kv.create_revision, kv.mod_revision, kv.version, kv.lease, &*kv.value);
                    keys.insert(&**key, record)?;
                }
            }
            let mut leases = write.open_table(LEASES)?;
            for (id, ttl) in &unsaved.leases {
                match ttl {
                    Some(ttl) => leases.insert(id, ttl.as_secs())?,
                    None => leases.remove(id)?,
                };
            }
            let mut meta = write.open_table(META)?;
            meta.insert("revision", unsaved.revision)?;
            meta.insert("reserved", reserved)?;
            meta.insert("clean", i64::from(clean))?;
        }
        write.commit()?;
        self.reserved = reserved;
        Ok(())
    }

    /// Opens the file again: after a failed write `redb` refuses everything until then.
    pub fn reopen(path: &Path, reserved: i64) -> Result<Self, redb::Error> {
        Ok(Self { path: path.into(), database: open_database(path)?, reserved })
    }

    /// From here on a stop is unclean unless it says otherwise.
    fn begin(&self, identity: Identity) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        {
            write.open_table(KEYS)?;
            write.open_table(LEASES)?;
            let mut meta = write.open_table(META)?;
            meta.insert("format", FORMAT)?;
            meta.insert("cluster_id", identity.cluster_id.cast_signed())?;
            meta.insert("member_id", identity.member_id.cast_signed())?;
            meta.insert("term", identity.term.cast_signed())?;
            meta.insert("reserved", self.reserved)?;
            meta.insert("clean", 0)?;
        }
        write.commit()?;
        Ok(())
    }
}

struct Meta {
    format: i64,
    identity: Identity,
    resume_at: i64,
}

fn open_database(path: &Path) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE_BYTES).create(path)
}

fn read_meta(database: &Database) -> Result<Option<Meta>, redb::Error> {
    let read = database.begin_read()?;
    let meta = match read.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(other) => return Err(other.into()),
    };
    let get = |name: &str| -> Result<i64, redb::Error> { Ok(meta.get(name)?.map_or(0, |value| value.value())) };
    let identity = Identity {
        cluster_id: get("cluster_id")?.cast_unsigned(),
        member_id: get("member_id")?.cast_unsigned(),
        term: get("term")?.cast_unsigned(),
    };
    let resume_at = if get("clean")? == 1 { get("revision")? } else { get("reserved")? };
    Ok(Some(Meta { format: get("format")?, identity, resume_at }))
}

fn read_saved(database: &Database, revision: i64) -> Result<Saved, redb::Error> {
    let read = database.begin_read()?;
    let mut saved = Saved { revision, ..Saved::default() };
    for entry in read.open_table(LEASES)?.iter()? {
        let (id, ttl_s) = entry?;
        saved.leases.push((id.value(), Duration::from_secs(ttl_s.value())));
    }
    for entry in read.open_table(KEYS)?.iter()? {
        let (key, record) = entry?;
        let (create_revision, mod_revision, version, lease, value) = record.value();
        saved.kvs.push(Kv {
            key: key.value().to_vec().into(),
            value: value.to_vec().into(),
            create_revision,
            mod_revision,
            version,
            lease,
        });
    }
    Ok(saved)
}

/// Why the registry's file cannot be used, for who has to make it usable.
#[derive(Debug)]
pub enum OpenError {
    Directory { path: PathBuf, source: io::Error },
    InUse { path: PathBuf },
    Format { path: PathBuf, found: i64 },
    Unreadable { path: PathBuf, source: redb::Error },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { path, source } => {
                write!(f, "the registry's directory {} cannot be created: {source}", path.display())
            }
            Self::InUse { path } => write!(
                f,
                "the registry's file {} is in use by another process: stop that one, or give this one a directory of its own",
                path.display()
            ),
            Self::Format { path, found } => write!(
                f,
                "the registry's file {} has format {found}, this version reads format {FORMAT}: start with an empty directory, \
                 or with the version that wrote it",
                path.display()
            ),
            Self::Unreadable { path, source } => write!(
                f,
                "the registry's file {} cannot be read: {source}; if it is damaged, move it away: services register again by themselves",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory { source, .. } => Some(source),
            Self::Unreadable { source, .. } => Some(source),
            Self::InUse { .. } | Self::Format { .. } => None,
        }
    }
}

const KEYS: TableDefinition<&[u8], Record> = TableDefinition::new("keys");
/// Create revision, mod revision, version, lease, value.
type Record = (i64, i64, i64, i64, &'static [u8]);
/// Lease to its time to live in seconds.
const LEASES: TableDefinition<i64, u64> = TableDefinition::new("leases");
const META: TableDefinition<&str, i64> = TableDefinition::new("meta");
const FILE_NAME: &str = "registry.redb";
const FORMAT: i64 = 1;
/// Revisions reserved ahead. An unclean stop skips at most this many, of 2^63.
pub const RESERVE_STEP: i64 = 10_000;
/// Everything lives in memory anyway; the file is read once.
const CACHE_BYTES: usize = 16 << 20;
/// What a fresh etcd with one member shows.
const FIRST_TERM: u64 = 2;
