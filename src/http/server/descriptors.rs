//! How many connections the system's limit on open files leaves room for.
//!
//! Asked once by `server.rs` at the start: store, sink and log need descriptors too, and a sink that cannot
//! open its file because clients hold all of them would keep nothing. Linux only; elsewhere, and
//! where the limit changes later, a failing accept is met in the accept loop.

use std::fs;

/// Descriptors for store, sink, log and commands: a few dozen are in use at once.
const RESERVED: usize = 100;
/// However low the limit, so many connections are taken.
const LEAST: usize = 10;

/// As many of the wanted connections as there are descriptors for; says so where they are fewer.
pub(super) fn within_descriptors(wanted: usize) -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let Some(files) = open_files(&limits) else { return wanted };
    let connections = wanted.min(files.saturating_sub(RESERVED).max(LEAST));
    if connections < wanted {
        let enough = wanted + RESERVED;
        tracing::warn!(
            "{connections} connections are taken at once, not {wanted} (--max-connections): at most {files} files may be \
             open; ulimit -n {enough} or LimitNOFILE={enough} leaves room for all"
        );
    }
    connections
}

/// The soft limit on open files; `None` if there is none.
fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read() {
        let check = |limits: &str, expected| assert_eq!(open_files(limits), expected, "{limits}");
        let header = "Limit                     Soft Limit           Hard Limit           Units     \n";
        check(
            &format!("{header}Max open files            1024                 524288               files     \n"),
            Some(1024),
        );
        check(
            &format!("{header}Max open files            unlimited            unlimited            files     \n"),
            None,
        );
        check("", None);
    }

    #[test]
    fn connections_leave_room_for_files() {
        assert_eq!(within_descriptors(1), 1);
        assert!(within_descriptors(usize::MAX - RESERVED) < usize::MAX - RESERVED);
    }
}
