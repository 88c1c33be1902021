//! A fast upstream. Every answer says at which address it was asked, so one wildcard socket can play thousands of
//! instances: all of 127.0.0.0/8 reaches it.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::Outcome;
use crate::message::Inbox;

#[derive(clap::Args)]
pub struct Flags {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Bytes in each answer's body
    #[arg(long, default_value_t = 1024)]
    size: usize,
}

pub async fn run(flags: Flags) -> Outcome<()> {
    let listener = TcpListener::bind(flags.listen).await?;
    println!("listening {}", listener.local_addr()?);
    accept(listener, flags.size).await;
    Ok(())
}

/// Starts one in this process; its address.
pub async fn start(listen: SocketAddr, size: usize) -> Outcome<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    tokio::spawn(accept(listener, size));
    Ok(address)
}

async fn accept(listener: TcpListener, size: usize) {
    // Whoever measures opens a bounded number of connections, and the process ends with the measurement.
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, size));
    }
}

async fn serve(mut stream: TcpStream, size: usize) {
    let _ = stream.set_nodelay(true);
    let Ok(address) = stream.local_addr() else { return };
    let mut answer = format!("HTTP/1.1 200 OK\r\n{ADDRESS}: {address}\r\ncontent-length: {size}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + size, b'.');
    let mut inbox = Inbox::new();
    while let Ok(head) = inbox.head(&mut stream).await {
        let read = inbox.body(&mut stream, head.body, |_| {}).await;
        if read.is_err() || stream.write_all(&answer).await.is_err() || !head.keeps_alive {
            return;
        }
    }
}

/// The field that says at which address an upstream was asked.
pub const ADDRESS: &str = "x-address";
