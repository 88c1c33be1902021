//! TLS handshakes, proxy against proxy: CPU time of each, full and resumed.
//!
//! Set up like `cpu`: the proxies side by side on one core, this process with the client in it on another, rounds in turn.
//! A handshake counts once the client has the ticket that follows it; no request is made. The client verifies nothing, so that
//! it is not what is measured.

use std::fs;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use futures_util::future::join_all;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, HandshakeKind, ProtocolVersion, SignatureScheme, SupportedProtocolVersion,
    version,
};
use socket2::SockRef;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::Outcome;
use crate::process::{cpu_time, median, micros_per, pin_ourselves};
use crate::proxies::{Program, Proxy, TlsFiles};

#[derive(clap::Args)]
pub struct Flags {
    /// Which to measure; the first is what the others are compared with
    #[arg(default_values = ["nginx", "pointsman"])]
    proxies: Vec<Kind>,
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Of each round, full and again resumed
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Handshakes at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: u32,
    #[arg(long, default_value = "1.3", value_enum)]
    tls: Version,
    /// The core of the proxies
    #[arg(long, default_value_t = 1)]
    core: u32,
    /// The core of the clients
    #[arg(long, default_value_t = 0)]
    our_core: u32,
    #[command(flatten)]
    program: Program,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Nginx,
    Pointsman,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Version {
    #[value(name = "1.2")]
    V1_2,
    #[value(name = "1.3")]
    V1_3,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Full,
    Resumed,
}

#[derive(Default, Clone, Copy)]
struct Count {
    full: u64,
    resumed: u64,
    failed: u64,
}

struct Round {
    way: Way,
    cpu_us: f64,
    per_second: f64,
    count: Count,
}

struct Contender {
    kind: Kind,
    proxy: Proxy,
    rounds: Vec<Round>,
}

pub async fn run(flags: Flags) -> Outcome<()> {
    pin_ourselves(flags.our_core)?;
    let directory = tempfile::tempdir()?;
    let files = certificate(directory.path())?;
    // Never asked: handshakes are all that is made.
    let upstream = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut contenders = Vec::new();
    for kind in &flags.proxies {
        let mut proxy = match kind {
            Kind::Nginx => Proxy::nginx(upstream, flags.core, Some(&files))?,
            Kind::Pointsman => Proxy::pointsman_on(&flags.program.pointsman, upstream, flags.core, Some(&files))?,
        };
        // Both answer plain HTTP with 400.
        proxy.answers(proxy.address, "/", 400).await?;
        contenders.push(Contender { kind: *kind, proxy, rounds: Vec::new() });
    }
    for contender in &contenders {
        shake(&flags, contender.proxy.address, Way::Resumed, WARM_UP).await?;
    }
    for _ in 0..flags.rounds {
        for way in [Way::Full, Way::Resumed] {
            for contender in &mut contenders {
                let pid = contender.proxy.process.id();
                let before = cpu_time(pid)?;
                let count = shake(&flags, contender.proxy.address, way, flags.duration).await?;
                let n = count.of(way);
                contender.rounds.push(Round {
                    way,
                    cpu_us: micros_per(cpu_time(pid)? - before, n),
                    per_second: n as f64 / flags.duration.as_secs_f64(),
                    count,
                });
            }
        }
    }
    report(&contenders);
    Ok(())
}

/// As many as possible for so long.
async fn shake(flags: &Flags, to: SocketAddr, way: Way, how_long: Duration) -> Outcome<Count> {
    let end = Instant::now() + how_long;
    let one = || async {
        // Each has its own tickets, so none waits for another's.
        let connector = TlsConnector::from(Arc::new(client(flags.tls, way)?));
        let mut count = Count::default();
        while Instant::now() < end {
            match timeout(PATIENCE, handshake(&connector, to)).await {
                Ok(Ok(HandshakeKind::Resumed)) => count.resumed += 1,
                Ok(Ok(_)) => count.full += 1,
                _ => count.failed += 1,
            }
        }
        Outcome::Ok(count)
    };
    let mut sum = Count::default();
    for count in join_all((0..flags.clients).map(|_| one())).await {
        let Count { full, resumed, failed } = count?;
        sum = Count { full: sum.full + full, resumed: sum.resumed + resumed, failed: sum.failed + failed };
    }
    Ok(sum)
}

async fn handshake(connector: &TlsConnector, to: SocketAddr) -> Outcome<HandshakeKind> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    // It ends with a reset: ports that wait after each close would soon be all there are.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    let mut stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
    let connection = stream.get_ref().1;
    let kind = connection.handshake_kind().ok_or("a handshake of no kind")?;
    if connection.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
        poll_fn(|cx| {
            // There is nothing to read but the tickets, which this takes in.
            let read = Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut [0]));
            match read {
                _ if stream.get_ref().1.tls13_tickets_received() > 0 => Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => Poll::Ready(Err("closed before a ticket".into())),
                Poll::Ready(Err(error)) => Poll::Ready(Outcome::Err(error.into())),
                Poll::Pending => Poll::Pending,
            }
        })
        .await?;
    }
    Ok(kind)
}

fn client(tls: Version, way: Way) -> Outcome<ClientConfig> {
    let versions: [&SupportedProtocolVersion; 1] = match tls {
        Version::V1_2 => [&version::TLS12],
        Version::V1_3 => [&version::TLS13],
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions)?;
    let anyone = Arc::new(Anyone(provider.signature_verification_algorithms.supported_schemes()));
    let mut config = builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth();
    config.resumption = match way {
        Way::Full => Resumption::disabled(),
        Way::Resumed => Resumption::in_memory_sessions(16),
    };
    Ok(config)
}

/// For both proxies, of the kind that most sites have by now.
fn certificate(directory: &Path) -> Outcome<TlsFiles> {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let files = TlsFiles { chain: directory.join("chain.pem"), key: directory.join("key.pem") };
    fs::write(&files.chain, cert.pem())?;
    fs::write(&files.key, signing_key.serialize_pem())?;
    Ok(files)
}

/// Takes every certificate and every signature.
#[derive(Debug)]
struct Anyone(Vec<SignatureScheme>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

fn report(contenders: &[Contender]) {
    println!(
        "| proxy | handshakes | CPU µs each (all rounds) | ratio | a second, one core | a second, here | otherwise | failed |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (way, name) in [(Way::Full, "full"), (Way::Resumed, "resumed")] {
        let cpu_of = |contender: &Contender| median(contender.of(way).map(|round| round.cpu_us));
        let first = contenders.first().map_or(0.0, cpu_of);
        for contender in contenders {
            let cpu = cpu_of(contender);
            let each: Vec<_> = contender.of(way).map(|round| format!("{:.0}", round.cpu_us)).collect();
            let sum = |n: fn(&Round) -> u64| contender.of(way).map(n).sum::<u64>();
            println!(
                "| {:?} | {name} | {cpu:.0} ({}) | {:.2} | {:.0} | {:.0} | {} | {} |",
                contender.kind,
                each.join(" "),
                cpu / first,
                1e6 / cpu,
                median(contender.of(way).map(|round| round.per_second)),
                sum(|round| round.count.full + round.count.resumed - round.count.of(round.way)),
                sum(|round| round.count.failed),
            );
        }
    }
}

impl Contender {
    fn of(&self, way: Way) -> impl Iterator<Item = &Round> {
        self.rounds.iter().filter(move |round| round.way == way)
    }
}

impl Count {
    fn of(&self, way: Way) -> u64 {
        match way {
            Way::Full => self.full,
            Way::Resumed => self.resumed,
        }
    }
}

const WARM_UP: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);
