//! What etcd's errors mean, in words, and with what to do about it.

use std::error::Error as StdError;
use std::iter::successors;

use etcd_client::Error;

/// What went wrong, as an operator would say it. The library's own texts hide the cause in a chain of sources.
pub fn explain(error: &Error) -> String {
    let (mut said, source) = match error {
        Error::GRpcStatus(status) => (status.message().to_owned(), status.source()),
        Error::TransportError(error) => (error.to_string(), error.source()),
        other => return other.to_string(),
    };
    for cause in successors(source, |cause| (*cause).source()) {
        let cause = cause.to_string();
        // Most links of the chain repeat what the next one says, or say nothing.
        if !said.contains(&cause) && cause != "transport error" {
            said = format!("{said}: {cause}");
        }
    }
    match error {
        Error::GRpcStatus(status) if said.is_empty() => format!("{:?}", status.code()),
        _ => hinted(&said),
    }
}

/// The text of an error, behind what it means where we know that.
pub fn hinted(said: &str) -> String {
    match HINTS.iter().find(|(part, _)| said.contains(part)) {
        Some((_, hint)) => format!("{hint} ({said})"),
        None => said.to_owned(),
    }
}

/// No role of the user allows it.
pub fn is_denied(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.code() == tonic::Code::PermissionDenied)
}

/// Users or roles have changed since the login; etcd takes none from before (JWT). An expired one the library renews itself.
pub fn is_login_old(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("revision of auth store is old"))
}

/// The first one found wins.
const HINTS: [(&str, &str); 20] = [
    ("Connection refused", "nothing listens there"),
    ("authentication failed", "the user or the password is wrong"),
    (
        "user name is empty",
        "this etcd wants registry.user and its password, or a client certificate with a user as its common name",
    ),
    ("permission denied", "no role of the etcd user allows this; docs/etcd-security.md has the ones that are needed"),
    ("authentication is not enabled", "this etcd knows no users; leave out registry.user"),
    ("UnknownIssuer", "the certificate there was signed by an authority we do not know; set registry.ca"),
    (
        "not valid for name",
        "the certificate there is for another name; if it is the right etcd, set registry.server_name to that",
    ),
    ("NotValidForName", "the certificate there is for another name; if it is the right etcd, set registry.server_name to that"),
    ("certificate expired", "the certificate there has to be renewed, or a clock is wrong"),
    ("certificate not valid yet", "the certificate there is from the future, or a clock is wrong"),
    ("keys may not be consistent", "registry.key does not belong to registry.certificate"),
    ("BadCertificate", WANTS_CERTIFICATE),
    ("CertificateRequired", WANTS_CERTIFICATE),
    ("operation was canceled", WANTS_CERTIFICATE),
    ("broken pipe", "it hung up; does it want https, or a client certificate (registry.certificate)?"),
    ("Broken pipe", "it hung up; does it want https, or a client certificate (registry.certificate)?"),
    ("tls handshake eof", "it does not speak TLS; http instead of https?"),
    ("InvalidContentType", "it does not speak TLS; http instead of https?"),
    ("no leader", "this etcd has no leader at the moment"),
    ("Timeout expired", "it did not answer in time"),
];

/// Go tells nobody why, and often just closes.
const WANTS_CERTIFICATE: &str = "it hung up on our certificate; registry.certificate has to be one that this etcd's authority has signed, for clients, and in date";

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: tonic::Status) -> String {
        explain(&Error::GRpcStatus(status))
    }

    #[test]
    fn what_is_known_comes_with_what_to_do() {
        let denied = tonic::Status::permission_denied("etcdserver: permission denied");
        assert!(is_denied(&Error::GRpcStatus(denied.clone())));
        assert!(said(denied).starts_with("no role of the etcd user allows this; docs/etcd-security.md"));
        let name = r#"invalid peer certificate: certificate not valid for name "127.0.0.1"; certificate is only valid for "a""#;
        let name = said(tonic::Status::unknown(name));
        assert!(name.contains("registry.server_name") && name.ends_with(r#"only valid for "a")"#), "{name}");
        assert_eq!(said(tonic::Status::unknown("a riddle")), "a riddle");
        assert_eq!(said(tonic::Status::unknown("")), "Unknown");
        let old = tonic::Status::invalid_argument("etcdserver: revision of auth store is old");
        assert!(is_login_old(&Error::GRpcStatus(old)));
    }
}
