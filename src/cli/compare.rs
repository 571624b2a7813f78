//! `meanwhile compare`: two sources, or two times of one, beside each other.
//!
//! Asks `GET /v1/sources` for the calendar, then `GET /v1/compare`; the numbers are the service's, the words are made here.
//! docs/comparing.md says what they mean.

use super::client::Client;
use super::output::Format;
use super::when::{self, Length, When};
use super::{Usage, output, sources};
use crate::clock::Clock;
use crate::config::ServerArgs;
use crate::stats::calendar::{Calendar, Zone};
use crate::stats::{Millis, timestamp};
use serde::Deserialize;
use serde_json::Number;
use serde_json::value::RawValue;
use std::fmt::Write;

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile compare kitchen cellar --from -7d
      Two sources over the same time.
  meanwhile compare kitchen --this 1d --against 'the 4 weeks before'
      The last 24 hours and the 28 days before them.
  meanwhile compare kitchen --this 1h --against 7d --confidence 0.99 --format json

The difference of the means comes with Welch's t, the ratio of the variances with
F. Both suppose independent readings, and readings that follow one another are
mostly alike: then p is too small and the intervals are too narrow.
docs/comparing.md has the formulas and says what can be done about it.";

#[derive(clap::Args)]
pub struct CompareArgs {
    /// The first source
    #[arg(value_name = "A")]
    a: String,

    /// The source to compare it with, over the same time
    #[arg(value_name = "B", conflicts_with = "against", required_unless_present = "against")]
    b: Option<String>,

    /// Readings of this time or later: -24h, yesterday, 2026-11-20, ... [default: all]
    #[arg(long, value_name = "T", allow_hyphen_values = true, conflicts_with = "this")]
    from: Option<When>,

    /// Readings before this time
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    to: Option<When>,

    /// The last so much before --to or now, such as 1d, instead of --from
    #[arg(long, value_name = "LENGTH")]
    this: Option<Length>,

    /// One source: compare with so much right before that, such as 28d or 'the 4 weeks before'
    #[arg(long, value_name = "LENGTH")]
    against: Option<Length>,

    /// Of the intervals, from 0.5 to 0.9999
    #[arg(long, value_name = "C", default_value = "0.95")]
    confidence: String,

    /// Time zone of the times [default: that of the service]
    #[arg(long, value_name = "ZONE")]
    timezone: Option<Zone>,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Deserialize)]
struct Answer {
    a: Side,
    b: Side,
    confidence: f64,
    difference: Option<Difference>,
    ratio: Option<Ratio>,
    notes: Vec<String>,
    #[serde(default)]
    partial: bool,
}

#[derive(Deserialize)]
struct Side {
    source: String,
    covered: Covered,
    count: Number,
    mean: Option<Number>,
    stddev_samp: Option<Number>,
    min: Option<Number>,
    max: Option<Number>,
}

#[derive(Deserialize)]
struct Covered {
    from: String,
    to: String,
}

#[derive(Deserialize)]
struct Difference {
    mean: f64,
    t: Option<f64>,
    df: Option<f64>,
    p: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
}

#[derive(Deserialize)]
struct Ratio {
    f: f64,
    df_a: f64,
    df_b: f64,
    p: f64,
    low: f64,
    high: f64,
}

/// Prints the comparison on standard output.
pub fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server)?;
    let calendar = sources::page(&client, "", Some("1"), None)?.calendar()?;
    let zone = args.timezone.as_ref().unwrap_or(calendar.zone());
    let (range, against) = ranges(args, &calendar, zone, Clock::System.now())?;

    let times = [("from", range.0), ("to", range.1), ("against_from", against.0), ("against_to", against.1)];
    let times: Vec<(&str, String)> =
        times.into_iter().filter_map(|(name, t)| Some((name, timestamp::format(t?)))).collect();
    let mut query = vec![("source", args.a.as_str()), ("confidence", args.confidence.as_str())];
    query.extend(args.b.iter().map(|b| ("against", b.as_str())));
    query.extend(times.iter().map(|(name, t)| (*name, t.as_str())));
    let json: Box<RawValue> = client.get("/v1/compare", &query)?;
    let answer: Answer = serde_json::from_str(json.get())?;
    if answer.partial {
        output::note("partial: the service could not ask both its store and its sink");
    }
    match args.format {
        Format::Json => output::print(format!("{}\n", json.get()).as_bytes())?,
        Format::Table => output::print(answer.text(zone).as_bytes())?,
    }
    Ok(())
}

type Times = (Option<Millis>, Option<Millis>);

/// What both sides are of; the second is empty where it is the first. Two times of one source meet at the start of a
/// bucket of the finest period, so that none is in both.
fn ranges(args: &CompareArgs, calendar: &Calendar, zone: &Zone, now: Millis) -> Result<(Times, Times), Usage> {
    let (mut from, mut to) = when::range((&args.from, &args.to), now, zone)?;
    let outside = || Usage("--this, --against: this lies outside the years 0 to 9999".to_owned());
    if let Some(this) = args.this {
        let end = to.unwrap_or(now);
        (from, to) = (Some(this.before(end, zone).ok_or_else(outside)?), Some(end));
    }
    let Some(length) = args.against else { return Ok(((from, to), (None, None))) };
    let Some(from) = from else {
        return Err(Usage(
            "--against is the time right before --this or --from: add one of them, such as --this 1d".to_owned(),
        ));
    };
    let meet = calendar.bucket(calendar.periods()[0], from).start;
    let before = length.before(meet, zone).ok_or_else(outside)?;
    Ok(((Some(meet), to), (Some(before), Some(meet))))
}

impl Answer {
    fn text(&self, zone: &Zone) -> String {
        const NUMBERS: [&str; 5] = ["readings", "mean", "stddev", "min", "max"];
        let from = format!("from ({zone})");
        let number = |number: &Option<Number>| number.as_ref().map(Number::to_string).unwrap_or_default();
        let row = |name: &str, side: &Side| {
            let [start, end] = [&side.covered.from, &side.covered.to].map(|text| output::local_start(text, "", zone));
            let mut cells = vec![name.to_owned(), side.source.clone(), start, end, side.count.to_string()];
            cells.extend([&side.mean, &side.stddev_samp, &side.min, &side.max].map(number));
            cells
        };
        let mut header = vec!["", "source", &from, "to"];
        header.extend(NUMBERS);
        let mut text = output::table(&header, &NUMBERS, vec![row("a", &self.a), row("b", &self.b)]);
        let _ = write!(text, "\n{}\n{}\n", self.of_means(), self.of_variances());
        let _ = write!(text, "\n{}\n", self.notes.join("\n"));
        text
    }

    fn percent(&self) -> String {
        // As it was given: 0.999 is 99.9 and not 99.90000000000001.
        format!("{} %", (self.confidence * 1e6).round() / 1e4)
    }

    fn of_means(&self) -> String {
        let Some(Difference { mean, t, df, p, low, high }) = &self.difference else {
            return "means: one side has no readings in its time, so there is nothing to compare".to_owned();
        };
        let how = match *mean {
            x if x > 0.0 => format!("the mean of a is higher than that of b by {}", short(x)),
            x if x < 0.0 => format!("the mean of a is lower than that of b by {}", short(-x)),
            _ => "the means are equal".to_owned(),
        };
        let (Some(t), Some(df), Some(p), Some(low), Some(high)) = (t, df, p, low, high) else {
            let why = "a side with a single reading, or two sides of equal readings, do not tell how certain that is";
            return format!("means: {how}; {why}");
        };
        let excludes = if *low > 0.0 || *high < 0.0 { "does not contain 0" } else { "contains 0: they may be equal" };
        format!(
            "means: {how}\n  {} interval of the difference: {} to {}; it {excludes}\n  Welch's t = {}, df = {}, p = {}",
            self.percent(),
            short(*low),
            short(*high),
            short(*t),
            short(*df),
            short(*p)
        )
    }

    fn of_variances(&self) -> String {
        let Some(Ratio { f, df_a, df_b, p, low, high }) = &self.ratio else {
            return "variances: a side with a single reading, or with equal ones, has none to compare".to_owned();
        };
        let contains = if *low > 1.0 || *high < 1.0 { "does not contain 1" } else { "contains 1: they may be equal" };
        format!(
            "variances: that of a is {} times that of b\n  {} interval of the ratio: {} to {}; it {contains}\n  F = {}, df = {} and {}, p = {}",
            short(*f),
            self.percent(),
            short(*low),
            short(*high),
            short(*f),
            short(*df_a),
            short(*df_b),
            short(*p)
        )
    }
}

/// Six digits: more of these numbers mean nothing to anybody; json has them all.
fn short(x: f64) -> String {
    if x == 0.0 {
        return "0".to_owned();
    }
    let magnitude = x.abs().log10().floor();
    if (-4.0..15.0).contains(&magnitude) {
        let places = (5.0 - magnitude).max(0.0) as usize;
        let text = format!("{x:.places$}");
        return if places == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() };
    }
    format!("{x:.3e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        let check = |x: f64, expected: &str| assert_eq!(short(x), expected);
        check(0.0, "0");
        check(1.5, "1.5");
        check(-0.000_123_456_789, "-0.000123457");
        check(1_234_567.8, "1234568");
        check(100_000.0, "100000");
        check(3.2e-9, "3.200e-9");
        check(20.0, "20");
    }

    fn answer(difference: &str, ratio: &str) -> Answer {
        let side = r#"{"source": "a", "covered": {"from": "2026-11-20T05:00:00Z", "to": "2026-11-20T06:00:00Z"}, "count": 10,
            "mean": 0.75, "stddev_samp": 1.5, "min": -1.5, "max": 3.5}"#;
        let text = format!(
            r#"{{"a": {side}, "b": {side}, "confidence": 0.95, "difference": {difference}, "ratio": {ratio}, "notes": ["Beware."]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn in_words() {
        let full = answer(
            r#"{"mean": -1.58, "t": -1.8608, "df": 17.776, "p": 0.079394, "low": -3.36548, "high": 0.205483}"#,
            r#"{"f": 0.79834, "df_a": 9.0, "df_b": 9.0, "p": 0.74272, "low": 0.1983, "high": 3.2141}"#,
        );
        let expected = "source  from (Europe/Berlin)  to                   readings  mean  stddev   min  max
a  a       2026-11-20 06:00:00   2026-11-20 07:00:00        10  0.75     1.5  -1.5  3.5
b  a       2026-11-20 06:00:00   2026-11-20 07:00:00        10  0.75     1.5  -1.5  3.5

means: the mean of a is lower than that of b by 1.58
  95 % interval of the difference: -3.36548 to 0.205483; it contains 0: they may be equal
  Welch's t = -1.8608, df = 17.776, p = 0.079394
variances: that of a is 0.79834 times that of b
  95 % interval of the ratio: 0.1983 to 3.2141; it contains 1: they may be equal
  F = 0.79834, df = 9 and 9, p = 0.74272

Beware.
";
        assert_eq!(full.text(&"Europe/Berlin".parse().unwrap()).trim_start(), expected);
        let check = |difference: &str, expected: &str| {
            let text = answer(difference, "null").text(&Zone::utc());
            assert!(text.contains(expected) && text.contains("has none to compare"), "{text}");
        };
        check("null", "nothing to compare");
        let unknown = r#""t": null, "df": null, "p": null, "low": null, "high": null"#;
        check(&format!(r#"{{"mean": 2.0, {unknown}}}"#), "higher than that of b by 2; a side with a single reading");
        check(&format!(r#"{{"mean": 0.0, {unknown}}}"#), "the means are equal; ");
    }
}
