//! What went wrong with TLS, as an operator would say it.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// rustls wraps what it has to say into an I/O error with a text around it.
pub fn words(error: &io::Error) -> String {
    let Some(cause) = error.get_ref() else { return error.to_string() };
    let Some(error) = cause.downcast_ref::<Error>() else { return cause.to_string() };
    match error {
        Error::InvalidCertificate(problem) => certificate(problem),
        Error::AlertReceived(alert) if asks_for_identity(*alert) => {
            format!("it ended the handshake: {alert:?}; it wants a client certificate that it knows (tls.certificate, tls.key)")
        }
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) | Error::NoApplicationProtocol => {
            "it does not offer the protocol of its record (NoApplicationProtocol)".to_owned()
        }
        Error::AlertReceived(alert) => format!("it ended the handshake: {alert:?}"),
        Error::InvalidMessage(message) => format!("what it answers is not TLS ({message:?})"),
        other => other.to_string(),
    }
}

/// Whether the instance refused the handshake. In TLS 1.3 that comes after ours is over, in place of an answer: nothing of
/// the request has been looked at.
pub fn is_refusal(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    matches!(error, Some(Error::AlertReceived(alert)) if asks_for_identity(*alert))
}

fn certificate(problem: &CertificateError) -> String {
    match problem {
        CertificateError::UnknownIssuer => {
            "nobody we trust has signed its certificate (UnknownIssuer); tls.ca says who may".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "its certificate is for {}, not for {} (NotValidForName); tls.server_name says which name to expect",
            presented.join(", "),
            expected.to_str()
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("its certificate has expired ({problem})")
        }
        other => format!("its certificate is not good: {other}"),
    }
}

fn asks_for_identity(alert: AlertDescription) -> bool {
    use AlertDescription::*;
    matches!(
        alert,
        CertificateRequired
            | BadCertificate
            | UnsupportedCertificate
            | CertificateRevoked
            | CertificateExpired
            | CertificateUnknown
            | UnknownCA
            | AccessDenied
            | DecryptError
    )
}
