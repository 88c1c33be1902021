//! How a world's clients talk to the proxy: once, many times, on a connection that is kept, or in raw bytes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use http::Version;

use super::World;
use super::client::{Answer, Ask, Connection, PATIENCE};

impl World {
    /// On a connection of its own.
    pub fn get(&self, ask: impl Into<Ask>) -> Answer {
        self.connect().ask(ask)
    }

    /// The same at another address.
    pub fn get_at(&self, to: SocketAddr, path: &str) -> Result<Answer, String> {
        let ask = Ask::get(path).host(&to.to_string());
        self.handle().block_on(async { Connection::open(to, Version::HTTP_11).await?.ask(ask).await })
    }

    pub fn get_h2(&self, ask: impl Into<Ask>) -> Answer {
        self.connect_h2().ask(ask)
    }

    /// `n` times one after the other on one connection; a new one is opened where it was closed, which is counted.
    pub fn get_many(&self, ask: impl Into<Ask>, n: usize) -> Tally {
        let ask = ask.into();
        self.handle().block_on(async {
            let mut tally = Tally::default();
            let mut connection = Connection::open(self.listen, Version::HTTP_11).await.expect("the proxy accepts");
            for _ in 0..n {
                if connection.is_closed() {
                    tally.reconnected += 1;
                    connection = Connection::open(self.listen, Version::HTTP_11).await.expect("the proxy accepts");
                }
                tally.take(connection.ask(ask.clone()).await);
            }
            tally
        })
    }

    pub fn connect(&self) -> Kept<'_> {
        self.connect_as(Version::HTTP_11)
    }

    pub fn connect_h2(&self) -> Kept<'_> {
        self.connect_as(Version::HTTP_2)
    }

    fn connect_as(&self, version: Version) -> Kept<'_> {
        let connection = self.handle().block_on(Connection::open(self.listen, version)).expect("the proxy accepts");
        Kept { world: self, connection }
    }

    /// A connection that says exactly these bytes.
    pub fn say(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = TcpStream::connect(self.listen).expect("the proxy accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline for reads");
        stream.write_all(bytes.as_ref()).expect("the proxy reads");
        stream
    }

    /// What comes back on such a connection until the proxy closes it.
    pub fn say_to_the_end(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut answer = Vec::new();
        // A reset after an answer ends it as well.
        let _ = self.say(bytes).read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// A connection that is kept between requests.
pub struct Kept<'a> {
    world: &'a World,
    connection: Connection,
}

impl Kept<'_> {
    pub fn ask(&mut self, ask: impl Into<Ask>) -> Answer {
        self.world.handle().block_on(self.connection.ask(ask)).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// How many requests went how.
#[derive(Debug, Default)]
pub struct Tally {
    by_instance: BTreeMap<String, usize>,
    /// What went wrong, in words: a broken connection, or a status that is not 200.
    pub failed: Vec<String>,
    pub reconnected: usize,
    /// Asked again, since the proxy had said that it takes no more on that connection.
    pub not_taken: usize,
}

impl Tally {
    pub fn from(&self, instance: &str) -> usize {
        self.by_instance.get(instance).copied().unwrap_or_default()
    }

    pub fn served(&self) -> usize {
        self.by_instance.values().sum()
    }

    pub fn take(&mut self, answer: Result<Answer, String>) {
        match answer {
            Ok(answer) if answer.status == 200 => *self.by_instance.entry(answer.from().to_owned()).or_default() += 1,
            Ok(answer) => self.failed.push(format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))),
            Err(error) => self.failed.push(error),
        }
    }

    pub fn add(&mut self, other: Self) {
        other.by_instance.into_iter().for_each(|(name, n)| *self.by_instance.entry(name).or_default() += n);
        self.failed.extend(other.failed);
        self.reconnected += other.reconnected;
        self.not_taken += other.not_taken;
    }

    /// Every request was answered with 200.
    pub fn all_served(&self, n: usize) {
        assert_eq!((self.served(), self.failed.len()), (n, 0), "first failures: {:?}", &self.failed[..self.failed.len().min(5)]);
    }
}
