//! What a world says to its registry, and how it knows that the proxy has heard.

use etcd_client::{Client, Txn, TxnOp};

use super::World;

impl World {
    /// Writes one record under the prefix and waits until the proxy has applied it. Its revision.
    pub fn put(&self, key: &str, value: &str) -> i64 {
        self.transact(&[(key.to_owned(), Some(value.to_owned()))])
    }

    pub fn delete(&self, key: &str) -> i64 {
        self.transact(&[(key.to_owned(), None)])
    }

    /// One transaction of puts and deletes; then waits until the proxy has applied it.
    pub fn transact(&self, records: &[(String, Option<String>)]) -> i64 {
        let revision = self.tell(records);
        self.applied(revision);
        revision
    }

    /// The same without waiting for the proxy.
    pub fn tell(&self, records: &[(String, Option<String>)]) -> i64 {
        self.handle().block_on(transact(&self.registry_url(), records))
    }

    /// Writes or deletes a key outside the prefix, as another program would; does not wait for the proxy.
    pub fn elsewhere(&self, key: &str, value: Option<&str>) -> i64 {
        let work = async {
            let mut client = Client::connect([self.registry_url()], None).await.expect("a registry");
            let header = match value {
                Some(value) => client.put(key, value, None).await.expect("the registry takes a value").header().cloned(),
                None => client.delete(key, None).await.expect("the registry deletes").header().cloned(),
            };
            header.expect("an answer has a header").revision()
        };
        self.handle().block_on(work)
    }

    /// Forgets what was before this revision.
    pub fn compact(&self, revision: i64) {
        let compact = async {
            let mut client = Client::connect([self.registry_url()], None).await.expect("a registry");
            client.compact(revision, None).await.expect("the registry compacts");
        };
        self.handle().block_on(compact);
    }

    pub fn applied(&self, revision: i64) {
        self.eventually(&format!("revision {revision} is applied"), || self.applied_revision() >= revision);
    }

    pub fn applied_revision(&self) -> i64 {
        self.status()["registry"]["applied_revision"].as_i64().unwrap_or_default()
    }

    /// The value of a key under the prefix.
    pub fn value(&self, key: &str) -> Option<String> {
        let read = async {
            let mut client = Client::connect([self.registry_url()], None).await.expect("a registry");
            client.get(format!("{PREFIX}{key}"), None).await.expect("the registry answers")
        };
        let found = self.handle().block_on(read);
        found.kvs().first().map(|kv| kv.value_str().expect("a value of text").to_owned())
    }

    /// Where the registry itself is, whatever stands between it and the proxy.
    pub fn registry_url(&self) -> String {
        self.etcd.as_ref().map_or_else(|| self.endpoints[0].clone(), |etcd| etcd.url())
    }
}

/// `None` deletes. The revision of the transaction.
pub async fn transact(url: &str, records: &[(String, Option<String>)]) -> i64 {
    let operations: Vec<TxnOp> = records
        .iter()
        .map(|(key, value)| (format!("{PREFIX}{key}"), value))
        .map(|(key, value)| match value {
            Some(value) => TxnOp::put(key, value.as_str(), None),
            None => TxnOp::delete(key, None),
        })
        .collect();
    let mut client = Client::connect([url], None).await.expect("a registry");
    let done = client.txn(Txn::new().and_then(operations)).await.expect("the registry takes a transaction");
    done.header().expect("an answer has a header").revision()
}

const PREFIX: &str = "/pointsman";
