//! A discrete-event simulation of ten instances behind one proxy: our own picking between requests that arrive at
//! random and instances that work at their own speed. No socket, no clock; the same seed gives the same figures.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use pointsman::model::{Balance, Outcome, ServiceName, ServicePolicy, Verdict};
use pointsman::pool::{Ask, InFlight, Moment, Pool, Service};

use super::cast::instance;

/// What is wrong with one of the ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Odd {
    /// It takes ten times as long.
    Slow,
    /// It answers 503 in a millisecond. Nothing ejects it and nothing is tried again.
    Failing,
    /// It has just come, and takes ten times as long until it has answered some hundreds.
    Cold,
}

pub const COMPARED: [Balance; 5] = [Balance::RoundRobin, Balance::Random, Balance::LeastConn, Balance::P2c, Balance::PeakEwma];

/// What came of one run.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Of the answers that were no errors.
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Of all requests, in percent.
    pub errors: f64,
    /// What the odd one got of them, in percent. A tenth would be its part.
    pub odd_share: f64,
}

/// Lets so many requests go by.
pub fn simulate(odd: Odd, balance: Balance, n_requests: usize) -> Figures {
    let mut world = World::new(odd, balance);
    world.plan(0, Event::Arrival);
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        world.now_us = at;
        match event {
            Event::Arrival if world.n_arrived < n_requests => world.arrive(),
            Event::Arrival => {}
            Event::Finished(place) => world.finish(place),
        }
    }
    world.figures()
}

struct World {
    service: Service,
    odd: Odd,
    machines: Vec<Machine>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    n_planned: u64,
    now_us: u64,
    rng: fastrand::Rng,
    n_arrived: usize,
    n_errors: usize,
    n_odd: usize,
    latencies_us: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    /// The oldest of those at work at this instance, as good as any.
    Finished(usize),
}

/// What stands behind an instance: so many at work, the rest in line.
#[derive(Default)]
struct Machine {
    at_work: VecDeque<Request>,
    in_line: VecDeque<Request>,
    n_answered: u32,
}

struct Request {
    began_us: u64,
    held: InFlight,
}

impl World {
    fn new(odd: Odd, balance: Balance) -> Self {
        let born = |n: usize| if odd == Odd::Cold && n == ODD { now(0) } else { Moment::from_millis(1) };
        let all = (0..INSTANCES).map(|n| instance(n, 100, born(n))).collect();
        let mut policy = ServicePolicy { balance, ..ServicePolicy::default() };
        policy.ejection.enabled = false;
        let service = Service::new(ServiceName::parse("s").expect("a name"), Arc::new(policy), Pool::new(all), Arc::default());
        for (n, instance) in service.pool.all().iter().enumerate() {
            service.settle(instance, Verdict::Up, true, "", born(n));
        }
        Self {
            service,
            odd,
            machines: (0..INSTANCES).map(|_| Machine::default()).collect(),
            events: BinaryHeap::new(),
            n_planned: 0,
            now_us: 0,
            rng: fastrand::Rng::with_seed(11),
            n_arrived: 0,
            n_errors: 0,
            n_odd: 0,
            latencies_us: Vec::new(),
        }
    }

    fn plan(&mut self, after_us: u64, event: Event) {
        self.n_planned += 1;
        self.events.push(Reverse((self.now_us + after_us, self.n_planned, event)));
    }

    fn arrive(&mut self) {
        self.n_arrived += 1;
        let next = self.about(1e6 / ARRIVE_EACH_SECOND);
        self.plan(next, Event::Arrival);
        let ask = Ask { now: now(self.now_us), ..Ask::default() };
        let held = self.service.pick(ask, &mut self.rng).expect("all of them are up");
        let place = self.service.pool.all().iter().position(|i| i.id == held.instance().id).expect("one of ours");
        self.n_odd += usize::from(place == ODD);
        self.machines[place].in_line.push_back(Request { began_us: self.now_us, held });
        self.work(place);
    }

    /// The next in line, if somebody is free.
    fn work(&mut self, place: usize) {
        if self.machines[place].at_work.len() == WORKERS {
            return;
        }
        let Some(request) = self.machines[place].in_line.pop_front() else { return };
        self.machines[place].at_work.push_back(request);
        let cold = 9.0 * (-f64::from(self.machines[place].n_answered) / WARM_AFTER).exp();
        let takes = match self.odd {
            Odd::Failing if place == ODD => 1_000,
            Odd::Slow if place == ODD => self.about(10.0 * TAKES_US),
            Odd::Cold if place == ODD => self.about((1.0 + cold) * TAKES_US),
            _ => self.about(TAKES_US),
        };
        self.plan(takes, Event::Finished(place));
    }

    fn finish(&mut self, place: usize) {
        let machine = &mut self.machines[place];
        machine.n_answered += 1;
        let Request { began_us, mut held } = machine.at_work.pop_front().expect("somebody was at work");
        let (took_us, now) = (self.now_us - began_us, now(self.now_us));
        let is_error = self.odd == Odd::Failing && place == ODD;
        let outcome = if is_error { Outcome::GatewayError } else { Outcome::Success };
        let took = Duration::from_micros(took_us);
        self.service.answered(&mut held, outcome, took, now);
        self.service.end_attempt(&mut held, outcome, Some(took), now);
        if is_error {
            self.n_errors += 1;
        } else {
            self.latencies_us.push(took_us);
        }
        drop(held);
        self.work(place);
    }

    /// An exponential draw.
    fn about(&mut self, mean_us: f64) -> u64 {
        (-mean_us * (1.0 - self.rng.f64()).ln()) as u64 + 1
    }

    fn figures(mut self) -> Figures {
        self.latencies_us.sort_unstable();
        let quantile = |share: f64| self.latencies_us[(self.latencies_us.len() as f64 * share) as usize] as f64 / 1e3;
        let percent = |n: usize| 100.0 * n as f64 / self.n_arrived as f64;
        let (p50_ms, p99_ms) = (quantile(0.5), quantile(0.99));
        Figures { p50_ms, p99_ms, errors: percent(self.n_errors), odd_share: percent(self.n_odd) }
    }
}

/// Any moment but the process's first: the others have been there for long.
fn now(us: u64) -> Moment {
    Moment::from_millis(3_600_000 + us / 1000)
}

const INSTANCES: usize = 10;
const ODD: usize = 3;
/// Of an instance at once.
const WORKERS: usize = 4;
const TAKES_US: f64 = 10_000.0;
/// Three fifths of what ten sound instances can bear.
const ARRIVE_EACH_SECOND: f64 = 2_400.0;
const WARM_AFTER: f64 = 200.0;
