//! `meanwhile state`: the open state of a source as the store holds it, in decimal.
//!
//! Asks `GET /v1/state`, and `GET /v1/sources` for the time zone. Each line is one life of a bucket, alone: what `query.rs` shows is merged
//! with its finer buckets and with the sink.

use super::client::Client;
use super::{output, sources};
use crate::config::ServerArgs;
use crate::stats::calendar::Zone;
use serde::Deserialize;
use serde_json::{Number, Value};

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile state kitchen
      Shows count, sum and sum of squares of the buckets of 'kitchen' that are still open.

Readings are folded into the finest period; a coarser bucket takes them over when
the finer one closes. So the open hour does not yet hold the open minute;
'meanwhile query' shows both together.";

#[derive(clap::Args)]
pub struct StateArgs {
    /// Id of the source
    source: String,

    /// Time zone of the starts [default: that of the service]
    #[arg(long, value_name = "ZONE")]
    timezone: Option<Zone>,

    #[command(flatten)]
    server: ServerArgs,
}

/// An open life of a bucket. The numbers are shown digit by digit as the service wrote them.
#[derive(Debug, Deserialize)]
struct Life {
    period: String,
    start: String,
    count: Number,
    sum: Value,
    sum_sq: Value,
    min: Value,
    max: Value,
    generation: Number,
    revision: Number,
}

/// Prints the open lives of the source as a table.
pub fn run(args: &StateArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server)?;
    let lives: Vec<Life> = client.get("/v1/state", &[("source", &args.source)])?;
    if lives.is_empty() {
        output::note(&format!("no open bucket holds readings of {}", args.source));
        return Ok(());
    }
    let zone = match &args.timezone {
        Some(zone) => zone.clone(),
        None => output::zone(&sources::page(&client, &args.source, Some("1"), None)?.timezone)?,
    };
    output::print(table(lives, &zone).as_bytes())?;
    Ok(())
}

fn table(lives: Vec<Life>, zone: &Zone) -> String {
    const NUMBERS: [&str; 7] = ["count", "sum", "sum_sq", "min", "max", "generation", "revision"];
    let start = format!("start ({zone})");
    let header = [&["period", &start][..], &NUMBERS].concat();
    let row = |life: Life| {
        let (count, generation, revision) = (life.count.into(), life.generation.into(), life.revision.into());
        let numbers = [count, life.sum, life.sum_sq, life.min, life.max, generation, revision];
        let start = output::local_start(&life.start, &life.period, zone);
        [life.period, start].into_iter().chain(numbers.iter().map(Value::to_string)).collect()
    };
    output::table(&header, &NUMBERS, lives.into_iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_in_decimal() {
        let json = r#"[{"source": "a", "period": "1m", "start": "2026-11-20T05:00:00Z", "end": "2026-11-20T05:01:00Z",
            "count": 3, "sum": 0.30000000000000004, "sum_sq": 1e-300, "min": 0.1, "max": 0.1, "generation": 1763614800000,
            "revision": 0, "written": false}]"#;
        let text = table(serde_json::from_str(json).unwrap(), &"Europe/Berlin".parse().unwrap());
        let row: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let expected =
            ["1m", "2026-11-20", "06:00", "3", "0.30000000000000004", "1e-300", "0.1", "0.1", "1763614800000", "0"];
        assert_eq!(row, expected);
        assert!(text.starts_with("period  start (Europe/Berlin)  count"), "{text}");
    }
}
