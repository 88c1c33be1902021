//! What can be said of a file without reading it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// As long as it is the same, so is what was read: when the file was changed, its length, and which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    changed: (i64, i64),
    length: u64,
    inode: u64,
}

impl FileStamp {
    /// `None` if it is not there.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        Some(Self { changed: (metadata.ctime(), metadata.ctime_nsec()), length: metadata.len(), inode: metadata.ino() })
    }
}

/// What to say of a file with a secret that more than its owner and group can read.
pub(super) fn open_to_all(path: &Path) -> Option<String> {
    let is_open = path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0);
    is_open.then(|| format!("{} can be read by everybody on this machine; chmod 640 takes that away", path.display()))
}
