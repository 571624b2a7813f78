//! Tells those who are behind what they have not heard of closed buckets, until they are where everybody is.
//!
//! Run by the hub, beside `closings.rs`, so that nobody else waits. Behind is who comes back with the place of the
//! last event it has heard, and who did not take what was told as fast as it came. Rows are read piece by piece, each
//! once for all who are behind it, and a client gets as much as it has room for: so nothing is left out, whatever the
//! number of clients and rows, and what is held of them is bounded. A client gets the events of all its
//! channels in the order of the log; what is written meanwhile waits in the log behind it.

use super::behind::Behind;
use super::channel::Channel;
use super::closings::Place;
use super::log::Log;
use super::outbox::{Body, Frame, Outbox};
use super::written::{At, ENTRIES, Written, acked, entries_at_once, rows, sources};
use super::{Hub, Registry};
use crate::clock;
use crate::query::QueryError;
use crate::telemetry::metrics;
use futures_util::future::join_all;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How soon those who have nothing to do now are looked at again.
const EVERY: Duration = Duration::from_millis(250);
/// While the store or the sink is away.
const EVERY_AWAY: Duration = Duration::from_secs(2);
/// A client that takes nothing for as long does not hold up those who are where it is; it goes on alone.
const PATIENCE: Duration = Duration::from_secs(1);
/// Nor does one that takes longer for one piece.
const PIECE_PATIENCE: Duration = Duration::from_secs(2);
/// Patterns in one piece: each has frames of its own of all rows.
const PATTERNS: usize = 16;

/// Until dropped.
pub(super) async fn run(hub: &Hub) {
    let (mut log, mut far) = (Log::default(), false);
    loop {
        if hub.lock().behind.is_empty() {
            log = Log::default();
            hub.returned.notified().await;
            continue;
        }
        // In turn those who are farthest behind and those who are nearest: neither waits for all of the others.
        far = !far;
        match step(hub, &mut log, far).await {
            Ok(true) => {}
            Ok(false) | Err(QueryError::Moving) => drop(timeout(EVERY, hub.returned.notified()).await),
            // Said where it happened; clients that wait longer than they should are told, others get it later.
            Err(_) => sleep(EVERY_AWAY).await,
        }
    }
}

/// Reads a piece and gives it to those who are where it begins; whether there was one.
async fn step(hub: &Hub, log: &mut Log, far: bool) -> Result<bool, QueryError> {
    let Some(place) = hub.place() else { return Ok(false) };
    let ahead = hub.lock().is_anyone_ahead(place);
    if ahead {
        let known = acked(hub, None).await?;
        hub.lock().bring_back(place, known.last);
    }
    let from = hub.lock().farthest_behind(place);
    let Some(from) = from else {
        hub.lock().settle(log, place);
        return Ok(false);
    };
    log.cover(hub, from, place).await?;
    let mut clients = hub.lock().next(log, place, far);
    let Some(from) = clients.first().map(|client| client.at.behind()) else { return Ok(false) };
    let channels: BTreeSet<&Channel> = clients.iter().flat_map(|client| &client.channels).map(|(c, _)| c).collect();
    let sources = sources(hub, channels.into_iter()).await?;
    let (lives, until) = log.behind(from, entries_at_once(sources.len()));
    let rows = rows(hub, &lives, &sources).await?;
    hub.lock().behind.values_mut().for_each(Behind::accept);
    clients.retain(|client| client.at < At::end(until));
    let piece = Piece::new(hub, rows, place.epoch, until, &clients);
    join_all(clients.iter().map(|client| feed(hub, client, &piece))).await;
    Ok(true)
}

/// A client that is to get a piece.
struct Next {
    client: u64,
    at: At,
    channels: Vec<(Channel, u64)>,
    lagging: bool,
}

impl Registry {
    fn is_anyone_ahead(&self, place: Place) -> bool {
        let mut told = self.behind.values().flat_map(|behind| behind.channels.values());
        told.any(|told| told.epoch == place.epoch && told.at > At::end(place.mark))
    }

    /// Who names a place that the log has not come to was told by a store that has lost its last moments since.
    fn bring_back(&mut self, place: Place, last: i64) {
        for told in self.behind.values_mut().flat_map(|behind| behind.channels.values_mut()) {
            if told.epoch == place.epoch && told.at.mark > last.max(place.mark) {
                told.at = At::end(place.mark);
            }
        }
    }

    /// The mark from behind which the log is needed; nothing if it is not.
    fn farthest_behind(&self, place: Place) -> Option<i64> {
        let told = self.behind.values().flat_map(|behind| behind.channels.values());
        let told = told.filter(|told| told.epoch == place.epoch && told.at < At::end(place.mark));
        told.map(|told| told.at.behind()).min()
    }

    fn settle(&mut self, log: &Log, place: Place) {
        self.behind.values_mut().for_each(|behind| behind.settle(log, place));
    }

    /// Who is to get the next piece, in the order of their places.
    fn next(&mut self, log: &Log, place: Place, far: bool) -> Vec<Next> {
        self.settle(log, place);
        // Who has taken everything is as fast as others again.
        for behind in self.behind.values_mut() {
            behind.lagging &= !behind.outbox.is_taken();
        }
        let mut clients = Vec::new();
        for (&client, behind) in &self.behind {
            let at = behind.at();
            if at >= At::end(place.mark)
                || !log.covers(at.behind(), place)
                || (behind.lagging && !behind.outbox.has_room())
            {
                continue;
            }
            let channels = behind.channels.iter().map(|(channel, told)| (channel.clone(), told.ticket)).collect();
            clients.push(Next { client, at, channels, lagging: behind.lagging });
        }
        clients.sort_by(|a, b| a.at.cmp(&b.at));
        let first = if far { clients.first() } else { clients.last() };
        let Some(first) = first.map(|client| client.at.clone()) else { return clients };
        let until = At::end(log.behind(first.behind(), ENTRIES).1);
        clients.retain(|client| first <= client.at && client.at < until);
        let mut patterns = BTreeSet::new();
        let few = clients.iter().take_while(|client| {
            let own = client.channels.iter().map(|(channel, _)| channel);
            patterns.extend(own.filter(|channel| matches!(channel, Channel::ClosedLike(_))));
            patterns.len() <= PATTERNS
        });
        let few = few.count().max(1);
        clients.truncate(few);
        clients
    }
}

/// The frame that tells of a row, which has this number in its piece.
type Telling = (usize, Arc<Frame>);

/// What is left for a client of one of its channels; the number is that of its ticket.
type Left<'a> = (&'a Channel, u64, &'a [Telling]);

/// Rows with the frames that tell of them, by channel.
struct Piece {
    rows: Vec<Written>,
    frames: HashMap<Channel, Vec<Telling>>,
    /// All entries up to this one are in it.
    until: i64,
}

impl Piece {
    fn new(hub: &Hub, rows: Vec<Written>, epoch: Option<i64>, until: i64, clients: &[Next]) -> Self {
        let bodies: Vec<Body> = rows
            .iter()
            .map(|written| {
                let (row, position) = hub.closing(written, epoch);
                Body::Closed { row, position }
            })
            .collect();
        let mut by_source: HashMap<&str, Vec<usize>> = HashMap::new();
        for (n, written) in rows.iter().enumerate() {
            by_source.entry(&written.row.source).or_default().push(n);
        }
        let mut frames: HashMap<Channel, Vec<Telling>> = HashMap::new();
        for (channel, _) in clients.iter().flat_map(|client| &client.channels) {
            if frames.contains_key(channel) {
                continue;
            }
            let name = channel.to_string().into();
            let frame = |n: usize| (n, Frame::new(&name, bodies[n].clone()));
            let of_channel = if let Channel::Closed(source) = channel {
                by_source.get(&**source).into_iter().flatten().map(|n| frame(*n)).collect()
            } else {
                let told = |n: &usize| channel.tells_of(&rows[*n].row.source);
                (0..rows.len()).filter(told).map(frame).collect()
            };
            frames.insert(channel.clone(), of_channel);
        }
        Self { rows, frames, until }
    }
}

/// Gives a client its part of a piece, as it takes it.
async fn feed(hub: &Hub, client: &Next, piece: &Piece) {
    let mut left: Vec<Left> = client
        .channels
        .iter()
        .map(|(channel, ticket)| (channel, *ticket, piece.frames.get(channel).map_or(&[][..], Vec::as_slice)))
        .collect();
    let started = clock::instant();
    loop {
        let full = hub.lock().put(client.client, &mut left, piece);
        let Some(outbox) = full else { return };
        let tired = client.lagging || started.elapsed() > PIECE_PATIENCE;
        if tired || timeout(PATIENCE, outbox.room()).await.is_err() {
            hub.lock().lags(client.client);
            return;
        }
    }
}

impl Registry {
    fn lags(&mut self, client: u64) {
        if let Some(behind) = self.behind.get_mut(&client) {
            behind.lagging = true;
        }
    }

    /// Puts as much into a client's outbox as it has room for, and notes how far it got; the outbox if that is not all.
    fn put(&mut self, client: u64, left: &mut [Left], piece: &Piece) -> Option<Arc<Outbox>> {
        let behind = self.behind.get_mut(&client)?;
        let mut sent = 0;
        let next = |left: &[Left]| {
            let first = left.iter().enumerate().filter_map(|(n, (_, _, frames))| Some((frames.first()?.0, n)));
            first.min()
        };
        let mut full = None;
        while let Some((row, channel)) = next(left) {
            let (name, ticket, frames) = &mut left[channel];
            let at = piece.rows[row].at();
            match behind.channels.get_mut(*name).filter(|told| told.ticket == *ticket && told.at < at) {
                Some(_) if !behind.outbox.feed(&frames[0].1) => {
                    full = Some((row, Arc::clone(&behind.outbox)));
                    break;
                }
                Some(told) => {
                    told.at = at;
                    sent += 1;
                }
                None => {}
            }
            *frames = &frames[1..];
        }
        metrics::live_frames(sent);
        // Behind the row before the first that is left, nothing of any channel is missing.
        let upto = match full {
            None => Some(At::end(piece.until)),
            Some((row, _)) => row.checked_sub(1).map(|before| piece.rows[before].at()),
        };
        for (channel, ticket, _) in left.iter() {
            if let Some(told) = behind.channels.get_mut(*channel).filter(|told| told.ticket == *ticket)
                && let Some(upto) = upto.as_ref().filter(|upto| told.at < **upto)
            {
                told.at = upto.clone();
            }
        }
        behind.lagging &= full.is_some();
        full.map(|(_, outbox)| outbox)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::written::At;
    use bytes::Bytes;

    #[test]
    fn who_was_slow_once_is_not_slow_for_ever() {
        let channel = Channel::subscribed("closed:a").unwrap();
        let place = Place { epoch: Some(1), mark: 9 };
        let mut behind = Behind::new(Arc::default());
        behind.add(channel.clone(), At::end(5), place.epoch, false);
        let outbox = Arc::clone(&behind.outbox);
        let frame = Frame::new(&"a".into(), Body::Message(Bytes::from_static(b"waits")));
        assert!(outbox.put(&frame));
        let mut registry = Registry::default();
        registry.behind.insert(1, behind);
        let is_lagging = |registry: &Registry| registry.behind[&1].lagging;

        registry.lags(1);
        registry.next(&Log::default(), place, true);
        assert!(is_lagging(&registry), "it has not taken what it was given");
        outbox.forget("a");
        registry.next(&Log::default(), place, true);
        assert!(!is_lagging(&registry), "it has taken everything");

        registry.lags(1);
        let piece = Piece { rows: Vec::new(), frames: HashMap::new(), until: 9 };
        assert!(registry.put(1, &mut [], &piece).is_none());
        assert!(!is_lagging(&registry), "it had room for a whole piece");
    }
}
