//! One instance of the service without HTTP: the real committer, rollover and queries over gated calls.
//!
//! Started, killed and asked by `schedule.rs`. A kill drops every future of the node where it stands; the
//! next start is another process, with another writer id, that knows nothing.

use crate::books::Books;
use crate::sink::NodeSink;
use crate::store::NodeStore;
use crate::verdict::Verdict;
use crate::world::World;
use meanwhile::ingest::commit::{CommitError, Committer, Losses};
use meanwhile::query::{Query, StatsQuery};
use meanwhile::rollover::{Orders, Rollover};
use meanwhile::sink::Sink;
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::Calendar;
use meanwhile::store::Store;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A process that runs, or starts.
#[derive(Default)]
struct Running {
    committer: Option<Committer>,
    orders: Option<Orders>,
    query: Option<Arc<Query>>,
    /// Tasks that end only with the process.
    core: Vec<JoinHandle<()>>,
    /// Requests and questions it is working on.
    visitors: Vec<(Option<usize>, JoinHandle<()>)>,
    losses_told: u64,
}

pub(crate) struct Node {
    pub(crate) number: usize,
    world: Arc<World>,
    calendar: Arc<Calendar>,
    books: Arc<Mutex<Books>>,
    hold: Option<Millis>,
    running: Arc<Mutex<Running>>,
}

impl Node {
    pub(crate) fn new(
        number: usize,
        world: &Arc<World>,
        calendar: &Arc<Calendar>,
        books: &Arc<Mutex<Books>>,
        hold: Option<Millis>,
    ) -> Self {
        let (world, calendar, books) = (Arc::clone(world), Arc::clone(calendar), Arc::clone(books));
        let node = Self { number, world, calendar, books, hold, running: Arc::default() };
        node.start();
        node
    }

    fn start(&self) {
        let Self { number: node, hold, .. } = *self;
        let (world, calendar) = (Arc::clone(&self.world), Arc::clone(&self.calendar));
        let running = Arc::clone(&self.running);
        let starting = tokio::spawn(async move {
            let store: Arc<dyn Store> = Arc::new(NodeStore { world: Arc::clone(&world), node });
            let sink: Arc<dyn Sink> = Arc::new(NodeSink { world: Arc::clone(&world), node });
            let wake = Arc::new(Notify::new());
            let (committer, committing) = loop {
                let start =
                    Committer::start(Arc::clone(&store), Arc::clone(&calendar), Arc::clone(&wake), world.clock.clone());
                // Its supervisor starts it again.
                if let Ok(started) = start.await {
                    break started;
                }
            };
            let rollover = Rollover::new(Arc::clone(&store), Arc::clone(&sink), Arc::clone(&calendar), hold);
            let mut running = running.lock().expect("one thread");
            running.committer = Some(committer);
            running.orders = Some(rollover.orders());
            running.query = Some(Arc::new(Query::new(store, Some(sink), calendar)));
            running.core.push(committing);
            running.core.push(tokio::spawn(rollover.run(wake, std::future::pending())));
        });
        self.running.lock().expect("one thread").visitors.push((None, starting));
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.lock().expect("one thread").committer.is_some()
    }

    /// Whether the committer or the rollover has ended, which only a panic can do.
    pub(crate) fn has_failed(&self) -> bool {
        self.running.lock().expect("one thread").core.iter().any(JoinHandle::is_finished)
    }

    /// Ends the process where it stands, and starts the next one.
    pub(crate) fn kill(&self) {
        self.world.log(|| format!("node {} dies", self.number));
        let dead = std::mem::take(&mut *self.running.lock().expect("one thread"));
        dead.core.iter().for_each(JoinHandle::abort);
        for (request, visitor) in dead.visitors {
            if let Some(request) = request
                && !visitor.is_finished()
            {
                let unanswered = self.books.lock().expect("one thread").answered(request, None, 0);
                unanswered.expect("no answer is none");
            }
            visitor.abort();
        }
        self.start();
    }

    /// A client sends a request here.
    pub(crate) fn post(&self, request: usize) {
        let mut running = self.running.lock().expect("one thread");
        let Some(committer) = running.committer.clone() else { return };
        let now = self.world.now();
        let sent = self.books.lock().expect("one thread").arrive(request, &self.calendar, now);
        self.world.log(|| format!("request {request} comes to node {}: {:?}", self.number, sent.parts));
        let (world, books) = (Arc::clone(&self.world), Arc::clone(&self.books));
        let attempt = tokio::spawn(async move {
            let answer = committer.commit(sent).await;
            world.log(|| format!("request {request} is answered {answer:?}"));
            world.note(match &answer {
                Ok(committed) if committed.duplicate => "answers: counted before",
                Ok(_) => "answers: counted",
                Err(CommitError::Unlike { .. }) => "answers: another length",
                Err(_) => "answers: errors",
            });
            if let Err(wrong) = books.lock().expect("one thread").answered(request, Some(answer), world.now()) {
                world.violated(|| wrong);
            }
        });
        running.visitors.push((Some(request), attempt));
    }

    /// Somebody asks for these rows here, page by page, and holds the answer against the books.
    pub(crate) fn ask(&self, ask: StatsQuery) {
        let mut running = self.running.lock().expect("one thread");
        let Some(query) = running.query.clone() else { return };
        let verdict = Verdict::new(&self.world, &self.books, &self.calendar);
        let known = verdict.known();
        self.world.log(|| format!("node {} is asked {ask:?}", self.number));
        let asking = tokio::spawn(async move {
            let mut ask = ask;
            let mut rows = Vec::new();
            loop {
                match query.stats(&ask).await {
                    Ok(page) if page.partial => return,
                    Ok(page) => {
                        rows.extend(page.rows);
                        ask.cursor = page.next;
                    }
                    Err(error) => return verdict.no_rows(&ask.sources, &known, &error),
                }
                if ask.cursor.is_none() {
                    return verdict.answer(&ask.sources, &known, &rows);
                }
            }
        });
        running.visitors.push((None, asking));
    }

    pub(crate) fn drain(&self) {
        let running = self.running.lock().expect("one thread");
        if let Some(orders) = &running.orders {
            self.world.log(|| format!("node {} is to drain", self.number));
            drop(orders.drain());
        }
    }

    /// A loss that has been announced since the last call.
    pub(crate) fn loss(&self) -> Option<(Millis, Millis)> {
        let mut running = self.running.lock().expect("one thread");
        let Losses { times, last, .. } = running.committer.as_ref()?.losses();
        if std::mem::replace(&mut running.losses_told, times) == times {
            return None;
        }
        let loss = last.expect("there was one");
        self.world.log(|| format!("node {} announces {loss:?}", self.number));
        Some((loss.from, loss.to))
    }
}
