//! The page at `/`, in a real browser without a window: what it shows and what it must never do.
//!
//! Chromium prints the document after the scripts have run; `scripts/tools` installs it if it is missing.

use crate::service::{On, Service};
use std::process::Command;

/// An id that would run if it were ever taken for markup.
const HOSTILE: &str = "<img src=x onerror=\"document.title='taken'\">";

/// The document of an address once the page has settled.
fn document(url: &str) -> String {
    let profile = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--virtual-time-budget=10000", "--dump-dom", url])
        .output()
        .expect("chromium can be run; scripts/tools installs it");
    String::from_utf8(output.stdout).expect("a document in UTF-8")
}

#[test]
fn the_page_lists_sources_and_draws_one_of_them() {
    let service = Service::start(On::Embedded, &[]);
    for (minute, value) in [(0, 1.5), (1, 2.5), (2, 2.0)] {
        let body = format!(r#"{{"source": "kitchen", "value": {value}, "timestamp": "2026-01-05T10:0{minute}:00Z"}}"#);
        service.client().post(&body).ok();
    }
    let hostile = serde_json::json!({ "source": HOSTILE, "value": 1 }).to_string();
    service.client().post(&hostile).ok();

    let page = document(&format!("{}/#kitchen", service.url()));
    for part in [
        "<h2 id=\"chart-title\">kitchen</h2>",
        "class=\"mean\"",
        "class=\"band\"",
        "2026-01-05 10:02 UTC: 1 reading, mean 2,",
        &format!("curl {}/v1/readings", service.url()),
    ] {
        assert!(page.contains(part), "the page lacks {part}:\n{page}");
    }
    assert!(page.contains("&lt;img src=x onerror="), "a hostile id is shown as the text it is");
    assert!(!page.contains("<img"), "a hostile id has become an element:\n{page}");
    assert!(page.contains("<title>meanwhile</title>"), "a hostile id has run");
}

#[test]
fn the_page_allows_nothing_from_elsewhere() {
    let service = Service::start(On::Embedded, &[]);
    for (path, content_type) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let answer = service.client().get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.headers["content-type"].starts_with(content_type), "{path}");
        assert!(answer.headers["content-security-policy"].starts_with("default-src 'none';"), "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
    }
}
