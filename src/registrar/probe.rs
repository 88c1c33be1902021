//! Asks our own instance whether it is well, before the registry hears of it and as long as it is registered.

use std::fmt;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::gate::{Gate, Turn};
use crate::fetch;
use crate::model::Address;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// A GET of this path must be answered with 200–399.
    Http { path: String },
    /// A connection must be accepted.
    Tcp,
}

#[derive(Debug, Clone)]
pub struct GatePolicy {
    pub check: Check,
    pub interval: Duration,
    pub timeout: Duration,
    pub rise: u32,
    pub fall: u32,
}

/// The gate together with the probes that turn it.
pub struct GateWatch {
    gate: Gate,
    policy: GatePolicy,
    address: String,
    next: Instant,
}

impl GateWatch {
    pub fn new(policy: GatePolicy, address: &Address) -> Self {
        let gate = Gate::new(policy.rise, policy.fall);
        Self { gate, policy, address: address.to_string(), next: Instant::now() }
    }

    /// The next time the gate opens or closes. May be dropped while it waits.
    pub async fn turned(&mut self) -> Turn {
        loop {
            sleep_until(self.next).await;
            let result = self.policy.check.run(&self.address, self.policy.timeout).await;
            let turn = self.gate.observe(result.is_ok());
            let pause = if self.gate.is_settled() { self.policy.interval } else { self.policy.interval.min(IN_TRANSITION) };
            self.next = Instant::now() + pause;
            match (turn, result) {
                (Some(Turn::Closed), Err(failure)) => warn!(%failure, "Instance fails its probes"),
                (Some(_), _) => info!("Instance answers its probes"),
                (None, Err(failure)) => debug!(%failure, "Probe failed"),
                (None, Ok(())) => {}
            }
            if let Some(turn) = turn {
                return turn;
            }
        }
    }
}

impl Check {
    async fn run(&self, address: &str, limit: Duration) -> Result<(), ProbeFailure> {
        match self {
            Self::Http { path } => match fetch::get(address, path, None, None, limit).await {
                Ok(answer) if (200..400).contains(&answer.status.as_u16()) => Ok(()),
                Ok(answer) => Err(ProbeFailure(format!("GET {path} was answered with {}", answer.status))),
                Err(error) => Err(ProbeFailure(format!("GET {path}: {error}"))),
            },
            Self::Tcp => match timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(ProbeFailure(format!("cannot connect: {error}"))),
                Err(_) => Err(ProbeFailure(format!("no connection within {limit:?}"))),
            },
        }
    }
}

#[derive(Debug)]
struct ProbeFailure(String);

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// While something is about to change, an answer is wanted soon.
const IN_TRANSITION: Duration = Duration::from_millis(500);
