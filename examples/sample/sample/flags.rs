//! The command line of the sample service, and its life from start to signal.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::behaviour::Behaviour;
use super::{Options, Registration, Sample};

/// A small service that answers in every way a proxy has to carry, and registers itself in etcd.
#[derive(Debug, Parser)]
pub struct Flags {
    /// Where to listen; port 0 takes a free one. The first line of output says which.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What it calls itself in its answers [default: SERVICE-PORT]
    #[arg(long)]
    name: Option<String>,
    /// Wait this long before each answer
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// Answer 503 to this many of a hundred requests
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    fail_percent: u8,
    /// Do this to every request, whatever its path: slow, fail, flaky, flap, hang, break, close or refuse, with its
    /// numbers as in `fail&status=502`. `/behave` changes it later.
    #[arg(long)]
    behave: Option<Behaviour>,
    /// On the way out, serve on for this long after saying `draining` in the registry
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    drain: Duration,
    /// Register in etcd
    #[arg(long, requires = "service")]
    register: bool,
    #[arg(long, default_value = "http://127.0.0.1:2379", value_delimiter = ',')]
    etcd: Vec<String>,
    #[arg(long, default_value = "/pointsman")]
    prefix: String,
    /// The service it is an instance of
    #[arg(long)]
    service: Option<String>,
    /// Its name in the registry [default: its name]
    #[arg(long)]
    id: Option<String>,
    /// How long the registry keeps it without hearing from it
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    ttl: Duration,
    #[arg(long, default_value_t = 100)]
    weight: u16,
    #[arg(long)]
    zone: Option<String>,
    /// The address others reach it at [default: where it listens]
    #[arg(long)]
    address: Option<String>,
}

impl Flags {
    pub fn options(self) -> Options {
        let Self { etcd, prefix, id, ttl, weight, zone, address, .. } = self;
        let service = self.service.filter(|_| self.register);
        Options {
            name: self.name,
            listen: self.listen,
            latency: self.latency,
            fail_percent: self.fail_percent,
            behaviour: self.behave,
            drain: self.drain,
            registration: service.map(|service| Registration { etcd, prefix, service, id, ttl, weight, zone, address }),
        }
    }
}

/// Serves until SIGTERM or SIGINT; told twice, it ends at once.
pub async fn run(options: Options, announce: impl FnOnce(SocketAddr) -> io::Result<()>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let sample = Sample::bind(options).await?;
    announce(sample.address())?;

    let (asked, stop) = tokio::sync::oneshot::channel::<()>();
    tokio::select! {
        () = sample.run(async { stop.await.unwrap_or_default() }) => {}
        () = async {
            either(&mut terminate, &mut interrupt).await;
            let _ = asked.send(());
            either(&mut terminate, &mut interrupt).await;
        } => eprintln!("sample: told twice, so it ends at once"),
    }
    Ok(())
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
