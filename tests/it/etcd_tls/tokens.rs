//! Users with passwords: tokens that end while a watch and a lease go on, passwords that change, and what a role does not
//! allow.

use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{relists, trouble};
use crate::world::World;
use crate::world::program::Program;
use crate::world::vault::{LOGIN, PASSWORD, Vault};

/// Registers something under a lease of two seconds, as long as that is renewed.
fn registrar(vault: &Vault, world: &World, address: &str) -> Program {
    let args = ["register", "--service", "leased", "--id", "1", "--address", address, "--ttl", "2s", "--drain", "1s"];
    Program::start(&mut vault.command(world, &args, &LOGIN), &world.folder(), "registrar")
}

fn is_leased(world: &World) -> bool {
    world.seen("leased", "1")["address"].is_string()
}

/// What ends a token must not end a watch or a lease, nor keep anybody from the next call.
fn tokens_end_and_nothing_else_does(flags: &[&str], end: impl Fn(&Vault, &World)) {
    let vault = Vault::new();
    let world = vault.setup(vault.etcd_with_users(flags), &LOGIN).start();
    let leased = world.upstream("leased");
    let mut registrar = registrar(&vault, &world, &leased.address.to_string());
    world.eventually("it is registered", || is_leased(&world));
    let _one = vault.serves(&world, "one");
    let n_logins = world.etcd().n_logins();

    end(&vault, &world);
    let _two = vault.serves(&world, "two");
    assert!(is_leased(&world), "its lease was renewed meanwhile: {}", registrar.log_tail());
    // Whether its lease has ended is asked with a call of its own; so is what the proxy writes about itself.
    registrar.signal(Signal::SIGTERM);
    registrar.exits_within(Duration::from_secs(10));
    world.eventually("its record goes with it", || !is_leased(&world));
    assert!(!registrar.log().contains("Lease lost"), "{}", registrar.log_tail());
    world.eventually("somebody has logged in again", || world.etcd().n_logins() > n_logins);

    let (ok, said) = vault.said(&world, &["wait", "--revision", &world.applied_revision().to_string()], &LOGIN);
    assert!(ok && said.contains("1 proxies"), "the proxy's own record is written: {said}");
    assert_eq!(relists(&world), 1.0);
    assert!(!world.proxy.log().contains("Registry not reached"), "{}", world.proxy.log_tail());
    assert!(!format!("{}{}", world.proxy.log(), registrar.log()).contains(PASSWORD));
}

#[test]
fn a_token_that_expires_ends_no_watch_and_no_lease() {
    // Forgotten a second after it was last used, which is looked after once a second.
    tokens_end_and_nothing_else_does(&["--auth-token-ttl", "1"], |_, _| sleep(Duration::from_secs(4)));
}

#[test]
fn a_signed_token_that_expires_or_is_from_before_a_change_of_roles_ends_none_either() {
    let key = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(key.path(), "what the tokens are signed with").expect("a file");
    let token = |ttl: &str| format!("jwt,sign-method=HS256,priv-key={},ttl={ttl}", key.path().display());
    tokens_end_and_nothing_else_does(&["--auth-token", &token("2s")], |_, _| sleep(Duration::from_secs(4)));
    tokens_end_and_nothing_else_does(&["--auth-token", &token("1h")], |vault, world| {
        vault.administer(&world.etcd().url(), &[&["role", "add", "another"], &["user", "grant-role", "proxy", "another"]]);
        sleep(Duration::from_secs(4));
    });
}

#[test]
fn a_password_may_change_and_a_wrong_one_is_told() {
    let vault = Vault::new();
    let mut world = vault.setup(vault.etcd_with_users(&[]), &LOGIN).start();
    let _one = vault.serves(&world, "one");
    for (settings, words) in [
        (&[LOGIN[0], LOGIN[1], ("password", "wr0ng")][..], "the user or the password is wrong"),
        (&LOGIN[..1], "this etcd wants registry.user"),
    ] {
        let (ok, said) = vault.said(&world, &["get", "route"], settings);
        assert!(!ok && said.contains(words) && !said.contains("wr0ng"), "{said}");
    }

    let next = "an0ther-passw0rd";
    vault.file("next.password", next);
    vault.administer(&world.etcd().url(), &[&["user", "passwd", "proxy", "--interactive=false"]]);
    world.etcd_mut().kill();
    world.etcd_mut().start_again();
    world.eventually("the old one is refused", || trouble(&world).contains("the user or the password is wrong"));
    vault.password(next);
    world.eventually("the new one is read", || trouble(&world).is_empty());
    let _two = vault.serves(&world, "two");
    assert_eq!(relists(&world), 1.0);
}
