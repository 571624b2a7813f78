//! What this instance says of itself to those that share its store.
//!
//! A part of `app.rs`. All settings that decide what becomes of a bucket must agree; `--retain` and
//! `--hold` concern the sink's instance alone.

use crate::config::{Config, StoreUrl};
use crate::sink::Sink;
use crate::stats::Millis;
use crate::store::Late;
use crate::store::nodes::{Node, NodeSink};
use std::collections::BTreeMap;
use std::net::SocketAddr;

pub(super) fn node(id: String, config: &Config, sink: Option<&dyn Sink>, address: SocketAddr) -> Node {
    let sink = sink.map(|sink| {
        let (name, own) = (sink.name(), sink.exclusive());
        NodeSink { exclusive: own.is_some(), identity: own.unwrap_or_else(|| name.clone()), name }
    });
    Node {
        id,
        role: config.role.to_string(),
        address: config.advertise.clone().unwrap_or_else(|| super::root(config, address)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sink,
        settings: settings(config),
    }
}

fn settings(config: &Config) -> BTreeMap<String, String> {
    let periods: Vec<String> = config.calendar.periods().iter().map(ToString::to_string).collect();
    let policy = config.policy;
    let late = match policy.late {
        Late::Reopen => "reopen",
        Late::Refuse => "refuse",
    };
    let mut settings = BTreeMap::from([
        ("periods".to_owned(), periods.join(",")),
        ("timezone".to_owned(), config.calendar.zone().to_string()),
        ("grace".to_owned(), span(policy.grace)),
        ("lateness".to_owned(), span(policy.lateness)),
        ("late".to_owned(), late.to_owned()),
        ("idempotency-ttl".to_owned(), span(policy.idempotency_ttl)),
    ]);
    if matches!(config.store, StoreUrl::Redis(_)) {
        settings.insert("acks".to_owned(), config.acks.to_string());
    }
    settings
}

/// In the largest unit that gives a whole number, so that 60s and 1m are the same.
fn span(span: Millis) -> String {
    const UNITS: [(Millis, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = UNITS.iter().find(|(length, _)| span > 0 && span % length == 0);
    unit.map_or_else(|| format!("{span}ms"), |(length, unit)| format!("{}{unit}", span / length))
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn the_same_time_is_the_same_text() {
        for (given, expected) in
            [(0, "0ms"), (1_500, "1500ms"), (60_000, "1m"), (90_000, "90s"), (86_400_000, "1d"), (3_600_000, "1h")]
        {
            assert_eq!(span(given), expected);
        }
    }
}
