//! A sink in memory behind the same gates: rows by the rule of `stats/row.rs`, and writes that fail before,
//! in the middle or after, or come late.
//!
//! Handed by `node.rs` to the rollover and the queries. All nodes write into the one table of the world; a life of
//! another length than its row is set aside there.

use crate::world::{Fate, Side, World};
use meanwhile::sink::{Partition, RowPage, RowQuery, Sink, SinkError, WriteReport};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::Period;
use meanwhile::stats::row::{LifeRow, Row, Update};
use meanwhile::stats::source::SourceSpan;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) struct NodeSink {
    pub(crate) world: Arc<World>,
    pub(crate) node: usize,
}

fn away() -> SinkError {
    SinkError::Unavailable("no answer".to_owned())
}

impl World {
    fn write(&self, node: usize, lives: &[LifeRow]) -> WriteReport {
        let mut report = WriteReport::default();
        for life in lives {
            let mut state = self.lock();
            let key = (life.bucket, Arc::clone(&life.source));
            let update = Row::update(state.rows.get(&key), life);
            let said = match update {
                Update::Write(row) => {
                    let later = row.base.is_some();
                    state.rows.insert(key, row);
                    *state.tally.entry("rows written").or_default() += 1;
                    *state.tally.entry("rows of a later life").or_default() += u64::from(later);
                    report.written += 1;
                    "written"
                }
                Update::Same => {
                    report.same += 1;
                    "there already"
                }
                Update::Older => {
                    report.older += 1;
                    "older than the row"
                }
                Update::Unlike(_) => {
                    let (bucket, source) = key;
                    let letter = state.aside.entry((bucket, source, life.generation)).or_insert_with(|| life.clone());
                    if (letter.moments.count, letter.revision) < (life.moments.count, life.revision) {
                        letter.clone_from(life);
                    }
                    *state.tally.entry("lives set aside").or_default() += 1;
                    report.refused += 1;
                    "set aside"
                }
            };
            drop(state);
            self.log(|| format!("node {node} row {life:?}: {said}"));
        }
        report
    }
}

#[async_trait::async_trait]
impl Sink for NodeSink {
    fn name(&self) -> String {
        "simulated".to_owned()
    }

    async fn write(&self, lives: Vec<LifeRow>) -> Result<WriteReport, SinkError> {
        let world = &self.world;
        let fate = world.gate(self.node, Side::Sink, "write").await;
        let node = self.node;
        match fate {
            Fate::Done => Ok(world.write(node, &lives)),
            // Some rows may have been written before.
            Fate::Refused => {
                world.write(node, &lives[..lives.len() / 2]);
                Err(SinkError::Refused("a broken file".to_owned()))
            }
            Fate::LostCall => {
                world.write(node, &lives[..lives.len() / 2]);
                Err(away())
            }
            Fate::LostAnswer => {
                world.write(node, &lives);
                Err(away())
            }
            Fate::Delayed => {
                world.leave(node, Side::Sink, "write", move |world| {
                    world.write(node, &lives);
                });
                Err(away())
            }
        }
    }

    async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>, SinkError> {
        if self.world.gate(self.node, Side::Queries, "rows").await != Fate::Done {
            return Err(away());
        }
        let asked = |row: &&Row| {
            row.bucket.period == query.period
                && query.sources.contains(&row.source)
                && (query.from..query.to).contains(&row.bucket.start)
        };
        let mut rows: Vec<Row> = self.world.lock().rows.values().filter(asked).cloned().collect();
        rows.sort_by(|a, b| (a.bucket.start, &a.source).cmp(&(b.bucket.start, &b.source)));
        query.cut(&mut rows);
        Ok(rows)
    }

    async fn sources(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<SourceSpan>, SinkError> {
        let state = self.world.lock();
        let mut spans: BTreeMap<&Arc<str>, (Millis, Millis)> = BTreeMap::new();
        for (bucket, source) in state.rows.keys() {
            let span = spans.entry(source).or_insert((bucket.start, bucket.start));
            *span = (span.0.min(bucket.start), span.1.max(bucket.start));
        }
        let asked = spans.into_iter().filter(|(s, _)| s.starts_with(prefix) && after.is_none_or(|a| &***s > a));
        let span = |(source, (first, last)): (&Arc<str>, _)| SourceSpan { source: Arc::clone(source), first, last };
        Ok(asked.take(limit).map(span).collect())
    }

    async fn compactable(&self, _: Millis) -> Result<Vec<Partition>, SinkError> {
        Ok(Vec::new())
    }

    async fn put(&self, _: Vec<Row>) -> Result<WriteReport, SinkError> {
        unreachable!("nothing is copied here")
    }

    async fn scan(&self, _: Option<&str>, _: usize) -> Result<RowPage, SinkError> {
        unreachable!("nothing is copied here")
    }

    async fn compact(&self, _: &Partition) -> Result<(), SinkError> {
        unreachable!("nothing can be compacted")
    }

    async fn forget(&self, _: &str) -> Result<usize, SinkError> {
        unreachable!("no source is forgotten here")
    }

    async fn retain(&self, _: Period, _: Millis) -> Result<usize, SinkError> {
        unreachable!("rows are kept for ever")
    }
}
