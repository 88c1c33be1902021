//! What the proxy does when it is told to leave, or to read its file again.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::world::{Ask, World};

#[test]
fn sigterm_fails_readiness_then_lets_running_requests_finish() {
    let mut world = World::setup().config("[proxy.shutdown]\ngrace = \"500ms\"\ndrain = \"20s\"\n").start();
    let [one] = world.serve("app", ["one"]);
    let mut idle = world.connect();
    idle.ask("/");
    let _idle = idle;
    let waiting = world.begin_many("/half", 3);
    world.settles("they run", 3, || one.running());
    world.terminate();
    world.settles("readiness fails first", Some(503), || world.admin_status("/readyz"));
    assert_eq!(world.get("/").status, 200, "whoever has not noticed yet is still served");
    world.eventually("then the listener closes", || std::net::TcpStream::connect(world.listen).is_err());
    one.release();
    waiting.ends().all_served(3);
    let exit = world.proxy_mut().exits_within(Duration::from_secs(5));
    assert_eq!(exit.code(), Some(0), "an idle connection does not hold it up");
}

#[test]
fn a_request_that_never_ends_is_cut_when_the_time_is_over() {
    let mut world = World::setup().config("[proxy.shutdown]\ngrace = \"0s\"\ndrain = \"1s\"\n").start();
    let [one] = world.serve("app", ["one"]);
    let _waiting = world.begin_many("/held", 1);
    world.settles("it runs", 1, || one.running());
    world.terminate();
    assert_eq!(world.proxy_mut().exits_within(Duration::from_secs(8)).code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut world = World::setup().config("[proxy.shutdown]\ngrace = \"20s\"\ndrain = \"20s\"\n").start();
    let [one] = world.serve("app", ["one"]);
    let _waiting = world.begin_many("/held", 1);
    world.settles("it runs", 1, || one.running());
    world.terminate();
    world.settles("it has heard", Some(503), || world.admin_status("/readyz"));
    let told_again = Instant::now();
    world.terminate();
    world.proxy_mut().exits_within(Duration::from_secs(3));
    assert!(told_again.elapsed() < Duration::from_secs(3));
}

/// And not cut off without a word, as if the network had failed.
#[test]
fn a_websocket_that_outlasts_the_drain_is_told_that_we_go() {
    let mut world = World::setup().config("[proxy.shutdown]\ngrace = \"0s\"\ndrain = \"1s\"\n").start();
    let [_one] = world.serve("app", ["one"]);
    let mut socket = world.websocket("/ws");
    assert_eq!(world.echo(&mut socket, "hello"), Ok("hello".to_owned()));
    world.terminate();
    assert_eq!(world.handle().block_on(socket.close_code()), Some(1001));
    world.proxy_mut().exits_within(Duration::from_secs(5));
}

#[test]
fn sighup_reads_the_file_again_and_keeps_the_old_one_if_the_new_is_wrong() {
    let route = |prefix: &str| format!("[[route]]\npath_prefix = \"{prefix}\"\nservice = \"app\"\n");
    let world = World::setup().config(&route("/old")).start();
    let [_one] = world.serve("app", ["one"]);
    world.delete("/routes/app");
    let ask = |path: &str| world.get(path).status;
    assert_eq!((ask("/old"), ask("/new")), (200, 404));

    world.write_config(&route("/new"));
    world.proxy.signal(Signal::SIGHUP);
    world.settles("the new file is in force", (404, 200), || (ask("/old"), ask("/new")));

    world.write_config("[[route]]\npath_prefx = \"/worse\"\nservice = \"app\"\n");
    world.proxy.signal(Signal::SIGHUP);
    world.eventually("the mistake is named", || {
        let log = world.proxy.log();
        log.contains("path_prefx") && log.contains("path_prefix")
    });
    assert_eq!((ask("/old"), ask("/new")), (404, 200));
}

#[test]
fn a_busy_port_is_an_error_message_and_nothing_else() {
    let world = World::new();
    let address = world.listen.to_string();
    let out = world.run(&["run", "--listen", &address, "--admin", &crate::world::ports::free_address().to_string()]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains(&address), "{said}");
    assert_eq!(world.get(Ask::get("/")).status, 404, "the first goes on");
}
