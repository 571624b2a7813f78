//! Tells of sources that have fallen silent, and of those that are back: `silent:PATTERN`.
//!
//! Run by the hub while somebody listens. Every instance tells its own clients, by what the store and the sink know of
//! each source, so that none of them need be the one that does. A source counts as heard of until the end of its last
//! bucket. Where one side is away nothing is told: what it alone knows would look silent. What is held is the silent
//! sources of each channel, so that who comes later is told of them too; a round looks at all sources whose ids
//! begin as the patterns do.

use super::channel::Channel;
use super::outbox::{Body, Frame, Outbox};
use super::{Hub, Subscribers};
use crate::clock;
use crate::query::{PAGE_ROWS, QueryError};
use crate::stats::Millis;
use crate::stats::source::SourceSpan;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// A tenth of the silence that is told of, within these bounds: sources of the store are listed once a second.
const EVERY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];
/// While the store or the sink is away.
const EVERY_AWAY: Duration = Duration::from_secs(5);
/// As for present rows (`poll.rs`): looking takes a quarter of the time at most.
const PAUSES: u32 = 3;
/// Sources that are looked at without letting anybody else at the channels.
const AT_ONCE: usize = 1_000;

/// For how long sources may be silent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// The same for all; `None`: for ever.
    pub after: Option<Millis>,
}

impl Expected {
    /// How long after the end of its last bucket this source counts as silent; `None`: never. Nowhere else is this said.
    fn of(&self, _source: &str) -> Option<Millis> {
        self.after
    }

    /// Whether there is a source that can fall silent.
    pub(super) fn any(&self) -> bool {
        self.after.is_some()
    }

    fn pause(&self) -> Duration {
        let tenth = Duration::from_millis(self.after.unwrap_or_default().unsigned_abs() / 10);
        tenth.clamp(EVERY[0], EVERY[1])
    }
}

/// The silent sources of a channel, as its clients were told.
#[derive(Default)]
pub(super) struct Silent {
    since: BTreeMap<Arc<str>, Since>,
}

struct Since {
    since: Millis,
    /// The last round that has seen it.
    round: u64,
}

/// A round over all sources.
struct Round {
    number: u64,
    now: Millis,
}

/// Until dropped.
pub(super) async fn run(hub: &Hub, now: impl Fn() -> Millis) {
    let mut number = 0;
    let mut away = false;
    loop {
        let Some(prefix) = hub.silence_asked_for() else {
            hub.silence.notified().await;
            continue;
        };
        number += 1;
        let started = clock::instant();
        let pause = match look(hub, &prefix, &Round { number, now: now() }).await {
            Ok(()) => {
                away = false;
                hub.expected.pause()
            }
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!(%error, "nobody is told of silent sources for now");
                }
                EVERY_AWAY
            }
        };
        sleep(PAUSES * started.elapsed()).await;
        // Who comes is told of the silent ones at once.
        let _ = timeout(pause.saturating_sub(started.elapsed()), hub.silence.notified()).await;
    }
}

/// Looks at all sources with the prefix and tells what has changed.
async fn look(hub: &Hub, prefix: &str, round: &Round) -> Result<(), QueryError> {
    let mut cursor: Option<String> = None;
    loop {
        let page = hub.query.sources(prefix, PAGE_ROWS, cursor.as_deref()).await?;
        if page.partial {
            return Err(QueryError::Unavailable("the store or the sink is away, or holds more than is listed".into()));
        }
        for spans in page.sources.chunks(AT_ONCE) {
            hub.tell_silence(spans, round);
        }
        cursor = page.next;
        if cursor.is_none() {
            hub.forget_unseen(round);
            return Ok(());
        }
    }
}

impl Hub {
    /// What all patterns begin with that somebody listens to; `None` if nobody does.
    fn silence_asked_for(&self) -> Option<String> {
        let registry = self.lock();
        let patterns = registry.channels.keys().filter_map(|channel| match channel {
            Channel::Silent(pattern) => Some(pattern.prefix()),
            _ => None,
        });
        patterns.reduce(|a, b| a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect())
    }

    fn tell_silence(&self, spans: &[SourceSpan], round: &Round) {
        let mut registry = self.lock();
        registry.looked = round.now;
        for (channel, subscribers) in &mut registry.channels {
            let Channel::Silent(pattern) = channel else { continue };
            for span in spans.iter().filter(|span| pattern.matches(&span.source)) {
                let since = self.query.calendar().last_end(span);
                let longest = self.expected.of(&span.source);
                let silent = longest.is_some_and(|longest| round.now - since > longest);
                if let Some(body) = subscribers.silent.see(&span.source, silent.then_some(since), round) {
                    subscribers.send(&Frame::new(&subscribers.name, body));
                }
            }
        }
    }

    /// Sources that are not known any more are neither silent nor back.
    fn forget_unseen(&self, round: &Round) {
        for subscribers in self.lock().channels.values_mut() {
            subscribers.silent.since.retain(|_, since| since.round >= round.number);
        }
    }
}

impl Silent {
    /// Notes how it stands with a source; what there is to tell.
    fn see(&mut self, source: &Arc<str>, silent: Option<Millis>, round: &Round) -> Option<Body> {
        let told = self.since.get(source).map(|told| told.since);
        let event = |since: Millis, back| {
            let source = Arc::clone(source);
            Some(Body::Silence { source, since, so_long: round.now - since, back })
        };
        match (told, silent) {
            (None, None) => None,
            (Some(since), None) => {
                self.since.remove(source);
                event(since, true)
            }
            (told, Some(since)) => {
                // Where finer rows are no longer kept a source seems to have been silent for longer.
                let since = told.map_or(since, |told| told.max(since));
                self.since.insert(Arc::clone(source), Since { since, round: round.number });
                if told == Some(since) { None } else { event(since, false) }
            }
        }
    }
}

impl Subscribers {
    /// Tells one who has come of those that are silent already; of so many as there is room for.
    pub(super) fn tell_silent(&self, outbox: &Outbox, now: Millis) {
        let mut left = self.silent.since.len() as u64;
        for (source, &Since { since, .. }) in &self.silent.since {
            let body = Body::Silence { source: Arc::clone(source), since, so_long: now - since, back: false };
            if !outbox.offer(&Frame::new(&self.name, body)) {
                outbox.put(&Frame::new(&self.name, Body::Gap(left)));
                break;
            }
            left -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::{Client, LiveError, Terms, Transport};
    use crate::query::tests::query;
    use crate::query::tests::world::World;
    use std::sync::atomic::{AtomicI64, Ordering};

    const MINUTE: Millis = 60_000;

    /// Sources of minutes, which may be silent for ten of them.
    struct Watched {
        world: Arc<World>,
        hub: Arc<Hub>,
        now: Arc<AtomicI64>,
    }

    impl Watched {
        fn new(after: Option<Millis>) -> Self {
            let world = World::new("1m,1h", "UTC");
            let hub = Hub::new(
                Arc::clone(&world) as _,
                Arc::new(query(&world)),
                None,
                |_| b"[]".to_vec(),
                Expected { after },
            );
            let now = Arc::<AtomicI64>::default();
            let clock = Arc::clone(&now);
            let running = Arc::clone(&hub).run(move || clock.load(Ordering::SeqCst));
            tokio::spawn(running);
            Self { world, hub, now }
        }

        async fn listen(&self, channel: &str) -> Result<Client, LiveError> {
            let mut client = self.hub.connect(Transport::Events);
            client.subscribe(vec![Channel::subscribed(channel).unwrap()], &Terms::default()).await?;
            Ok(client)
        }

        /// Lets a round pass at this minute.
        async fn at(&self, minute: Millis) {
            self.now.store(minute * MINUTE, Ordering::SeqCst);
            sleep(Duration::from_secs(20)).await;
        }
    }

    /// What has come, as `event source since-minute for-minutes`.
    async fn heard(client: &Client) -> String {
        let mut heard = Vec::new();
        while let Ok(Some(frame)) = timeout(Duration::from_millis(1), client.next()).await {
            heard.push(match &frame.body {
                Body::Silence { source, since, so_long, back } => {
                    let event = if *back { "back" } else { "silent" };
                    format!("{event} {source} {} {}", since / MINUTE, so_long / MINUTE)
                }
                other => format!("{other:?}"),
            });
        }
        heard.join(", ")
    }

    #[tokio::test(start_paused = true)]
    async fn who_falls_silent_and_comes_back() {
        let watched = Watched::new(Some(10 * MINUTE));
        watched.world.lock().read("a", 0, 1.0);
        watched.world.lock().read("b", 5 * MINUTE, 1.0);
        let [all, a, b] = ["silent:*", "silent:a", "silent:b*"];
        let [all, a, b] = [watched.listen(all).await, watched.listen(a).await, watched.listen(b).await];
        let (all, a, b) = (all.unwrap(), a.unwrap(), b.unwrap());
        // Its minute ended ten minutes ago, which it may.
        watched.at(11).await;
        assert_eq!(heard(&all).await, "");
        watched.at(12).await;
        assert_eq!(
            (heard(&all).await, heard(&a).await, heard(&b).await),
            ("silent a 1 11".into(), "silent a 1 11".into(), String::new())
        );
        watched.at(13).await;
        assert_eq!(heard(&all).await, "", "once");
        watched.world.lock().read("a", 13 * MINUTE, 1.0);
        watched.at(14).await;
        assert_eq!((heard(&all).await, heard(&b).await), ("back a 1 13".into(), String::new()));
        // It came between two rounds, and fell silent again.
        watched.at(30).await;
        assert_eq!(heard(&all).await, "silent a 14 16, silent b 6 24");
        watched.world.lock().read("a", 31 * MINUTE, 1.0);
        watched.at(50).await;
        assert_eq!(heard(&a).await, "back a 1 13, silent a 14 16, silent a 32 18");
        // Who comes later is told of those there are.
        assert_eq!(heard(&watched.listen("silent:*").await.unwrap()).await, "silent a 32 18, silent b 6 44");
        assert_eq!(heard(&watched.listen("silent:a?").await.unwrap()).await, "");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_told_while_a_side_is_away() {
        let watched = Watched::new(Some(10 * MINUTE));
        watched.world.lock().read("a", 0, 1.0);
        let minute = watched.world.bucket("1m", 0);
        watched.world.lock().write(minute);
        watched.world.lock().read("a", 20 * MINUTE, 1.0);
        let all = watched.listen("silent:*").await.unwrap();
        watched.world.lock().store_down = true;
        watched.at(21).await;
        assert_eq!(heard(&all).await, "", "the sink has the first minute alone");
        watched.world.lock().store_down = false;
        watched.at(22).await;
        assert_eq!(heard(&all).await, "");
        watched.at(40).await;
        assert_eq!(heard(&all).await, "silent a 21 19");
        // Forgotten, it is no longer there to come back, nor to tell others of.
        watched.world.lock().rows.clear();
        watched.world.lock().lives.clear();
        watched.at(41).await;
        assert_eq!(heard(&all).await, "");
        assert_eq!(heard(&watched.listen("silent:*").await.unwrap()).await, "");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_of_many_is_bounded() {
        let watched = Watched::new(Some(MINUTE));
        for source in 0..1_500 {
            watched.world.lock().read(&format!("s{source:04}"), 0, 1.0);
        }
        let first = watched.listen("silent:*").await.unwrap();
        watched.at(10).await;
        let told = |heard: String| (heard.matches("silent").count(), heard.split(", ").last().unwrap().to_owned());
        let expected = (crate::live::outbox::MAX_MESSAGES, "Gap(1244)".to_owned());
        assert_eq!(told(heard(&first).await), expected);
        assert_eq!(told(heard(&watched.listen("silent:*").await.unwrap()).await), expected);
        // What was taken makes room.
        watched.world.lock().read("s0007", 10 * MINUTE, 1.0);
        watched.at(11).await;
        assert_eq!(heard(&first).await, "back s0007 1 10");
        let none = Watched::new(None);
        assert!(matches!(none.listen("silent:*").await, Err(LiveError::NoSilence)));
        watched.world.lock().looks = 0;
        drop(first);
        watched.at(12).await;
        assert_eq!(watched.world.lock().looks, 0, "nothing is read for nobody");
    }
}
