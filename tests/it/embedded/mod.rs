//! Stories of the embedded registry.

/// It answers what etcd answers.
mod differential;
/// `etcdctl` cannot tell it from etcd.
mod etcdctl;
/// What a restart keeps, in order and not.
mod restart;
/// Watchers: fast, and slow without harm to others.
mod watching;

use std::future::Future;
use std::path::Path;
use std::thread::JoinHandle;

use etcd_client::Client;
use pointsman::embedded::{Options, Registry};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A registry served in this process, on a thread and a runtime of its own: dropping it is the nearest to pulling the plug.
struct Embedded {
    thread: Option<JoinHandle<()>>,
    end: watch::Sender<End>,
    url: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    InOrder,
    PlugPulled,
}

impl Embedded {
    fn in_memory() -> Self {
        Self::open(Options::default())
    }

    fn kept_in(dir: &Path) -> Self {
        Self::open(Options { data: Some(dir.into()), ..Options::default() })
    }

    fn open(options: Options) -> Self {
        let registry = Registry::open(options).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (end, ending) = watch::channel(End::NotYet);
        let thread = std::thread::spawn(move || block_on(serve(registry, listener, ending)));
        Self { thread: Some(thread), end, url }
    }

    /// Stops in order and waits until everything is saved.
    fn stop(mut self) {
        self.finish(End::InOrder);
    }

    fn finish(&mut self, end: End) {
        let Some(thread) = self.thread.take() else { return };
        self.end.send_replace(end);
        thread.join().expect("the registry to end without a panic");
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.finish(End::PlugPulled);
    }
}

async fn serve(registry: Registry, listener: std::net::TcpListener, mut ending: watch::Receiver<End>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let (stop, stopping) = watch::channel(false);
    let mut serving = Box::pin(registry.serve(listener, stopping));
    let end = tokio::select! {
        served = &mut serving => panic!("nobody asked it to stop: {served:?}"),
        end = ending.wait_for(|end| *end != End::NotYet) => *end.unwrap(),
    };
    if end == End::InOrder {
        stop.send_replace(true);
        serving.await.unwrap();
    }
}

async fn client(url: &str) -> Client {
    Client::connect([url], None).await.unwrap()
}

fn block_on<T>(story: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(story)
}
