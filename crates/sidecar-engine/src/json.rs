//! One JSON tree for pods, definitions and patches: ordered, borrowed where it can be, and read no deeper than needed.
//!
//! A pod that reaches the webhook may be anything that JSON can say, and most of it concerns nobody here. A [`Plan`]
//! says which parts of a document are read in the one pass over its text; everything else stays [`Json::Raw`], its
//! bytes, until somebody asks. What is changed is opened level by level and shares the rest with what was received.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Number;
use serde_json::value::RawValue;

/// The fields of an object in the order in which they were written. Objects of pods are small: a search is faster than a map.
pub(crate) type Fields<'a> = Vec<(Cow<'a, str>, Json<'a>)>;

/// A JSON value, or the promise of one.
#[derive(Debug, Clone, Default)]
pub(crate) enum Json<'a> {
    #[default]
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Fields<'a>),
    /// Text that nobody has looked into yet.
    Raw(&'a RawValue),
    /// A value that belongs to somebody else, a pod or a definition.
    Shared(&'a Json<'a>),
}

impl<'a> Json<'a> {
    /// A string.
    pub(crate) fn text_from(text: impl Into<Cow<'a, str>>) -> Self {
        Json::Text(text.into())
    }

    /// Reads one document, all of it.
    pub(crate) fn parse(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// Reads one document as far as the plan says.
    pub(crate) fn read(text: &'a str, plan: &'static Plan) -> serde_json::Result<Self> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let json = plan.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(json)
    }

    /// The value itself, whoever it belongs to; its fields or items may still be raw or shared.
    pub(crate) fn resolve(&self) -> Cow<'_, Json<'a>> {
        match self {
            Json::Shared(json) => json.resolve(),
            Json::Raw(raw) => Cow::Owned(Json::opened(raw)),
            other => Cow::Borrowed(other),
        }
    }

    /// One level of raw text. Raw text is JSON already, so there is nothing to fail.
    fn opened(raw: &'a RawValue) -> Json<'a> {
        Json::read(raw.get(), &Plan::Open).unwrap_or_default()
    }

    /// The value in place, to be changed: one level of it is opened or copied.
    pub(crate) fn open(&mut self) -> &mut Json<'a> {
        if let Json::Raw(raw) = self {
            *self = Json::opened(raw);
        }
        if let Json::Shared(json) = self {
            *self = json.borrowed();
        }
        self
    }

    /// A value of its own whose parts are shared with this one.
    fn borrowed(&'a self) -> Json<'a> {
        match self {
            Json::Null => Json::Null,
            Json::Bool(flag) => Json::Bool(*flag),
            Json::Number(number) => Json::Number(number.clone()),
            Json::Text(text) => Json::Text(Cow::Borrowed(text)),
            Json::List(items) => Json::List(items.iter().map(Json::share).collect()),
            Json::Object(fields) => Json::Object(
                fields.iter().map(|(key, value)| (Cow::Borrowed(&**key), value.share())).collect(),
            ),
            Json::Raw(raw) => Json::opened(raw),
            Json::Shared(json) => json.borrowed(),
        }
    }

    /// The same value, shared instead of copied.
    pub(crate) fn share(&'a self) -> Json<'a> {
        match self {
            Json::Null => Json::Null,
            Json::Bool(flag) => Json::Bool(*flag),
            Json::Raw(raw) => Json::Raw(raw),
            Json::Shared(json) => Json::Shared(json),
            other => Json::Shared(other),
        }
    }

    /// How many values there are in it, itself included; what is still text counts as one.
    pub(crate) fn size(&self) -> usize {
        match self {
            Json::List(items) => 1 + items.iter().map(Json::size).sum::<usize>(),
            Json::Object(fields) => 1 + fields.iter().map(|(_, value)| value.size()).sum::<usize>(),
            Json::Shared(json) => json.size(),
            _ => 1,
        }
    }

    /// Whether this is `null`, which Kubernetes takes for absent.
    pub(crate) fn is_null(&self) -> bool {
        match self {
            Json::Null => true,
            Json::Raw(raw) => raw.get() == "null",
            Json::Shared(json) => json.is_null(),
            _ => false,
        }
    }

    /// The field of an object; `null` and what is no object have none. Of two equal keys the last counts, as in Go.
    /// Raw text is not looked into: see [`Json::resolve`].
    pub(crate) fn get(&self, key: &str) -> Option<&Json<'a>> {
        match self {
            Json::Object(fields) => fields
                .iter()
                .rev()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value)
                .filter(|value| !value.is_null()),
            Json::Shared(json) => json.get(key),
            _ => None,
        }
    }

    /// The field of an object that may still be raw.
    pub(crate) fn field(&self, key: &str) -> Option<Json<'a>> {
        match self {
            Json::Raw(raw) => Json::opened(raw).field(key),
            other => other.get(key).cloned(),
        }
    }

    /// The field of an opened object, to be changed.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Json<'a>> {
        match self.open() {
            Json::Object(fields) => {
                fields.iter_mut().rev().find(|(name, _)| name == key).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The items of a list. Raw text is not looked into.
    pub(crate) fn items(&self) -> Option<&[Json<'a>]> {
        match self {
            Json::List(items) => Some(items),
            Json::Shared(json) => json.items(),
            _ => None,
        }
    }

    /// The fields of an object. Raw text is not looked into.
    pub(crate) fn fields(&self) -> Option<&Fields<'a>> {
        match self {
            Json::Object(fields) => Some(fields),
            Json::Shared(json) => json.fields(),
            _ => None,
        }
    }

    /// The fields of an object, shared where they belong to somebody else; `None` for what is none.
    pub(crate) fn into_fields(self) -> Option<Fields<'a>> {
        match self {
            Json::Object(fields) => Some(fields),
            Json::Shared(json) => json.fields().map(|fields| {
                fields.iter().map(|(key, value)| (Cow::Borrowed(&**key), value.share())).collect()
            }),
            Json::Raw(raw) => Json::opened(raw).into_fields(),
            _ => None,
        }
    }

    /// The items of a list, shared where they belong to somebody else; `None` for what is none.
    pub(crate) fn into_items(self) -> Option<Vec<Json<'a>>> {
        match self {
            Json::List(items) => Some(items),
            Json::Shared(json) => json.items().map(|items| items.iter().map(Json::share).collect()),
            Json::Raw(raw) => Json::opened(raw).into_items(),
            _ => None,
        }
    }

    /// The list in place, to be changed; `None` for what is none.
    pub(crate) fn items_mut(&mut self) -> Option<&mut Vec<Json<'a>>> {
        match self.open() {
            Json::List(items) => Some(items),
            _ => None,
        }
    }

    /// The object in place, to be changed; `None` for what is none.
    pub(crate) fn fields_mut(&mut self) -> Option<&mut Fields<'a>> {
        match self.open() {
            Json::Object(fields) => Some(fields),
            _ => None,
        }
    }

    /// Sets a field of an object; what is no object stays as it is.
    pub(crate) fn set(&mut self, key: Cow<'a, str>, value: Json<'a>) {
        if let Some(fields) = self.fields_mut() {
            match fields.iter_mut().rev().find(|(name, _)| *name == key) {
                Some((_, place)) => *place = value,
                None => fields.push((key, value)),
            }
        }
    }

    /// The value as a string, borrowed unless it has escapes.
    pub(crate) fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Json::Text(text) => Some(Cow::Borrowed(text)),
            Json::Shared(json) => json.text(),
            Json::Raw(raw) => match Json::opened(raw) {
                Json::Text(text) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// The field as a string.
    pub(crate) fn text_of(&self, key: &str) -> Option<Cow<'_, str>> {
        self.get(key)?.text()
    }

    /// The value as a boolean.
    pub(crate) fn flag(&self) -> Option<bool> {
        match &*self.resolve() {
            Json::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A copy that borrows nothing.
    pub(crate) fn into_owned(self) -> Json<'static> {
        match self {
            Json::Null => Json::Null,
            Json::Bool(flag) => Json::Bool(flag),
            Json::Number(number) => Json::Number(number),
            Json::Text(text) => Json::Text(Cow::Owned(text.into_owned())),
            Json::List(items) => Json::List(items.into_iter().map(Json::into_owned).collect()),
            Json::Object(fields) => Json::Object(
                fields
                    .into_iter()
                    .map(|(key, value)| (Cow::Owned(key.into_owned()), value.into_owned()))
                    .collect(),
            ),
            Json::Raw(raw) => Json::parse(raw.get()).unwrap_or_default().into_owned(),
            Json::Shared(json) => json.clone().into_owned(),
        }
    }
}

/// JSON text.
impl fmt::Display for Json<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => serializer.serialize_unit(),
            Json::Bool(flag) => serializer.serialize_bool(*flag),
            Json::Number(number) => number.serialize(serializer),
            Json::Text(text) => serializer.serialize_str(text),
            Json::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Json::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (key, value) in fields {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
            Json::Raw(raw) => raw.serialize(serializer),
            Json::Shared(json) => json.serialize(serializer),
        }
    }
}

/// How far a document is read.
#[derive(Debug)]
pub(crate) enum Plan {
    /// All of it.
    Whole,
    /// One level; what is below it stays raw.
    Open,
    /// An object: these fields as they say, the others stay raw.
    Fields(&'static [(&'static str, Plan)]),
    /// A list: its items as it says.
    Items(&'static Plan),
    /// Nothing.
    Raw,
}

impl Plan {
    fn of_field(&'static self, key: &str) -> &'static Plan {
        match self {
            Plan::Whole => self,
            Plan::Fields(fields) => {
                fields.iter().find(|(name, _)| *name == key).map_or(&Plan::Raw, |(_, plan)| plan)
            }
            Plan::Open | Plan::Items(_) | Plan::Raw => &Plan::Raw,
        }
    }

    fn of_item(&'static self) -> &'static Plan {
        match self {
            Plan::Whole => self,
            Plan::Items(plan) => plan,
            Plan::Open | Plan::Fields(_) | Plan::Raw => &Plan::Raw,
        }
    }
}

impl<'de> DeserializeSeed<'de> for &'static Plan {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        match self {
            Plan::Raw => <&RawValue>::deserialize(deserializer).map(Json::Raw),
            plan => deserializer.deserialize_any(Reader { plan }),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        (&Plan::Whole).deserialize(deserializer)
    }
}

struct Reader {
    plan: &'static Plan,
}

impl<'de> Visitor<'de> for Reader {
    type Value = Json<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value that JSON has")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_none<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json<'de>, E> {
        Ok(from_float(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json<'de>, A::Error> {
        let mut items = Vec::with_capacity(list.size_hint().unwrap_or(4).min(64));
        while let Some(item) = list.next_element_seed(self.plan.of_item())? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut fields = Vec::with_capacity(12);
        while let Some(Key(key)) = map.next_key()? {
            let value = map.next_value_seed(self.plan.of_field(&key))?;
            fields.push((key, value));
        }
        Ok(Json::Object(fields))
    }
}

/// A number as Kubernetes' YAML reader has it: `1e3` and `3.0` are integers.
pub(crate) fn from_float(number: f64) -> Json<'static> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole and within the range in which floats are exact"
    )]
    if number.fract() == 0.0 && number.abs() < 9e15 {
        return Json::Number((number as i64).into());
    }
    // Not a number and infinity, which JSON cannot say.
    Number::from_f64(number).map_or(Json::Null, Json::Number)
}

/// A map's key, borrowed from the document unless it has escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyReader)
    }
}

struct KeyReader;

impl<'de> Visitor<'de> for KeyReader {
    type Value = Key<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static PLAN: Plan =
        Plan::Fields(&[("a", Plan::Open), ("b", Plan::Items(&Plan::Fields(&[("c", Plan::Whole)])))]);

    #[test]
    fn what_the_plan_does_not_name_stays_text() {
        let json =
            Json::read(r#"{"a":{"x":{"y":1}},"b":[{"c":[1.0],"d":2},3],"e":{"f": 1.0}}"#, &PLAN).unwrap();
        assert!(matches!(json.get("a").unwrap().get("x"), Some(Json::Raw(_))));
        let item = &json.get("b").unwrap().items().unwrap()[0];
        assert!(matches!(item.get("c"), Some(Json::List(_))));
        assert!(matches!(item.get("d"), Some(Json::Raw(_))));
        // Raw text comes out as it was.
        assert_eq!(json.to_string(), r#"{"a":{"x":{"y":1}},"b":[{"c":[1],"d":2},3],"e":{"f": 1.0}}"#);
    }

    #[test]
    fn the_last_of_two_equal_keys_counts_and_null_is_absent() {
        let json = Json::parse(r#"{"a":1,"a":2,"b":null}"#).unwrap();
        assert_eq!(json.get("a").unwrap().to_string(), "2");
        assert!(json.get("b").is_none());
    }

    #[test]
    fn what_is_changed_is_a_copy_and_the_original_stays() {
        let original = Json::read(r#"{"a":{"x":[1]},"b":2}"#, &Plan::Open).unwrap();
        let mut copy = Json::Shared(&original);
        let Some(Json::Object(fields)) = copy.get_mut("a").map(Json::open) else { panic!("an object") };
        fields.push((Cow::Borrowed("y"), Json::Bool(true)));
        assert_eq!(copy.to_string(), r#"{"a":{"x":[1],"y":true},"b":2}"#);
        assert_eq!(original.to_string(), r#"{"a":{"x":[1]},"b":2}"#);
    }

    #[test]
    fn whole_floats_are_integers() {
        assert_eq!(from_float(1000.0).to_string(), "1000");
        assert_eq!(from_float(0.5).to_string(), "0.5");
        assert_eq!(from_float(f64::NAN).to_string(), "null");
    }
}
