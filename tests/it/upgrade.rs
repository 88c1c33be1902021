//! A new process of the program takes the sockets over, and nobody who uses the proxy can tell.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use http::Version;
use nix::sys::signal::Signal;

use crate::world::client::{Ask, Connection};
use crate::world::ports::free_address;
use crate::world::tls::{Authority, curl};
use crate::world::{Setup, World};

/// Clients that stay get this long to ask once more, then what runs gets as long to end.
const SHORT: &str = "[proxy.limits]\nkeep_alive = \"2s\"\n[proxy.shutdown]\ngrace = \"0s\"\ndrain = \"5s\"\n";

impl World {
    fn took_over(&self) -> f64 {
        self.metric("pointsman_upgrades_total", &[("result", "taken_over")]).unwrap_or_default()
    }

    fn refused(&self) -> f64 {
        self.metric("pointsman_upgrades_total", &[("result", "refused")]).unwrap_or_default()
    }

    /// Until the admin endpoint is that of a process which took over.
    fn upgrades(&self) {
        self.proxy.signal(Signal::SIGQUIT);
        self.eventually("the new process shows itself", || self.took_over() == 1.0);
    }
}

fn short(more: &str) -> Setup {
    World::setup().config(&format!("{SHORT}{more}"))
}

#[test]
fn under_load_no_request_fails() {
    let (at, authority) = (free_address(), Authority::new("Test Root"));
    let pair = authority.vouch(&["a.example"]);
    let listeners = format!(
        "[[listener]]\naddress = 'LISTEN'\n[[listener]]\naddress = '{at}'\n\
         [listener.tls]\ncertificates = [{{ chain = 'a.pem', key = 'a.key' }}]\n"
    );
    let files = |setup: Setup| setup.file("ca.pem", &authority.pem).file("a.pem", &pair.chain).file("a.key", &pair.key);
    let mut world = files(short(&listeners)).start();
    let [one] = world.serve("app", ["one"]);
    let over_tls = |world: &World| curl(&world.folder(), at, "a.example", "/", &[]).status;
    assert_eq!(over_tls(&world), 200);
    let mut socket = world.websocket("/ws");
    assert_eq!(world.echo(&mut socket, "before"), Ok("before".to_owned()));
    let listen = world.listen;
    let over_h2 = world.handle().spawn(async move { Connection::open(listen, Version::HTTP_2).await?.ask("/half").await });
    let long = world.begin_many("/half", 3);
    world.settles("they run", 4, || one.running());
    let mut idle = world.connect();
    assert_eq!(idle.ask("/").status, 200);
    let load = world.load("/");

    world.proxy.signal(Signal::SIGQUIT);
    let mut n = 0;
    world.eventually("the new process shows itself", || {
        assert_eq!(world.get("/").status, 200, "a connection of its own each");
        n += 1;
        world.took_over() == 1.0
    });
    assert!(n > 1);
    // What was open goes on where it was, once more.
    assert_eq!(world.echo(&mut socket, "after"), Ok("after".to_owned()));
    let last = idle.ask("/");
    assert_eq!((last.status, last.field("connection")), (200, "close"));
    for _ in 0..50 {
        assert_eq!(world.get("/").status, 200);
    }
    assert_eq!(over_tls(&world), 200);
    one.release();
    long.ends().all_served(3);
    let over_h2 = world.handle().block_on(over_h2).expect("a client that does not panic");
    assert_eq!(over_h2.map(|answer| answer.status), Ok(200));
    let tally = load.ends();
    tally.all_served(tally.served());
    assert!(tally.reconnected > 0, "who stayed was told to come again");

    assert_eq!(world.handle().block_on(socket.close_code()), Some(1001), "what outlasts the drain is told");
    assert_eq!(world.proxy_mut().exits_within(Duration::from_secs(15)).code(), Some(0));
    assert_eq!((world.get("/").status, world.proxy.n_processes()), (200, 1), "one process is left");
    let log = world.proxy.log();
    assert_eq!(log.matches("Every instance has been probed once").count(), 2, "{log}");
    assert_eq!(world.admin_status("/readyz"), Some(200));
}

/// Many streams on each connection; some of them are gRPC's, and one goes on through all of it.
#[test]
fn no_stream_of_http2_fails() {
    let mut world = short("").start();
    let [one] = world.serve("app", ["one"]);
    world.put("/instances/app/one", &format!(r#"{{"address":"{}","protocol":"h2c"}}"#, one.address));
    let call =
        Ask::post("/echo.Echo/Say", &b"\0\0\0\0\x02hi"[..]).with("content-type", "application/grpc").with("te", "trailers");
    world.settles("gRPC passes", "0".to_owned(), || {
        let answer = world.get_h2(call.clone());
        answer
            .trailers
            .get("grpc-status")
            .map_or_else(String::new, |status| String::from_utf8_lossy(status.as_bytes()).into_owned())
    });
    let listen = world.listen;
    let long = world.handle().spawn(async move { Connection::open(listen, Version::HTTP_2).await?.ask("/half").await });
    world.settles("it runs", 1, || one.running());
    let loads = [world.load_of_streams("/"), world.load_of_streams(call)];
    world.upgrades();
    one.release();
    let long = world.handle().block_on(long).expect("a client that does not panic").expect("an answer");
    assert_eq!((long.status, long.text()), (200, "first half, second half"));
    for load in loads {
        let tally = load.ends();
        tally.all_served(tally.served());
        assert!(tally.reconnected > 0, "who stayed was told to come again");
        assert!(tally.not_taken < tally.served() / 2, "{} of {} streams had to be asked again", tally.not_taken, tally.served());
    }
    assert_eq!(world.proxy_mut().exits_within(Duration::from_secs(15)).code(), Some(0));
}

#[test]
fn a_new_process_that_cannot_serve_leaves_everything_as_it_was() {
    let mut world = short("[process]\nupgrade_timeout = \"1s\"\n").start();
    let [_one] = world.serve("app", ["one"]);
    let mut kept = world.connect();
    world.write_config("[[rout]]\nservice = \"app\"\n");
    world.proxy.signal(Signal::SIGQUIT);
    world.settles("a file with a mistake is none to start with", 1.0, || world.refused());
    assert!(world.proxy.log().contains("unknown key; did you mean"), "{}", world.proxy.log_tail());

    world.write_config("[process]\nupgrade_timeout = \"1s\"\n");
    world.etcd().pause();
    world.proxy.signal(Signal::SIGQUIT);
    world.settles("nor is a registry that does not answer", 2.0, || world.refused());
    assert!(world.proxy.log().contains("not ready after 1s"), "{}", world.proxy.log_tail());
    world.etcd().resume();
    assert_eq!((kept.ask("/").status, kept.ask("/").field("connection")), (200, ""));
    assert_eq!((world.proxy.n_processes(), world.took_over()), (1, 0.0));

    world.write_config(SHORT);
    world.upgrades();
    assert_eq!(world.get("/").status, 200);
    assert_eq!(world.proxy_mut().exits_within(Duration::from_secs(15)).code(), Some(0));
}

#[test]
fn who_is_told_to_stop_takes_the_new_process_along() {
    let mut world = short("").start();
    let [_one] = world.serve("app", ["one"]);
    world.etcd().pause();
    world.proxy.signal(Signal::SIGQUIT);
    world.settles("one that will not be ready is on its way", 2, || world.proxy.n_processes());
    world.terminate();
    assert_eq!(world.proxy_mut().exits_within(Duration::from_secs(30)).code(), Some(0));
    world.settles("both have ended", 0, || world.proxy.n_processes());
}

#[test]
fn a_process_that_dies_while_it_is_upgraded_is_replaced() {
    let mut world = short("").start();
    let [_one] = world.serve("app", ["one"]);
    world.etcd().pause();
    world.proxy.signal(Signal::SIGQUIT);
    world.settles("the new one has got the sockets", 2, || world.proxy.log().matches("Privileges given up").count());
    world.proxy_mut().kill();
    world.etcd().resume();
    // Its sockets were passed on before.
    world.settles("the new one serves", 200, || world.get("/").status);
    assert_eq!((world.took_over(), world.proxy.n_processes()), (1.0, 1));
}

/// Its data lie in a file that one process at a time may have.
#[test]
fn the_registry_inside_goes_over_with_what_it_holds() {
    let mut world = short("").embedded().start();
    let [_one] = world.serve("app", ["one"]);
    let revision = world.applied_revision();
    world.upgrades();
    assert_eq!(world.get("/").status, 200);
    assert!(world.applied_revision() >= revision);
    world.put("/routes/app", r#"{"path_prefix":"/only","service":"app"}"#);
    world.settles("it is followed as before", (200, 404), || (world.get("/only").status, world.get("/").status));
    assert_eq!(world.proxy_mut().exits_within(Duration::from_secs(15)).code(), Some(0));
    assert_eq!(world.get("/only").status, 200);
}

#[test]
fn a_registry_in_memory_is_not_thrown_away() {
    let world = short("").embedded().in_memory().start();
    world.proxy.signal(Signal::SIGQUIT);
    world.settles("it is refused", 1.0, || world.refused());
    assert!(world.proxy.log().contains("in this process's memory (registry.data)"), "{}", world.proxy.log_tail());
}

/// systemd follows the process that serves.
#[test]
fn the_service_manager_hears_which_process_serves() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let ear = UnixDatagram::bind(&path).expect("a socket");
    ear.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    let until = |line: &str| loop {
        let mut buffer = [0; 4096];
        let n = ear.recv(&mut buffer).unwrap_or_else(|error| panic!("{line}: {error}"));
        let said = String::from_utf8_lossy(&buffer[..n]).into_owned();
        if let Some(found) = said.lines().find_map(|said| said.strip_prefix(line)) {
            return found.to_owned();
        }
    };
    let setup = short("").variable("NOTIFY_SOCKET", &path.display().to_string()).variable("WATCHDOG_USEC", "60000000");
    let mut world = setup.start();
    until("READY=1");
    world.write_config("[[rout]]\n");
    world.proxy.signal(Signal::SIGQUIT);
    let why = until("STATUS=Upgrade refused: ");
    assert!(why.contains("rout: unknown key"), "{why}");
    world.write_config(SHORT);
    // Somebody for whom the old process stays.
    let _kept = world.connect();
    world.proxy.signal(Signal::SIGQUIT);
    let pid = until("MAINPID=");
    assert!(world.proxy.log().contains(&format!("pid={pid}")), "{}", world.proxy.log_tail());
    // Or systemd would neither see it end nor wait for its end.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let parent = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(1).map(str::to_owned));
    assert_ne!(parent, Some(world.proxy.pid().to_string()), "it is no child of the one before it");
    until("READY=1");
    until("WATCHDOG=1");
    assert_eq!(world.proxy_mut().exits_within(Duration::from_secs(15)).code(), Some(0));
}
