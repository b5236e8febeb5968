//! JSON text ↔ protobuf's `Struct` and `Value`.
//!
//! The rest of the server treats inputs and results as text that it never decodes.

use crate::job::Violation;
use crate::job::limits::INPUT_DEPTH_MAX;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Integers from here on may have lost digits in a double, so they are printed as what they are: doubles.
const EXACT_INTEGERS_END: f64 = 9_007_199_254_740_992.0;

/// The JSON text of an object that came as a `Struct`. Integers are printed without a fraction.
pub fn from_struct(object: &Struct, field: &str) -> Result<String, Violation> {
    let mut text = String::new();
    write_struct(&mut text, object, 1).map_err(|violation| below(field, violation))?;
    Ok(text)
}

/// The JSON text of a value.
pub fn from_value(value: &Value, field: &str) -> Result<String, Violation> {
    let mut text = String::new();
    write_value(&mut text, value, 1).map_err(|violation| below(field, violation))?;
    Ok(text)
}

/// Makes sure that a text is a JSON object of at most [`INPUT_DEPTH_MAX`] levels, all of which can be read.
pub fn check_object(text: &str, field: &str) -> Result<(), Violation> {
    check(text, field)?;
    if !text.trim_start().starts_with('{') {
        return Err(Violation::new(field, "it is not a JSON object"));
    }
    Ok(())
}

/// Makes sure that a text is a JSON value of at most [`INPUT_DEPTH_MAX`] levels, all of which can be read.
pub fn check(text: &str, field: &str) -> Result<(), Violation> {
    check_depth(depth(text), field)?;
    match serde_json::from_str::<Readable>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(Violation::new(field, format!("it is not JSON that can be read: {error}"))),
    }
}

/// Any JSON value that [`to_value`] can read, without being kept.
///
/// serde's own `IgnoredAny` skips what nobody can read: numbers beyond a double, and halves of surrogate pairs.
struct Readable;

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Readable {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self, A::Error> {
        while values.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self, A::Error> {
        while fields.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

/// The `Struct` of a JSON object; none where the text is not one.
pub fn to_struct(text: &[u8]) -> Option<Struct> {
    match to_value(text)?.kind {
        Some(Kind::StructValue(object)) => Some(object),
        _ => None,
    }
}

/// The `Value` of a JSON text; none where it is not one.
pub fn to_value(text: &[u8]) -> Option<Value> {
    serde_json::from_slice(text).ok().map(value_of)
}

fn value_of(value: serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(value),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Array(values) => {
            Kind::ListValue(ListValue { values: values.into_iter().map(value_of).collect() })
        }
        serde_json::Value::Object(fields) => Kind::StructValue(Struct {
            fields: fields.into_iter().map(|(name, value)| (name, value_of(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

// What is wrong is named where it is found, and its path is made on the way back: keys may be long, and numbers many.
fn write_struct(text: &mut String, object: &Struct, depth: usize) -> Result<(), Violation> {
    check_depth(depth, "")?;
    text.push('{');
    for (index, (name, value)) in object.fields.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_string(text, name);
        text.push(':');
        write_value(text, value, depth + 1).map_err(|violation| below(&format!(".{name}"), violation))?;
    }
    text.push('}');
    Ok(())
}

fn write_value(text: &mut String, value: &Value, depth: usize) -> Result<(), Violation> {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => text.push_str("null"),
        Some(Kind::BoolValue(value)) => text.push_str(if *value { "true" } else { "false" }),
        Some(Kind::NumberValue(number)) => write_number(text, *number)?,
        Some(Kind::StringValue(value)) => write_string(text, value),
        Some(Kind::StructValue(object)) => write_struct(text, object, depth)?,
        Some(Kind::ListValue(list)) => {
            check_depth(depth, "")?;
            text.push('[');
            for (index, value) in list.values.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_value(text, value, depth + 1)
                    .map_err(|violation| below(&format!("[{index}]"), violation))?;
            }
            text.push(']');
        }
    }
    Ok(())
}

fn below(parent: &str, violation: Violation) -> Violation {
    Violation { field: format!("{parent}{}", violation.field), ..violation }
}

fn write_string(text: &mut String, value: &str) {
    text.push_str(&serde_json::to_string(value).expect("every string has a JSON form"));
}

fn write_number(text: &mut String, number: f64) -> Result<(), Violation> {
    if !number.is_finite() {
        return Err(Violation::new("", format!("{number} has no JSON form")));
    }
    if number.fract() == 0.0 && number.abs() < EXACT_INTEGERS_END {
        text.push_str(&(number as i64).to_string());
    } else {
        text.push_str(&serde_json::to_string(&number).expect("a finite number has a JSON form"));
    }
    Ok(())
}

fn check_depth(depth: usize, field: &str) -> Result<(), Violation> {
    match depth > INPUT_DEPTH_MAX {
        true => Err(Violation::new(field, format!("it is more than {INPUT_DEPTH_MAX} levels deep"))),
        false => Ok(()),
    }
}

/// The levels of a JSON text; of another text some number.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn nested(levels: usize) -> String {
        format!("{}{}", "{\"a\":".repeat(levels - 1) + "{", "}".repeat(levels))
    }

    #[rstest]
    #[case("{}", true)]
    #[case(" {\"a\": \"}{[\\\"\"} ", true)]
    #[case("[]", false)]
    #[case("null", false)]
    #[case("", false)]
    #[case("{", false)]
    #[case("{} x", false)]
    #[case("}{}", false)]
    #[case(r#"{"a": [1, -2, 0.5, true, null, "\ud83d\ude00"]}"#, true)]
    #[case(r#"{"a": 1e999}"#, false)]
    #[case(r#"{"a": "\ud800"}"#, false)]
    #[case(&nested(30), true)]
    #[case(&nested(31), false)]
    #[case(&nested(1000), false)]
    fn only_readable_objects_of_thirty_levels_pass(#[case] text: &str, #[case] passes: bool) {
        assert_eq!(check_object(text, "input_json").is_ok(), passes, "{text}");
    }

    #[test]
    fn integers_are_printed_as_integers() {
        let object = to_struct(br#"{"steps": 20, "p": 0.5, "big": 9007199254740993, "minus": -3}"#).unwrap();

        let text = from_struct(&object, "input").unwrap();

        assert_eq!(text, r#"{"big":9007199254740992.0,"minus":-3,"p":0.5,"steps":20}"#);
    }

    #[test]
    fn what_json_cannot_say_is_refused_by_its_path() {
        let list = ListValue { values: vec![Value { kind: Some(Kind::NumberValue(f64::NAN)) }] };
        let object =
            Struct { fields: [("a".to_owned(), Value { kind: Some(Kind::ListValue(list)) })].into() };

        assert_eq!(from_struct(&object, "input").unwrap_err().field, "input.a[0]");
    }

    #[test]
    fn a_struct_of_more_than_thirty_levels_is_refused() {
        let deep = |levels| to_struct(nested(levels).as_bytes()).unwrap();

        assert!(from_struct(&deep(30), "input").is_ok());
        assert!(from_struct(&deep(31), "input").is_err());
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Kind::NullValue(0)),
            any::<bool>().prop_map(Kind::BoolValue),
            (-1e15..1e15f64).prop_map(Kind::NumberValue),
            any::<i32>().prop_map(|n| Kind::NumberValue(n.into())),
            ".{0,8}".prop_map(Kind::StringValue),
        ]
        .prop_map(|kind| Value { kind: Some(kind) });
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4)
                    .prop_map(|values| Kind::ListValue(ListValue { values })),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|fields| Kind::StructValue(Struct { fields })),
            ]
            .prop_map(|kind| Value { kind: Some(kind) })
        })
    }

    proptest! {
        #[test]
        fn a_value_survives_its_text(value in any_value()) {
            let text = from_value(&value, "result").unwrap();

            prop_assert_eq!(to_value(text.as_bytes()), Some(value));
        }
    }
}
