//! Makes sure that no object of a JSON text has a name twice.

use super::field;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde::Deserializer;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// Takes anything in which no object has a name twice; in a message, both spellings are one name. The library takes the last,
/// where another reader may have seen the first.
pub struct Once(pub Option<MessageDescriptor>);

impl<'de> DeserializeSeed<'de> for Once {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Once(self.0.clone()))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let known = self.0.as_ref().and_then(|message| field(message, &name));
            let own = known.as_ref().map_or(name.as_str(), FieldDescriptor::json_name).to_owned();
            if !names.insert(own) {
                return Err(de::Error::custom(format!("{name} is there twice")));
            }
            let inside = known.filter(|field| !field.is_map()).and_then(|field| match field.kind() {
                Kind::Message(message) => Some(message),
                _ => None,
            });
            map.next_value_seed(Once(inside))?;
        }
        Ok(())
    }
}
