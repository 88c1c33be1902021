//! Whether the etcd that answers is still the one whose revisions we count.
//!
//! A wiped or restored etcd accepts a watch at any revision and then says nothing, for ever. What gives it away: its
//! revision or raft term lies below what we have seen, its cluster id is another, or `/meta` holds another epoch.

use super::status::RelistReason;

/// What every answer of etcd says about who gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    pub cluster: u64,
    pub term: u64,
    pub revision: u64,
}

/// Who answered the list that our map rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    cluster: u64,
    /// The highest seen.
    term: u64,
    epoch: Option<String>,
}

impl Lineage {
    pub fn new(sighting: Sighting, epoch: Option<String>) -> Self {
        Self { cluster: sighting.cluster, term: sighting.term, epoch }
    }

    /// Why the map must be listed anew, if it must. `revision` is what we have applied.
    pub fn judge(&mut self, sighting: Sighting, revision: u64) -> Option<RelistReason> {
        if sighting.cluster != self.cluster {
            return Some(RelistReason::Epoch);
        }
        if sighting.revision < revision || sighting.term < self.term {
            return Some(RelistReason::Backwards);
        }
        self.term = sighting.term;
        None
    }

    /// An unreadable or missing epoch says nothing.
    pub fn judge_epoch(&self, epoch: Option<&str>) -> Option<RelistReason> {
        let differs = self.epoch.as_deref().zip(epoch).is_some_and(|(ours, theirs)| ours != theirs);
        differs.then_some(RelistReason::Epoch)
    }
}

/// The epoch in the value of `/meta`.
pub fn epoch_of(meta: &[u8]) -> Option<String> {
    let meta: serde_json::Value = serde_json::from_slice(meta).ok()?;
    meta.get("epoch")?.as_str().map(str::to_owned)
}

/// The value of `/meta` for a registry that has none yet.
pub fn new_meta(random: &mut fastrand::Rng) -> String {
    let mut bits = random.u128(..);
    // Version 4, variant 1: the marks of a random UUID.
    bits = bits & !(0xf << 76) | 0x4 << 76;
    bits = bits & !(0x3 << 62) | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    format!(r#"{{"schema":1,"epoch":"{}"}}"#, parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Sighting = Sighting { cluster: 7, term: 3, revision: 100 };

    #[test]
    fn only_another_registry_or_an_older_one_is_listed_anew() {
        let lineage = || Lineage::new(SEEN, Some("one".to_owned()));
        assert_eq!(lineage().judge(SEEN, 100), None);
        assert_eq!(lineage().judge(Sighting { revision: 900, term: 4, ..SEEN }, 100), None);
        assert_eq!(lineage().judge(Sighting { revision: 99, ..SEEN }, 100), Some(RelistReason::Backwards));
        assert_eq!(lineage().judge(Sighting { term: 2, ..SEEN }, 100), Some(RelistReason::Backwards));
        assert_eq!(lineage().judge(Sighting { cluster: 8, ..SEEN }, 100), Some(RelistReason::Epoch));

        let mut elected = lineage();
        assert_eq!(elected.judge(Sighting { term: 9, ..SEEN }, 100), None);
        assert_eq!(elected.judge(SEEN, 100), Some(RelistReason::Backwards), "a term once seen is not forgotten");

        assert_eq!(lineage().judge_epoch(Some("one")), None);
        assert_eq!(lineage().judge_epoch(None), None);
        assert_eq!(lineage().judge_epoch(Some("two")), Some(RelistReason::Epoch));
        assert_eq!(Lineage::new(SEEN, None).judge_epoch(Some("two")), None);
    }

    #[test]
    fn a_new_registry_gets_an_epoch_that_can_be_read_back() {
        let mut random = fastrand::Rng::with_seed(1);
        let (one, two) = (new_meta(&mut random), new_meta(&mut random));
        let epoch = epoch_of(one.as_bytes()).unwrap();
        assert_ne!(Some(&epoch), epoch_of(two.as_bytes()).as_ref());
        let parts: Vec<&str> = epoch.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(parts[2].starts_with('4') && "89ab".contains(&parts[3][..1]), "{epoch}");
        for odd in [&b""[..], b"{}", b"[1]", br#"{"epoch":1}"#, b"\xff"] {
            assert_eq!(epoch_of(odd), None);
        }
    }
}
