//! When an order is due, and why. Pure: the same on every proxy, so whoever is the renewer decides alike.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::config::{AcmeCertificate, AcmeConfig};
use crate::model::{AcmeOrder, AcmeOrderState, Certificate};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub at: SystemTime,
    pub reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Missing,
    OtherNames,
    OtherDirectory,
    Age,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "there is none",
            Self::OtherNames => "it is to be for other names",
            Self::OtherDirectory => "it is to come from another directory",
            Self::Age => "it is to be renewed",
        })
    }
}

/// `held`: the certificate as it stands; `last`: what became of the last order.
pub fn due(config: &AcmeConfig, wanted: &AcmeCertificate, held: Option<&Certificate>, last: Option<&AcmeOrder>) -> Due {
    let is_same = |last: &&AcmeOrder| last.directory == config.directory && last.domains == wanted.domains;
    let reason = match held {
        None => Reason::Missing,
        Some(held) if !is_for(held, wanted) => Reason::OtherNames,
        Some(_) if last.is_some_and(|last| last.directory != config.directory) => Reason::OtherDirectory,
        Some(_) => Reason::Age,
    };
    let wanted_at = match (reason, held) {
        (Reason::Age, Some(held)) => renewal(config, held),
        _ => SystemTime::UNIX_EPOCH,
    };
    // What failed is not asked for again before its time; but for something else there is no reason to wait.
    let failed = last.filter(is_same).filter(|last| last.state == AcmeOrderState::Failed);
    let at = failed.and_then(|last| last.next).map_or(wanted_at, |not_before| wanted_at.max(not_before));
    Due { at, reason }
}

/// Whether a new certificate is what was ordered. What would be due again at once is refused, or it would be ordered without end.
pub fn accept(config: &AcmeConfig, wanted: &AcmeCertificate, new: &Certificate, now: SystemTime) -> Result<(), String> {
    if !is_for(new, wanted) {
        return Err(format!("a certificate for other names was issued: {}", new.names.join(" ")));
    }
    if renewal(config, new) <= now {
        let (from, until) = (humantime::format_rfc3339_seconds(new.not_before), humantime::format_rfc3339_seconds(new.not_after));
        return Err(format!(
            "a certificate was issued that is to be renewed at once, good from {from} until {until}: is the clock right?"
        ));
    }
    Ok(())
}

fn is_for(held: &Certificate, wanted: &AcmeCertificate) -> bool {
    held.names.len() == wanted.domains.len() && wanted.domains.iter().all(|domain| held.names.contains(domain))
}

/// When a certificate is to be renewed: before two thirds of its life are over, and not all of them in the same minute.
pub fn renewal(config: &AcmeConfig, certificate: &Certificate) -> SystemTime {
    let life = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
    let begin = f64::from(config.renew_after) / 100.0;
    let spread = SPREAD.min(LATEST - begin).max(0.0);
    // The certificate's own number, so that every proxy comes to the same moment.
    let seed = certificate.fingerprint.first_chunk().copied().map_or(0, u64::from_be_bytes);
    certificate.not_before + life.mul_f64(begin + spread * fastrand::Rng::with_seed(seed).f64())
}

/// How long to wait after so many failures in a row: three times longer each time, so that a directory which allows five
/// an hour is not exhausted in the first one; somewhat more or less each time.
pub fn wait(config: &AcmeConfig, n_failed: u32, rng: &mut fastrand::Rng) -> Duration {
    let full = config.retry.saturating_mul(3_u32.saturating_pow(n_failed.saturating_sub(1))).min(WAIT_MAX.max(config.retry));
    full.mul_f64(0.8 + 0.4 * rng.f64())
}

/// Shares of a certificate's life.
const SPREAD: f64 = 0.06;
const LATEST: f64 = 0.666;
const WAIT_MAX: Duration = Duration::from_secs(6 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CertificateName, ChallengeKind};
    use crate::tls::samples::Sample;

    fn config() -> AcmeConfig {
        let wanted = AcmeCertificate { name: CertificateName::parse("shop").unwrap(), domains: vec!["shop.example".into()] };
        AcmeConfig {
            directory: "https://ca.example/".to_owned(),
            email: None,
            challenge: ChallengeKind::Http01,
            ca_file: None,
            external_account: None,
            renew_after: 60,
            retry: Duration::from_secs(60),
            certificates: vec![wanted],
        }
    }

    fn order(state: AcmeOrderState, next: Option<SystemTime>) -> AcmeOrder {
        AcmeOrder {
            state,
            domains: vec!["shop.example".into()],
            directory: "https://ca.example/".to_owned(),
            proxy: "edge".to_owned(),
            at: SystemTime::now(),
            next,
            n_failed: 1,
            error: None,
        }
    }

    fn held(names: &[&str], from: i64, until: i64) -> std::sync::Arc<Certificate> {
        Sample::of(names).valid(from, until).in_registry("acme:shop")
    }

    #[test]
    fn what_is_missing_or_another_is_due_at_once() {
        let config = config();
        let wanted = &config.certificates[0];
        let due = |held: Option<&Certificate>, last: Option<&AcmeOrder>| super::due(&config, wanted, held, last);
        assert_eq!(due(None, None), Due { at: SystemTime::UNIX_EPOCH, reason: Reason::Missing });
        let other = held(&["other.example"], 0, 1000);
        assert_eq!(due(Some(&other), None).reason, Reason::OtherNames);
        let good = held(&["shop.example"], 0, 1000);
        let elsewhere = AcmeOrder { directory: "https://staging.example/".to_owned(), ..order(AcmeOrderState::Issued, None) };
        assert_eq!(due(Some(&good), Some(&elsewhere)), Due { at: SystemTime::UNIX_EPOCH, reason: Reason::OtherDirectory });
    }

    #[test]
    fn renewal_comes_before_two_thirds_and_at_the_same_moment_for_everybody() {
        let mut config = config();
        for renew_after in [1, 60, 66] {
            config.renew_after = renew_after;
            let moments: Vec<f64> = (0..20)
                .map(|_| {
                    let good = held(&["shop.example"], 0, 90 * 86_400);
                    assert_eq!(renewal(&config, &good), renewal(&config, &good));
                    let life = good.not_after.duration_since(good.not_before).unwrap().as_secs_f64();
                    renewal(&config, &good).duration_since(good.not_before).unwrap().as_secs_f64() / life
                })
                .collect();
            let begin = f64::from(renew_after) / 100.0;
            assert!(moments.iter().all(|at| *at >= begin && *at < 2.0 / 3.0), "{moments:?}");
            assert!(moments.iter().any(|at| *at != moments[0]), "{moments:?}");
        }
    }

    #[test]
    fn a_failure_is_waited_for_unless_something_else_is_wanted() {
        let mut config = config();
        let later = SystemTime::now() + Duration::from_secs(3600);
        let failed = order(AcmeOrderState::Failed, Some(later));
        assert_eq!(due(&config, &config.certificates[0], None, Some(&failed)).at, later);
        // A renewer that died left it behind.
        let pending = order(AcmeOrderState::Pending, None);
        assert_eq!(due(&config, &config.certificates[0], None, Some(&pending)).at, SystemTime::UNIX_EPOCH);
        config.certificates[0].domains.push("www.shop.example".into());
        assert_eq!(due(&config, &config.certificates[0], None, Some(&failed)).at, SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn what_would_be_ordered_again_at_once_is_refused() {
        let config = config();
        let accept = |new: &Certificate| accept(&config, &config.certificates[0], new, SystemTime::now());
        assert_eq!(accept(&held(&["shop.example"], 0, 1000)), Ok(()));
        assert!(accept(&held(&["shop.example", "other.example"], 0, 1000)).is_err_and(|said| said.contains("other names")));
        // By our clock most of its life is over.
        assert!(accept(&held(&["shop.example"], -800, 200)).is_err_and(|said| said.contains("is the clock right?")));
    }

    #[test]
    fn waits_grow_threefold_up_to_six_hours() {
        let (config, mut rng) = (config(), fastrand::Rng::with_seed(7));
        for (n_failed, minutes) in [(1, 1), (2, 3), (3, 9), (4, 27), (5, 81), (6, 243), (7, 360), (40, 360)] {
            let wait = wait(&config, n_failed, &mut rng);
            let full = Duration::from_secs(minutes * 60);
            assert!(wait >= full.mul_f64(0.8) && wait <= full.mul_f64(1.2), "{n_failed}: {wait:?}");
        }
    }
}
