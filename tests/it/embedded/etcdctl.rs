//! The real `etcdctl`, pointed at the embedded registry.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use super::Embedded;

#[test]
fn etcdctl_puts_gets_and_deletes() {
    let registry = Embedded::in_memory();
    let etcdctl = Etcdctl::to(&registry);
    assert_eq!(etcdctl.run(&["put", "a", "1"]), "OK\n");
    assert_eq!(etcdctl.run(&["put", "a", "2", "--prev-kv"]), "OK\na\n1\n");
    assert_eq!(etcdctl.run(&["put", "b", "3"]), "OK\n");
    assert_eq!(etcdctl.run(&["get", "a"]), "a\n2\n");
    assert_eq!(etcdctl.run(&["get", "", "--from-key", "--keys-only"]), "a\n\nb\n\n");
    assert_eq!(etcdctl.run(&["get", "a", "--rev", "2", "--print-value-only"]), "1\n");
    assert_eq!(etcdctl.run(&["get", "a", "z", "--order", "DESCEND", "--sort-by", "VALUE", "--limit", "1"]), "b\n3\n");
    assert_eq!(etcdctl.run(&["del", "", "--prefix", "--prev-kv"]), "2\na\n2\nb\n3\n");
    assert_eq!(etcdctl.run(&["compaction", "5"]), "compacted revision 5\n");
    assert!(etcdctl.fails(&["get", "a", "--rev", "2"]).contains("required revision has been compacted"));
}

#[test]
fn etcdctl_runs_a_transaction() {
    let registry = Embedded::in_memory();
    let etcdctl = Etcdctl::to(&registry);
    etcdctl.run(&["put", "a", "1"]);
    let txn = "value(\"a\") = \"1\"\n\nput a 2\nget a\n\nput a 3\n\n";
    assert_eq!(etcdctl.run_with(txn, &["txn"]), "SUCCESS\n\nOK\n\na\n2\n");
    assert_eq!(etcdctl.run_with(txn, &["txn"]), "FAILURE\n\nOK\n");
}

#[test]
fn etcdctl_grants_renews_and_revokes_a_lease() {
    let registry = Embedded::in_memory();
    let etcdctl = Etcdctl::to(&registry);
    let granted = etcdctl.run(&["lease", "grant", "60"]);
    let id = granted.split(' ').nth(1).expect("lease ID granted with …");
    assert_eq!(granted, format!("lease {id} granted with TTL(60s)\n"));
    etcdctl.run(&["put", "a", "1", "--lease", id]);
    assert_eq!(etcdctl.run(&["lease", "list"]), format!("found 1 leases\n{id}\n"));
    assert_eq!(etcdctl.run(&["lease", "keep-alive", "--once", id]), format!("lease {id} keepalived with TTL(60)\n"));
    let told = etcdctl.run(&["lease", "timetolive", "--keys", id]);
    assert!(told.contains("granted with TTL(60s)") && told.contains("attached keys([a])"), "{told}");
    assert_eq!(etcdctl.run(&["lease", "revoke", id]), format!("lease {id} revoked\n"));
    assert_eq!(etcdctl.run(&["get", "a"]), "");
    assert_eq!(etcdctl.run(&["lease", "timetolive", id]), format!("lease {id} already expired\n"));
}

#[test]
fn etcdctl_watches_history_and_what_follows() {
    let registry = Embedded::in_memory();
    let etcdctl = Etcdctl::to(&registry);
    etcdctl.run(&["put", "a", "1"]);
    let mut watch = etcdctl.start(&["watch", "--rev", "1", "--prefix", "a"]);
    let mut told = BufReader::new(watch.0.stdout.take().unwrap()).lines();
    let mut next_three = || [0; 3].map(|_| told.next().unwrap().unwrap());
    assert_eq!(next_three(), ["PUT", "a", "1"]);
    etcdctl.run(&["put", "ab", "2"]);
    assert_eq!(next_three(), ["PUT", "ab", "2"]);
    etcdctl.run(&["del", "a"]);
    assert_eq!(next_three(), ["DELETE", "a", ""]);
}

#[test]
fn etcdctl_holds_a_lock_while_a_command_runs() {
    let registry = Embedded::in_memory();
    let etcdctl = Etcdctl::to(&registry);
    assert_eq!(etcdctl.run(&["lock", "gate", "echo", "inside"]), "inside\n");
    assert_eq!(etcdctl.run(&["get", "gate", "--prefix"]), "");
}

#[test]
fn etcdctl_finds_one_healthy_member_and_no_alarms() {
    let registry = Embedded::in_memory();
    let etcdctl = Etcdctl::to(&registry);
    let members = etcdctl.run(&["member", "list"]);
    assert!(members.contains(&format!("started, embedded, , {}, false", registry.url)), "{members}");
    assert!(etcdctl.run_all(&["endpoint", "health"]).contains("is healthy"));
    let status = etcdctl.run(&["endpoint", "status"]);
    assert!(status.starts_with(&etcdctl.address) && status.contains(", true, false, 2, 1, 1, "), "{status}");
    assert_eq!(etcdctl.run(&["alarm", "list"]), "");
    assert!(etcdctl.run(&["defrag"]).starts_with("Finished defragmenting"));
}

#[test]
fn etcdctl_is_told_plainly_what_is_absent() {
    let registry = Embedded::in_memory();
    let etcdctl = Etcdctl::to(&registry);
    assert!(etcdctl.fails(&["user", "list"]).contains("the embedded registry is one process and has no users and roles"));
    assert!(etcdctl.fails(&["member", "remove", "1"]).contains("has no other members"));
    // `etcdctl` takes "authentication is not enabled" for what it is, and goes on.
    assert_eq!(etcdctl.run(&["get", "a", "--user", "root:secret"]), "");
}

struct Etcdctl {
    /// Without a scheme: with one, `etcdctl endpoint status` of 3.4 sends the whole URL as `:authority`, which our HTTP/2
    /// refuses as malformed.
    address: String,
}

/// A running `etcdctl`, killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Etcdctl {
    fn to(registry: &Embedded) -> Self {
        Self { address: registry.url.trim_start_matches("http://").into() }
    }

    /// What it prints when it succeeds.
    fn run(&self, arguments: &[&str]) -> String {
        self.run_with("", arguments)
    }

    fn run_with(&self, input: &str, arguments: &[&str]) -> String {
        let (succeeded, printed, complaint) = self.finish(input, arguments);
        assert!(succeeded, "etcdctl {arguments:?}: {complaint}");
        printed
    }

    /// What it prints anywhere when it succeeds.
    fn run_all(&self, arguments: &[&str]) -> String {
        let (succeeded, printed, complaint) = self.finish("", arguments);
        assert!(succeeded, "etcdctl {arguments:?}: {complaint}");
        printed + &complaint
    }

    /// What it complains of when it fails.
    fn fails(&self, arguments: &[&str]) -> String {
        let (succeeded, printed, complaint) = self.finish("", arguments);
        assert!(!succeeded, "etcdctl {arguments:?} should have failed but printed {printed}");
        complaint
    }

    fn finish(&self, input: &str, arguments: &[&str]) -> (bool, String, String) {
        let mut running = self.start(arguments);
        running.0.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let printed = std::io::read_to_string(running.0.stdout.take().unwrap()).unwrap();
        let complaint = std::io::read_to_string(running.0.stderr.take().unwrap()).unwrap();
        (running.0.wait().unwrap().success(), printed, complaint)
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let started = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.address, "--command-timeout", "10s"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Running(started.expect("etcdctl is not installed: on Debian it is the package etcd-client"))
    }
}
