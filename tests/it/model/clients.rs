//! Clients that send and retry, and the nodes that bring their requests to the store: one frame in
//! flight per writer, the same bytes again while its outcome is unknown.

use super::beside::Beside;
use crate::world::{POLICY, wide_source};
use meanwhile::stats::Millis;
use meanwhile::stats::moments::Moments;
use meanwhile::store::kin::Kin;
use meanwhile::store::{Answer, BucketDeltas, Frame, KeyRecord, WriterId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A reading that stands for many: 1,250 sources, which close in two chunks.
const WIDE: usize = 1_250;
/// The source whose readings are vectors.
const VECTORS: usize = 3;
/// A frame is refused for one reason after the other, but not for ever.
const MAX_ANSWERS: usize = 10;

#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) source: usize,
    pub(super) value: i32,
    /// How long before the request was made; `None`: it has no timestamp, so it is of the time at
    /// which a request arrives.
    pub(super) ago: Option<Millis>,
    /// Whether the wide sources have this value too.
    pub(super) wide: bool,
}

pub(super) fn small_source(i: usize) -> String {
    format!("source-{i}")
}

/// What goes wrong with a frame the first time it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    RequestLost,
    AnswerLost,
}

/// What a client sends, word for word the same at each retry.
#[derive(Clone)]
struct Request {
    key: Option<KeyRecord>,
    readings: Vec<Reading>,
    made: Millis,
}

struct Node {
    writer: WriterId,
    /// Of the last frame known to be applied.
    sequence: u64,
    /// A frame that was sent and not answered, and what is in it.
    in_flight: Option<(Frame, Vec<Arrived>)>,
}

/// A request at a node, with the deltas its readings fold to at that moment.
#[derive(Clone)]
struct Arrived {
    key: Option<KeyRecord>,
    deltas: Vec<BucketDeltas>,
}

pub(super) struct Clients {
    nodes: Vec<Node>,
    requests: Vec<Request>,
    /// Every frame ever sent: any of them may arrive once more.
    sent: Vec<Frame>,
    writers: u64,
}

impl Clients {
    pub(super) fn new(nodes: usize) -> Self {
        let mut clients = Self { nodes: Vec::new(), requests: Vec::new(), sent: Vec::new(), writers: 0 };
        clients.nodes = (0..nodes).map(|_| clients.new_node()).collect();
        clients
    }

    fn new_node(&mut self) -> Node {
        self.writers += 1;
        Node { writer: WriterId(self.writers.to_be_bytes()), sequence: 0, in_flight: None }
    }

    pub(super) async fn send(
        &mut self,
        beside: &mut Beside,
        node: usize,
        keyed: bool,
        requests: &[Vec<Reading>],
        fault: Fault,
    ) {
        let made = beside.world.now();
        let first = self.requests.len();
        for readings in requests {
            let n = self.requests.len() as u128;
            let key = KeyRecord { id: n.to_be_bytes(), fingerprint: [1; 16], ttl: POLICY.idempotency_ttl };
            self.requests.push(Request { key: keyed.then_some(key), readings: readings.clone(), made });
        }
        let arrived = self.requests[first..].iter().map(|r| arrive(beside, r)).collect();
        self.commit(beside, node, arrived, fault).await;
    }

    pub(super) async fn retry(&mut self, beside: &mut Beside, node: usize, back: usize, changed: bool, fault: Fault) {
        let Some(mut request) = self.requests.iter().rev().nth(back).cloned() else { return };
        if changed && let Some(key) = &mut request.key {
            key.fingerprint = [2; 16];
        }
        let arrived = vec![arrive(beside, &request)];
        self.commit(beside, node, arrived, fault).await;
    }

    /// A client whose reading is of the time of an open bucket: the `choice`-th of those that are
    /// being closed, or of all.
    pub(super) async fn aim(&mut self, beside: &mut Beside, node: usize, choice: usize) {
        let mut buckets = beside.closing();
        if buckets.is_empty() {
            buckets = beside.open().await.lives.iter().map(|l| l.life.bucket).collect();
        }
        if buckets.is_empty() {
            return;
        }
        let ago = Some(beside.world.now() - buckets[choice % buckets.len()].start);
        let reading = Reading { source: choice, value: 1, ago, wide: false };
        self.send(beside, node, true, &[vec![reading]], Fault::None).await;
    }

    /// Brings requests into the store, in a frame that may have to be sent and rebuilt some times.
    async fn commit(&mut self, beside: &mut Beside, node: usize, arrived: Vec<Arrived>, fault: Fault) {
        let received = beside.elapsed().await;
        self.resolve(beside, node).await;
        let frame = self.frame(node, received, &arrived);
        if fault == Fault::AnswerLost {
            beside.apply(&frame).await;
        }
        self.nodes[node].in_flight = Some((frame, arrived));
        if fault == Fault::None {
            self.resolve(beside, node).await;
        }
    }

    fn frame(&mut self, node: usize, received: Millis, arrived: &[Arrived]) -> Frame {
        let keys = arrived.iter().filter_map(|a| a.key).collect();
        let mut folded = BTreeMap::<_, BTreeMap<Arc<str>, Moments>>::new();
        for deltas in arrived.iter().flat_map(|a| &a.deltas) {
            let sources = folded.entry(deltas.bucket).or_default();
            for (source, moments) in &deltas.sources {
                sources.entry(Arc::clone(source)).or_default().merge(moments);
            }
        }
        let deltas = folded.into_iter().map(|(bucket, s)| BucketDeltas { bucket, sources: s.into_iter().collect() });
        let Node { writer, sequence, .. } = self.nodes[node];
        let frame = Frame::new(writer, sequence + 1, received, keys, deltas.collect());
        self.sent.push(frame.clone());
        frame
    }

    /// Sends what is in flight at a node until its outcome is known.
    pub(super) async fn resolve(&mut self, beside: &mut Beside, node: usize) {
        let Some((mut frame, mut arrived)) = self.nodes[node].in_flight.take() else { return };
        for _ in 0..MAX_ANSWERS {
            match beside.apply(&frame).await {
                Answer::Applied => {
                    self.nodes[node].sequence += 1;
                    return;
                }
                Answer::Dup { checksum } => {
                    assert_eq!(checksum, frame.checksum, "another frame has this node's sequence");
                    assert_eq!(beside.ledger.applied.get(&(frame.writer, frame.sequence)), Some(&checksum));
                    self.nodes[node].sequence += 1;
                    return;
                }
                // Nobody counted it, and nobody ever will: each copy of it is as old.
                Answer::Stale => return,
                Answer::Seen(seen) => {
                    let ids: Vec<_> = seen.iter().map(|&(i, _)| frame.keys[i].id).collect();
                    assert!(ids.iter().all(|id| beside.ledger.keys.contains_key(id)), "seen, but never counted");
                    arrived.retain(|a| a.key.is_none_or(|k| !ids.contains(&k.id)));
                }
                Answer::Closing(lives) => {
                    for life in lives {
                        beside.close_to_end(life).await;
                    }
                    continue;
                }
                Answer::Late(late) => {
                    let late: Vec<_> = late.iter().map(|&i| frame.deltas[i].bucket).collect();
                    for arrived in &mut arrived {
                        arrived.deltas.retain(|d| !late.contains(&d.bucket));
                    }
                }
                Answer::Mixed => {
                    frame.kin = Some(Kin::of(&beside.world.calendar, &frame.deltas));
                    continue;
                }
                other => panic!("the store has lost something: {other:?}"),
            }
            // What is left goes under the same sequence, even if that is nothing.
            frame = self.frame(node, frame.received, &arrived);
        }
        panic!("a frame has no outcome: {frame:?}");
    }

    /// The node dies. What was in flight may be in the store or not; its clients retry or do not.
    pub(super) fn forget(&mut self, node: usize) {
        self.nodes[node] = self.new_node();
    }

    /// The frame after the next one: it must wait for its turn.
    pub(super) async fn skip(&mut self, beside: &mut Beside, node: usize) {
        self.resolve(beside, node).await;
        let Node { writer, sequence, .. } = self.nodes[node];
        let frame = Frame::new(writer, sequence + 2, beside.elapsed().await, vec![], vec![]);
        assert_eq!(beside.apply(&frame).await, Answer::Gap { last: sequence });
    }

    /// A frame arrives once more, or for the first time. Whatever becomes of it, the node does not
    /// hear of it.
    pub(super) async fn delayed(&mut self, beside: &mut Beside, back: usize) {
        if let Some(frame) = self.sent.iter().rev().nth(back) {
            beside.apply(frame).await;
        }
    }
}

fn arrive(beside: &Beside, request: &Request) -> Arrived {
    let mut folded = BTreeMap::<_, BTreeMap<Arc<str>, Moments>>::new();
    for reading in &request.readings {
        let t = reading.ago.map_or(beside.world.now(), |ago| request.made - ago);
        let mut sources = vec![small_source(reading.source)];
        if reading.wide {
            sources.extend((0..WIDE).map(wide_source));
        }
        for bucket in beside.world.calendar.roots(t).buckets {
            for source in &sources {
                let folded = folded.entry(bucket).or_default();
                let moments = folded.entry(source.as_str().into()).or_default();
                let value = f64::from(reading.value);
                if *source == small_source(VECTORS) {
                    moments.push_vector(&[value, 1.0 - 3.0 * value]);
                } else {
                    moments.push(value);
                }
            }
        }
    }
    let deltas = folded.into_iter().map(|(bucket, s)| BucketDeltas { bucket, sources: s.into_iter().collect() });
    Arrived { key: request.key, deltas: deltas.collect() }
}
