//! The last applied state on disk, for a start while etcd is away.
//!
//! One line of JSON says what follows (format, prefix, revision, counts, checksum); then each record as lengths, revision,
//! key and value. The file is replaced whole: written beside, synced, renamed. It may hold private keys of certificates, so
//! only its owner can read it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::{Value, json};

use super::reflector::{Bytes, Record};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub prefix: String,
    pub revision: u64,
    /// In the order of their keys.
    pub records: Vec<Record>,
}

/// Why a file cannot be used.
#[derive(Debug)]
pub enum SnapshotError {
    Io(io::Error),
    TooLarge,
    /// Cut short, or not a snapshot at all.
    Malformed,
    Format {
        found: Option<u64>,
    },
    Checksum,
    Prefix {
        found: String,
    },
}

impl Snapshot {
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let body = self.body();
        let head = json!({
            "pointsman_snapshot": FORMAT,
            "prefix": self.prefix,
            "revision": self.revision,
            "records": self.records.len(),
            "checksum": format!("{:016x}", checksum(&body)),
        });
        // Files of sources differ from our own only behind its name; during an upgrade two processes write the same.
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}.tmp", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        writeln!(file, "{head}")?;
        file.write_all(&body)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // The rename itself is only on disk once its directory is.
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }

    /// `None` when there is no file.
    pub fn load(path: &Path, prefix: &str) -> Result<Option<Self>, SnapshotError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SnapshotError::Io(error)),
        };
        let mut bytes = Vec::new();
        file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(SnapshotError::Io)?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(SnapshotError::TooLarge);
        }
        Self::parse(&bytes, prefix).map(Some)
    }

    fn parse(bytes: &[u8], prefix: &str) -> Result<Self, SnapshotError> {
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(SnapshotError::Malformed)?;
        let (head, body) = (&bytes[..end], &bytes[end + 1..]);
        let head: Value = serde_json::from_slice(head).map_err(|_| SnapshotError::Malformed)?;
        let format = head["pointsman_snapshot"].as_u64();
        if format != Some(FORMAT) {
            return Err(SnapshotError::Format { found: format });
        }
        if head["checksum"].as_str() != Some(&format!("{:016x}", checksum(body))) {
            return Err(SnapshotError::Checksum);
        }
        let found = head["prefix"].as_str().ok_or(SnapshotError::Malformed)?;
        if found != prefix {
            return Err(SnapshotError::Prefix { found: found.to_owned() });
        }
        let revision = head["revision"].as_u64().ok_or(SnapshotError::Malformed)?;
        let mut rest = body;
        let records: Option<Vec<Record>> = std::iter::from_fn(|| (!rest.is_empty()).then(|| take_record(&mut rest))).collect();
        let records = records.ok_or(SnapshotError::Malformed)?;
        Ok(Self { prefix: found.to_owned(), revision, records })
    }

    fn body(&self) -> Vec<u8> {
        let size = self.records.iter().map(|record| RECORD_HEAD + record.key.len() + record.value.len()).sum();
        let mut body = Vec::with_capacity(size);
        for record in &self.records {
            body.extend((record.key.len() as u32).to_le_bytes());
            body.extend((record.value.len() as u32).to_le_bytes());
            body.extend(record.revision.to_le_bytes());
            body.extend(&*record.key);
            body.extend(&*record.value);
        }
        body
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::TooLarge => write!(f, "it is larger than {FILE_MAX} bytes"),
            Self::Malformed => f.write_str("it is no snapshot, or was cut short"),
            Self::Format { found: Some(found) } => write!(f, "it has format {found}; this version reads {FORMAT}"),
            Self::Format { found: None } => f.write_str("it names no format"),
            Self::Checksum => f.write_str("its checksum is wrong"),
            Self::Prefix { found } => write!(f, "it was taken of prefix {found:?}"),
        }
    }
}

impl std::error::Error for SnapshotError {}

fn take_record(rest: &mut &[u8]) -> Option<Record> {
    let mut take = |n: usize| -> Option<&[u8]> {
        let (taken, left) = rest.split_at_checked(n)?;
        *rest = left;
        Some(taken)
    };
    let key_len = u32::from_le_bytes(take(4)?.try_into().ok()?) as usize;
    let value_len = u32::from_le_bytes(take(4)?.try_into().ok()?) as usize;
    let revision = u64::from_le_bytes(take(8)?.try_into().ok()?);
    let key: Bytes = take(key_len)?.into();
    Some(Record { key, value: take(value_len)?.into(), revision, lease: None })
}

/// FNV-1a. It is there to notice a torn or rotten file, not an attacker: who can write the file can write anything.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

const FORMAT: u64 = 1;
const RECORD_HEAD: usize = 16;
/// Over a million instances.
const FILE_MAX: u64 = 1024 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn some() -> Snapshot {
        let record =
            |key: &str, value: &[u8], revision| Record { key: key.as_bytes().into(), value: value.into(), revision, lease: None };
        let records = vec![record("/p/a", b"10.0.0.1:1", 3), record("/p/b", b"", u64::MAX), record("/p/c", b"\n\xff", 1)];
        Snapshot { prefix: "/p".to_owned(), revision: 9, records }
    }

    #[test]
    fn what_is_saved_is_loaded_and_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.snapshot");
        assert!(Snapshot::load(&path, "/p").unwrap().is_none());
        some().save(&path).unwrap();
        let smaller = Snapshot { records: some().records[..1].to_vec(), ..some() };
        smaller.save(&path).unwrap();
        assert_eq!(Snapshot::load(&path, "/p").unwrap(), Some(smaller));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_was_cut_or_changed_anywhere_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot");
        some().save(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        assert_eq!(Snapshot::parse(&whole, "/p").unwrap(), some());
        for end in 0..whole.len() {
            assert!(Snapshot::parse(&whole[..end], "/p").is_err(), "cut at {end}");
        }
        let body = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for at in body..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(matches!(Snapshot::parse(&changed, "/p"), Err(SnapshotError::Checksum)), "changed at {at}");
        }
        assert!(matches!(Snapshot::parse(&whole, "/q"), Err(SnapshotError::Prefix { .. })));
        let newer = String::from_utf8_lossy(&whole).replace(r#""pointsman_snapshot":1"#, r#""pointsman_snapshot":2"#);
        assert!(matches!(Snapshot::parse(newer.as_bytes(), "/p"), Err(SnapshotError::Format { found: Some(2) })));
    }
}
