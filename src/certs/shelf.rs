//! The files of one listener.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use tracing::warn;

use super::RejectedFile;
use crate::config::{CertificateFiles, FileStamp, Listener, TlsConfig, read_authorities};
use crate::model::{Certificate, Change, ListenerCertificates};

pub struct Shelf {
    listener: usize,
    address: SocketAddr,
    pairs: Vec<Kept<CertificateFiles, Arc<Certificate>>>,
    client_ca: Option<Kept<PathBuf, Arc<RootCertStore>>>,
    /// What is offered differs from what the files say.
    is_stale: bool,
}

/// What one setting names, and the last good thing that was found there.
struct Kept<F, T> {
    files: F,
    good: Option<T>,
    /// At the last read.
    read_at: Option<Stamps>,
    /// At the last look, if that was different.
    seen_at: Option<Stamps>,
    /// What was wrong at the last read.
    trouble: Option<String>,
}

/// Of each file.
type Stamps = Vec<Option<FileStamp>>;

impl Shelf {
    /// `None` of a listener without TLS.
    pub fn new(listener: usize, config: &Listener) -> Option<Self> {
        let tls = config.tls.as_ref()?;
        let mut shelf = Self { listener, address: config.address, pairs: Vec::new(), client_ca: None, is_stale: true };
        shelf.list(tls);
        Some(shelf)
    }

    pub fn take_over(&mut self, listeners: &[Listener]) {
        let same = listeners.iter().find(|listener| listener.address == self.address);
        if let Some(tls) = same.and_then(|listener| listener.tls.as_ref()) {
            self.list(tls);
        }
    }

    /// Keeps what is known of files that are still named.
    fn list(&mut self, tls: &TlsConfig) {
        let mut before = std::mem::take(&mut self.pairs);
        let n_before = before.len();
        for files in &tls.certificates {
            let known = before.iter().position(|kept| kept.files == *files);
            self.is_stale |= known != Some(0);
            self.pairs.push(known.map_or_else(|| Kept::new(files.clone()), |at| before.remove(at)));
        }
        self.is_stale |= n_before != self.pairs.len();
        let known = self.client_ca.take().filter(|kept| Some(&kept.files) == tls.client_ca.as_ref());
        self.client_ca = known.or_else(|| tls.client_ca.clone().map(Kept::new));
    }

    pub fn look(&mut self, at_once: bool, now: SystemTime) -> Option<Change> {
        for kept in &mut self.pairs {
            let stamps = [&kept.files.chain, &kept.files.key].map(|path| FileStamp::of(path)).to_vec();
            self.is_stale |= kept.look(stamps, at_once, |files| {
                let (certificate, odd) = files.read(now).map_err(|wrong| wrong.join("; "))?;
                for oddity in odd {
                    warn!(oddity, "A certificate is odd, but served");
                }
                Ok(Arc::new(certificate))
            });
        }
        if let Some(kept) = &mut self.client_ca {
            let stamps = vec![FileStamp::of(&kept.files)];
            self.is_stale |= kept.look(stamps, at_once, |path| read_authorities(path));
        }
        if !std::mem::take(&mut self.is_stale) {
            return None;
        }
        let certificates = ListenerCertificates {
            own: self.pairs.iter().filter_map(|kept| kept.good.clone()).collect(),
            client_authorities: self.client_ca.as_ref().and_then(|kept| kept.good.clone()),
        };
        Some(Change::ListenerCertificates { listener: self.listener, certificates: Arc::new(certificates) })
    }

    pub fn rejected(&self) -> Vec<RejectedFile> {
        let pairs = self.pairs.iter().filter_map(|kept| Some((&kept.files.chain, kept.trouble.as_ref()?)));
        let client_ca = self.client_ca.iter().filter_map(|kept| Some((&kept.files, kept.trouble.as_ref()?)));
        let rejected =
            |(file, reason): (&PathBuf, &String)| RejectedFile { file: file.display().to_string(), reason: reason.clone() };
        pairs.chain(client_ca).map(rejected).collect()
    }
}

impl<F, T> Kept<F, T> {
    fn new(files: F) -> Self {
        Self { files, good: None, read_at: None, seen_at: None, trouble: None }
    }

    /// Whether there is something new and good.
    fn look(&mut self, now: Stamps, at_once: bool, read: impl FnOnce(&F) -> Result<T, String>) -> bool {
        if self.read_at.as_ref() == Some(&now) {
            self.seen_at = None;
            return false;
        }
        if !at_once && self.seen_at.as_ref() != Some(&now) {
            // Whoever writes it may not have written all.
            self.seen_at = Some(now);
            return false;
        }
        (self.read_at, self.seen_at) = (Some(now), None);
        match read(&self.files) {
            Ok(good) => {
                self.good = Some(good);
                self.trouble = None;
                true
            }
            Err(reason) => {
                let serving = if self.good.is_some() { "what was there before" } else { "nothing" };
                warn!(reason, serving, "A certificate file was not taken over");
                self.trouble = Some(reason);
                false
            }
        }
    }
}
