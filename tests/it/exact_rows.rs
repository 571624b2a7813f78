//! What the rows of a sink must be, by arithmetic on whole numbers of any size, and the rows of either sink.
//!
//! Used by `corrections.rs` and `year.rs`. Count, minimum, maximum and end must be equal, sum and mean the
//! nearest double of the true value, the variances within 1e-11. The table is read with SQL, the files as
//! any tool reads them.

use crate::postgres_server::Database;
use crate::service::{On, Service, eventually};
use crate::sink_files;
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::Calendar;
use meanwhile::stats::timestamp;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};
use std::collections::BTreeMap;

/// Readings are kept in units of 2^-SHIFT; those of these tests are whole numbers of it.
const SHIFT: i32 = 60;
/// Of the variances.
const RELATIVE_ERROR: f64 = 1e-11;

/// Period, source and start.
pub(crate) type Key = (String, String, String);

/// What a sink says of a bucket and a source.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    count: u64,
    mean: f64,
    var_pop: f64,
    /// Nothing for a single reading.
    var_samp: Option<f64>,
    min: f64,
    max: f64,
    sum: f64,
}

pub(crate) type Rows = BTreeMap<Key, Row>;

/// Where a service writes its rows.
pub(crate) enum Sink {
    Files,
    Table(Database),
}

impl Sink {
    pub(crate) fn table() -> Self {
        Self::Table(Database::new())
    }

    /// A service that writes its rows there.
    pub(crate) fn start(&self, on: On, flags: &[&str]) -> Service {
        match self {
            Self::Files => Service::start(on, flags),
            Self::Table(database) => Service::start(on, &[&["--sink", &database.url()], flags].concat()),
        }
    }

    /// Readings in all rows of a period.
    pub(crate) fn counted(&self, service: &Service, period: &str) -> u64 {
        match self {
            Self::Files => sink_files::newest(&service.sink(), period).values().map(|line| line.count).sum(),
            Self::Table(database) => {
                let sum = format!("SELECT coalesce(sum(count), 0) FROM bucket_stats WHERE period = '{period}'");
                database.sql(&sum).parse().unwrap()
            }
        }
    }

    pub(crate) fn rows(&self, service: &Service, period: &str) -> Rows {
        match self {
            Self::Files => in_files(service, period),
            Self::Table(database) => in_table(database, period),
        }
    }
}

fn row<'t>(count: &str, mut cells: impl Iterator<Item = &'t str>) -> Row {
    let mut number = || cells.next().filter(|cell| !cell.is_empty()).map(|cell| cell.parse::<f64>().unwrap());
    let (mean, var_pop, var_samp) = (number().unwrap(), number().unwrap(), number());
    let (min, max, sum) = (number().unwrap(), number().unwrap(), number().unwrap());
    Row { count: count.parse().unwrap(), mean, var_pop, var_samp, min, max, sum }
}

fn in_files(service: &Service, period: &str) -> Rows {
    let lines = sink_files::newest(&service.sink(), period).into_iter();
    let row = |((source, start), line): (_, sink_files::Line)| {
        let cells = [&line.mean, &line.var_pop, &line.var_samp, &line.min, &line.max, &line.sum];
        ((period.to_owned(), source, start), row(&line.count.to_string(), cells.into_iter().map(String::as_str)))
    };
    lines.map(row).collect()
}

fn in_table(database: &Database, period: &str) -> Rows {
    let said = database.sql(&format!(
        "SET TimeZone = 'UTC'; SELECT source, to_char(bucket_start, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), count, mean, \
         var_pop, var_samp, min, max, sum FROM bucket_stats WHERE period = '{period}'"
    ));
    let row = |line: &str| {
        let mut cells = line.split('|');
        let (source, start, count) = (cells.next().unwrap(), cells.next().unwrap(), cells.next().unwrap());
        ((period.to_owned(), source.to_owned(), start.to_owned()), row(count, cells))
    };
    said.lines().map(row).collect()
}

/// The readings of one row.
struct Exact {
    count: u64,
    sum: BigInt,
    squares: BigInt,
    min: f64,
    max: f64,
}

/// The rows that some readings come to, in every period.
pub(crate) struct Truth {
    calendar: Calendar,
    rows: BTreeMap<(usize, Millis, String), Exact>,
}

impl Truth {
    pub(crate) fn new(calendar: Calendar) -> Self {
        Self { calendar, rows: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, source: &str, value: f64, time: Millis) {
        let units = value * f64::from(SHIFT).exp2();
        assert!(units.fract() == 0.0, "{value} has smaller digits");
        let units = BigInt::from(units as i128);
        let square = &units * &units;
        for (index, &period) in self.calendar.periods().iter().enumerate() {
            let key = (index, self.calendar.bucket(period, time).start, source.to_owned());
            let new = || Exact { count: 0, sum: BigInt::zero(), squares: BigInt::zero(), min: value, max: value };
            let row = self.rows.entry(key).or_insert_with(new);
            row.count += 1;
            row.sum += &units;
            row.squares += &square;
            (row.min, row.max) = (row.min.min(value), row.max.max(value));
        }
    }

    /// Readings of all sources.
    pub(crate) fn readings(&self) -> u64 {
        self.rows.iter().filter(|((period, ..), _)| *period == 0).map(|(_, row)| row.count).sum()
    }

    /// Sees that a sink has exactly these rows of a period, and that they are right; how many there are.
    pub(crate) fn check(&self, service: &Service, sink: &Sink, period: &str) -> usize {
        let index = self.calendar.periods().iter().position(|p| p.to_string() == period).unwrap();
        let of_period = || self.rows.iter().filter(|((i, ..), _)| *i == index);
        // A file that is compacted between two looks is missed by this one.
        let mut rows = eventually(&format!("all rows of {period} are seen"), || {
            let rows = sink.rows(service, period);
            (rows.len() == of_period().count()).then_some(rows)
        });
        let checked = rows.len();
        for ((_, start, source), exact) in of_period() {
            let key = (period.to_owned(), source.clone(), timestamp::format(*start));
            let row = rows.remove(&key).unwrap_or_else(|| panic!("{key:?} is missing"));
            exact.check(&key, &row);
        }
        checked
    }
}

impl Exact {
    fn check(&self, key: &Key, row: &Row) {
        assert_eq!((row.count, row.min, row.max), (self.count, self.min, self.max), "{key:?}");
        let n = BigInt::from(self.count);
        let unit = BigRational::new(1.into(), BigInt::from(1) << SHIFT);
        let sum = BigRational::from_integer(self.sum.clone()) * &unit;
        assert!(is_nearest(row.sum, &sum), "sum: {key:?} {row:?}");
        assert!(is_nearest(row.mean, &(sum / &n)), "mean: {key:?} {row:?}");
        // n*Q - S*S, in squares of the unit.
        let spread = BigRational::from_integer(&n * &self.squares - &self.sum * &self.sum) * (&unit * &unit);
        check_variance(row.var_pop, &(&spread / (&n * &n)), key);
        match row.var_samp {
            Some(var_samp) => check_variance(var_samp, &(spread / (&n * (&n - 1))), key),
            None => assert_eq!(self.count, 1, "{key:?}"),
        }
    }
}

fn exact(x: f64) -> BigRational {
    BigRational::from_float(x).expect("a finite number")
}

fn is_nearest(got: f64, truth: &BigRational) -> bool {
    let distance = |x: f64| (exact(x) - truth).abs();
    let own = distance(got);
    own.is_zero() || (own <= distance(got.next_up()) && own <= distance(got.next_down()))
}

fn check_variance(got: f64, truth: &BigRational, key: &Key) {
    let truth = truth.to_f64().expect("a number");
    assert!((got - truth).abs() <= RELATIVE_ERROR * truth, "variance of {key:?}: {got}, not {truth}");
}
