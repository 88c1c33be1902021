//! The limits of what clients may do: each is counted where it acts, by the name it is configured with.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a client was too slow, too large or too many for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    HeadTimeout,
    BodyProgress,
    AnswerProgress,
    KeepAlive,
    Handshake,
    HeadSize,
    Fields,
    /// Of a request's target; it cannot be configured.
    TargetSize,
    BodySize,
    /// What is left of a body that nobody wants has so much time; it cannot be configured either.
    UnreadBody,
    Connections,
    ConnectionsPerAddress,
    /// Of a route.
    Rate,
    /// Of a service, for connections that were upgraded.
    UpgradedIdle,
}

impl Limit {
    pub const ALL: [Self; 14] = [
        Self::HeadTimeout,
        Self::BodyProgress,
        Self::AnswerProgress,
        Self::KeepAlive,
        Self::Handshake,
        Self::HeadSize,
        Self::Fields,
        Self::TargetSize,
        Self::BodySize,
        Self::UnreadBody,
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::Rate,
        Self::UpgradedIdle,
    ];

    /// The value of the label `limit`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HeadTimeout => "head_timeout",
            Self::BodyProgress => "body_progress",
            Self::AnswerProgress => "answer_progress",
            Self::KeepAlive => "keep_alive",
            Self::Handshake => "handshake",
            Self::HeadSize => "head_size",
            Self::Fields => "fields",
            Self::TargetSize => "target_size",
            Self::BodySize => "body_size",
            Self::UnreadBody => "unread_body",
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::Rate => "rate",
            Self::UpgradedIdle => "upgraded_idle",
        }
    }

    /// The limit that a request met which ended for this reason: what the access log says is what is counted.
    pub fn behind(reason: &str) -> Option<Self> {
        Some(match reason {
            "slow_head" => Self::HeadTimeout,
            "slow_body" => Self::BodyProgress,
            SLOW_READ => Self::AnswerProgress,
            "head_too_large" => Self::HeadSize,
            "too_many_fields" => Self::Fields,
            "target_too_long" => Self::TargetSize,
            "body_too_large" => Self::BodySize,
            "limited" => Self::Rate,
            UPGRADED_IDLE => Self::UpgradedIdle,
            _ => return None,
        })
    }
}

/// How often each limit has acted.
#[derive(Debug, Default)]
pub struct LimitStats([AtomicU64; Limit::ALL.len()]);

impl LimitStats {
    pub fn count(&self, limit: Limit) {
        self.0[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn of(&self, limit: Limit) -> u64 {
        self.0[limit as usize].load(Ordering::Relaxed)
    }
}

/// The reason of an answer that broke off because its client took nothing of it for too long.
pub const SLOW_READ: &str = "slow_read";
/// The reason of an upgraded connection that was closed because nothing moved on it for too long.
pub const UPGRADED_IDLE: &str = "upgraded_idle";
/// For the rest of a request body that nobody wants, so that the next request is found behind it.
pub const UNREAD_BODY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::reply::Refusal;

    #[test]
    fn what_the_access_log_says_names_the_limit() {
        for (refusal, limit) in [
            (Refusal::SlowHead, Limit::HeadTimeout),
            (Refusal::SlowBody, Limit::BodyProgress),
            (Refusal::HeadTooLarge, Limit::HeadSize),
            (Refusal::TooManyFields, Limit::Fields),
            (Refusal::TargetTooLong, Limit::TargetSize),
            (Refusal::BodyTooLarge, Limit::BodySize),
            (Refusal::Limited { seconds: 1 }, Limit::Rate),
        ] {
            assert_eq!(Limit::behind(refusal.reason()), Some(limit));
        }
        assert_eq!(Limit::behind(Refusal::NoRoute.reason()), None);
        assert_eq!(Limit::behind(SLOW_READ), Some(Limit::AnswerProgress));
        assert_eq!(Limit::behind(UPGRADED_IDLE), Some(Limit::UpgradedIdle));
        for (place, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, place);
        }
    }
}
