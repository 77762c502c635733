//! `url('https://host:80/path?a=b')`: URLs in expressions, as in admission policies.

#![expect(
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    reason = "the library says what a function looks like"
)]

use std::any::Any;

use cel::ExecutionError;
use cel::common::types::{CelBool, CelList, CelString, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use fluent_uri::UriRef;

use super::functions::failed;
use super::value::{Map, unexpected};

/// Their type.
pub(super) const TYPE: Type = Type::new_unspecified_type("url");

static STATIC_TYPE: Type = TYPE;

type Result<T> = std::result::Result<T, ExecutionError>;

/// An absolute URL, or a path from the root, as Go's `url.ParseRequestURI` takes them.
#[derive(Debug, Clone, PartialEq)]
struct Url(UriRef<String>);

impl Url {
    fn parse(text: &str) -> Option<Self> {
        let url = UriRef::parse(text.to_owned()).ok()?;
        (url.scheme().is_some() || text.starts_with('/')).then_some(Url(url))
    }

    fn host(&self) -> &str {
        self.0.authority().map(|authority| authority.host()).unwrap_or_default()
    }

    fn port(&self) -> &str {
        self.0
            .authority()
            .and_then(|authority| authority.port())
            .map(fluent_uri::pct_enc::EStr::as_str)
            .unwrap_or_default()
    }
}

impl Val for Url {
    fn get_type(&self) -> &Type {
        &STATIC_TYPE
    }

    fn cel_type() -> &'static Type {
        &STATIC_TYPE
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.as_any().and_then(<dyn Any>::downcast_ref::<Url>) == Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Url {}

fn parse(args: &[CowVal<'_, '_>]) -> Option<Url> {
    Url::parse(args.first()?.downcast_ref::<CelString<'_>>()?.inner())
}

fn of<'x>(args: &'x [CowVal<'_, '_>]) -> Result<&'x Url> {
    let value = args.first().ok_or_else(|| failed("cannot be evaluated"))?;
    value.as_any().and_then(<dyn Any>::downcast_ref::<Url>).ok_or_else(|| unexpected(value.as_ref(), "url"))
}

fn text<'b, 'v>(text: impl Into<String>) -> CowVal<'b, 'v> {
    CowVal::owned(CelString::from(text.into()))
}

pub(super) fn url<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    parse(&args).map(CowVal::owned).ok_or_else(|| failed("\"url\" is given what is none"))
}

pub(super) fn is_url<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    Ok(CowVal::owned(CelBool::from(parse(&args).is_some())))
}

pub(super) fn scheme<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    Ok(text(of(&args)?.0.scheme().map(|scheme| scheme.as_str().to_ascii_lowercase()).unwrap_or_default()))
}

/// With the port.
pub(super) fn host<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let url = of(&args)?;
    Ok(text(if url.port().is_empty() {
        url.host().to_owned()
    } else {
        format!("{}:{}", url.host(), url.port())
    }))
}

/// Without the port, and without the brackets of an IPv6 address.
pub(super) fn hostname<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let host = of(&args)?.host();
    Ok(text(host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)))
}

pub(super) fn port<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    Ok(text(of(&args)?.port()))
}

pub(super) fn escaped_path<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    Ok(text(of(&args)?.0.path().as_str()))
}

/// A map of lists: a key can be there more than once.
pub(super) fn query<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let url = of(&args)?;
    let mut entries: Vec<(String, Vec<String>)> = Vec::new();
    for pair in url.0.query().map(|query| query.split('&')).into_iter().flatten() {
        let (key, value) = pair.split_once('=').map_or((pair, None), |(key, value)| (key, Some(value)));
        let decoded = |part: &fluent_uri::pct_enc::EStr<fluent_uri::pct_enc::encoder::Query>| {
            part.decode().to_string_lossy().replace('+', " ")
        };
        let (key, value) = (decoded(key), value.map(decoded).unwrap_or_default());
        match entries.iter_mut().find(|(name, _)| *name == key) {
            Some((_, values)) => values.push(value),
            None => entries.push((key, vec![value])),
        }
    }
    let entries = entries.into_iter().map(|(key, values)| {
        let values = values.into_iter().map(|value| Box::new(CelString::from(value)) as Box<dyn Val + 'v>);
        let list: Box<dyn Val + 'v> = Box::new(CelList::from(values.collect::<Vec<_>>()));
        (CelString::from(key), list)
    });
    Ok(CowVal::owned(Map::written(entries.collect())))
}
