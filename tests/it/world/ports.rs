//! Ports for programs that must be told one, and for addresses where nobody may listen.
//!
//! They lie below the range from which the kernel takes ports by itself, so no client's connection ever sits on one,
//! and a program that is started again finds its port free. Each test process holds the lock of a block of its own;
//! within it a counter goes round, and a port is only handed out after it could be bound.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// An address on 127.0.0.1 where nobody listens.
pub fn free_address() -> SocketAddr {
    let block = BLOCK.get_or_init(Block::lock);
    for _ in 0..BLOCK_SIZE {
        let port = block.first + NEXT.fetch_add(1, Ordering::Relaxed) % BLOCK_SIZE;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port of {}..{} is free", block.first, block.first + BLOCK_SIZE);
}

struct Block {
    first: u16,
    /// Locked for as long as this process lives.
    _lock: File,
}

impl Block {
    fn lock() -> Self {
        let folder = std::env::temp_dir().join("pointsman-test-ports");
        std::fs::create_dir_all(&folder).expect("a folder for the locks of port blocks");
        for first in (FIRST..EPHEMERAL_FIRST).step_by(usize::from(BLOCK_SIZE)) {
            let lock = File::create(folder.join(first.to_string())).expect("the lock of a port block");
            if lock.try_lock().is_ok() {
                return Self { first, _lock: lock };
            }
        }
        panic!("every block of ports is in use by another test process");
    }
}

static BLOCK: OnceLock<Block> = OnceLock::new();
static NEXT: AtomicU16 = AtomicU16::new(0);

const FIRST: u16 = 12_000;
const BLOCK_SIZE: u16 = 1_000;
/// Linux's default `net.ipv4.ip_local_port_range` begins at 32,768.
const EPHEMERAL_FIRST: u16 = 32_000;
