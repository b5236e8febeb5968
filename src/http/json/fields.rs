//! JSON objects and lists of which the parts stay the texts that they are.

use super::{invalid, without_position};
use crate::wire::request::BATCH_MAX;
use serde::Deserializer;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use tonic::Status;

/// The fields of a JSON object as the texts that they are.
pub struct Fields<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Reads those of an object that stands at this path; nothing at all is the empty one.
    pub fn read(text: &'a [u8], path: &str) -> Result<Self, Status> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let place = path.strip_suffix('.').unwrap_or("body");
        serde_json::from_slice(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => invalid(place, &without_position(&error)),
            _ => Status::invalid_argument(format!("the body is not JSON: {error}")),
        })
    }

    /// Takes one out.
    pub fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let place = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(place).1)
    }

    /// An object of those that are left, and of more.
    pub fn rest(&self, more: &[(Cow<'_, str>, String)]) -> String {
        let own = self.0.iter().map(|(name, value)| (name, value.get()));
        let more = more.iter().map(|(name, value)| (name, value.as_str()));
        let mut text = String::from("{");
        for (name, value) in own.chain(more) {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&Value::from(name.as_ref()).to_string());
            text.push(':');
            text.push_str(value);
        }
        text.push('}');
        text
    }
}

impl<'de: 'a, 'a> de::Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    if fields.iter().any(|(other, _)| *other == name) {
                        return Err(de::Error::custom(format!("{name} is there twice")));
                    }
                    if fields.len() == FIELDS_MAX {
                        return Err(de::Error::custom("there are far more fields than there can be"));
                    }
                    fields.push((name, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// No message has nearly as many; each is compared with all others.
const FIELDS_MAX: usize = 100;

/// The requests of a batch as the texts that they are, of which no more are read than a batch may have.
pub struct List<'a>(pub Vec<&'a RawValue>);

impl<'de: 'a, 'a> de::Deserialize<'de> for List<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;
        impl<'de> Visitor<'de> for Array {
            type Value = List<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(one) = array.next_element()? {
                    if list.len() == BATCH_MAX {
                        let text = format!("there are more than {BATCH_MAX} requests; that is the limit");
                        return Err(de::Error::custom(text));
                    }
                    list.push(one);
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_seq(Array)
    }
}

#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
