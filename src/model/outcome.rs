//! How an attempt ended.

/// One try at one instance, seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A status below 500.
    Success,
    /// A 5xx that is not one of the gateway's.
    ServerError,
    /// 502, 503 or 504.
    GatewayError,
    /// Nobody listens, or no way there.
    ConnectFailed,
    ConnectTimeout,
    /// The connection broke before the response was whole.
    Reset,
    /// Connected, but too slow.
    Timeout,
    /// The client went away first; says nothing about the instance.
    ClientGone,
}

impl Outcome {
    pub const ALL: [Self; 8] = [
        Self::Success,
        Self::ServerError,
        Self::GatewayError,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::Reset,
        Self::Timeout,
        Self::ClientGone,
    ];

    pub fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayError,
            500.. => Self::ServerError,
            _ => Self::Success,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ServerError => "server_error",
            Self::GatewayError => "gateway_error",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::ClientGone => "client_gone",
        }
    }

    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Success | Self::ClientGone)
    }
}
