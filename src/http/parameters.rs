//! Query parameters: taken by name, and refused by name.
//!
//! Called by the routes that read and by `receive.rs`. Guarantees: what is not known, given twice or
//! not valid is a 400 that names the parameter and says what would be right; nothing is ignored.

use super::problem::{Kind, Problem};
use crate::stats::calendar::Zone;
use crate::stats::{Millis, timestamp};
use axum::extract::{Query, RawQuery};
use axum::http::Uri;
use serde_json::Value;

/// The parameters of one request, percent-decoded, until they are taken.
pub(super) struct Parameters {
    given: Vec<(String, String)>,
}

impl Parameters {
    /// Reads the query of a request; `known` are the names the route has, `repeated` the one of them
    /// that may be given more than once.
    pub(super) fn read(query: &RawQuery, known: &[&str], repeated: &str) -> Result<Self, Problem> {
        let text = query.0.as_deref().unwrap_or_default();
        let uri = Uri::builder().path_and_query(format!("/?{text}")).build();
        let given = uri.ok().and_then(|uri| Query::<Vec<(String, String)>>::try_from_uri(&uri).ok());
        let Some(Query(given)) = given else {
            return Err(refuse("query", "it cannot be decoded: percent-encode what is not a letter or a digit"));
        };
        for (i, (name, _)) in given.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(refuse(name, &format!("there is no such parameter here: use {}", known.join(", "))));
            }
            if name != repeated && given[..i].iter().any(|(earlier, _)| earlier == name) {
                return Err(refuse(name, "it is given more than once"));
            }
        }
        Ok(Self { given })
    }

    /// All values of a parameter, in the order given.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.given.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_str()).collect()
    }

    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// A source that has to be there.
    pub(super) fn source(&self) -> Result<&str, Problem> {
        match self.one("source") {
            None => Err(refuse("source", "it is missing: write ?source=ID")),
            Some("") => Err(refuse("source", "it is empty: write ?source=ID")),
            Some(source) => Ok(source),
        }
    }

    /// An instant: RFC 3339, a date or a local time in the zone of the service, or milliseconds.
    pub(super) fn time(&self, name: &str, zone: &Zone) -> Result<Option<Millis>, Problem> {
        let Some(text) = self.one(name) else { return Ok(None) };
        match text.parse::<Millis>().ok().or_else(|| timestamp::parse(text, zone)) {
            Some(t) => Ok(Some(t)),
            None => Err(refuse(
                name,
                &format!(
                    "\"{text}\" is not a time: write 2026-11-20T05:00:00Z, 2026-11-20 or 2026-11-20T06:00 ({zone}), \
                     or milliseconds since 1970; a + before an offset is %2B in a URL"
                ),
            )),
        }
    }

    /// A number from 1 to `most`, which is also what is meant if it is absent.
    pub(super) fn limit(&self, most: usize) -> Result<usize, Problem> {
        let Some(text) = self.one("limit") else { return Ok(most) };
        text.parse().ok().filter(|n| (1..=most).contains(n)).ok_or_else(|| {
            refuse("limit", &format!("\"{text}\" is not a number of rows: write a number from 1 to {most}"))
        })
    }
}

/// The answer to a parameter that is not valid.
pub(super) fn refuse(name: &str, reason: &str) -> Problem {
    Problem::new(Kind::InvalidParameter, format!("{name}: {reason}")).with("parameter", Value::from(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Option<Parameters> {
        Parameters::read(&RawQuery(Some(query.to_owned())), &["source", "from", "limit"], "source").ok()
    }

    #[test]
    fn parameters_by_name() {
        let parameters = read("source=Z%C3%BCrich+1&limit=7&source=b%26c").unwrap();
        assert_eq!(parameters.all("source"), ["Zürich 1", "b&c"]);
        assert_eq!(parameters.limit(10).ok(), Some(7));
        assert_eq!(parameters.one("from"), None);
        assert!(Parameters::read(&RawQuery(None), &[], "").is_ok());
        for query in ["sources=a", "limit=1&limit=2", "from=&from="] {
            assert!(read(query).is_none(), "{query}");
        }
    }

    #[test]
    fn limits() {
        let check = |text: &str, expected: Option<usize>| {
            assert_eq!(read(&format!("limit={text}")).unwrap().limit(10).ok(), expected, "{text}");
        };
        assert_eq!(read("").unwrap().limit(10).ok(), Some(10));
        check("1", Some(1));
        check("10", Some(10));
        check("11", None);
        check("0", None);
        check("-1", None);
        check("", None);
    }

    #[test]
    fn times() {
        let check = |text: &str, expected: Option<Millis>| {
            let got = read(&format!("from={text}")).unwrap().time("from", &"Europe/Berlin".parse().unwrap());
            assert_eq!(got.ok(), expected.map(Some), "{text}");
        };
        check("1970-01-01T00:00:01Z", Some(1_000));
        check("1970-01-01T01:00:01%2B01:00", Some(1_000));
        check("1970-01-01T01:00:01+01:00", None);
        check("1970-01-01", Some(-3_600_000));
        check("1970-01-01T01:00", Some(0));
        check("-5", Some(-5));
        check("1766000000000", Some(1_766_000_000_000));
        check("yesterday", None);
        check("", None);
    }
}
