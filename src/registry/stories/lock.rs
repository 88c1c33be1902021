//! One writer at a time, against a real etcd.

use std::time::Duration;

use super::world::{Cluster, PREFIX, config};
use crate::config::EtcdConfig;
use crate::registry::lock::{Committed, Edit, Lock};
use crate::registry::{Key, Prefix};

const TTL: Duration = Duration::from_secs(5);

async fn open(etcd: &EtcdConfig, owner: &str) -> Lock {
    Lock::open(etcd, &etcd.endpoints[0], (Prefix::new(PREFIX), Key::AcmeRenewer), owner, TTL).await.unwrap()
}

fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_the_lock_writes_nothing_and_the_next_one_has_its_turn() {
    let cluster = Cluster::start(1).await;
    let etcd = config(&cluster.urls());
    let (mut one, mut two) = (open(&etcd, "one").await, open(&etcd, "two").await);
    let first = one.taken().await.unwrap();
    let waiting = tokio::spawn(async move {
        let second = two.taken().await.unwrap();
        (two, second)
    });
    let order = || Edit::Put(key("/acme/orders/a"), b"first".to_vec());
    let challenge = || Edit::PutForNow(key("/acme/challenges/t"), b"first".to_vec());
    assert!(matches!(first.commit(vec![order(), challenge()]).await.unwrap(), Committed::At { .. }));
    assert!(!waiting.is_finished());

    // Somebody takes it away, and the one that had it does not know yet.
    cluster.client().await.delete(format!("{PREFIX}/acme/renewer"), None).await.unwrap();
    let (two, second) = waiting.await.unwrap();
    let late = vec![Edit::Put(key("/acme/orders/a"), b"late".to_vec()), Edit::Delete(key("/acme/challenges/t"))];
    assert_eq!(first.commit(late).await.unwrap(), Committed::NotOurs);
    assert_eq!(second.get(&key("/acme/orders/a")).await.unwrap(), Some(b"first".to_vec()));
    assert_eq!(second.list("/acme/challenges/").await.unwrap(), [(key("/acme/challenges/t"), b"first".to_vec())]);
    assert!(one.lost(&first).await.to_string().contains("deleted or overwritten"));

    // What was put for one turn goes with it, and the rest stays.
    one.leave().await.unwrap();
    assert_eq!(second.list("/acme/").await.unwrap().len(), 2);
    two.leave().await.unwrap();
    let mut third = open(&etcd, "three").await;
    let third = third.taken().await.unwrap();
    assert_eq!(third.get(&key("/acme/orders/a")).await.unwrap(), Some(b"first".to_vec()));
}
