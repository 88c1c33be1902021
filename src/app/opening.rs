//! Which socket each part of the process listens on: one that was passed to it, or one that it binds.

use std::net::{SocketAddr, TcpListener};

use tracing::info;

use super::StartError;
use crate::config::{Config, EmbeddedConfig, RegistryKind};
use crate::proxy;
use crate::system::passed::PassedSocket;

/// All that this process listens on.
pub struct Opened {
    pub proxy: proxy::Sockets,
    pub admin: TcpListener,
    /// `None`: the registry is not inside this process.
    pub registry: Option<TcpListener>,
}

/// Where the sockets come from that are there already.
pub enum Passed {
    ByServiceManager(Vec<PassedSocket>),
    /// By the process that serves until now; the configuration may have changed since.
    ByPredecessor(Vec<PassedSocket>),
}

/// Binds what was not passed. Whoever may not stay privileged calls this before.
pub fn open(config: &Config, passed: Passed) -> Result<Opened, StartError> {
    let listeners = config.listeners.iter().enumerate().map(|(n, listener)| Wanted {
        path: format!("listener[{n}]"),
        name: listener.socket.as_deref(),
        address: listener.address,
        shared: true,
    });
    let admin =
        Wanted { path: "admin".to_owned(), name: config.admin.socket.as_deref(), address: config.admin.address, shared: false };
    let embedded = match &config.registry.kind {
        RegistryKind::Embedded(EmbeddedConfig { listen, .. }) => Some(*listen),
        RegistryKind::Etcd(_) => None,
    };
    let registry = embedded.map(|address| Wanted { path: "registry.listen".to_owned(), name: None, address, shared: false });
    let all: Vec<_> = listeners.chain([admin]).chain(registry).collect();
    let mut given = match passed {
        Passed::ByServiceManager(passed) => share_out(&all, passed, leave_none)?,
        Passed::ByPredecessor(passed) => share_out(&all, passed, close)?,
    };
    let registry = match embedded {
        Some(address) => Some(match given.pop().and_then(|mut sockets| sockets.pop()) {
            Some(passed) => passed,
            None => listen(super::EMBEDDED, address)?,
        }),
        None => None,
    };
    let admin = match given.pop().and_then(|mut sockets| sockets.pop()) {
        Some(passed) => passed,
        None => listen("admin endpoint", config.admin.address)?,
    };
    let proxy = proxy::open(&config.listeners, given, config.proxy.workers).map_err(StartError::Bind)?;
    Ok(Opened { proxy, admin, registry })
}

fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
    bound.map_err(|error| StartError::Listen(what, address, error))
}

/// Who wants a socket, and which would be right.
struct Wanted<'a> {
    path: String,
    name: Option<&'a str>,
    /// With port 0: any.
    address: SocketAddr,
    /// Several sockets at one address are as good as one.
    shared: bool,
}

impl Wanted<'_> {
    fn fits(&self, socket: &PassedSocket) -> bool {
        let is_there = self.address == socket.address;
        match self.name {
            Some(name) => name == socket.name && (is_there || self.address.port() == 0),
            None => is_there,
        }
    }
}

/// For each the sockets that are its; every problem otherwise, a line each.
fn share_out(
    wanted: &[Wanted<'_>],
    mut passed: Vec<PassedSocket>,
    leave: fn(Vec<PassedSocket>) -> Vec<String>,
) -> Result<Vec<Vec<TcpListener>>, StartError> {
    let there = match &passed[..] {
        [] => "none was; is this started by its .socket unit?".to_owned(),
        some => format!("these were: {}", some.iter().map(shown).collect::<Vec<_>>().join(", ")),
    };
    let mut problems = Vec::new();
    let mut given = Vec::new();
    for wanted in wanted {
        let (fitting, rest): (Vec<_>, Vec<_>) = passed.into_iter().partition(|socket| wanted.fits(socket));
        passed = rest;
        let path = &wanted.path;
        match (wanted.name, &fitting[..]) {
            (Some(name), []) if wanted.address.port() == 0 => {
                problems.push(format!("{path}.socket: no socket of the name {name:?} was passed; {there}"));
            }
            (Some(name), []) => {
                problems.push(format!("{path}.socket: no socket of the name {name:?} at {} was passed; {there}", wanted.address));
            }
            (_, [first, others @ ..]) if others.iter().any(|other| other.address != first.address) => {
                let all = fitting.iter().map(shown).collect::<Vec<_>>().join(", ");
                problems.push(format!("{path}.socket: which is meant? {all}; say the address too"));
            }
            (_, [_, _, ..]) if !wanted.shared => problems.push(format!("{path}.socket: more than one was passed; one is enough")),
            _ => {}
        }
        given.push(fitting.into_iter().map(|socket| socket.socket).collect());
    }
    problems.extend(leave(passed));
    if problems.is_empty() { Ok(given) } else { Err(StartError::Passed(problems.join("\n"))) }
}

/// Whoever passes what nobody wants has made a mistake.
fn leave_none(left: Vec<PassedSocket>) -> Vec<String> {
    let problem = |left: &PassedSocket| {
        format!(
            "the socket {} was passed, but nobody takes it: a [[listener]] with socket = {:?} would, or one with this address; \
             or take it out of the .socket unit",
            shown(left),
            left.name
        )
    };
    left.iter().map(problem).collect()
}

/// Whoever listened there before does not any more.
fn close(left: Vec<PassedSocket>) -> Vec<String> {
    for left in &left {
        info!(address = %left.address, "No listener of the configuration is there any more; closed");
    }
    Vec::new()
}

fn shown(socket: &PassedSocket) -> String {
    format!("{:?} at {}", socket.name, socket.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(name: &str) -> PassedSocket {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        PassedSocket { name: name.to_owned(), address: socket.local_addr().unwrap(), socket }
    }

    fn wanted<'a>(path: &str, name: Option<&'a str>, address: Option<SocketAddr>) -> Wanted<'a> {
        let address = address.unwrap_or_else(|| "0.0.0.0:0".parse().unwrap());
        Wanted { path: path.to_owned(), name, address, shared: path != "admin" }
    }

    #[test]
    fn a_socket_goes_to_who_names_it_or_has_its_address() {
        let (http, other) = (passed("http"), passed("pointsman.socket"));
        let (at_http, at_other) = (http.address, other.address);
        let asking =
            [wanted("listener[0]", None, Some(at_other)), wanted("listener[1]", Some("http"), None), wanted("admin", None, None)];
        let given = share_out(&asking, vec![http, other], leave_none).unwrap();
        let addresses: Vec<Vec<SocketAddr>> = given.iter().map(|g| g.iter().map(|s| s.local_addr().unwrap()).collect()).collect();
        assert_eq!(addresses, [vec![at_other], vec![at_http], vec![]]);
    }

    #[test]
    fn one_name_for_several_is_told_apart_by_address() {
        let (a, b) = (passed("web"), passed("web"));
        let (at_a, at_b) = (a.address, b.address);
        let both = [wanted("listener[0]", Some("web"), Some(at_b)), wanted("listener[1]", Some("web"), Some(at_a))];
        let given = share_out(&both, vec![a, b], leave_none).unwrap();
        assert_eq!([given[0][0].local_addr().unwrap(), given[1][0].local_addr().unwrap()], [at_b, at_a]);
        let error = share_out(&[wanted("listener[0]", Some("web"), None)], vec![passed("web"), passed("web")], leave_none)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("listener[0].socket: which is meant? \"web\" at "), "{error}");
    }

    #[test]
    fn what_is_missing_and_what_is_left_are_both_named() {
        let error =
            share_out(&[wanted("listener[0]", Some("https"), None)], vec![passed("http")], leave_none).unwrap_err().to_string();
        let [missing, left] = error.lines().collect::<Vec<_>>()[..] else { panic!("{error}") };
        assert!(missing.starts_with("listener[0].socket: no socket of the name \"https\" was passed; these were: \"http\" at"));
        assert!(left.starts_with("the socket \"http\" at ") && left.contains("socket = \"http\""), "{left}");
        let error = share_out(&[wanted("admin", Some("admin"), None)], vec![], leave_none).unwrap_err().to_string();
        assert!(error.contains("admin.socket") && error.contains(".socket unit?"), "{error}");
    }

    #[test]
    fn what_a_predecessor_has_too_much_is_closed() {
        let gone = passed("");
        let address = gone.address;
        let given = share_out(&[wanted("listener[0]", None, Some(passed("").address))], vec![gone], close).unwrap();
        assert!(given[0].is_empty() && std::net::TcpStream::connect(address).is_err());
    }
}
