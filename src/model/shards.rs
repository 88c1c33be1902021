//! A map whose copies share all but the shard that a change touches.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::FixedState;

/// 256 copy-on-write shards. Cloning the map costs 256 reference counts, changing one entry the copy of one shard;
/// a lookup costs two hashes of a short key. Measured against one big map, `im` maps and a cell per entry
/// (`docs/architecture.md`): cheapest that still gives one consistent view.
#[derive(Debug)]
pub struct ShardMap<K, V> {
    shards: Vec<Arc<Shard<K, V>>>,
}

type Shard<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

impl<K, V> Clone for ShardMap<K, V> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone() }
    }
}

impl<K, V> Default for ShardMap<K, V> {
    fn default() -> Self {
        Self { shards: vec![Arc::default(); SHARDS] }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> ShardMap<K, V> {
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards[shard_of(key)].get(key)
    }

    pub fn insert(&mut self, key: K, value: V) {
        Arc::make_mut(&mut self.shards[shard_of(&key)]).insert(key, value);
    }

    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let shard = &mut self.shards[shard_of(key)];
        if shard.contains_key(key) { Arc::make_mut(shard).remove(key) } else { None }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.is_empty())
    }
}

/// Which shard is no secret and the same in every copy; inside a shard the hash is seeded at random,
/// so keys chosen by a client (hosts) cannot be made to collide.
fn shard_of<Q: Hash + ?Sized>(key: &Q) -> usize {
    FixedState::with_seed(SHARD_SEED).hash_one(key) as usize % SHARDS
}

const SHARDS: usize = 256;
const SHARD_SEED: u64 = 0x706f_696e_7473;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_the_original_and_every_other_shard_alone() {
        let mut before: ShardMap<String, Arc<u32>> = ShardMap::default();
        for n in 0..2000 {
            before.insert(n.to_string(), Arc::new(n));
        }
        let mut after = before.clone();
        after.insert("7".into(), Arc::new(70));
        assert_eq!(after.remove("8").as_deref(), Some(&8));
        assert!(after.remove("none").is_none());

        assert_eq!((before.get("7"), before.get("8").is_some(), before.len()), (Some(&Arc::new(7)), true, 2000));
        assert_eq!((after.get("7"), after.get("8").is_some(), after.len()), (Some(&Arc::new(70)), false, 1999));
        let shared = before.shards.iter().zip(&after.shards).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= SHARDS - 2, "{shared} of {SHARDS} shards are shared");
    }

    #[test]
    fn iteration_sees_each_entry_once() {
        let mut map = ShardMap::default();
        assert!(map.is_empty());
        (0..100).for_each(|n: u32| map.insert(n, n));
        let mut seen: Vec<u32> = map.iter().map(|(k, _)| *k).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }
}
