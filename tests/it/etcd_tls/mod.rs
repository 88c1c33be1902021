//! The registry is an etcd with TLS, client certificates, users and roles: it is followed and written to, and whatever is
//! renewed, expires or is refused there costs no request.

mod guide;
mod tokens;

use crate::world::World;
use crate::world::tls::Authority;
use crate::world::vault::Vault;

fn trouble(world: &World) -> String {
    world.status()["registry"]["trouble"].as_str().unwrap_or_default().to_owned()
}

fn relists(world: &World) -> f64 {
    world.metric("pointsman_registry_relists_total", &[]).unwrap_or_default()
}

#[test]
fn an_etcd_over_tls_is_followed_and_what_it_shows_may_change() {
    let vault = Vault::new();
    let mut world = vault.setup(vault.etcd(&[]), &[("ca", "ca.pem")]).start();
    let _one = vault.serves(&world, "one");
    assert!(vault.said(&world, &["get", "route"], &[("ca", "ca.pem")]).1.contains("one"));
    let stranger = Authority::new("nobody");
    vault.file("stranger.pem", &stranger.pem);
    for settings in [&[("ca", "stranger.pem")][..], &[]] {
        let (ok, said) = vault.said(&world, &["get", "route"], settings);
        assert!(!ok && said.contains("signed by an authority we do not know; set registry.ca"), "{said}");
    }

    // It reads its certificate anew for each handshake; one for another name is refused, and traffic goes on.
    let next = Authority::new("next authority");
    vault.pair("etcd", &next.vouch(&["etcd.internal"]));
    world.etcd_mut().kill();
    world.etcd_mut().start_again();
    world.eventually("it is told apart", || trouble(&world).contains("signed by an authority we do not know"));
    vault.file("ca.pem", &format!("{}{}", vault.authority.pem, next.pem));
    world.eventually("the new authority is known", || trouble(&world).contains("for another name"));
    assert!(trouble(&world).contains("set registry.server_name"), "{}", trouble(&world));
    assert_eq!(world.get("/").from(), "one");
    let (ok, said) = vault.said(&world, &["get", "route"], &[("ca", "ca.pem"), ("server_name", "etcd.internal")]);
    assert!(ok && said.contains("one"), "{said}");

    vault.pair("etcd", &next.vouch(&["127.0.0.1"]));
    world.eventually("it is trusted again, without a restart of anybody", || trouble(&world).is_empty());
    let _two = vault.serves(&world, "two");
    assert_eq!(relists(&world), 1.0, "the watch went on where it was");
}

#[test]
fn a_client_certificate_is_shown_and_a_new_one_from_the_next_connection_on() {
    let vault = Vault::new();
    let mutual = ["--client-cert-auth", "--trusted-ca-file", "clients.pem"];
    let (old, new) = (Authority::new("old clients"), Authority::new("new clients"));
    vault.file("clients.pem", &format!("{}{}", old.pem, vault.authority.pem));
    vault.pair("proxy", &old.vouch(&["proxy"]));
    let ours = [("ca", "ca.pem"), ("certificate", "proxy.pem"), ("key", "proxy.key")];
    let mut world = vault.setup(vault.etcd(&mutual), &ours).start();
    let _one = vault.serves(&world, "one");
    assert!(vault.said(&world, &["get", "route"], &ours).0);
    vault.pair("stranger", &new.vouch(&["proxy"]));
    for settings in [&ours[..1], &[ours[0], ("certificate", "stranger.pem"), ("key", "stranger.key")]] {
        let (ok, said) = vault.said(&world, &["get", "route"], settings);
        assert!(!ok && said.contains("registry.certificate"), "{said}");
    }
    let (ok, said) = vault.said(&world, &["check"], &[ours[0], ours[1], ("key", "stranger.key")]);
    assert!(!ok && said.contains("registry.certificate: ") && said.contains("does not belong to"), "{said}");

    vault.file("clients.pem", &format!("{}{}", new.pem, vault.authority.pem));
    world.etcd_mut().kill();
    world.etcd_mut().start_again();
    world.eventually("the old one is refused", || trouble(&world).contains("registry.certificate"));
    assert_eq!(world.get("/").from(), "one");
    vault.pair("proxy", &new.vouch(&["proxy"]));
    world.eventually("the new one is taken", || trouble(&world).is_empty());
    let _two = vault.serves(&world, "two");
    assert_eq!(relists(&world), 1.0);
}
