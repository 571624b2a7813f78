//! Lines of a schedule as people read them: buckets by their period and start, moments by count and sum.
//!
//! Used by `world.rs` when a schedule is written down. What is not known here stays as `Debug` prints it.

use meanwhile::stats::Millis;

/// Shortens what `Debug` says of buckets and moments; times are told from `t0`.
pub(crate) fn short(line: &str, t0: Millis) -> String {
    let line = replace(line, "Bucket { period: Seconds(", " }", |inside| {
        let (period, rest) = inside.split_once("), start: ")?;
        let (start, _) = rest.split_once(", end: ")?;
        Some(format!("{period}s@{}", (start.parse::<Millis>().ok()? - t0) / 1_000))
    });
    let line = replace(&line, "DoubleDouble { hi: ", " }", |inside| {
        inside.strip_suffix(", lo: 0.0").map(|hi| hi.trim_end_matches(".0").to_owned())
    });
    replace(&line, "Moments { count: ", " }", |inside| {
        let (count, rest) = inside.split_once(", sum: ")?;
        let (sum, _) = rest.split_once(", sum_sq: ")?;
        Some(format!("{} of sum {sum}", count.trim_end_matches(".0")))
    })
}

/// Replaces what stands between each `from` and the next `to`, both included, where `by` knows how.
fn replace(line: &str, from: &str, to: &str, by: impl Fn(&str) -> Option<String>) -> String {
    let mut shorter = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once(from) {
        shorter.push_str(before);
        let known = after.split_once(to).and_then(|(inside, behind)| Some((by(inside)?, behind)));
        let Some((said, behind)) = known else {
            shorter.push_str(from);
            rest = after;
            continue;
        };
        shorter.push_str(&said);
        rest = behind;
    }
    shorter + rest
}
