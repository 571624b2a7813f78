//! `application/json`: one reading or an array of readings, decoded once the body is complete.
//!
//! Called by `http/receive.rs`. The elements of an array go straight into the batch; a bad element
//! is noted and the array goes on, while a text that is not JSON ends the decoding.

use super::reading::{JsonReading, fields};
use super::{Batch, DecodeError};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Decodes a whole body.
///
/// # Errors
/// If it is not JSON, neither an object nor an array, or has too many readings.
pub fn decode(body: &[u8], batch: &mut Batch<'_>) -> Result<(), DecodeError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let (line, column) = position(body, error.valid_up_to());
        DecodeError::Syntax { line, column, reason: "the text is not UTF-8".to_owned() }
    })?;
    let mut json = serde_json::Deserializer::from_str(text);
    let mut stopped = Ok(());
    let read = json.deserialize_any(BodyVisitor { batch, stopped: &mut stopped });
    stopped?;
    read.and_then(|()| json.end()).map_err(|error| syntax(&error))
}

/// Line and column of a byte, from 1.
fn position(body: &[u8], at: usize) -> (usize, usize) {
    let before = &body[..at];
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |i| i + 1);
    (memchr::memchr_iter(b'\n', before).count() + 1, at - line_start + 1)
}

/// The parser's error without its position, which is kept beside it.
pub(super) fn syntax(error: &serde_json::Error) -> DecodeError {
    let mut reason = error.to_string();
    reason.truncate(reason.rfind(" at line ").unwrap_or(reason.len()));
    DecodeError::Syntax { line: error.line(), column: error.column(), reason }
}

struct BodyVisitor<'b, 'c> {
    batch: &'b mut Batch<'c>,
    /// Why the batch takes no more; the parser can only carry errors of its own.
    stopped: &'b mut Result<(), DecodeError>,
}

impl BodyVisitor<'_, '_> {
    fn take<E: Error>(&mut self, line: usize, reading: &JsonReading<'_>) -> Result<(), E> {
        reading.give(line, self.batch).map_err(|error| {
            let carried = E::custom(&error);
            *self.stopped = Err(error);
            carried
        })
    }
}

impl<'de> Visitor<'de> for BodyVisitor<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reading or an array of readings")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<(), A::Error> {
        let reading = fields(map)?;
        self.take(1, &reading)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let mut line = 0;
        while let Some(reading) = seq.next_element::<JsonReading<'de>>()? {
            line += 1;
            self.take(line, &reading)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{batch, shown};
    use super::super::{MAX_ERRORS, MAX_READINGS};
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: &[&str]) {
        let mut batch = batch();
        decode(body.as_bytes(), &mut batch).unwrap();
        assert_eq!(shown(&batch.finish()), expected, "{body}");
    }

    #[track_caller]
    fn check_refused(body: impl AsRef<[u8]>, expected: &str) {
        let error = decode(body.as_ref(), &mut batch()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{}", String::from_utf8_lossy(body.as_ref()));
    }

    #[test]
    fn an_object_or_an_array() {
        check(r#"{"source":"a","value":1.5,"timestamp":"2026-11-20T05:00:00Z"}"#, &["05:00 a=1@1.5"]);
        check(
            r#"[{"value":1,"source":"a"},{"source":"b","value":-2e0,"timestamp":null}]"#,
            &["05:00 a=1@1", "05:00 b=1@-2"],
        );
        check(r#"[{"source":"\u00fc \"x\"","value":1}]"#, &["05:00 ü \"x\"=1@1"]);
        check(
            r#"[{"source":"a","value":18446744073709551615,"timestamp":1795150740000}]"#,
            &["04:59 a=1@18446744073709552000"],
        );
        check(" [ ] ", &[]);
    }

    #[test]
    fn bad_elements_are_named_and_the_array_goes_on() {
        check(r#"[5,{"source":"b","value":1}]"#, &["05:00 b=1@1", "1 - a reading must be an object, this is a number"]);
        for (element, kind) in [
            ("null", "null"),
            ("true", "a boolean"),
            ("-5", "a number"),
            ("0.5", "a number"),
            ("\"a\"", "a string"),
            ("[1,[2]]", "an array"),
        ] {
            check(&format!("[{element}]"), &[&format!("1 - a reading must be an object, this is {kind}")]);
        }
        let check_one = |fields: &str, expected: &str| {
            check(&format!(r#"[{{{fields}}},{{"source":"b","value":1}}]"#), &["05:00 b=1@1", &format!("1 {expected}")]);
        };
        check_one(r#""value":1"#, "source source is missing");
        check_one(r#""source":5,"value":1"#, "source source must be a string, this is a number");
        check_one(r#""source":"","value":1"#, "source source is empty");
        check_one(
            r#""source":"group:x","value":1"#,
            "source source begins with \"group:\", which is reserved for groups",
        );
        check_one(r#""source":"a""#, "value value is missing");
        check_one(
            r#""source":"a","value":null"#,
            "value value must be a finite number or an array of them, this is null",
        );
        check_one(
            r#""source":"a","value":"1""#,
            "value value must be a finite number or an array of them, this is a string",
        );
        check_one(
            r#""source":"a","value":{"x":1}"#,
            "value value must be a finite number or an array of them, this is an object",
        );
        check_one(
            r#""source":"a","value":[1]"#,
            "value value must be a number or an array of 2 to 64, this has 1 number",
        );
        check_one(
            r#""source":"a","value":[]"#,
            "value value must be a number or an array of 2 to 64, this has 0 numbers",
        );
        let long = format!(r#""source":"a","value":[{}1]"#, "1,".repeat(64));
        check_one(&long, "value value must be a number or an array of 2 to 64, this has 65 numbers");
        check_one(
            r#""source":"a","value":[1,"2",null]"#,
            "value value must be an array of numbers, this has a string in it",
        );
        check_one(
            r#""source":"a","value":[1,[2]]"#,
            "value value must be an array of numbers, this has an array in it",
        );
        check_one(
            r#""source":"a","value":[1,-1.1e140]"#,
            "value each number of value must be finite and of magnitude at most 1e140, number 2 is not",
        );
        check_one(
            r#""source":"b","value":[1,2],"timestamp":true"#,
            "timestamp timestamp must be a string or a number, this is a boolean",
        );
        check_one(r#""source":"a","value":1.1e140"#, "value value must be a finite number of magnitude at most 1e140");
        check_one(
            r#""source":"a","value":1,"timestamp":true"#,
            "timestamp timestamp must be a string or a number, this is a boolean",
        );
        check_one(
            r#""source":"a","value":1,"timestamp":"x""#,
            "timestamp timestamp is neither RFC 3339 (2026-11-20T05:00:00Z) nor a date nor a number",
        );
        check_one(
            r#""source":"a","value":1,"tmestamp":[{}]"#,
            "- unknown field \"tmestamp\": a reading has source, value and timestamp",
        );
        check_one(r#""source":"a","value":1,"value":2"#, "value value is given twice");
    }

    #[test]
    fn a_value_may_be_a_vector_and_keeps_its_length() {
        let mut batch = batch();
        let body = r#"[{"source":"a","value":[1,2.5]},{"source":"a","value":[3,-1]},{"source":"a","value":[1,2,3]},
            {"source":"a","value":1},{"source":"b","value":1},{"source":"b","value":[1,2]}]"#;
        decode(body.as_bytes(), &mut batch).unwrap();
        let decoded = batch.finish();
        assert_eq!(decoded.readings, 3);
        let moments = &decoded.parts[0].deltas[0].sources[0].1;
        assert_eq!((moments.count, moments.vector.as_ref().unwrap().sum().to_vec()), (2.0, vec![4.0, 1.5]));
        let errors: Vec<_> = decoded.errors.iter().map(|e| format!("{} {}", e.line, e.reason)).collect();
        let expected = [
            "3 source \"a\" has readings of 2 numbers in this request, this is one of 3 numbers",
            "4 source \"a\" has readings of 2 numbers in this request, this is one of 1 number",
            "6 source \"b\" has readings of 1 number in this request, this is one of 2 numbers",
        ];
        assert_eq!(errors, expected);
    }

    #[test]
    fn vectors_are_limited_by_their_size() {
        let readings = |n: usize| {
            format!("[{}]", vec![format!(r#"{{"source":"a","value":[{}1]}}"#, "1,".repeat(63)); n].join(","))
        };
        let mut full = batch();
        decode(readings(316).as_bytes(), &mut full).unwrap();
        assert_eq!(full.finish().readings, 316);
        check_refused(
            readings(317),
            "the request has more vectors than fit into one: send it in several (316 of 64 numbers fit)",
        );
    }

    #[test]
    fn what_is_not_json_ends_it() {
        check_refused("", "EOF while parsing a value at line 1, column 0");
        check_refused("[{\"source\":\"a\",\n\"value\":NaN}]", "expected value at line 2, column 9");
        check_refused(r#"[{"source":"a","value":1e999}]"#, "number out of range at line 1, column 28");
        check_refused(r#"[{"source":"a","value":Infinity}]"#, "expected value at line 1, column 24");
        check_refused(r#"[{"source":"a","value":1}"#, "EOF while parsing a list at line 1, column 25");
        check_refused("{\"source\":\"a\",\"value\":1}\n{}", "trailing characters at line 2, column 1");
        check_refused("5", "invalid type: integer `5`, expected a reading or an array of readings at line 1, column 1");
        check_refused(b"[\n\"\xff\"]", "the text is not UTF-8 at line 2, column 2");
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        check(&deep(20_000), &["1 - a reading must be an object, this is an array"]);
        check(
            &format!(r#"{{"source":"a","value":{}}}"#, deep(20_000)),
            &["1 value value must be an array of numbers, this has an array in it"],
        );
        check_refused("[".repeat(20_000), "EOF while parsing a list at line 1, column 20000");
        check_refused(r#"{"x":"#.repeat(20_000), "EOF while parsing a value at line 1, column 100000");
    }

    #[test]
    fn limits() {
        let mut decoded = batch();
        decode(format!("[{}5]", "5,".repeat(MAX_ERRORS)).as_bytes(), &mut decoded).unwrap();
        let decoded = decoded.finish();
        assert_eq!((decoded.errors.len(), decoded.error_count), (MAX_ERRORS, MAX_ERRORS + 1));

        let readings =
            |n: usize| format!(r#"[{}{{"source":"a","value":1}}]"#, r#"{"source":"a","value":1},"#.repeat(n - 1));
        let mut full = batch();
        decode(readings(MAX_READINGS).as_bytes(), &mut full).unwrap();
        assert_eq!(full.finish().readings, MAX_READINGS);
        check_refused(readings(MAX_READINGS + 1), "the request has more than 200000 readings: send it in several");
        check_refused(
            format!("[{}5]", "5,".repeat(MAX_READINGS)),
            "the request has more than 200000 readings: send it in several",
        );
    }
}
