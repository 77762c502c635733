//! Reads JSON without believing in its types: a borrowed view in which a wrong type is a value, not an error.
//!
//! A pod that reaches the webhook may be anything that JSON can say. Serde's derived readers stop at the first
//! surprise; here a surprise becomes [`Node::Wrong`], the bytes below it are skipped, and the review goes on.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A place in a document: there with the expected shape, absent (`null` counts as absent), or of another shape.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Node<T> {
    #[default]
    Absent,
    Wrong,
    Present(T),
}

impl<T> Node<T> {
    pub(crate) fn present(&self) -> Option<&T> {
        match self {
            Node::Present(value) => Some(value),
            Node::Absent | Node::Wrong => None,
        }
    }
}

/// What a type makes of each JSON shape; the default for every shape is "not mine".
pub(crate) trait Shape<'de>: Sized {
    fn text(_text: Cow<'de, str>) -> Option<Self> {
        None
    }

    fn flag(_flag: bool) -> Option<Self> {
        None
    }

    fn map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl<'de, T: Shape<'de>> Deserialize<'de> for Node<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor(PhantomData))
    }
}

struct NodeVisitor<T>(PhantomData<T>);

impl<T> NodeVisitor<T> {
    fn found(value: Option<T>) -> Node<T> {
        value.map_or(Node::Wrong, Node::Present)
    }
}

impl<'de, T: Shape<'de>> Visitor<'de> for NodeVisitor<T> {
    type Value = Node<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Node::Absent)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Self::found(T::flag(flag)))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Node::Wrong)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Node::Wrong)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Node::Wrong)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Self::found(T::text(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Self::found(T::text(Cow::Owned(text.to_owned()))))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::map(map).map(Self::found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        T::list(list).map(Self::found)
    }
}

/// A string, borrowed from the document unless it has escapes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Shape<'de> for Text<'a> {
    fn text(text: Cow<'de, str>) -> Option<Self> {
        Some(Text(text))
    }
}

/// As a map's key, where JSON has nothing but strings.
impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

impl Shape<'_> for bool {
    fn flag(flag: bool) -> Option<Self> {
        Some(flag)
    }
}

/// A list whose items may each be of a wrong shape.
impl<'de, T: Shape<'de>> Shape<'de> for Vec<Node<T>> {
    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        let mut items = Vec::with_capacity(list.size_hint().unwrap_or(4));
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Some(items))
    }
}

/// A map of strings, such as labels. One value that is no string makes the whole map wrong, as in the API server.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TextMap<'a>(Vec<(Text<'a>, Text<'a>)>);

impl TextMap<'_> {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        // The last of two equal keys counts, as in Go.
        self.0.iter().rev().find(|(name, _)| name.0 == key).map(|(_, value)| &*value.0)
    }
}

impl<'de: 'a, 'a> Shape<'de> for TextMap<'a> {
    fn map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let mut entries = Vec::with_capacity(8);
        let mut wrong = false;
        while let Some((key, value)) = map.next_entry::<Text<'de>, Node<Text<'de>>>()? {
            match value {
                Node::Present(value) => entries.push((key, value)),
                Node::Absent => entries.push((key, Text::default())),
                Node::Wrong => wrong = true,
            }
        }
        Ok((!wrong).then_some(TextMap(entries)))
    }
}

/// An object with its fields as they stand in the document: one scan, nothing decoded but the keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct RawObject<'a>(Vec<(Text<'a>, &'a RawValue)>);

impl<'a> RawObject<'a> {
    pub(crate) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(name, _)| name.0 == key).map(|(_, value)| *value)
    }

    /// The field as a string, borrowed from the document unless it has escapes.
    pub(crate) fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        match serde_json::from_str(self.get(key)?.get()) {
            Ok(Node::Present(Text(text))) => Some(text),
            _ => None,
        }
    }
}

impl<'de: 'a, 'a> Shape<'de> for RawObject<'a> {
    fn map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let mut fields = Vec::with_capacity(12);
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Some(RawObject(fields)))
    }
}
