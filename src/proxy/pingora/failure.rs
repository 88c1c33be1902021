//! What Pingora's errors mean to us.

use pingora_core::protocols::http::v2::client::PING_TIMEDOUT;
use pingora_error::{Error, ErrorSource, ErrorType, RetryType};

use crate::proxy::attempt::Failure;

/// No connection: nothing has reached the instance.
pub fn of_connect(error: &Error) -> Failure {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Failure::ConnectTimeout,
        _ => Failure::Refused,
    }
}

/// Whose fault it is that a request broke off, once it had a connection. `None`: the client's.
///
/// `overdue`: we have closed the connection ourselves, because no response head came in time.
pub fn of_exchange(error: &Error, overdue: bool) -> Option<Failure> {
    match (error.esource(), error.etype()) {
        _ if overdue => Some(Failure::Timeout),
        (ErrorSource::Downstream, _) => None,
        // Our own, when a gateway's error is thrown away for another instance's answer.
        (_, ErrorType::HTTPStatus(status)) => Some(Failure::Status(*status)),
        // An h2 peer that says it has not looked at the request; an invalid one may have.
        (_, kind) if error.retry == RetryType::Decided(true) && *kind != ErrorType::InvalidH2 => Some(Failure::NotProcessed),
        (_, ErrorType::ReadTimedout | ErrorType::WriteTimedout) => Some(Failure::Timeout),
        (_, kind) if *kind == PING_TIMEDOUT => Some(Failure::Timeout),
        (_, ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 | ErrorType::H1Error) => Some(Failure::Invalid),
        _ => Some(Failure::Reset),
    }
}
