//! What can be brought to a row of the sink: a life of the store, or a whole row of another sink.
//!
//! Used by `writer.rs` alone, which treats both alike; what becomes of a row is decided in
//! `stats/row.rs`.

use crate::stats::calendar::Bucket;
use crate::stats::row::{LifeRow, Row, Update};
use crate::stats::timestamp;
use std::sync::Arc;

/// See the module.
pub(super) trait Offer {
    fn source(&self) -> &Arc<str>;

    fn bucket(&self) -> &Bucket;

    /// What becomes of the row the sink has.
    fn update(&self, held: Option<&Row>) -> Update;

    /// The row it is where there is no other.
    fn alone(&self) -> Row;

    /// Told of the first of a call that is older than the sink's row.
    fn log_older(&self);
}

impl Offer for LifeRow {
    fn source(&self) -> &Arc<str> {
        &self.source
    }

    fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    fn update(&self, held: Option<&Row>) -> Update {
        Row::update(held, self)
    }

    fn alone(&self) -> Row {
        Row::alone(self.clone())
    }

    fn log_older(&self) {
        tracing::error!(
            source = &*self.source, period = %self.bucket.period, start = timestamp::format(self.bucket.start),
            generation = self.generation, revision = self.revision,
            "the sink has a newer row than the store: a clock or a store went back; the row stays \
             (only the first of this write is named)"
        );
    }
}

impl Offer for Row {
    fn source(&self) -> &Arc<str> {
        &self.source
    }

    fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    fn update(&self, held: Option<&Row>) -> Update {
        Row::replace(held, self)
    }

    fn alone(&self) -> Row {
        self.clone()
    }

    /// Nothing is wrong: the sink went on while the other stood still.
    fn log_older(&self) {}
}
