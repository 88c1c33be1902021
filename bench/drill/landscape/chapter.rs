//! What goes wrong.

use clap::ValueEnum;

/// In the order they are told; each is done by the function of [`super::land::Land`] with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Chapter {
    /// nothing happens
    Calm,
    /// three instances get SIGKILL in turn, and come back
    Killed,
    /// one instance takes requests and never answers
    Hanging,
    /// one instance answers 503
    Failing,
    /// one instance takes 300 ms longer than the others
    Slow,
    /// one instance breaks off its answers in the middle
    Broken,
    /// the way to one instance drops every packet, its lease lives
    Unreachable,
    /// records of every kind that nobody can use
    Poisoned,
    /// half of all instances are deleted from the registry by hand
    Deleted,
    /// half of all leases end at once, the instances live
    Expired,
    /// one proxy loses etcd while instances come and go
    Partitioned,
    /// etcd hangs for longer than every lease lasts, and goes on
    Frozen,
    /// etcd gets SIGKILL, and comes back from its disk
    Crashed,
    /// etcd is restored from an older backup
    Restored,
    /// another etcd takes its place, with no instance in it
    Replaced,
    /// both proxies are replaced by new processes
    Upgraded,
    /// every instance is replaced, one by one
    Deployed,
}

impl Chapter {
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The line above.
    pub fn story(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }
}
