//! What Pingora's errors mean to us.

use pingora_core::protocols::http::v2::client::PING_TIMEDOUT;
use pingora_error::{Error, ErrorSource, ErrorType, RetryType};

use crate::proxy::attempt::Failure;

/// No connection: nothing has reached the instance.
pub fn of_connect(error: &Error) -> Failure {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Failure::ConnectTimeout,
        _ if of_tls(error).is_some() => Failure::Tls,
        _ => Failure::Refused,
    }
}

/// What went wrong with TLS, in words; `None`: something else did. Pingora wraps the cause into texts.
pub fn of_tls(error: &Error) -> Option<String> {
    let said = error.to_string();
    // What follows is who connected to whom.
    let said = said.split(", SNI: ").next().unwrap_or(&said);
    let is_tls = matches!(error.etype(), ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert);
    // In TLS 1.3 an instance refuses us after our part of the handshake.
    let refusal = said.find(REFUSED).map(|at| &said[at..]);
    let reason = match refusal {
        Some(refusal) => refusal,
        None if is_tls => said.rsplit(" cause: ").next().unwrap_or(said),
        None => return None,
    };
    Some(reason.to_owned())
}

/// In words of rustls.
const REFUSED: &str = "received fatal alert: ";

/// Whose fault it is that a request broke off, once it had a connection. `None`: the client's.
///
/// `overdue`: we have closed the connection ourselves, because no response head came in time.
pub fn of_exchange(error: &Error, overdue: bool) -> Option<Failure> {
    match (error.esource(), error.etype()) {
        _ if overdue => Some(Failure::Timeout),
        (ErrorSource::Downstream, _) => None,
        _ if of_tls(error).is_some() => Some(Failure::Tls),
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
