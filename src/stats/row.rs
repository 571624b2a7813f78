//! One (source, bucket) as the sink holds it, and the one rule by which a row takes a new version.
//!
//! Lives come out of the store (`store/`), rows go into the sink (`sink/`); `query/` puts the two
//! together with the same rule. The order of versions is `(generation, gen_count, revision)`.

use super::calendar::Bucket;
use super::moments::{Moments, Unlike};
use std::sync::Arc;

/// What one life of a bucket says of one source, at one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct LifeRow {
    pub source: Arc<str>,
    pub bucket: Bucket,
    /// The number of the life; a later life of the same bucket has a greater one.
    pub generation: i64,
    /// The version of the life's content, set when it was sealed.
    pub revision: i64,
    /// This life alone, without earlier ones.
    pub moments: Moments,
}

/// A row of the sink: everything known of a source in a bucket, over all of the bucket's lives.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub source: Arc<str>,
    pub bucket: Bucket,
    /// The newest life in this row.
    pub generation: i64,
    /// Readings in that life alone: it only grows while the life is in the store.
    pub gen_count: f64,
    pub revision: i64,
    /// The lives before the newest one; `None` if there was none.
    pub base: Option<Moments>,
    /// `base` and the newest life together: what is shown.
    pub state: Moments,
}

/// What became of a life, or of another sink's row, offered to a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// The row is to be written like this.
    Write(Row),
    /// The row holds exactly this version already.
    Same,
    /// The row holds a newer one: what was offered is skipped. Of a life it means that another instance was
    /// faster, or that a clock or a store went back.
    Older,
    /// The lives before are of readings of another length: the two cannot be put together, and the row stays.
    Unlike(Unlike),
}

impl Row {
    /// The row that a life is without any other.
    #[must_use]
    pub fn alone(life: LifeRow) -> Self {
        let LifeRow { source, bucket, generation, revision, moments } = life;
        Self { source, bucket, generation, gen_count: moments.count, revision, base: None, state: moments }
    }

    /// Applies a life to the row the sink has for it, if any. Same life: replaced if greater. Newer
    /// life: the whole row becomes its base. Repeating a call changes nothing.
    #[must_use]
    pub fn update(existing: Option<&Row>, life: &LifeRow) -> Update {
        let base = match existing {
            None => None,
            Some(row) if row.generation < life.generation => Some(row.state.clone()),
            Some(row) if row.generation > life.generation => return Update::Older,
            Some(row) => {
                let (old, new) = ((row.gen_count, row.revision), (life.moments.count, life.revision));
                if new == old {
                    return Update::Same;
                }
                if new < old {
                    return Update::Older;
                }
                row.base.clone()
            }
        };
        let mut state = base.clone().unwrap_or_default();
        if let Err(unlike) = state.try_merge(&life.moments) {
            return Update::Unlike(unlike);
        }
        Update::Write(Row {
            source: Arc::clone(&life.source),
            bucket: life.bucket,
            generation: life.generation,
            gen_count: life.moments.count,
            revision: life.revision,
            base,
            state,
        })
    }

    /// Offers a row as another sink has it, base and all, to the row this sink has, if any. The greater
    /// version is the row; nothing is merged, since a version has one content everywhere.
    #[must_use]
    pub fn replace(existing: Option<&Row>, row: &Row) -> Update {
        match existing {
            Some(held) if held.version() == row.version() => Update::Same,
            Some(held) if held.version() > row.version() => Update::Older,
            _ => Update::Write(row.clone()),
        }
    }

    /// The order of versions of one row: readers of files take the greatest.
    #[must_use]
    pub fn version(&self) -> (i64, f64, i64) {
        (self.generation, self.gen_count, self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::calendar::Period;

    fn life(generation: i64, revision: i64, values: &[f64]) -> LifeRow {
        let mut moments = Moments::EMPTY;
        for &value in values {
            moments.push(value);
        }
        let bucket = Bucket { period: Period::Seconds(60), start: 0, end: 60_000 };
        LifeRow { source: "a".into(), bucket, generation, revision, moments }
    }

    fn write(existing: Option<&Row>, life: &LifeRow) -> Row {
        match Row::update(existing, life) {
            Update::Write(row) => row,
            other => panic!("not written: {other:?}"),
        }
    }

    #[test]
    fn a_correction_replaces_and_a_later_life_adds() {
        let first = write(None, &life(1, 10, &[1.0]));
        assert_eq!((&first.base, first.state.count), (&None, 1.0));
        let corrected = write(Some(&first), &life(1, 11, &[1.0, 2.0]));
        assert_eq!((&corrected.base, corrected.state.count), (&None, 2.0));
        let late = write(Some(&corrected), &life(5, 12, &[4.0]));
        assert_eq!((&late.base, late.state.count, late.gen_count), (&Some(corrected.state.clone()), 3.0, 1.0));
        let late_again = write(Some(&late), &life(5, 13, &[4.0, 8.0]));
        assert_eq!((late_again.base, late_again.state.count), (Some(corrected.state), 4.0));
    }

    #[test]
    fn repeats_and_older_versions_change_nothing() {
        let row = write(None, &life(5, 11, &[1.0, 2.0]));
        assert_eq!(Row::update(Some(&row), &life(5, 11, &[1.0, 2.0])), Update::Same);
        assert_eq!(Row::update(Some(&row), &life(5, 10, &[1.0, 2.0])), Update::Older);
        assert_eq!(Row::update(Some(&row), &life(5, 99, &[1.0])), Update::Older, "a store that lost a reading");
        assert_eq!(Row::update(Some(&row), &life(4, 99, &[1.0, 2.0, 3.0])), Update::Older);
    }

    #[test]
    fn a_life_of_another_length_is_not_added() {
        let vector = |generation| LifeRow { moments: Moments::of_vector(&[1.0, 2.0]), ..life(generation, 10, &[]) };
        let row = write(None, &vector(1));
        assert_eq!(Row::update(Some(&row), &life(5, 11, &[1.0])), Update::Unlike(Unlike(2, 1)));
        let both = write(Some(&row), &vector(5));
        assert_eq!((both.base, both.state.count), (Some(row.state), 2.0));
    }

    #[test]
    fn of_two_whole_rows_the_greater_version_stays() {
        let first = write(None, &life(1, 10, &[1.0]));
        let late = write(Some(&first), &life(5, 12, &[4.0]));
        assert_eq!(Row::replace(None, &late), Update::Write(late.clone()));
        assert_eq!(Row::replace(Some(&first), &late), Update::Write(late.clone()), "with its base, not on top");
        assert_eq!(Row::replace(Some(&late), &late), Update::Same);
        assert_eq!(Row::replace(Some(&late), &first), Update::Older);
    }
}
