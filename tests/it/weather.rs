//! Three years of a weather-like table, from the file through import, rollover and query to the files
//! of the sink, against exact rational arithmetic.
//!
//! Count, minimum and maximum must be equal, the mean the nearest double of the true quotient, the
//! variances within 1e-11. A test prints how many digits agree at least.

use crate::seeded::Seeded;
use crate::service::{On, Service, eventually};
use crate::sink_files;
use meanwhile::stats::calendar::Zone;
use meanwhile::stats::timestamp;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const CITIES: [&str; 2] = ["berlin", "lisbon"];
const COLUMNS: [&str; 3] = ["temp_max", "temp_min", "wind"];
const DAYS_OF_MONTHS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
/// Of the variances.
const RELATIVE_ERROR: f64 = 1e-11;

/// Values by (source, first of their month), as the doubles that were written.
pub(crate) type Months = BTreeMap<(String, String), Vec<f64>>;

/// Writes the table; a cell in some fifty is empty.
pub(crate) fn table(dir: &Path) -> (PathBuf, Months) {
    let mut seeded = Seeded::new(1);
    let (mut text, mut months) = ("date,location,temp_max,temp_min,wind\n".to_owned(), Months::new());
    for (year, month) in (2022..2025).flat_map(|year| (1..=12).map(move |month| (year, month))) {
        let leap = u32::from(year % 4 == 0 && month == 2);
        for day in 1..=DAYS_OF_MONTHS[month as usize - 1] + leap {
            for city in CITIES {
                let date = format!("{year}-{month:02}-{day:02}");
                write!(text, "{date},{city}").unwrap();
                for (column, lowest) in COLUMNS.iter().zip([-100, -200, 0]) {
                    if seeded.below(50) == 0 {
                        text.push(',');
                        continue;
                    }
                    let tenths = lowest + seeded.below(450).cast_signed();
                    let cell =
                        format!("{}{}.{}", if tenths < 0 { "-" } else { "" }, tenths.abs() / 10, tenths.abs() % 10);
                    write!(text, ",{cell}").unwrap();
                    let month = (format!("{city}.{column}"), format!("{year}-{month:02}-01"));
                    months.entry(month).or_default().push(cell.parse().unwrap());
                }
                text.push('\n');
            }
        }
    }
    let path = dir.join("weather.csv");
    std::fs::write(&path, text).unwrap();
    (path, months)
}

/// What is known of a row, as text from whoever says it.
#[derive(Debug)]
struct Row<'t> {
    count: u64,
    mean: &'t str,
    var_pop: &'t str,
    var_samp: &'t str,
    min: &'t str,
    max: &'t str,
}

fn exact(x: f64) -> BigRational {
    BigRational::from_float(x).expect("a finite number")
}

fn double(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

/// Relative error of a printed number.
fn error(text: &str, truth: &BigRational) -> f64 {
    let difference = (exact(double(text)) - truth).abs();
    if difference.is_zero() { 0.0 } else { (difference / truth.abs()).to_f64().expect("a ratio") }
}

/// Compares a row with the values it is made of; returns the larger error of its variances.
fn check_row(row: &Row, values: &[f64]) -> f64 {
    let n = BigRational::from_integer(BigInt::from(values.len()));
    let mean = values.iter().map(|&x| exact(x)).sum::<BigRational>() / &n;
    let squares: BigRational = values.iter().map(|&x| (exact(x) - &mean).pow(2)).sum();
    let extreme = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick).unwrap();
    assert_eq!(row.count, values.len() as u64, "{row:?}");
    assert_eq!((double(row.min), double(row.max)), (extreme(f64::min), extreme(f64::max)), "{row:?}");
    let got = double(row.mean);
    let distance = |x: f64| (exact(x) - &mean).abs();
    assert!(distance(got) <= distance(got.next_up()) && distance(got) <= distance(got.next_down()), "{row:?}");
    let one = BigRational::from_integer(1.into());
    let worst = error(row.var_pop, &(&squares / &n)).max(error(row.var_samp, &(&squares / (&n - one))));
    assert!(worst <= RELATIVE_ERROR, "{worst:e}: {row:?}");
    worst
}

pub(crate) fn import(service: &Service, file: &Path) -> String {
    let words = ["import", file.to_str().unwrap(), "--time", "date", "--source", "{location}.{column}"];
    let imported = service.command(&words).args(["--values", "temp_max,temp_min,wind"]).output().unwrap();
    let said = String::from_utf8(imported.stderr).unwrap();
    assert!(imported.status.success(), "{said}");
    said
}

/// Sees that the commands show the months as they are; returns the largest error of a variance.
fn check_answers(service: &Service, months: &Months, zone: &Zone) -> f64 {
    let mut worst: f64 = 0.0;
    for (city, column) in CITIES.iter().flat_map(|city| COLUMNS.map(|column| (city, column))) {
        let source = format!("{city}.{column}");
        let text = service.run(&["query", &source, "--period", "1mo", "--format", "csv"]);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
        let expected: Vec<_> = months.iter().filter(|((id, _), _)| *id == source).collect();
        assert_eq!(rows.len(), expected.len(), "{text}");
        for (row, ((_, first), values)) in rows.iter().zip(expected) {
            assert_eq!(row["start"], timestamp::format(timestamp::parse(first, zone).unwrap()));
            let cell = |name: &str| row[name].as_str();
            let [mean, var_pop, var_samp, min, max] = ["mean", "var_pop", "var_samp", "min", "max"].map(cell);
            let row = Row { count: cell("count").parse().unwrap(), mean, var_pop, var_samp, min, max };
            worst = worst.max(check_row(&row, values));
        }
    }
    worst
}

/// Sees that the sink has these months, and all of their days, in exactly one line per row.
fn check_files(service: &Service, months: &Months, zone: &Zone) {
    let readings: u64 = months.values().map(|values| values.len() as u64).sum();
    for (period, rows) in [("1d", readings as usize), ("1mo", months.len())] {
        let lines = eventually(&format!("the files of {period} are compacted"), || {
            let lines = sink_files::lines(&service.sink(), period);
            (lines.len() == rows && lines.values().all(|versions| versions.len() == 1)).then_some(lines)
        });
        assert_eq!(lines.values().map(|versions| versions[0].count).sum::<u64>(), readings, "{period}");
        for ((source, month), values) in months.iter().filter(|_| period == "1mo") {
            let start = timestamp::format(timestamp::parse(month, zone).unwrap());
            let line = &lines[&(source.clone(), start)][0];
            let (mean, var_pop, var_samp) = (line.mean.as_str(), line.var_pop.as_str(), line.var_samp.as_str());
            check_row(&Row { count: line.count, mean, var_pop, var_samp, min: &line.min, max: &line.max }, values);
        }
    }
}

fn weather(on: On, zone: &str) {
    let flags = ["--periods", "1m,1h,1d,1mo", "--timezone", zone, "--grace", "200ms", "--lateness", "1s"];
    let service = Service::start(on, &flags);
    let dir = tempfile::tempdir().unwrap();
    let (file, months) = table(dir.path());
    let zone: Zone = zone.parse().unwrap();
    import(&service, &file);
    let while_open = check_answers(&service, &months, &zone);
    check_files(&service, &months, &zone);
    let closed = check_answers(&service, &months, &zone);
    let again = import(&service, &file);
    let readings: u64 = months.values().map(|values| values.len() as u64).sum();
    let all = format!("{},{:03} of them had been counted already", readings / 1_000, readings % 1_000);
    assert!(again.contains(&all), "{again}");
    check_answers(&service, &months, &zone);
    check_files(&service, &months, &zone);
    let digits = |worst: f64| if worst == 0.0 { "all".to_owned() } else { format!("{:.1}", -worst.log10()) };
    println!("digits of variances that agree at least: {} open, {} closed", digits(while_open), digits(closed));
}

#[test]
fn weather_embedded() {
    weather(On::Embedded, "UTC");
}

#[test]
fn weather_redis_in_berlin() {
    weather(On::Redis, "Europe/Berlin");
}
