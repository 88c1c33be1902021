//! What the renewer does while it is its turn: look when the next order is due, wait, place it, write down what came of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instant_acme::Account;
use tokio::time::timeout;
use tracing::{info, warn};

use super::account::account;
use super::directory::Directory;
use super::order::{Board, Made, place};
use super::plan::{self, Due};
use super::run::Status;
use super::trouble::Trouble;
use crate::config::{AcmeCertificate, AcmeConfig};
use crate::model::{AcmeOrder, AcmeOrderState, Certificate, CertificateName, CertificateSource, CertificateSpec, InstanceId};
use crate::registry::{Committed, Key, Locked, LockedEdit, Record};
use crate::tls::{self, Pem};
use crate::wire::{acme_order_json, certificate_json};

pub struct Renewer {
    pub config: AcmeConfig,
    pub directory: Directory,
    /// As which this proxy announces itself.
    pub me: InstanceId,
    pub status: Arc<Status>,
}

/// One turn of it.
struct Turn<'a> {
    of: &'a Renewer,
    locked: &'a Locked,
    account: Option<Account>,
}

impl Renewer {
    /// Goes on until the turn is over; says why.
    pub async fn work(&self, locked: &Locked) -> Trouble {
        let mut turn = Turn { of: self, locked, account: None };
        if let Err(trouble) = turn.tidy().await {
            return trouble;
        }
        loop {
            match turn.look().await {
                Ok(wait) => tokio::time::sleep(wait).await,
                Err(trouble) => return trouble,
            }
        }
    }
}

impl Turn<'_> {
    /// Forgets what became of orders that nobody wants any more. Their certificates stay until somebody deletes them.
    async fn tidy(&self) -> Result<(), Trouble> {
        let is_wanted = |name: &CertificateName| self.of.config.certificates.iter().any(|wanted| wanted.name == *name);
        let known = self.locked.list("/acme/orders/").await?;
        let stale = known.into_iter().filter(|(key, _)| !matches!(key, Key::AcmeOrder(name) if is_wanted(name)));
        for (key, _) in stale {
            self.commit(vec![LockedEdit::Delete(key)]).await?;
        }
        Ok(())
    }

    /// Places the orders that are due, one after the other. How long to wait until the next look.
    async fn look(&mut self) -> Result<Duration, Trouble> {
        let mut wait = LOOK_EVERY;
        for wanted in &self.of.config.certificates {
            let (held, last) = self.read(wanted).await?;
            let due = plan::due(&self.of.config, wanted, held.as_ref(), last.as_ref());
            match due.at.duration_since(SystemTime::now()) {
                Ok(left) => wait = wait.min(left),
                Err(_) => {
                    self.order(wanted, due, last.as_ref()).await?;
                    wait = Duration::ZERO;
                }
            }
        }
        Ok(wait.max(LOOK_PAUSE))
    }

    /// The certificate and what became of the last order, as the registry has them. What cannot be read counts as absent.
    async fn read(&self, wanted: &AcmeCertificate) -> Result<(Option<Certificate>, Option<AcmeOrder>), Trouble> {
        let read = async |key: Key| {
            let value = self.locked.get(&key).await?;
            Ok::<_, Trouble>(value.and_then(|value| Record::read(&key, &value).ok()).map(|parsed| parsed.value))
        };
        let held = match read(Key::Certificate(registry_name(wanted)?)).await? {
            Some(Record::Certificate(certificate)) => Some(*certificate),
            _ => None,
        };
        let last = match read(Key::AcmeOrder(wanted.name.clone())).await? {
            Some(Record::AcmeOrder(order)) => Some(*order),
            _ => None,
        };
        Ok((held, last))
    }

    /// `Err` ends the turn; an order that fails does not.
    async fn order(&mut self, wanted: &AcmeCertificate, due: Due, last: Option<&AcmeOrder>) -> Result<(), Trouble> {
        let (certificate, domains) = (&wanted.name, wanted.domains.join(" "));
        info!(%certificate, domains, reason = %due.reason, directory = self.of.config.directory, "Ordering a certificate");
        let n_failed = last.map_or(0, |last| last.n_failed);
        let pending = self.of.about(wanted, AcmeOrderState::Pending, n_failed);
        let pending = AcmeOrder { error: last.and_then(|last| last.error.clone()), ..pending };
        self.commit(vec![note(wanted, &pending)]).await?;
        let mut board = Board { locked: self.locked, me: &self.of.me, put: Vec::new() };
        let made = timeout(ORDER_WITHIN, self.ask(wanted, &mut board)).await;
        let made = made.unwrap_or_else(|_| Err(Trouble::Directory(format!("the order was not done within {ORDER_WITHIN:?}"))));
        let mut edits: Vec<LockedEdit> =
            board.put.into_iter().map(|token| LockedEdit::Delete(Key::AcmeChallenge(token))).collect();
        match made {
            Ok((spec, made)) => {
                let next = plan::renewal(&self.of.config, &made);
                let done = AcmeOrder { next: Some(next), n_failed: 0, ..self.of.about(wanted, AcmeOrderState::Issued, 0) };
                edits
                    .push(LockedEdit::Put(Key::Certificate(spec.name.clone()), certificate_json(&spec).to_string().into_bytes()));
                edits.push(note(wanted, &done));
                self.commit(edits).await?;
                self.of.status.issued();
                let shown = |at| humantime::format_rfc3339_seconds(at);
                info!(%certificate, domains, until = %shown(made.not_after), renewal = %shown(next), "Certificate issued");
                Ok(())
            }
            Err(trouble @ (Trouble::Registry(_) | Trouble::NotOurs)) => Err(trouble),
            Err(trouble) => {
                let n_failed = n_failed.saturating_add(1);
                let wait = plan::wait(&self.of.config, n_failed, &mut fastrand::Rng::new());
                let (next, problem) = (SystemTime::now() + wait, trouble.to_string());
                let failed = AcmeOrder {
                    next: Some(next),
                    error: Some(problem.clone()),
                    ..self.of.about(wanted, AcmeOrderState::Failed, n_failed)
                };
                edits.push(note(wanted, &failed));
                self.commit(edits).await?;
                self.of.status.failed();
                let next = humantime::format_rfc3339_seconds(next);
                warn!(%certificate, domains, problem, n_failed, next = %next, "A certificate could not be ordered");
                Ok(())
            }
        }
    }

    /// A certificate that can be used, or why there is none.
    async fn ask(&mut self, wanted: &AcmeCertificate, board: &mut Board<'_>) -> Result<(CertificateSpec, Certificate), Trouble> {
        let placed = match self.account(false).await {
            Ok(account) => place(&account, wanted, self.of.config.challenge, board).await,
            Err(trouble) => Err(trouble),
        };
        let Made { chain, key } = match placed {
            Err(Trouble::NoAccount(said)) => {
                warn!(said, "The ACME directory does not know our account any more; registering anew");
                let account = self.account(true).await?;
                place(&account, wanted, self.of.config.challenge, board).await?
            }
            placed => placed?,
        };
        let spec = CertificateSpec { name: registry_name(wanted)?, chain, key };
        let pem = Pem { chain: spec.chain.as_bytes(), key: spec.key.as_bytes() };
        let checked = tls::check(CertificateSource::Registry(spec.name.clone()), pem, SystemTime::now());
        let made = checked.map_err(|flaws| {
            let said: Vec<&str> = flaws.iter().map(|flaw| flaw.message.as_str()).collect();
            Trouble::Directory(format!("the certificate that was issued cannot be used: it {}", said.join("; ")))
        })?;
        plan::accept(&self.of.config, wanted, &made.certificate, SystemTime::now()).map_err(Trouble::Directory)?;
        Ok((spec, made.certificate))
    }

    async fn account(&mut self, anew: bool) -> Result<Account, Trouble> {
        if let Some(account) = self.account.as_ref().filter(|_| !anew) {
            return Ok(account.clone());
        }
        let account = account(&self.of.config, &self.of.directory, self.locked, anew).await?;
        Ok(self.account.insert(account).clone())
    }

    async fn commit(&self, edits: Vec<LockedEdit>) -> Result<(), Trouble> {
        match self.locked.commit(edits).await? {
            Committed::At { .. } => Ok(()),
            Committed::NotOurs => Err(Trouble::NotOurs),
        }
    }
}

impl Renewer {
    fn about(&self, wanted: &AcmeCertificate, state: AcmeOrderState, n_failed: u32) -> AcmeOrder {
        AcmeOrder {
            state,
            domains: wanted.domains.clone(),
            directory: self.config.directory.clone(),
            proxy: self.me.to_string(),
            at: SystemTime::now(),
            next: None,
            n_failed,
            error: None,
        }
    }
}

fn note(wanted: &AcmeCertificate, order: &AcmeOrder) -> LockedEdit {
    LockedEdit::Put(Key::AcmeOrder(wanted.name.clone()), acme_order_json(order).to_string().into_bytes())
}

fn registry_name(wanted: &AcmeCertificate) -> Result<CertificateName, Trouble> {
    // The configuration has looked at it.
    wanted.registry_name().map_err(Trouble::Directory)
}

/// Between looks at what the registry has: somebody may have deleted a certificate.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A hundred names, and a directory that takes its time with each.
const ORDER_WITHIN: Duration = Duration::from_secs(600);
/// Whatever the clock says, no more often than this.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
