use std::fs;

use super::*;
use crate::config::{CertificateFiles, ClientAuth, TlsConfig};
use crate::model::ListenerCertificates;
use crate::tls::samples::{Made, Sample};

/// A listener with `a.pem` and `a.key`, whose authorities are in `ca.pem`.
struct World {
    directory: tempfile::TempDir,
    files: Files,
}

impl World {
    fn new(first: &Made) -> (Self, Vec<Change>) {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("a.pem"), &first.chain).unwrap();
        fs::write(path("a.key"), &first.key).unwrap();
        fs::write(path("ca.pem"), &first.chain).unwrap();
        let (files, event) = Files::first(&[Listener::default(), listener(&directory)], SystemTime::now());
        (Self { directory, files }, event.changes)
    }

    fn write(&self, name: &str, text: &str) {
        // Another file of the same name, as programs that renew certificates put it there.
        let (new, path) = (self.directory.path().join("new"), self.directory.path().join(name));
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn look(&mut self) -> Vec<Change> {
        self.files.look(false, SystemTime::now())
    }

    fn reasons(&self) -> Vec<String> {
        self.files.rejected().list().into_iter().map(|r| r.reason).collect()
    }
}

fn listener(directory: &tempfile::TempDir) -> Listener {
    let path = |name: &str| directory.path().join(name);
    let tls = TlsConfig {
        certificates: vec![CertificateFiles { chain: path("a.pem"), key: path("a.key") }],
        client_auth: ClientAuth::Require,
        client_ca: Some(path("ca.pem")),
        ..TlsConfig::default()
    };
    Listener { tls: Some(tls), ..Listener::plain("127.0.0.1:8443".parse().unwrap()) }
}

/// What listener 1 is given, by the names of each certificate.
fn offered(changes: &[Change]) -> Vec<String> {
    let [Change::ListenerCertificates { listener: 1, certificates }] = changes else { panic!("{changes:?}") };
    let ListenerCertificates { own, client_authorities } = &**certificates;
    assert!(client_authorities.is_some());
    own.iter().map(|certificate| certificate.names.join(" ")).collect()
}

#[test]
fn a_new_pair_is_taken_over_once_both_files_are_there() {
    let (old, new) = (Sample::of(&["old.example"]).make(), Sample::of(&["new.example"]).make());
    let (mut world, first) = World::new(&old);
    assert_eq!(offered(&first), ["old.example"]);
    assert!(world.look().is_empty());
    world.write("a.pem", &new.chain);
    assert!(world.look().is_empty());
    world.write("a.key", &new.key);
    assert!(world.look().is_empty());
    assert_eq!(offered(&world.look()), ["new.example"]);
    assert!(world.look().is_empty() && world.reasons().is_empty());
}

#[test]
fn a_bad_pair_is_told_by_its_file_and_the_old_one_stays() {
    let (old, other) = (Sample::of(&["old.example"]).make(), Sample::of(&["other.example"]).make());
    let (mut world, _) = World::new(&old);
    world.write("a.key", &other.key);
    assert!(world.look().is_empty() && world.look().is_empty());
    let reasons = world.reasons();
    assert!(
        reasons.len() == 1 && reasons[0].contains("a.key does not belong to the certificate of CN=old.example"),
        "{reasons:?}"
    );
    fs::remove_file(world.directory.path().join("a.pem")).unwrap();
    assert!(world.look().is_empty() && world.look().is_empty());
    assert!(world.reasons()[0].contains("a.pem: No such file"), "{:?}", world.reasons());
    world.write("a.pem", &other.chain);
    world.look();
    assert_eq!(offered(&world.look()), ["other.example"]);
    assert!(world.reasons().is_empty());
}

#[test]
fn whoever_is_told_to_look_does_not_wait() {
    let (old, new) = (Sample::of(&["old.example"]).make(), Sample::of(&["new.example"]).make());
    let (mut world, _) = World::new(&old);
    world.write("a.pem", &new.chain);
    world.write("a.key", &new.key);
    assert_eq!(offered(&world.files.look(true, SystemTime::now())), ["new.example"]);
    world.write("ca.pem", &new.chain);
    assert_eq!(offered(&world.files.look(true, SystemTime::now())), ["new.example"]);
    assert!(world.files.look(true, SystemTime::now()).is_empty());
}

#[test]
fn the_configuration_may_name_other_files() {
    let (old, new) = (Sample::of(&["old.example"]).make(), Sample::of(&["new.example"]).make());
    let (mut world, _) = World::new(&old);
    let mut listener = listener(&world.directory);
    let path = |name: &str| world.directory.path().join(name);
    fs::write(path("b.pem"), &new.chain).unwrap();
    fs::write(path("b.key"), &new.key).unwrap();
    let Some(tls) = &mut listener.tls else { panic!("it has TLS") };
    tls.certificates.insert(0, CertificateFiles { chain: path("b.pem"), key: path("b.key") });
    world.files.take_over(std::slice::from_ref(&listener));
    assert_eq!(offered(&world.files.look(true, SystemTime::now())), ["new.example", "old.example"]);
    if let Some(tls) = &mut listener.tls {
        tls.certificates.truncate(1);
    }
    world.files.take_over(std::slice::from_ref(&listener));
    assert_eq!(offered(&world.files.look(true, SystemTime::now())), ["new.example"]);
}
