//! From one process to the next: listening sockets, and the few words around them, over a pair of Unix sockets.
//!
//! 1. The old process sends each socket with its name and address, then how many there were.
//! 2. The new one says `ready` once it could serve, or `refused` and why.
//! 3. The old one says `yours`, from when on it accepts nothing, or `never`, if it has waited for too long.
//!
//! Whoever is gone is heard of at once: the pair is of the kind that keeps messages apart and knows an end
//! (`SOCK_SEQPACKET`). The sockets are the same ones, not others at the same port, so what waits in their queues goes along.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};

use super::passed::PassedSocket;

/// One end.
#[derive(Debug)]
pub struct Channel {
    /// The standard library has no name for sockets of this kind; these are sent to and received from in the same way.
    socket: UnixDatagram,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// So many sockets were sent.
    Offered(usize),
    Ready,
    Refused(String),
    Yours,
    Never,
}

impl Channel {
    /// Ours, and the one for the other process.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self { socket: UnixDatagram::from(ours) }, theirs))
    }

    /// The one that this process was started with, as its standard input.
    pub fn of_stdin() -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::from(io::stdin().as_fd().try_clone_to_owned()?) })
    }

    /// For whoever waits for words in the background.
    pub fn into_async(self) -> io::Result<AsyncChannel> {
        self.socket.set_nonblocking(true)?;
        Ok(AsyncChannel { socket: tokio::net::UnixDatagram::from_std(self.socket)? })
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()? })
    }

    pub fn send_sockets(&self, sockets: &[PassedSocket]) -> io::Result<()> {
        self.socket.set_write_timeout(Some(PATIENCE))?;
        for PassedSocket { name, address, socket } in sockets {
            let said = format!("socket\t{name}\t{address}");
            let rights = [socket.as_raw_fd()];
            let message = [ControlMessage::ScmRights(&rights)];
            sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(said.as_bytes())], &message, MsgFlags::MSG_NOSIGNAL, None)?;
        }
        self.say(&Word::Offered(sockets.len()))
    }

    pub fn receive_sockets(&self) -> io::Result<Vec<PassedSocket>> {
        self.socket.set_read_timeout(Some(PATIENCE))?;
        let mut sockets = Vec::new();
        loop {
            let (said, passed) = self.receive()?;
            match (said.split('\t').collect::<Vec<_>>().as_slice(), passed) {
                (["socket", name, address], Some(socket)) => {
                    let address = address.parse().map_err(|_| nonsense(&said))?;
                    sockets.push(PassedSocket { name: (*name).to_owned(), address, socket: TcpListener::from(socket) });
                }
                _ if Word::read(&said) == Some(Word::Offered(sockets.len())) => return Ok(sockets),
                _ => return Err(nonsense(&said)),
            }
        }
    }

    pub fn say(&self, word: &Word) -> io::Result<()> {
        self.socket.send(word.to_string().as_bytes()).map(|_| ())
    }

    fn receive(&self) -> io::Result<(String, Option<OwnedFd>)> {
        let mut buffer = vec![0; MESSAGE_MAX];
        let mut room = nix::cmsg_space!([RawFd; 1]);
        let mut pieces = [IoSliceMut::new(&mut buffer)];
        let message = recvmsg::<()>(self.socket.as_raw_fd(), &mut pieces, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut passed = None;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = control {
                for descriptor in descriptors {
                    // SAFETY: the kernel has just made it for us, so it is open and nobody else's.
                    passed = Some(unsafe { OwnedFd::from_raw_fd(descriptor) });
                }
            }
        }
        match message.bytes {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => Ok((String::from_utf8_lossy(&buffer[..n]).into_owned(), passed)),
        }
    }
}

/// One end, among other things to wait for.
#[derive(Debug)]
pub struct AsyncChannel {
    socket: tokio::net::UnixDatagram,
}

impl AsyncChannel {
    /// `None`: the other side has ended. Being dropped, it has lost nothing.
    pub async fn hear(&self) -> io::Result<Option<Word>> {
        let mut buffer = vec![0; MESSAGE_MAX];
        let n = match self.socket.recv(&mut buffer).await {
            // It ended without looking at all we said. That is told once, before what it said itself.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.socket.recv(&mut buffer).await?,
            heard => heard?,
        };
        let said = String::from_utf8_lossy(&buffer[..n]).into_owned();
        if said.is_empty() { Ok(None) } else { Word::read(&said).map(Some).ok_or_else(|| nonsense(&said)) }
    }

    pub async fn say(&self, word: &Word) -> io::Result<()> {
        self.socket.send(word.to_string().as_bytes()).await.map(|_| ())
    }

    /// Without waiting, for the last word of who goes.
    pub fn try_say(&self, word: &Word) {
        // Whoever does not hear it any more has ended.
        let _ = self.socket.try_send(word.to_string().as_bytes());
    }
}

impl Word {
    fn read(said: &str) -> Option<Self> {
        Some(match said.split_once('\t').unwrap_or((said, "")) {
            ("offered", n) => Self::Offered(n.parse().ok()?),
            ("ready", "") => Self::Ready,
            ("refused", why) => Self::Refused(why.to_owned()),
            ("yours", "") => Self::Yours,
            ("never", "") => Self::Never,
            _ => return None,
        })
    }
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Offered(n) => write!(f, "offered\t{n}"),
            Self::Ready => f.write_str("ready"),
            Self::Refused(why) => write!(f, "refused\t{}", why.chars().take(REASON_MAX).collect::<String>()),
            Self::Yours => f.write_str("yours"),
            Self::Never => f.write_str("never"),
        }
    }
}

fn nonsense(said: &str) -> io::Error {
    let said: String = said.chars().take(SHOWN_MAX).collect();
    io::Error::new(io::ErrorKind::InvalidData, format!("{said:?} is not what a process says that hands its sockets over"))
}

/// The other side does nothing else at that moment.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a message; a longer one is cut off.
const MESSAGE_MAX: usize = 16 * 1024;
/// Characters of a reason, which are four bytes each at most.
const REASON_MAX: usize = 4000;
const SHOWN_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_goes_over_with_what_waits_in_its_queue() {
        let (old, new) = Channel::pair().unwrap();
        let new = Channel { socket: UnixDatagram::from(new) };
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let waiting = std::net::TcpStream::connect(address).unwrap();
        old.send_sockets(&[PassedSocket { name: "http".to_owned(), address, socket }]).unwrap();
        let received = new.receive_sockets().unwrap();
        let [PassedSocket { name, address: said, socket }] = &received[..] else { panic!("{received:?}") };
        assert_eq!((name.as_str(), *said), ("http", address));
        assert_eq!(socket.accept().unwrap().1, waiting.local_addr().unwrap());
    }

    #[tokio::test]
    async fn words_arrive_one_by_one_and_the_end_is_heard() {
        let (old, new) = Channel::pair().unwrap();
        let new = Channel { socket: UnixDatagram::from(new) };
        let words = [Word::Ready, Word::Refused("because\nof\tthat".to_owned()), Word::Yours, Word::Never, Word::Offered(3)];
        for word in &words {
            new.say(word).unwrap();
        }
        drop(new);
        let old = old.into_async().unwrap();
        for word in words {
            assert_eq!(old.hear().await.unwrap(), Some(word));
        }
        assert_eq!(old.hear().await.unwrap(), None);
        assert!(old.say(&Word::Yours).await.is_err());
    }

    #[tokio::test]
    async fn who_ends_without_listening_is_heard_all_the_same() {
        for last in [Some(Word::Refused("a mistake in the file".to_owned())), None] {
            let (old, new) = Channel::pair().unwrap();
            let new = Channel { socket: UnixDatagram::from(new) };
            old.say(&Word::Offered(1)).unwrap();
            last.iter().for_each(|word| new.say(word).unwrap());
            drop(new);
            let old = old.into_async().unwrap();
            assert_eq!(old.hear().await.unwrap(), last);
        }
    }

    #[test]
    fn what_is_not_understood_is_shown() {
        let (old, new) = Channel::pair().unwrap();
        let new = Channel { socket: UnixDatagram::from(new) };
        old.socket.send(b"socket\tx\t127.0.0.1:1").unwrap();
        assert!(new.receive_sockets().unwrap_err().to_string().contains("127.0.0.1:1"));
        old.say(&Word::Offered(2)).unwrap();
        assert_eq!(new.receive_sockets().unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(old);
        assert_eq!(new.receive_sockets().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
