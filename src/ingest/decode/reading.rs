//! One reading in JSON: `{"source": "kitchen", "value": 21.5, "timestamp": "2026-11-20T05:00:00Z"}`.
//!
//! Used by `json.rs` and `ndjson.rs`. Parsing a reading fails only where the text is not JSON; what
//! is wrong with its fields is noted and told afterwards, so that an array can go on behind a bad
//! element. Nested values are skipped without recursion, however deep they are.

use super::time::{Number, Times};
use super::{Batch, DecodeError};
use crate::stats::Millis;
use crate::stats::moments::numbers;
use crate::stats::vectors::LENGTHS;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// What a field holds.
#[derive(Clone, Debug, PartialEq)]
enum Scalar<'a> {
    Null,
    Integer(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Vector(Vec<f64>),
    /// An array of more numbers than a vector may have, how many; or of something else as well, by the first of it.
    LongArray(usize),
    MixedArray(&'static str),
    /// Anything that is right in no field, by name.
    Other(&'static str),
}

/// A reading as the text has it; borrowed from it where it has no escapes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct JsonReading<'a> {
    source: Option<Scalar<'a>>,
    value: Option<Scalar<'a>>,
    timestamp: Option<Scalar<'a>>,
    fault: Option<Fault>,
}

/// The first thing that is wrong with the form of a reading.
#[derive(Clone, Debug, PartialEq)]
enum Fault {
    NotAnObject(&'static str),
    Unknown(String),
    Duplicate(&'static str),
}

/// Longest part of an unknown field's name that is repeated to the client.
const SHOWN_NAME_CHARS: usize = 40;

/// A field at fault, if it is one, and what is wrong.
type Refusal = (Option<&'static str>, String);

impl JsonReading<'_> {
    /// Checks the form of the reading and hands it to the batch.
    pub(super) fn give(&self, line: usize, batch: &mut Batch<'_>) -> Result<(), DecodeError> {
        match (self.checked(batch.times()), &self.value) {
            (Ok((source, Value::Number(value), timestamp)), _) => batch.take(line, source, value, timestamp),
            (Ok((source, Value::Vector(values), timestamp)), _) => batch.take_vector(line, source, values, timestamp),
            (Err((field, reason)), Some(Scalar::Vector(values))) => {
                batch.refuse_vector(line, field, values.len(), format_args!("{reason}"))
            }
            (Err((field, reason)), _) => batch.refuse(line, field, format_args!("{reason}")),
        }
    }

    fn checked(&self, times: &Times<'_>) -> Result<(&str, Value<'_>, Millis), Refusal> {
        match &self.fault {
            None => {}
            Some(Fault::NotAnObject(kind)) => {
                return Err((None, format!("a reading must be an object, this is {kind}")));
            }
            Some(Fault::Unknown(name)) => {
                return Err((None, format!("unknown field \"{name}\": a reading has source, value and timestamp")));
            }
            Some(Fault::Duplicate(name)) => return Err((Some(name), format!("{name} is given twice"))),
        }
        let source = match &self.source {
            Some(Scalar::Text(source)) => source,
            other => return Err(wrong("source", "a string", other.as_ref())),
        };
        let value = match &self.value {
            Some(Scalar::Float(value)) => Value::Number(*value),
            Some(Scalar::Integer(value)) => Value::Number(*value as f64),
            Some(Scalar::Vector(values)) if LENGTHS.contains(&values.len()) => Value::Vector(values),
            Some(Scalar::Vector(values)) => return Err(wrong_length(values.len())),
            Some(Scalar::LongArray(length)) => return Err(wrong_length(*length)),
            Some(Scalar::MixedArray(kind)) => {
                return Err((Some("value"), format!("value must be an array of numbers, this has {kind} in it")));
            }
            other => return Err(wrong("value", "a finite number or an array of them", other.as_ref())),
        };
        let timestamp = match &self.timestamp {
            None | Some(Scalar::Null) => Ok(times.now),
            Some(Scalar::Text(text)) => times.of_text(text),
            Some(Scalar::Integer(n)) => times.of_number(Number::Integer(*n)),
            Some(Scalar::Float(x)) => times.of_number(Number::Fraction(*x)),
            other => return Err(wrong("timestamp", "a string or a number", other.as_ref())),
        };
        let timestamp = timestamp.map_err(|error| (Some("timestamp"), error.to_string()))?;
        Ok((source, value, timestamp))
    }
}

/// What a reading is about.
enum Value<'r> {
    Number(f64),
    Vector(&'r [f64]),
}

fn wrong_length(length: usize) -> Refusal {
    let (least, most) = (LENGTHS.start(), LENGTHS.end());
    (Some("value"), format!("value must be a number or an array of {least} to {most}, this has {}", numbers(length)))
}

fn wrong(field: &'static str, expected: &str, got: Option<&Scalar<'_>>) -> Refusal {
    let got = match got {
        None => return (Some(field), format!("{field} is missing")),
        Some(Scalar::Null) => "null",
        Some(Scalar::Integer(_) | Scalar::Float(_)) => "a number",
        Some(Scalar::Text(_)) => "a string",
        Some(Scalar::Vector(_) | Scalar::LongArray(_) | Scalar::MixedArray(_)) => "an array",
        Some(Scalar::Other(kind)) => kind,
    };
    (Some(field), format!("{field} must be {expected}, this is {got}"))
}

/// Reads the fields of an object up to its end.
pub(super) fn fields<'de, A: MapAccess<'de>>(mut map: A) -> Result<JsonReading<'de>, A::Error> {
    let mut reading = JsonReading::default();
    while let Some(field) = map.next_key::<Field>()? {
        let (name, place) = match field {
            Field::Source => ("source", &mut reading.source),
            Field::Value => ("value", &mut reading.value),
            Field::Timestamp => ("timestamp", &mut reading.timestamp),
            Field::Unknown(name) => {
                map.next_value::<IgnoredAny>()?;
                reading.fault.get_or_insert(Fault::Unknown(name));
                continue;
            }
        };
        if place.is_some() {
            reading.fault.get_or_insert(Fault::Duplicate(name));
        }
        *place = Some(map.next_value()?);
    }
    Ok(reading)
}

enum Field {
    Source,
    Value,
    Timestamp,
    Unknown(String),
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;

        impl Visitor<'_> for FieldVisitor {
            type Value = Field;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Field, E> {
                Ok(match name {
                    "source" => Field::Source,
                    "value" => Field::Value,
                    "timestamp" => Field::Timestamp,
                    _ => Field::Unknown(name.chars().take(SHOWN_NAME_CHARS).collect()),
                })
            }
        }

        deserializer.deserialize_identifier(FieldVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Other("a boolean"))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Integer(n))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(n).map_or(Scalar::Float(n as f64), Scalar::Integer))
    }

    fn visit_f64<E>(self, x: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Float(x))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (mut values, mut length, mut mixed) = (Vec::new(), 0, None);
        while let Some(element) = seq.next_element()? {
            length += 1;
            match element {
                Element::Number(x) if length <= *LENGTHS.end() => values.push(x),
                Element::Number(_) => {}
                Element::Other(kind) => mixed = mixed.or(Some(kind)),
            }
        }
        Ok(match mixed {
            Some(kind) => Scalar::MixedArray(kind),
            None if length > *LENGTHS.end() => Scalar::LongArray(length),
            None => Scalar::Vector(values),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other("an object"))
    }
}

/// What stands in an array; what is nested in it is skipped.
enum Element {
    Number(f64),
    Other(&'static str),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;

        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_unit<E>(self) -> Result<Element, E> {
                Ok(Element::Other("null"))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Element, E> {
                Ok(Element::Other("a boolean"))
            }

            fn visit_i64<E>(self, n: i64) -> Result<Element, E> {
                Ok(Element::Number(n as f64))
            }

            fn visit_u64<E>(self, n: u64) -> Result<Element, E> {
                Ok(Element::Number(n as f64))
            }

            fn visit_f64<E>(self, x: f64) -> Result<Element, E> {
                Ok(Element::Number(x))
            }

            fn visit_str<E>(self, _: &str) -> Result<Element, E> {
                Ok(Element::Other("a string"))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Element::Other("an array"))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Element, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Element::Other("an object"))
            }
        }

        deserializer.deserialize_any(ElementVisitor)
    }
}

impl<'de> Deserialize<'de> for JsonReading<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ReadingVisitor;

        impl<'de> Visitor<'de> for ReadingVisitor {
            type Value = JsonReading<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reading")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                fields(map)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                ScalarVisitor.visit_seq(seq).map(|_| not_an_object("an array"))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(not_an_object("null"))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(not_an_object("a boolean"))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(not_an_object("a number"))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(not_an_object("a number"))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(not_an_object("a number"))
            }

            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(not_an_object("a string"))
            }
        }

        deserializer.deserialize_any(ReadingVisitor)
    }
}

fn not_an_object(kind: &'static str) -> JsonReading<'static> {
    JsonReading { fault: Some(Fault::NotAnObject(kind)), ..JsonReading::default() }
}
