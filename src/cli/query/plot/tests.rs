//! The plots of fixed data, character by character, and what must hold of any data.

use super::*;
use crate::stats::timestamp;
use proptest::prelude::*;

fn at(text: &str) -> Millis {
    timestamp::parse(text, &Zone::utc()).unwrap()
}

/// Hours from this one on, as (mean, low, high); `None` is an hour without readings.
fn hours(from: &str, values: &[Option<(f64, f64, f64)>]) -> Series {
    const HOUR: Millis = 3_600_000;
    let from = at(from);
    let hours = values.iter().enumerate().filter_map(|(i, value)| {
        let (mean, low, high) = (*value)?;
        let start = from + HOUR * Millis::try_from(i).unwrap();
        Some(Point { start, end: start + HOUR, count: 60.0, mean, low, high })
    });
    Series { source: "kitchen".to_owned(), points: hours.collect() }
}

fn look(zone: &str, width: usize, unicode: bool) -> Look {
    Look { zone: zone.parse().unwrap(), width, rows: ROWS, unicode, band: Band::Minmax }
}

/// A day that warms up, with a gap.
fn day() -> Series {
    let means = [16.0, 15.5, 15.2, 15.0, 15.1, 15.9, 17.4, 19.0, 20.6, 22.1, 23.3, 24.2, 24.8, 25.0];
    let mut values: Vec<_> = means.iter().map(|mean| Some((*mean, mean - 0.8, mean + 1.4))).collect();
    values.extend([None, None, Some((22.0, 18.0, 24.0)), Some((20.0, 19.0, 22.5))]);
    hours("2026-11-20T00:00:00Z", &values)
}

const DAY_IN_UTF8: &str = "\
kitchen: mean and min..max of each 1h
26 ┤                                  ░░░░░░░░░
   │                               ░░░░░░╭─────
24 ┤                            ░░░░░░╭──╯░░░░░      ░░░
   │                            ░░░╭──╯░░            ░░░░░░░
22 ┤                        ░░░░╭──╯                 ───╮░░░
   │                        ╭───╯░░                  ░░░│░░░
20 ┤                     ░░░│░░░                     ░░░╰───
   │                  ░░░╭──╯                        ░░░░░░░
18 ┤                  ░░░│░░                         ░░░
   │░░░░░░░░░   ░░░░░░╭──╯
16 ┤──────╮░░░░░░░░╭──╯
   │░░░░░░╰────────╯░░
14 ┤      ░░░░░░░░░
   └───────────────┬──────────────────┬─────────────────┬───
                 06:00              12:00             18:00
    2026-11-20 01:00 to 2026-11-20 19:00 (Europe/Berlin)
";

const DAY_IN_ASCII: &str = "\
kitchen: mean and min..max of each 1h
26 +                                  :::::::::
   |                               ::::::+-----
24 +                            ::::::+--+:::::      :::
   |                            :::+--+::            :::::::
22 +                        ::::+--+                 ---+:::
   |                        +---+::                  :::|:::
20 +                     :::|:::                     :::+---
   |                  :::+--+                        :::::::
18 +                  :::|::                         :::
   |:::::::::   ::::::+--+
16 +------+::::::::+--+
   |::::::+--------+::
14 +      :::::::::
   ++-----------------+------------------+------------------
    11-20           06:00              12:00
         2026-11-20 00:00 to 2026-11-20 18:00 (UTC)
";

const TWO_SOURCES: &str = "\
kitchen: mean and min..max of each 1h
1234567.5 +::::::::::
          |::::::::::
1234567.4 +::::::::::
          |::::::::::
1234567.3 +::::::::::
          |::::::::::
1234567.2 +::::::::::
          |::::::::::
1234567.1 +::::::::::
          |::::::::::
1234567.0 +----------
          ++-------------------+--------------------
           02:00             04:00
     2026-11-20 02:00 to 2026-11-20 06:00 (UTC)

cellar: mean and min..max of each 1h
     12.6 +
          |
     12.4 +
          |
     12.2 +
          |
     12.0 +                    ---------------------
          |
     11.8 +
          |
     11.6 +
          |
     11.4 +
          ++-------------------+--------------------
           02:00             04:00
     2026-11-20 02:00 to 2026-11-20 06:00 (UTC)
";

fn check(series: &[Series], look: &Look, expected: &str) {
    let got = draw(series, "1h", look);
    assert_eq!(got, expected, "\n{got}");
}

#[test]
fn a_day_in_utf8() {
    check(&[day()], &look("Europe/Berlin", 60, true), DAY_IN_UTF8);
}

#[test]
fn a_day_in_ascii() {
    check(&[day()], &look("UTC", 60, false), DAY_IN_ASCII);
}

#[test]
fn two_sources_lie_over_the_same_time() {
    let steady =
        Series { source: "cellar".to_owned(), ..hours("2026-11-20T04:00:00Z", &[Some((12.0, 12.0, 12.0)); 2]) };
    let short = hours("2026-11-20T02:00:00Z", &[Some((1_234_567.0, 1_234_567.0, 1_234_567.5))]);
    check(&[short, steady], &look("UTC", 52, false), TWO_SOURCES);
}

#[test]
fn more_buckets_than_columns_share_them() {
    let columns = |points: &[Point], n: usize| {
        let cells = columns_of(points, points[0].start, points[points.len() - 1].end, n);
        cells.into_iter().map(|cell| cell.map(|c| (c.count, c.mean, c.low, c.high))).collect::<Vec<_>>()
    };
    let mut points = hours("2026-11-20", &[Some((1.0, 0.0, 2.0)), Some((4.0, 3.0, 9.0)), Some((7.0, 7.0, 7.0))]).points;
    points[0].count = 180.0;
    // By count, and the band holds both.
    assert_eq!(columns(&points[..2], 1), [Some((240.0, 1.75, 0.0, 9.0))]);
    // No bucket reaches into a column it does not have to share.
    let wide: Vec<_> = columns(&points, 7).into_iter().map(|cell| cell.unwrap().1).collect();
    assert_eq!(wide, [1.0, 1.0, 4.0, 4.0, 7.0, 7.0, 7.0]);
}

#[test]
fn labels_tell_rows_apart() {
    let labels = |low: f64, high: f64| {
        let scale = Scale::of(&[Point { start: 0, end: 1, count: 1.0, mean: low, low, high }], ROWS);
        let labels: Vec<_> = (0..scale.rows).map(|row| scale.label(row)).filter(|label| !label.is_empty()).collect();
        let ends = [labels.first().unwrap(), labels.last().unwrap()].map(String::as_str).join(" ");
        (labels.len(), ends)
    };
    let check =
        |low: f64, high: f64, n: usize, ends: &str| assert_eq!(labels(low, high), (n, ends.to_owned()), "{low} {high}");
    check(0.0, 14.0, 8, "0 14");
    check(-0.07, 0.07, 7, "-0.06 0.06");
    check(21.5, 21.5, 6, "20.4 22.4");
    check(0.0, 0.0, 5, "-0.4 0.4");
    check(1.75e9, 1.75e9 + 1.0, 6, "1750000000.0 1750000001.0");
    check(-1e140, 1e140, 5, "-8.0e139 8.0e139");
    check(1e-300, 3e-300, 5, "-0.4 0.4");
    check(1e-9, 9e-9, 4, "2e-9 8e-9");
    check(1e15, 1e15 + 0.125, 5, "9.60e14 1.04e15");
}

proptest! {
    #[test]
    fn any_data_fits_the_page(
        values in prop::collection::vec((-1e3..1e3f64, 0.0..1e3f64, 0..5_000i64), 1..40),
        power in -140..=137i32,
        width in 60..200usize,
    ) {
        let points = values.iter().map(|&(mean, around, start)| {
            let [mean, around] = [mean, around].map(|x| x * 10f64.powi(power));
            Point { start: start * 60_000, end: (start + 60) * 60_000, count: 1.0, mean, low: mean - around, high: mean + around }
        });
        let series = Series { source: "a".to_owned(), points: points.collect() };
        let text = draw(&[series], "1h", &look("Asia/Kolkata", width, true));
        let lines: Vec<_> = text.lines().collect();
        prop_assert!((10..=23).contains(&lines.len()), "{}", text);
        for line in &lines {
            prop_assert!(line.chars().count() <= width && line.trim_end() == *line, "{}", text);
        }
        let means = lines[1..lines.len() - 3].iter().filter(|line| line.contains(['─', '╭', '╰', '╮', '╯'])).count();
        prop_assert!(means > 0, "{}", text);
    }
}
