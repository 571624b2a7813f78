//! The files of `deploy/` as the programs they are for judge them, and the numbers in them.

use super::front::Front;
use super::machine::{Kind, shipped};

#[test]
fn nginx_and_haproxy_take_the_files_without_a_word() {
    for kind in [Kind::Nginx, Kind::NginxIpHash, Kind::NginxPrefixes, Kind::Haproxy] {
        let (good, said) = Front::judged(kind, &[]);
        assert!(good, "{}: {said}", kind.file());
        for word in ["[warn]", "[WARNING]", "[ALERT]"] {
            assert!(!said.contains(word) || said.contains("\"user\" directive makes sense only"), "{said}");
        }
    }
}

/// What the comments of the files say about lines that are not in force.
#[test]
fn where_a_spare_instance_can_be() {
    let spare = |kind, from: &str, to: &str| Front::judged(kind, &[(from, to)]);
    let (good, said) = spare(Kind::Nginx, "# server 127.0.0.1:8084 backup;", "server 127.0.0.1:8084 backup;");
    assert!(!good && said.contains("does not support parameter \"backup\""), "{said}");
    let (good, said) = spare(Kind::NginxIpHash, "ip_hash;", "ip_hash; server 127.0.0.1:8084 backup;");
    assert!(!good && said.contains("does not support parameter \"backup\""), "{said}");
    let least = "least_conn; server 127.0.0.1:8084 backup;";
    let (good, said) = spare(Kind::Nginx, "hash $sticky_key consistent;", least);
    assert!(good, "{said}");
    let (good, said) = spare(Kind::Haproxy, "# server spare", "server spare");
    assert!(good, "{said}");
}

/// The number behind a word of a file.
pub(super) fn number(file: &str, word: &str) -> u64 {
    let text = shipped(file);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let value = lines.find_map(|line| line.strip_prefix(word)).unwrap_or_else(|| panic!("{file} has no {word}"));
    let value = value.trim_start_matches([' ', '=']).trim_end_matches(';');
    let (digits, unit) = value.split_at(value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len()));
    let unit = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => panic!("{file}: {word} {value}"),
    };
    digits.parse::<u64>().unwrap() * unit
}

/// nginx counts what it has to clients and to instances; of HAProxy's number all are clients.
#[test]
fn there_is_room_for_as_many_clients_as_an_instance_takes() {
    for kind in [Kind::Nginx, Kind::NginxIpHash, Kind::NginxPrefixes] {
        let connections = number(kind.file(), "worker_connections");
        let listeners = shipped(kind.file()).lines().filter(|line| line.trim().starts_with("listen ")).count() as u64;
        let clients = (connections - listeners) / 2;
        assert!(clients + 1 >= meanwhile::config::MAX_CONNECTIONS as u64, "{}: {clients}", kind.file());
        let descriptors = number(kind.file(), "worker_rlimit_nofile");
        assert!(descriptors > connections, "{}: {descriptors}", kind.file());
    }
    assert!(number("haproxy.cfg", "maxconn") >= meanwhile::config::MAX_CONNECTIONS as u64);
}
