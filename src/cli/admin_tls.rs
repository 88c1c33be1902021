//! How the commands speak TLS with an admin endpoint, and whom they believe.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use super::global::Global;
use crate::config::{AdminTls, CertificateFiles, read_authorities};
use crate::fetch::Secure;
use crate::tls::system_authorities;
use crate::trust::Unvouched;

/// That of `--admin https://HOST:PORT`: who vouches for it is said by `--admin-ca`.
pub fn named(address: &str, global: &Global) -> Result<Secure, String> {
    let Some((host, _)) = address.rsplit_once(':') else { return Err(format!("--admin https://{address}: the port is missing")) };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name =
        ServerName::try_from(host.to_owned()).map_err(|_| format!("--admin https://{address}: {host} is no name of a host"))?;
    let authorities = match &global.admin_ca {
        Some(path) => read_authorities(path).map_err(|reason| format!("--admin-ca: {reason}"))?,
        None => system_authorities()?,
    };
    Ok(Secure { config: config(verifier(authorities)?, global)?, name })
}

/// That of the proxy whose configuration this is: the very certificate that its file has, whatever names it is for.
pub fn own(address: SocketAddr, tls: &AdminTls, global: &Global) -> Result<Secure, String> {
    let (certificate, _) = tls.pair.read(SystemTime::now()).map_err(|wrong| wrong.join("; "))?;
    let leaf = certificate.pair.cert.first().ok_or("admin.tls.certificate holds no certificate")?;
    let pinned = Arc::new(Unvouched::only(leaf.clone(), &default_provider()));
    Ok(Secure { config: config(pinned, global)?, name: ServerName::from(address.ip()) })
}

fn verifier(authorities: Arc<RootCertStore>) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let verifier = WebPkiServerVerifier::builder_with_provider(authorities, Arc::new(default_provider())).build();
    Ok(verifier.map_err(|error| format!("--admin-ca: {error}"))?)
}

fn config(verifier: Arc<dyn ServerCertVerifier>, global: &Global) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.dangerous().with_custom_certificate_verifier(verifier);
    let (Some(chain), Some(key)) = (&global.admin_certificate, &global.admin_key) else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let files = CertificateFiles { chain: chain.clone(), key: key.clone() };
    let (certificate, _) = files.read(SystemTime::now()).map_err(|wrong| format!("--admin-certificate: {}", wrong.join("; ")))?;
    Ok(Arc::new(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.pair)))))
}
