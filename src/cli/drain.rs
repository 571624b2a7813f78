//! `meanwhile drain`: has a running service write and close everything that is open, now.
//!
//! Starts it with `POST /v1/drain` and looks at `GET /v1/drain` until it has ended. The drain is the
//! service's: it goes on if this command is stopped.

use super::client::{Client, ClientError};
use super::output;
use crate::config::ServerArgs;
use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use std::thread::sleep;
use std::time::Duration;

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile drain
      Writes all open buckets to the sink and closes them, minutes into hours, hours into days.

For a change of the time zone, the periods, the store, or to shut down for good:
stop the senders, drain, stop the service. Nothing is lost where readings come all
the same: they begin their buckets anew, and the rows become the sum.
Exit status 1 if a bucket is still open.";

#[derive(clap::Args)]
pub struct DrainArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// How often the service is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How a drain stands.
#[derive(Debug, Default, Deserialize)]
struct Drain {
    state: String,
    buckets_left: u64,
    buckets_written: u64,
    buckets_closed: u64,
    rows_written: u64,
    still_open: u64,
    first_open: Vec<Bucket>,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Bucket {
    period: String,
    start: String,
}

/// Drains, and says what that came to.
pub fn run(args: &DrainArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server)?;
    let bar = progress();
    let drain = to_the_end(&client, &bar);
    bar.finish_and_clear();
    let drain = drain?;
    if drain.state == "done" {
        output::print(summary(&drain).as_bytes())?;
    }
    outcome(&drain)
}

fn to_the_end(client: &Client, bar: &ProgressBar) -> Result<Drain, ClientError> {
    let mut drain: Drain = client.post("/v1/drain?wait=0", &[], b"")?;
    while drain.state == "running" {
        bar.set_length(drain.buckets_closed + drain.buckets_left);
        bar.set_position(drain.buckets_closed);
        sleep(LOOK_EVERY);
        drain = client.get("/v1/drain", &[])?;
    }
    Ok(drain)
}

/// Shown on a terminal only.
fn progress() -> ProgressBar {
    let template = "{wide_bar} {pos} of {len} buckets, {per_sec}, {eta} left";
    ProgressBar::no_length().with_style(ProgressStyle::with_template(template).expect("the template is valid"))
}

fn summary(drain: &Drain) -> String {
    let [written, closed, rows] =
        [drain.buckets_written, drain.buckets_closed, drain.rows_written].map(output::grouped);
    format!("buckets written: {written}, closed: {closed}; rows written: {rows}\n")
}

/// An error if anything is open.
fn outcome(drain: &Drain) -> anyhow::Result<()> {
    match &*drain.state {
        "done" if drain.still_open == 0 => Ok(()),
        "done" => {
            let named: Vec<_> = drain.first_open.iter().map(|b| format!("{} of {}", b.period, b.start)).collect();
            let more = if drain.still_open > named.len() as u64 { ", ..." } else { "" };
            bail!(
                "still open: {}, by readings that came meanwhile ({}{more}); stop the senders and repeat",
                output::grouped(drain.still_open),
                named.join(", ")
            )
        }
        "failed" => bail!(
            "the drain broke off: {}; what was not closed stays in the store, nothing is lost: repeat it",
            drain.reason.as_deref().unwrap_or("the service does not say why")
        ),
        "never" => bail!("the service was started again before the drain ended; nothing is lost: repeat it"),
        other => bail!("the service says \"{other}\" of the drain; is this client older?"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::tests::serve;
    use super::*;

    fn check(json: &str, expected: &str) {
        let drain: Drain = serde_json::from_str(json).unwrap();
        let said = outcome(&drain).err().map_or_else(|| summary(&drain), |error| error.to_string());
        assert_eq!(said.trim_end(), expected);
    }

    const REST: &str = r#""buckets_left": 0, "buckets_written": 1234, "buckets_closed": 1235, "rows_written": 2000, "#;

    #[test]
    fn what_it_came_to() {
        let of = |rest: &str| format!("{{{REST}{rest}}}");
        check(
            &of(r#""state": "done", "still_open": 0, "first_open": [], "reason": null"#),
            "buckets written: 1,234, closed: 1,235; rows written: 2,000",
        );
        check(
            &of(r#""state": "done", "still_open": 2, "reason": null,
                "first_open": [{"period": "1m", "start": "2026-11-20T05:00:00Z", "end": "2026-11-20T05:01:00Z"}]"#),
            "still open: 2, by readings that came meanwhile (1m of 2026-11-20T05:00:00Z, ...); stop the senders and repeat",
        );
        check(
            &of(r#""state": "failed", "still_open": 0, "first_open": [], "reason": "the sink is unavailable: full""#),
            "the drain broke off: the sink is unavailable: full; what was not closed stays in the store, nothing is lost: \
             repeat it",
        );
        check(
            &of(r#""state": "never", "still_open": 0, "first_open": [], "reason": null"#),
            "the service was started again before the drain ended; nothing is lost: repeat it",
        );
    }

    #[test]
    fn it_asks_until_the_end() {
        let running = r#"{"state": "running", "buckets_left": 9, "buckets_written": 0, "buckets_closed": 0, "rows_written": 0,
            "still_open": 0, "first_open": [], "reason": null}"#;
        let done = r#"{"state": "done", "buckets_left": 0, "buckets_written": 9, "buckets_closed": 9, "rows_written": 9,
            "still_open": 0, "first_open": [], "reason": null}"#;
        let (client, served) = serve(vec![("202 Accepted", running), ("200 OK", running), ("200 OK", done)]);
        let drain = to_the_end(&client, &ProgressBar::hidden()).unwrap();
        assert_eq!((&*drain.state, drain.buckets_closed), ("done", 9));
        let requests = served.requests();
        let lines: Vec<_> = requests.iter().map(|request| request.lines().next().unwrap_or_default()).collect();
        assert_eq!(
            lines[..3],
            ["POST /prefix/v1/drain?wait=0 HTTP/1.1", "GET /prefix/v1/drain HTTP/1.1", "GET /prefix/v1/drain HTTP/1.1"]
        );
    }
}
