//! Removal protection: what becomes of instances that the registry lost and nobody deleted.
//!
//! Each is held for a while, because a lease that ends alone and the first of many look the same. Once more than a share
//! of the service went within one window, or nobody is left, all that are held stay as long as the policy says. No clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::{InstanceId, ServicePolicy};
use crate::pool::Limbo;

/// The losses of one service: those that are held, and those of late.
#[derive(Debug, Default)]
pub struct Losses {
    lost: BTreeMap<InstanceId, Loss>,
}

#[derive(Debug)]
struct Loss {
    at: Instant,
    /// `None`: let go, and only counted.
    held: Option<Limbo>,
}

/// What the policy of a service says about its losses.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    percent: usize,
    window: Duration,
    limbo: Duration,
    /// Nobody finds out whether those that are held still live.
    unprobed: bool,
}

impl Rules {
    pub fn of(policy: &ServicePolicy) -> Self {
        let (protection, unprobed) = (&policy.protection, !policy.probe.is_on());
        Self { percent: protection.percent.into(), window: protection.window, limbo: protection.limbo, unprobed }
    }

    /// Every loss counts as wanted.
    pub fn are_off(&self) -> bool {
        self.percent >= 100 || self.limbo.is_zero()
    }

    fn lasts(&self, limbo: Limbo) -> Duration {
        match limbo {
            _ if self.are_off() => Duration::ZERO,
            _ if self.unprobed => self.limbo.min(UNPROBED_MAX),
            Limbo::Alone => self.limbo.min(ALONE_MAX),
            Limbo::Together => self.limbo,
        }
    }
}

impl Losses {
    pub fn is_empty(&self) -> bool {
        self.lost.is_empty()
    }

    /// How many are held because so many went together.
    pub fn n_protected(&self) -> usize {
        self.lost.values().filter(|loss| loss.held == Some(Limbo::Together)).count()
    }

    /// Notes a loss. One that is not held was known to be dead, and counts all the same.
    pub fn lose(&mut self, id: InstanceId, held: bool, now: Instant) {
        self.lost.insert(id, Loss { at: now, held: held.then_some(Limbo::Alone) });
    }

    /// It is declared again.
    pub fn found(&mut self, id: &InstanceId) {
        self.lost.remove(id);
    }

    /// It is dead. Whether it was held until now.
    pub fn let_go(&mut self, id: &InstanceId) -> bool {
        self.lost.get_mut(id).is_some_and(|loss| loss.held.take().is_some())
    }

    /// What changes for those that are held; `None` is the end. `n_present`: how many are left that nobody lost.
    pub fn judge(&mut self, n_present: usize, rules: Rules, now: Instant) -> Vec<(InstanceId, Option<Limbo>)> {
        let is_recent = |loss: &Loss| now.saturating_duration_since(loss.at) < rules.window;
        let n_lost = self.lost.values().filter(|loss| is_recent(loss)).count();
        let is_share = n_lost >= MANY && n_lost * 100 > rules.percent * (n_present + n_lost);
        let is_mass = is_share || (n_lost > 0 && n_present == 0);
        let mut changes = Vec::new();
        for (id, loss) in &mut self.lost {
            let Some(held) = loss.held else { continue };
            let next = if is_mass { Limbo::Together } else { held };
            let next = (now < loss.at + rules.lasts(next)).then_some(next);
            if next != Some(held) {
                loss.held = next;
                changes.push((id.clone(), next));
            }
        }
        self.lost.retain(|_, loss| loss.held.is_some() || is_recent(loss));
        changes
    }

    /// When `judge` next lets somebody go.
    pub fn next_end(&self, rules: Rules) -> Option<Instant> {
        self.lost.values().filter_map(|loss| Some(loss.at + rules.lasts(loss.held?))).min()
    }
}

/// Fewer than this are no share of anything.
const MANY: usize = 2;
const ALONE_MAX: Duration = Duration::from_secs(30);
const UNPROBED_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{ProbeKind, ProbePolicy, ProtectionPolicy};

    fn rules(percent: u8, probe: Option<ProbeKind>) -> Rules {
        let protection = ProtectionPolicy { percent, ..ProtectionPolicy::default() };
        let probe = ProbePolicy { kind: probe, ..ProbePolicy::default() };
        Rules::of(&ServicePolicy { protection, probe, ..ServicePolicy::default() })
    }

    fn id(n: usize) -> InstanceId {
        InstanceId::parse(&format!("i{n}")).unwrap()
    }

    /// Of `n` instances each of `losses` (in seconds) takes one, at the rules' judgement each time; then, for how many
    /// seconds the last one is held.
    fn held_for(rules: Rules, n: usize, losses: &[u64]) -> u64 {
        let (start, mut all) = (Instant::now(), Losses::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        for (gone, seconds) in losses.iter().enumerate() {
            all.lose(id(gone), true, at(*seconds));
            all.judge(n - gone - 1, rules, at(*seconds));
        }
        let (last, end) = (losses.len() - 1, *losses.last().unwrap());
        let mut seconds = end;
        while all.lost.get(&id(last)).is_some_and(|loss| loss.held.is_some()) {
            seconds += 1;
            all.judge(n - losses.len(), rules, at(seconds));
        }
        seconds - end
    }

    #[test]
    fn how_long_a_loss_is_held_depends_on_how_many_went_with_it() {
        let check = |n, losses: &[u64], probed, unprobed| {
            assert_eq!(held_for(rules(30, None), n, losses), probed, "{losses:?} of {n}, probed");
            assert_eq!(held_for(rules(30, Some(ProbeKind::None)), n, losses), unprobed, "{losses:?} of {n}, unprobed");
            assert_eq!(held_for(rules(100, None), n, losses), 0, "{losses:?} of {n}, off");
        };
        check(10, &[0], 30, 10);
        check(10, &[0, 1, 2], 30, 10);
        check(10, &[0, 1, 2, 3], 600, 10);
        check(10, &[0, 5, 11, 17], 30, 10);
        check(2, &[0], 30, 10);
        check(1, &[0], 600, 10);
        check(2, &[0, 20], 600, 10);
    }

    #[test]
    fn the_first_of_many_stay_as_long_as_the_last() {
        let (start, rules, mut losses) = (Instant::now(), rules(30, None), Losses::default());
        for n in 0..4 {
            losses.lose(id(n), true, start + Duration::from_secs(n as u64));
        }
        let now = start + Duration::from_secs(3);
        let changes = losses.judge(6, rules, now);
        assert_eq!(changes, (0..4).map(|n| (id(n), Some(Limbo::Together))).collect::<Vec<_>>());
        assert_eq!(losses.n_protected(), 4);
        losses.found(&id(0));
        assert!(losses.let_go(&id(1)) && !losses.let_go(&id(1)));
        assert_eq!(losses.next_end(rules), Some(start + Duration::from_secs(602)));
        assert_eq!(losses.judge(7, rules, start + Duration::from_secs(602)), [(id(2), None)]);
        assert_eq!(losses.judge(7, rules, start + Duration::from_secs(603)), [(id(3), None)]);
        assert!(losses.is_empty());
    }

    #[test]
    fn those_that_were_dead_anyway_count_towards_the_share() {
        let (now, rules, mut losses) = (Instant::now(), rules(30, None), Losses::default());
        (0..3).for_each(|n| losses.lose(id(n), false, now));
        losses.lose(id(3), true, now);
        assert_eq!(losses.judge(6, rules, now), [(id(3), Some(Limbo::Together))]);
    }

    #[derive(Debug, Clone)]
    enum Happening {
        Lose(usize, bool),
        Find(usize),
        LetGo(usize),
        Pass(u64),
    }

    fn happenings() -> impl Strategy<Value = Vec<Happening>> {
        let happening = prop_oneof![
            4 => (0usize..12, any::<bool>()).prop_map(|(n, held)| Happening::Lose(n, held)),
            2 => (0usize..12).prop_map(Happening::Find),
            1 => (0usize..12).prop_map(Happening::LetGo),
            3 => (0u64..20_000).prop_map(Happening::Pass),
        ];
        prop::collection::vec(happening, 1..80)
    }

    proptest! {
        /// Nobody is held without an end in sight, beyond the policy's time, or who was found or let go; and the end that
        /// was promised comes when it was promised.
        #[test]
        fn whoever_is_held_leaves_in_time(happenings in happenings(), percent in 0u8..=100, unprobed in any::<bool>()) {
            let rules = rules(percent, unprobed.then_some(ProbeKind::None));
            let (mut now, mut losses) = (Instant::now(), Losses::default());
            let mut lost_at: BTreeMap<usize, Instant> = BTreeMap::new();
            for happening in happenings {
                match happening {
                    Happening::Lose(n, held) => {
                        if lost_at.contains_key(&n) { continue }
                        losses.lose(id(n), held, now);
                        if held { lost_at.insert(n, now); }
                    }
                    Happening::Find(n) => { losses.found(&id(n)); lost_at.remove(&n); }
                    Happening::LetGo(n) => prop_assert_eq!(losses.let_go(&id(n)), lost_at.remove(&n).is_some()),
                    Happening::Pass(ms) => now += Duration::from_millis(ms),
                }
                for (gone, limbo) in losses.judge(12 - lost_at.len(), rules, now) {
                    let n = gone.as_str()[1..].parse().unwrap();
                    if limbo.is_none() {
                        let at = lost_at.remove(&n).expect("who ends was held");
                        prop_assert!(now - at >= rules.lasts(Limbo::Alone));
                    }
                }
                prop_assert!(lost_at.values().all(|at| now - *at < rules.limbo || rules.are_off()));
                prop_assert!(!rules.are_off() || lost_at.is_empty(), "off holds nobody");
                prop_assert_eq!(losses.next_end(rules).is_some(), !lost_at.is_empty());
                prop_assert!(losses.next_end(rules).is_none_or(|end| end > now), "an end that is past");
            }
        }
    }
}
