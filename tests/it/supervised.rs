//! What a service manager hears: ready when routing is known, not before; how it is in words; that it works; that it reads
//! its file again; that it ends.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::world::World;
use crate::world::etcd::Etcd;
use crate::world::ports::free_address;
use crate::world::program::Program;

/// The service manager's end.
struct Ear {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Ear {
    fn in_folder_of(world: &World) -> Self {
        let socket = UnixDatagram::bind(world.folder().join("notify")).expect("a socket in the world's folder");
        socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        Self { socket, heard: Vec::new() }
    }

    /// Everything up to and with a message that has this line.
    fn until(&mut self, line: &str) -> Vec<String> {
        let mut buffer = [0; 4096];
        loop {
            let n = self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{line}: {error}; heard: {:?}", self.heard));
            let said = String::from_utf8_lossy(&buffer[..n]).into_owned();
            let is_it = said.lines().any(|l| l.starts_with(line));
            self.heard.push(said);
            if is_it {
                return std::mem::take(&mut self.heard);
            }
        }
    }
}

fn start(world: &World, watchdog: &str) -> Program {
    let flags = [free_address().to_string(), free_address().to_string()];
    let config = world.config_file().display().to_string();
    let mut command = world.command(&["run", "--config", &config, "--listen", &flags[0], "--admin", &flags[1]]);
    command.env("NOTIFY_SOCKET", world.folder().join("notify")).env("WATCHDOG_USEC", watchdog);
    Program::start(&mut command, &world.folder(), "supervised")
}

#[test]
fn a_life_is_told_from_ready_to_stopping() {
    let world = World::new();
    let [_one] = world.serve("app", ["one"]);
    let mut ear = Ear::in_folder_of(&world);
    let mut proxy = start(&world, "1000000");

    let ready = ear.until("READY=1").pop().unwrap_or_default();
    assert!(ready.contains("STATUS=Serving: 1 services"), "{ready}");
    ear.until("WATCHDOG=1");
    ear.until("WATCHDOG=1");

    proxy.signal(Signal::SIGHUP);
    let reloading = ear.until("RELOADING=1").pop().unwrap_or_default();
    assert!(reloading.lines().any(|l| l.starts_with("MONOTONIC_USEC=")), "{reloading}");
    ear.until("READY=1");
    world.write_config("[[rout]]\n");
    proxy.signal(Signal::SIGHUP);
    ear.until("RELOADING=1");
    let reloaded = ear.until("READY=1").pop().unwrap_or_default();
    assert!(reloaded.contains("STATUS=The configuration was not taken over"), "{reloaded}");

    let _two = world.serve("more", ["two"]);
    ear.until("STATUS=Serving: 2 services");

    proxy.signal(Signal::SIGINT);
    ear.until("STOPPING=1");
    assert_eq!(proxy.exits_within(Duration::from_secs(10)).code(), Some(0));
    assert!(!proxy.log().contains("A worker does nothing"), "one that has only begun is not stuck: {}", proxy.log_tail());
}

/// Who serves what the file declares, for want of a registry, serves; but is not ready.
#[test]
fn it_is_not_ready_before_the_registry_is_known() {
    let mut etcd = Etcd::start();
    let endpoints = [etcd.url()];
    etcd.kill();
    let mut world = World::setup().etcd(etcd).endpoints(&endpoints).unready().start();
    let mut ear = Ear::in_folder_of(&world);
    let proxy = start(&world, "0");
    world.eventually("it serves without", || proxy.log().contains("serving what the file declares"));
    world.etcd_mut().start_again();
    let heard = ear.until("READY=1");
    assert!(heard[0].starts_with("STATUS=Waiting for the registry"), "{heard:?}");
    assert!(heard.iter().all(|said| !said.contains("WATCHDOG")), "nobody asked for it: {heard:?}");
}

const PATIENCE: Duration = Duration::from_secs(20);
