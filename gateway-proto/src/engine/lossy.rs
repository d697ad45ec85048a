//! Reading the engine's JSON, which is made from XML and loses on the way: text that looks like a number or a truth value
//! becomes one, a list of one element becomes the element, what is empty becomes `null` (or an empty text).
//!
//! Everything is read straight into its type: what nobody asked for, the scripts of a channel among it, is skipped and
//! never held in memory.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, StrDeserializer},
    },
};

/// Elements of one list that are kept; those beyond are counted. No engine has so many of anything.
pub const MAX_ELEMENTS: usize = 10_000;

/// A text, whatever the engine made of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text(pub String);

/// A list: an array, its only element, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Many<T> {
    /// The elements, at most [`MAX_ELEMENTS`].
    pub items: Vec<T>,
}

/// An object, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maybe<T>(pub Option<T>);

/// An object whose values are lists of one type, whatever their names: `{"list": {"the.class.Name": […]}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnyMany<T>(pub Many<T>);

impl<T> Default for Many<T> {
    fn default() -> Self {
        Self { items: Vec::new() }
    }
}

impl<T> Default for Maybe<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Default for AnyMany<T> {
    fn default() -> Self {
        Self(Many::default())
    }
}

impl Text {
    /// Read as a number; none: it is none of the kind.
    pub fn number<N: std::str::FromStr>(&self) -> Option<N> {
        self.0.parse().ok()
    }

    /// Read as a truth value.
    pub fn flag(&self) -> Option<bool> {
        self.0.parse().ok()
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, a truth value or nothing")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Text, E> {
        Ok(Text(text))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Text, E> {
        Ok(Text(flag.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text::default())
    }

    /// An element with attributes has its text under `$`.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
        let mut text = Text::default();
        while let Some(key) = map.next_key::<String>()? {
            if key == "$" {
                text = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(text)
    }

    /// Twice where once was meant: the first.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Text, A::Error> {
        let first = list.next_element()?.unwrap_or_default();
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(first)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ManyVisitor(PhantomData))
    }
}

struct ManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ManyVisitor<T> {
    type Value = Many<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list, its only element, or nothing")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Many<T>, A::Error> {
        let mut many = Many::default();
        while many.items.len() < MAX_ELEMENTS {
            match list.next_element()? {
                Some(element) => many.items.push(element),
                None => return Ok(many),
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(many)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Many<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(one)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Many<T>, E> {
        // An empty element, an attribute of the list, or the only text of a list of texts.
        Ok(T::deserialize(StrDeserializer::<E>::new(text)).map_or_else(|_| Many::default(), one))
    }

    fn visit_u64<E>(self, _number: u64) -> Result<Many<T>, E> {
        Ok(Many::default())
    }

    fn visit_i64<E>(self, _number: i64) -> Result<Many<T>, E> {
        Ok(Many::default())
    }

    fn visit_f64<E>(self, _number: f64) -> Result<Many<T>, E> {
        Ok(Many::default())
    }

    fn visit_bool<E>(self, _flag: bool) -> Result<Many<T>, E> {
        Ok(Many::default())
    }

    fn visit_unit<E>(self) -> Result<Many<T>, E> {
        Ok(Many::default())
    }
}

fn one<T>(element: T) -> Many<T> {
    Many { items: vec![element] }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Maybe<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // One object is a list of one; several where one was meant: the first.
        Many::deserialize(deserializer).map(|many| Self(many.items.into_iter().next()))
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for AnyMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor(PhantomData))
    }
}

struct AnyVisitor<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for AnyVisitor<T> {
    type Value = AnyMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a list in it, or nothing")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyMany<T>, A::Error> {
        let mut all = Many::default();
        while let Some(key) = map.next_key::<String>()? {
            if key.starts_with('@') {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let more = map.next_value::<Many<T>>()?.items;
            let room = MAX_ELEMENTS.saturating_sub(all.items.len());
            all.items.extend(more.into_iter().take(room));
        }
        Ok(AnyMany(all))
    }

    fn visit_str<E>(self, _text: &str) -> Result<AnyMany<T>, E> {
        Ok(AnyMany::default())
    }

    fn visit_unit<E>(self) -> Result<AnyMany<T>, E> {
        Ok(AnyMany::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    struct Port {
        port: Text,
    }

    fn ports(json: &str) -> Vec<String> {
        let many: Many<Port> = serde_json::from_str(json).unwrap();
        many.items.into_iter().map(|port| port.port.0).collect()
    }

    #[test]
    fn a_list_of_one_is_its_element_and_an_empty_one_is_nothing() {
        assert_eq!(ports(r#"[{"port":6661},{"port":"${adt}"}]"#), ["6661", "${adt}"]);
        assert_eq!(ports(r#"{"port":"6661"}"#), ["6661"]);
        for nothing in ["null", "\"\"", "[]", "0", "false"] {
            assert_eq!(ports(nothing), [""; 0], "{nothing}");
        }
    }

    #[test]
    fn text_is_text_whatever_it_became() {
        for (json, text) in [
            ("15", "15"),
            ("\"15\"", "15"),
            ("true", "true"),
            ("null", ""),
            ("-1", "-1"),
            ("1.5", "1.5"),
            (r#"{"@class":"x","$":"in"}"#, "in"),
            (r#"["first","second"]"#, "first"),
        ] {
            assert_eq!(serde_json::from_str::<Text>(json).unwrap().0, text, "{json}");
        }
    }

    #[test]
    fn a_list_beyond_its_cap_is_cut() {
        let many = format!("[{}{{\"port\":1}}]", "{\"port\":1},".repeat(MAX_ELEMENTS + 4));
        let many: Many<Port> = serde_json::from_str(&many).unwrap();
        assert_eq!(many.items.len(), MAX_ELEMENTS);
    }

    #[test]
    fn the_name_of_a_class_does_not_matter_and_attributes_are_no_elements() {
        for json in [r#"{"com.mirth.Ports":[{"port":1}]}"#, r#"{"@class":"list","other.Ports":{"port":"1"}}"#] {
            let any: AnyMany<Port> = serde_json::from_str(json).unwrap();
            assert_eq!(any.0.items, [Port { port: Text("1".into()) }], "{json}");
        }
    }
}
