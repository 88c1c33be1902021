//! One order, from asking for it to the certificate.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, Authorizations, ChallengeType, Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::trouble::{Trouble, in_words};
use crate::config::AcmeCertificate;
use crate::model::{ChallengeKind, ChallengeSpec, ChallengeToken, InstanceId};
use crate::registry::{Committed, Key, Locked, LockedEdit};
use crate::wire::{challenge_json, parse_presence};

/// PEM texts.
pub struct Made {
    pub chain: String,
    pub key: String,
}

/// Where proxies see what the directory may ask them.
pub struct Board<'a> {
    pub locked: &'a Locked,
    /// As which this proxy announces itself.
    pub me: &'a InstanceId,
    /// What was put there, for who takes it away.
    pub put: Vec<ChallengeToken>,
}

pub async fn place(
    account: &Account,
    wanted: &AcmeCertificate,
    kind: ChallengeKind,
    board: &mut Board<'_>,
) -> Result<Made, Trouble> {
    let names: Vec<Identifier> = wanted.domains.iter().map(|domain| Identifier::Dns(domain.to_string())).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    let challenges = challenges(order.authorizations(), kind).await?;
    if !challenges.is_empty() {
        board.show(challenges).await?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Pending
                && let Some(mut challenge) = authorization.challenge(kind_of(kind))
            {
                challenge.set_ready().await?;
            }
        }
    }
    match order.poll_ready(&POLLS).await {
        Ok(OrderStatus::Ready) => {}
        Ok(_) => return Err(reasons(&mut order).await.unwrap_or_else(|| Trouble::Directory(NO_REASON.to_owned()))),
        // What is said of an order is only that one of its names was not proved; which, and why, its challenges say.
        Err(error) => return Err(reasons(&mut order).await.unwrap_or_else(|| error.into())),
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&POLLS).await?;
    Ok(Made { chain, key })
}

/// Those of the names that are not proved yet.
async fn challenges(mut authorizations: Authorizations<'_>, kind: ChallengeKind) -> Result<Vec<ChallengeSpec>, Trouble> {
    let mut found = Vec::new();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let domain = authorization.identifier().to_string();
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => return Err(Trouble::Directory(format!("{domain}: the directory's authorization is {status:?}"))),
        }
        let Some(challenge) = authorization.challenge(kind_of(kind)) else {
            return Err(Trouble::Directory(format!("{domain}: the directory offers no {} for it", kind.as_str())));
        };
        let token = ChallengeToken::parse(&challenge.token)
            .map_err(|error| Trouble::Directory(format!("{domain}: the directory's token is none: {error}")))?;
        let key_authorization = challenge.key_authorization().as_str().into();
        found.push(ChallengeSpec { token, kind, domain: domain.into(), key_authorization });
    }
    Ok(found)
}

/// Why names were not proved, as far as the directory says.
async fn reasons(order: &mut Order) -> Option<Trouble> {
    let mut said = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        // A directory that does not answer is not asked for each name.
        let Ok(state) = authorization.refresh().await else { break };
        let problems = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        let domain = state.identifier().to_string();
        said.extend(problems.map(|problem| format!("{domain}: {}", in_words(problem))));
    }
    (!said.is_empty()).then(|| Trouble::refused(&said))
}

impl Board<'_> {
    /// Returns when every proxy can answer, or has had its time.
    async fn show(&mut self, challenges: Vec<ChallengeSpec>) -> Result<(), Trouble> {
        self.put.extend(challenges.iter().map(|challenge| challenge.token.clone()));
        let put = |challenge: &ChallengeSpec| {
            LockedEdit::PutForNow(Key::AcmeChallenge(challenge.token.clone()), challenge_json(challenge).to_string().into_bytes())
        };
        let shown = match self.locked.commit(challenges.iter().map(put).collect()).await? {
            Committed::At { revision } => revision.unsigned_abs(),
            Committed::NotOurs => return Err(Trouble::NotOurs),
        };
        let deadline = Instant::now() + SHOWN_WITHIN;
        loop {
            let behind = self.behind(shown).await?;
            if behind.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                warn!(proxies = behind.join(" "), "Proxies have not said that they know the ACME challenge; the order goes on");
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Proxies that route by an earlier revision, as far as they have said. This one is among them until it has said anything.
    async fn behind(&self, revision: u64) -> Result<Vec<String>, Trouble> {
        let proxies = self.locked.list("/proxies/").await?;
        let applied = |value: &[u8]| parse_presence(value).map_or(0, |presence| presence.value.applied_revision);
        let mut behind: Vec<String> = Vec::new();
        let mut is_there = false;
        for (key, value) in &proxies {
            let Key::Proxy(id) = key else { continue };
            is_there |= id == self.me;
            if applied(value) < revision {
                behind.push(id.to_string());
            }
        }
        if !is_there {
            behind.push(self.me.to_string());
        }
        Ok(behind)
    }
}

fn kind_of(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::Http01 => ChallengeType::Http01,
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

/// How often a directory is asked whether it has decided: it looks from several places, and some are slow.
const POLLS: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_secs(120));
/// Proxies say once a second what they know; who is paused or cut off is not waited for.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const NO_REASON: &str = "the directory has refused the order and does not say why";
