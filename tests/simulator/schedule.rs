//! One schedule: what there is, what happens next, and the end, all as the seed says.
//!
//! Called by `main.rs`. Everything runs on one thread under tokio's paused clock: whenever the schedule
//! sleeps, all tasks of all nodes run until each waits at a gate, for a timer or for another task, and only
//! then the time moves on. So the schedule decides every interleaving of calls, and a seed is a run. What clients
//! do is in `schedule/clients.rs`, what dies in `schedule/crashes.rs`.

mod clients;
mod crashes;

use crate::books::Books;
use crate::history::{History, Kind};
use crate::node::Node;
use crate::seeded::Seeded;
use crate::verdict::Verdict;
use crate::world::{Fate, NODES, Side, Waiting, World};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Calendar, Zone};
use meanwhile::store::{Late, Policy};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

/// The start of a day, 2026-11-20.
const DAY: Millis = 1_795_132_800_000;
const POLICY: Policy = Policy { grace: 1_000, lateness: 5_000, late: Late::Reopen, idempotency_ttl: 60_000 };
/// Looks for an end once faults have stopped; a few are enough.
const LAST_LOOKS: usize = 60;

/// What came of a schedule.
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    pub(crate) tally: BTreeMap<&'static str, u64>,
    pub(crate) log: Vec<String>,
}

struct Schedule {
    world: Arc<World>,
    calendar: Arc<Calendar>,
    books: Arc<Mutex<Books>>,
    nodes: Vec<Node>,
    kind: Kind,
    late: Late,
    /// Of a hundred calls so many go wrong.
    faults: u64,
    /// Whether nodes die.
    deaths: bool,
    /// Of a hundred readings so many are not of the length their source mostly has; with 0 all are numbers.
    unlike: u64,
    clock_steps: bool,
    /// A process that is stopped.
    stopped: Option<usize>,
    announced: Vec<(Millis, Millis)>,
    crashes: u64,
}

/// Plays the schedule of a seed.
pub(crate) fn play(seed: u64, logging: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O").block_on(async {
        let mut schedule = Schedule::drawn(seed, logging);
        schedule.run().await;
        let world = &schedule.world;
        let log = world.take_log();
        let mut state = world.lock();
        Outcome { violation: state.violation.take(), tally: std::mem::take(&mut state.tally), log }
    })
}

impl Schedule {
    fn drawn(seed: u64, logging: bool) -> Self {
        let mut seeded = Seeded::new(seed);
        let mut draw = |limit| seeded.below(limit);
        let kind = [Kind::Keeps, Kind::Keeps, Kind::Undoes, Kind::Forgets][draw(4) as usize];
        let late = if draw(5) == 0 { Late::Refuse } else { Late::Reopen };
        let periods = ["10s,1m", "10s,30s,1m", "10s,30s", "10s,15s", "10s,15s,30s"][draw(5) as usize];
        // So that ends of all periods come within a few seconds, one after another.
        let t0 = DAY + draw(60).cast_signed() * 1_000 + draw(1_000).cast_signed();
        let (faults, deaths) = ([0, 5, 15, 30][draw(4) as usize], draw(2) == 0);
        let (nodes, clock_steps) = (if kind == Kind::Undoes { 1 } else { 2 + draw(2) as usize }, draw(2) == 0);
        let unlike = [0, 1, 10, 30][draw(4) as usize];
        let world = World::new(Policy { late, ..POLICY }, t0, History::new(kind), seeded, logging);
        let periods: Vec<_> = periods.split(',').map(|period| period.parse().expect("a period")).collect();
        let calendar = Arc::new(Calendar::new(periods, Zone::utc()).expect("periods"));
        let books = Books { store_forgets: kind == Kind::Forgets, ..Books::default() };
        let books = Arc::new(Mutex::new(books));
        world.log(|| {
            let periods = calendar.periods();
            format!(
                "{kind:?}, {nodes} nodes, {periods:?}, {late:?}, faults {faults} %, deaths: {deaths}, unlike {unlike} %"
            )
        });
        let nodes = (0..nodes).map(|number| Node::new(number, &world, &calendar, &books, None)).collect();
        Self {
            world,
            calendar,
            books,
            nodes,
            kind,
            late,
            faults,
            deaths,
            unlike,
            clock_steps,
            stopped: None,
            announced: Vec::new(),
            crashes: 0,
        }
    }

    fn draw(&self, limit: u64) -> u64 {
        self.world.draw(limit)
    }

    async fn run(&mut self) {
        let steps = 30 + self.draw(90);
        for _ in 0..steps {
            self.step().await;
            self.settle(1).await;
            if self.world.lock().violation.is_some() {
                return;
            }
        }
        self.end().await;
    }

    /// Lets everybody go on until they wait, for some milliseconds.
    async fn settle(&mut self, millis: u64) {
        sleep(Duration::from_millis(millis)).await;
        self.world.lock().drop_dead();
        if self.kind == Kind::Forgets {
            self.announced.extend(self.nodes.iter().filter_map(Node::loss));
        }
        if self.nodes.iter().any(Node::has_failed) {
            self.world.violated(|| "a committer or a rollover has ended".to_owned());
        }
    }

    async fn step(&mut self) {
        // A bucket that is half moved up seldom stays so for long.
        if self.draw(3) == 0 && !self.world.oracle.closing().is_empty() {
            return self.post();
        }
        match self.draw(100) {
            0..58 => self.let_go_on().await,
            58..72 => self.post(),
            72..77 => self.ask(),
            77..81 => self.world.deliver(self.draw(1 << 20)),
            81..83 if self.deaths => self.kill(),
            83..85 => self.crash(),
            85..87 => self.nodes[self.draw(self.nodes.len() as u64) as usize].drain(),
            87..89 => self.stopped = (self.draw(3) > 0).then(|| self.draw(NODES as u64) as usize),
            89..91 if self.clock_steps => {
                let by = [-70_000, -11_000, -3_000, 3_000, 11_000, 70_000][self.draw(6) as usize];
                self.world.log(|| format!("the clocks step by {by}"));
                self.world.lock().stepped += by;
                self.world.now();
            }
            91..92 => self.elapse().await,
            _ => {
                let span = [5, 30, 300, 1_200, 3_500, 6_000, 11_000, 31_000][self.draw(8) as usize];
                self.settle(span).await;
            }
        }
    }

    /// Lets one call of a node on, or some of them in a row.
    async fn let_go_on(&mut self) {
        let mut of = None;
        for _ in 0..=[0, 0, 2, 8][self.draw(4) as usize] {
            let next = {
                let mut state = self.world.lock();
                let free = |w: &Waiting| of.map_or(Some(w.node) != self.stopped, |of| of == w.node);
                let places: Vec<usize> = (0..state.waiting.len()).filter(|at| free(&state.waiting[*at])).collect();
                if places.is_empty() {
                    return;
                }
                let at = places[state.seeded.below(places.len() as u64) as usize];
                state.waiting.remove(at)
            };
            of = Some(next.node);
            let fate = self.fate(next.side);
            next.decide(&self.world, fate);
            self.settle(1).await;
        }
    }

    fn fate(&self, side: Side) -> Fate {
        if self.draw(100) >= self.faults {
            return Fate::Done;
        }
        // Within one process a call fails or does not.
        if self.kind == Kind::Undoes && side != Side::Sink {
            return Fate::Refused;
        }
        [Fate::Refused, Fate::LostCall, Fate::LostAnswer, Fate::LostAnswer, Fate::Delayed][self.draw(5) as usize]
    }

    /// Faults stop, what is on its way arrives, everything is written and closed.
    async fn end(&mut self) {
        self.world.log(|| "faults stop".to_owned());
        loop {
            let copies = self.world.lock().wire.len() as u64;
            if copies == 0 {
                break;
            }
            self.world.deliver(self.draw(copies));
        }
        let waiting = {
            let mut state = self.world.lock();
            state.calm = true;
            std::mem::take(&mut state.waiting)
        };
        for waiting in waiting {
            waiting.decide(&self.world, Fate::Done);
        }
        // Out of the way of what is left open in the present buckets.
        self.world.lock().stepped += 70_000;
        for _ in 0..LAST_LOOKS {
            self.settle(6_000).await;
            let running = self.books.lock().expect("one thread").asked.iter().any(|asked| asked.running > 0);
            if !running && self.look() == 0 {
                return self.check();
            }
            // Buckets that were sealed by a node that died are due again after half a minute.
            self.world.lock().stepped += 31_000;
        }
        self.world.violated(|| "something is stuck: a bucket does not close, or a request has no answer".to_owned());
    }

    fn check(&self) {
        if self.crashes > 0 && self.kind == Kind::Forgets {
            self.world.note("schedules with a weak store that crashed");
        }
        let announced = (!self.deaths).then_some(self.announced.as_slice());
        Verdict::new(&self.world, &self.books, &self.calendar).rows(announced);
    }
}
