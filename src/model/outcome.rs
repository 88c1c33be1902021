//! How an attempt ended.

/// One try at one instance, seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A status below 500, but for 429.
    Success,
    /// A 5xx that is not one of the gateway's.
    ServerError,
    /// 502, 503 or 504.
    GatewayError,
    /// 429, or 503 with `Retry-After`: alive, and asking for less.
    Overloaded,
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
    pub const ALL: [Self; 9] = [
        Self::Success,
        Self::ServerError,
        Self::GatewayError,
        Self::Overloaded,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::Reset,
        Self::Timeout,
        Self::ClientGone,
    ];

    /// `pushes_back`: the answer says `Retry-After`.
    pub fn of_status(status: u16, pushes_back: bool) -> Self {
        match status {
            429 => Self::Overloaded,
            503 if pushes_back => Self::Overloaded,
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
            Self::Overloaded => "overloaded",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::ClientGone => "client_gone",
        }
    }

    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Success | Self::ClientGone | Self::Overloaded)
    }

    /// Nothing of the request reached the instance.
    pub fn is_connect_failure(self) -> bool {
        matches!(self, Self::ConnectFailed | Self::ConnectTimeout)
    }

    /// Speaks against the instance as a gateway's error does; a plain 500 may be the application's own.
    pub fn is_gateway_failure(self) -> bool {
        self.is_failure() && self != Self::ServerError
    }
}
