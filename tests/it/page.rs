//! The page at `/`, in a real browser without a window: what it shows and what it must never do.
//!
//! Chromium prints the document after the scripts have run; `scripts/tools` installs it if it is missing. It
//! runs on time of its own, which passes as fast as everything is answered: seconds of the page cost
//! none of the test's. Where something has to happen while the page is open, a [`Proxy`] stands between.

use crate::errors::{incident, write};
use crate::http::{Answer, Client, array, reading, reading_at};
use crate::service::{On, Service};
use meanwhile::incidents::Incident;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

/// An id that would run if it were ever taken for markup.
const HOSTILE: &str = "<img src=x onerror=\"document.title='taken'\">";
/// Time of the page in which it looks at the service several times.
const SOME_LOOKS_MS: u32 = 24_000;
/// Real time for a page that never settles; then the document is what was printed until then.
const PATIENCE_S: &str = "120";

/// The document of an address once the page has settled.
fn document(url: &str) -> String {
    document_after(url, 4_000)
}

/// The document after so much time of the page.
fn document_after(url: &str, millis: u32) -> String {
    let profile = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new("timeout")
        .args([
            PATIENCE_S,
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args([&format!("--virtual-time-budget={millis}"), "--dump-dom", url])
        .output()
        .expect("chromium can be run; scripts/tools installs it");
    String::from_utf8(output.stdout).expect("a document in UTF-8")
}

/// What stands in the element with this id.
fn text<'p>(page: &'p str, id: &str) -> &'p str {
    let from = page.split_once(&format!("id=\"{id}\"")).and_then(|(_, rest)| rest.split_once('>'));
    let (_, rest) = from.unwrap_or_else(|| panic!("the page has no {id}:\n{page}"));
    rest.split_once("</").expect("an end").0
}

/// Stands between the page and a service: `answer` is called with each path that the page asks for, and asks
/// the service. Where it has no answer, the connection is closed.
struct Proxy(String);

impl Proxy {
    fn plain(service: &Service) -> Self {
        Self::start(service, |path, client| Some(client.get(path)))
    }

    /// Without events: the browser's own time stands still while an answer has no end.
    fn start(service: &Service, answer: impl FnMut(&str, &Client) -> Option<Answer> + Send + 'static) -> Self {
        Self::with_events(service, "", answer)
    }

    fn with_events(
        service: &Service,
        events: &'static str,
        mut answer: impl FnMut(&str, &Client) -> Option<Answer> + Send + 'static,
    ) -> Self {
        let headers = BTreeMap::from([("content-type".to_owned(), "text/event-stream".to_owned())]);
        let status = if events.is_empty() { 204 } else { 200 };
        let streamed = Answer { status, headers, body: events.to_owned() };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = service.client();
        std::thread::spawn(move || {
            for stream in listener.incoming().map(Result::unwrap) {
                let Some(path) = asked(&stream) else { continue };
                if path.starts_with("/v1/stream?") {
                    send(stream, &streamed);
                } else if let Some(answer) = answer(&path, &client) {
                    send(stream, &answer);
                }
            }
        });
        Self(url)
    }
}

/// The path of a request without a body. Nothing for a connection that the browser opens in advance.
fn asked(stream: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    lines.find(String::is_empty).map(|_| path)
}

fn send(mut stream: TcpStream, Answer { status, headers, body }: &Answer) {
    let kept = ["content-type", "content-security-policy", "x-instance"];
    let kept = kept.iter().filter_map(|name| Some(format!("{name}: {}\r\n", headers.get(*name)?)));
    let (kept, length) = (kept.collect::<String>(), body.len());
    // The browser may have gone.
    let _ = write!(stream, "HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Length: {length}\r\n{kept}\r\n{body}");
}

#[test]
fn the_page_lists_sources_and_draws_one_of_them() {
    let service = Service::start(On::Embedded, &[]);
    for (minute, value) in [(0, 1.5), (1, 2.5), (2, 2.0)] {
        service.client().post(&reading_at("kitchen", value, &format!("2026-01-05T10:0{minute}:00Z"))).ok();
    }
    let hostile = serde_json::json!({ "source": HOSTILE, "value": 1 }).to_string();
    service.client().post(&hostile).ok();

    let proxy = Proxy::plain(&service);
    let page = document(&format!("{}/#kitchen", proxy.0));
    for part in [
        "<h2 id=\"chart-title\">kitchen</h2>",
        "class=\"mean\"",
        "class=\"band\"",
        "2026-01-05 10:02 UTC: 1 reading, mean 2,",
        &format!("curl {}/v1/readings", proxy.0),
    ] {
        assert!(page.contains(part), "the page lacks {part}:\n{page}");
    }
    assert!(page.contains("&lt;img src=x onerror="), "a hostile id is shown as the text it is");
    let page = document(&format!("{}/#{}", proxy.0, HOSTILE.replace(' ', "%20").replace('"', "%22")));
    assert!(text(&page, "chart-title").starts_with("&lt;img src=x onerror="), "{page}");
    assert!(!page.contains("<img"), "a hostile id has become an element:\n{page}");
    assert!(page.contains("<title>meanwhile</title>"), "a hostile id has run");
}

#[test]
fn the_page_shows_the_error_log_where_there_is_one() {
    let mut service = Service::start(On::Embedded, &[]);
    let page = document(&Proxy::plain(&service).0);
    assert!(page.contains("id=\"errors\" hidden"), "no section without errors:\n{page}");
    service.kill();
    let hostile = Incident { message: HOSTILE.to_owned(), view: HOSTILE.to_owned(), ..incident(1) };
    write(&service, &[hostile, incident(2)]);
    service.start_again();
    let page = document(&Proxy::plain(&service).0);
    assert!(!page.contains("id=\"errors\" hidden"), "{page}");
    let rows = page.split_once("id=\"errors-rows\"").and_then(|(_, rest)| rest.split_once("</tbody>")).unwrap().0;
    assert_eq!(rows.matches("<tr>").count(), 2, "{rows}");
    assert!(rows.contains("&lt;b&gt;disk&lt;/b&gt; 2 is full (src/sink/csv.rs:1)"), "{rows}");
    assert!(
        rows.contains("&lt;img src=x onerror=") && !page.contains("<img"),
        "a hostile error has become markup:\n{page}"
    );
    assert!(page.contains("<title>meanwhile</title>"), "a hostile error has run");
}

#[test]
fn the_page_shows_how_the_service_is() {
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    client.post(&array((0..3).map(|i| reading(&format!("s{i}"), 1.0)))).ok();
    let instance = client.get("/readyz").ok().json()["instance"].as_str().unwrap().to_owned();
    // So there are new readings between any two looks.
    let ten = array((0..10).map(|_| reading("s0", 1.0)));
    let proxy = Proxy::start(&service, move |path, client| {
        if path == "/metrics" {
            client.post(&ten).ok();
        }
        Some(client.get(path))
    });
    let page = document_after(&proxy.0, SOME_LOOKS_MS);
    assert_eq!(text(&page, "service-state"), "ready");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        text(&page, "service-note"),
        format!("Instance {instance}, version {version}, durability disk."),
        "{page}"
    );
    let shown = |id| text(&page, id).trim_end_matches(" s").parse::<f64>().unwrap_or_else(|_| panic!("{id}: {page}"));
    assert!(shown("rate") > 0.0 && shown("rate") <= 10.0, "ten at each look, and a look every few seconds: {page}");
    assert_eq!((shown("count"), shown("waiting"), shown("due")), (3.0, 0.0, 0.0), "{page}");
    assert!(shown("open") >= 1.0, "{page}");
}

#[test]
fn the_page_shows_what_is_wrong() {
    let mut service = Service::start(On::Redis, &[]);
    service.client().post(&reading("kitchen", 1.0)).ok();
    service.redis().kill();
    crate::service::eventually("it is not ready", || (service.client().get("/readyz").status == 503).then_some(()));
    let proxy = Proxy::plain(&service);
    let page = document(&format!("{}/#kitchen", proxy.0));
    assert_eq!(text(&page, "service-state"), "not ready");
    assert!(text(&page, "trouble").starts_with("The store does not answer, no readings are taken: "), "{page}");
    for note in ["chart-note", "sources-note"] {
        assert_eq!(text(&page, note), "Not all could be read: the store or the sink is away.");
    }
}

#[test]
fn a_service_that_cannot_be_reached_is_tried_again() {
    let service = Service::start(On::Embedded, &[]);
    let asks = |path: &str| path == "/readyz" || path == "/metrics" || path.starts_with("/v1/");
    let proxy = Proxy::start(&service, move |path, client| (!asks(path)).then(|| client.get(path)));
    let page = document_after(&proxy.0, SOME_LOOKS_MS);
    assert_eq!(text(&page, "service-state"), "cannot be reached");
    assert!(text(&page, "trouble").contains("Trying again"), "{page}");

    let mut looks = 0;
    let proxy = Proxy::start(&service, move |path, client| {
        looks += usize::from(path == "/readyz");
        (!asks(path) || looks > 2).then(|| client.get(path))
    });
    let page = document_after(&proxy.0, SOME_LOOKS_MS);
    assert_eq!((text(&page, "service-state"), text(&page, "trouble")), ("ready", ""), "{page}");
}

/// The page with a script at its end, and one more reading of a source when the chart has been drawn once.
fn counting_again(service: &Service, source: &'static str, value: f64, script: &'static str) -> Proxy {
    let mut looks = 0;
    Proxy::start(service, move |path, client| {
        looks += usize::from(path.starts_with("/v1/stats?"));
        if looks == 2 && path.starts_with("/v1/stats?") {
            client.post(&reading(source, value)).ok();
        }
        let mut answer = client.get(path);
        if path == "/page.js" {
            answer.body += script;
        }
        Some(answer)
    })
}

/// The chart is that of all readings, the one that came while it was looked at included.
fn check_drawn_again(service: &Service, source: &str, page: &str) {
    assert_eq!(service.client().total(source, "1d").0, 2, "the page has looked again");
    assert_eq!(text(page, "chart-title"), source);
    let drawn = text(page, "chart-note");
    // The end of a minute may have come between the two.
    let newest = service.client().rows(source, "1m").last().unwrap()["count"].to_string();
    assert!(drawn.contains(&format!(": {newest} reading")), "{newest}: {drawn}");
}

#[test]
fn a_source_that_the_filter_hides_is_still_drawn() {
    const TYPE: &str = "setTimeout(() => {
        document.getElementById('prefix').value = 'x';
        document.getElementById('prefix').dispatchEvent(new Event('input'));
    }, 1000);";
    let service = Service::start(On::Embedded, &[]);
    service.client().post(&reading("kitchen", 21.5)).ok();
    let proxy = counting_again(&service, "kitchen", 21.5, TYPE);
    let page = document_after(&proxy.0, SOME_LOOKS_MS);
    assert_eq!(text(&page, "sources-note"), "no source begins like this");
    check_drawn_again(&service, "kitchen", &page);
}

#[test]
fn a_linked_source_is_drawn_whatever_the_list_holds() {
    let service = Service::start(On::Embedded, &[]);
    service.client().post(&array((0..300).map(|i| reading(&format!("s{i:03}"), f64::from(i))))).ok();
    let proxy = counting_again(&service, "s299", 299.0, "");
    let page = document_after(&format!("{}/#s299", proxy.0), SOME_LOOKS_MS);
    assert!(!text(&page, "sources").contains("s299") && page.contains("the first 200"), "{page}");
    assert_eq!((text(&page, "count"), text(&page, "chart-title")), ("300", "s299"));
    check_drawn_again(&service, "s299", &page);

    let page = document(&format!("{}/#nobody", proxy.0));
    assert_eq!((text(&page, "chart-title"), text(&page, "chart-note")), ("nobody", "No source has this id yet."));
    let page = document(&format!("{}/#100%", proxy.0));
    assert_eq!(text(&page, "chart-title"), "100%", "a link that is not encoded");
}

/// What the stream brings is drawn without asking again.
#[test]
fn the_chart_moves_with_the_stream() {
    const EVENTS: &str = concat!(
        "event: live\ndata: {\"channel\":\"live:kitchen\",\"rows\":[",
        r#"{"period":"1m","start":"2026-01-05T10:02:00Z","end":"2026-01-05T10:03:00Z","count":7,"mean":42,"min":1,"max":50,"stddev_samp":3,"state":"open"},"#,
        r#"{"period":"1h","start":"2026-01-05T10:00:00Z","end":"2026-01-05T11:00:00Z","count":99,"mean":5,"min":1,"max":50,"stddev_samp":3,"state":"open"}"#,
        "]}\n\n",
    );
    let service = Service::start(On::Embedded, &[]);
    for minute in 0..3 {
        service.client().post(&reading_at("kitchen", 1.0, &format!("2026-01-05T10:0{minute}:00Z"))).ok();
    }
    let mut asked = 0;
    let proxy = Proxy::with_events(&service, EVENTS, move |path, client| {
        asked += usize::from(path.starts_with("/v1/stats?"));
        // The first answer is the last: what is shown later came by the stream.
        (asked <= 1 || !path.starts_with("/v1/stats?")).then(|| client.get(path))
    });
    let page = document(&format!("{}/#kitchen", proxy.0));
    let note = text(&page, "chart-note");
    assert!(note.starts_with("2026-01-05 10:02 UTC: 7 readings, mean 42,"), "{note}");
}

#[test]
fn the_page_allows_nothing_from_elsewhere() {
    let service = Service::start(On::Embedded, &[]);
    for (path, content_type) in [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/chart.js", "text/javascript"),
        ("/service.js", "text/javascript"),
        ("/errors.js", "text/javascript"),
    ] {
        let answer = service.client().get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.headers["content-type"].starts_with(content_type), "{path}");
        assert!(answer.headers["content-security-policy"].starts_with("default-src 'none';"), "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
    }
}
