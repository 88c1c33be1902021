//! The way to a directory: HTTPS requests, each over a connection of its own, since there are a dozen in a month.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

#[derive(Clone)]
pub struct Directory {
    connector: TlsConnector,
}

impl Directory {
    /// `authorities` vouch for it.
    pub fn new(authorities: Arc<RootCertStore>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_root_certificates(authorities).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }
}

impl HttpClient for Directory {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let connector = self.connector.clone();
        Box::pin(async move {
            let uri = request.uri().clone();
            let failed = |reason: String| Error::Other(format!("{uri}: {reason}").into());
            match timeout(LIMIT, exchange(connector, request)).await {
                Ok(Ok(response)) => Ok(response.into()),
                Ok(Err(error)) => Err(failed(error.to_string())),
                Err(_) => Err(failed(format!("no whole answer within {LIMIT:?}"))),
            }
        })
    }
}

type Failed = Box<dyn StdError + Send + Sync>;

async fn exchange(connector: TlsConnector, mut request: Request<BodyWrapper<Bytes>>) -> Result<Response<Full<Bytes>>, Failed> {
    let uri = std::mem::take(request.uri_mut());
    let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err("is not an https:// URL".into());
    };
    let host = authority.host().trim_matches(['[', ']']);
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str())?);
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(PROGRAM));
    *request.uri_mut() = uri.path_and_query().map_or("/", |path| path.as_str()).parse::<Uri>()?;

    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(443))).await?;
    let stream = connector.connect(ServerName::try_from(host.to_owned())?, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, BODY_MAX).collect().await?.to_bytes();
        Ok::<_, Failed>(Response::from_parts(head, Full::new(body)))
    };
    tokio::pin!(answer);
    // The connection must be driven while we wait; it may end before the last of the body was looked at.
    let answer = tokio::select! {
        answer = &mut answer => answer?,
        ended = connection => match ended {
            Ok(()) => answer.await?,
            Err(error) => return Err(error.into()),
        },
    };
    let is_json = |kind: &HeaderValue| kind.to_str().is_ok_and(|kind| kind.contains("json"));
    if answer.status().as_u16() >= 400 && !answer.headers().get(CONTENT_TYPE).is_some_and(is_json) {
        // What stands between us and the directory has answered, and not in its language.
        return Err(format!("answered {} without a problem document", answer.status()).into());
    }
    Ok(answer)
}

const PROGRAM: &str = concat!("pointsman/", env!("CARGO_PKG_VERSION"));
/// For one question; a directory that is slower is asked again later.
const LIMIT: Duration = Duration::from_secs(30);
/// A chain has a few KiB.
const BODY_MAX: usize = 256 * 1024;
