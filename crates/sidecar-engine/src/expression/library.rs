//! The functions that expressions can use: CEL's standard library, its strings extension, and the lists, regular
//! expressions, quantities and URLs that Kubernetes' admission policies have.

use std::ops::RangeInclusive;

use cel::common::functions::Function as Implementation;
use cel::common::types::{DYN_TYPE, LIST_TYPE, STRING_TYPE, Type};
use cel::{Env, extensions};

use super::functions as f;
use super::{quantities as q, urls as u};

/// A function as it can be written.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) form: Form,
    /// How many arguments it takes, the receiver not counted.
    pub(super) arguments: RangeInclusive<usize>,
}

/// How a function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `size(x)`
    Function,
    /// `x.size()`
    Method,
    /// `optional.of(x)`
    Optional,
}

impl Function {
    /// How it is called, for messages.
    pub(super) fn usage(&self) -> String {
        let arguments = |count: usize| vec!["…"; count].join(", ");
        let (least, most) = (*self.arguments.start(), *self.arguments.end());
        let list = if least == most {
            arguments(least)
        } else {
            format!("{}[{}]", arguments(least), vec![", …"; most - least].concat())
        };
        match self.form {
            Form::Function => format!("{}({list})", self.name),
            Form::Method => format!("x.{}({list})", self.name),
            Form::Optional => format!("optional.{}({list})", self.name),
        }
    }
}

const fn function(name: &'static str, form: Form, least: usize, most: usize) -> Function {
    Function { name, form, arguments: least..=most }
}

use Form::{Function as Free, Method, Optional};

/// All of them; what is not here is unknown when a definition is loaded.
pub(super) static FUNCTIONS: &[Function] = &[
    function("size", Free, 1, 1),
    function("size", Method, 0, 0),
    function("int", Free, 1, 1),
    function("uint", Free, 1, 1),
    function("double", Free, 1, 1),
    function("string", Free, 1, 1),
    function("bool", Free, 1, 1),
    function("dyn", Free, 1, 1),
    function("type", Free, 1, 1),
    function("contains", Method, 1, 1),
    function("startsWith", Method, 1, 1),
    function("endsWith", Method, 1, 1),
    function("matches", Method, 1, 1),
    function("matches", Free, 2, 2),
    function("find", Method, 1, 1),
    function("findAll", Method, 1, 2),
    function("charAt", Method, 1, 1),
    function("indexOf", Method, 1, 2),
    function("lastIndexOf", Method, 1, 2),
    function("join", Method, 0, 1),
    function("lowerAscii", Method, 0, 0),
    function("upperAscii", Method, 0, 0),
    function("trim", Method, 0, 0),
    function("replace", Method, 2, 3),
    function("split", Method, 1, 2),
    function("substring", Method, 1, 2),
    function("format", Method, 1, 1),
    function("reverse", Method, 0, 0),
    function("isSorted", Method, 0, 0),
    function("sum", Method, 0, 0),
    function("min", Method, 0, 0),
    function("max", Method, 0, 0),
    function("quantity", Free, 1, 1),
    function("isQuantity", Free, 1, 1),
    function("sign", Method, 0, 0),
    function("add", Method, 1, 1),
    function("sub", Method, 1, 1),
    function("isGreaterThan", Method, 1, 1),
    function("isLessThan", Method, 1, 1),
    function("compareTo", Method, 1, 1),
    function("isInteger", Method, 0, 0),
    function("asInteger", Method, 0, 0),
    function("asApproximateFloat", Method, 0, 0),
    function("url", Free, 1, 1),
    function("isURL", Free, 1, 1),
    function("getScheme", Method, 0, 0),
    function("getHost", Method, 0, 0),
    function("getHostname", Method, 0, 0),
    function("getPort", Method, 0, 0),
    function("getEscapedPath", Method, 0, 0),
    function("getQuery", Method, 0, 0),
    function("of", Optional, 1, 1),
    function("ofNonZeroValue", Optional, 1, 1),
    function("none", Optional, 0, 0),
    function("hasValue", Method, 0, 0),
    function("value", Method, 0, 0),
    function("or", Method, 1, 1),
    function("orValue", Method, 1, 1),
];

/// The library with everything in it. A name that is declared twice would be a mistake here, which the tests of every
/// function show.
pub(super) fn environment() -> Env {
    let mut environment = Env::stdlib();
    let _ = environment.add_extension(extensions::strings);
    let free: [(&str, Vec<Type>, Implementation); 18] = [
        (f::CHARGE, vec![DYN_TYPE, DYN_TYPE], f::charge),
        (f::CHARGE_ALL, vec![DYN_TYPE, DYN_TYPE], f::charge_all),
        (f::CHARGE_BYTES, vec![DYN_TYPE, DYN_TYPE], f::charge_bytes),
        (f::ITERATE, vec![DYN_TYPE, DYN_TYPE, DYN_TYPE], f::iterate),
        (f::MAP, vec![LIST_TYPE], f::map),
        (f::EQUALS, vec![DYN_TYPE, DYN_TYPE, DYN_TYPE], f::equals),
        (f::CONTAINS, vec![DYN_TYPE, DYN_TYPE, DYN_TYPE], f::contains),
        (f::REPLACE, vec![DYN_TYPE, STRING_TYPE, STRING_TYPE, STRING_TYPE], f::replace),
        (f::REPLACE, vec![DYN_TYPE, STRING_TYPE, STRING_TYPE, STRING_TYPE, DYN_TYPE], f::replace),
        (f::JOIN, vec![DYN_TYPE, LIST_TYPE], f::join),
        (f::JOIN, vec![DYN_TYPE, LIST_TYPE, STRING_TYPE], f::join),
        ("@matches", vec![DYN_TYPE, STRING_TYPE, DYN_TYPE], f::matches),
        ("@find", vec![DYN_TYPE, STRING_TYPE, DYN_TYPE], f::find),
        ("@findAll", vec![DYN_TYPE, STRING_TYPE, DYN_TYPE], f::find_all),
        ("@findAll", vec![DYN_TYPE, STRING_TYPE, DYN_TYPE, DYN_TYPE], f::find_all),
        ("quantity", vec![STRING_TYPE], q::quantity),
        ("isQuantity", vec![STRING_TYPE], q::is_quantity),
        ("string", vec![q::TYPE], q::string),
    ];
    for (name, arguments, implementation) in free {
        let id = format!("{name}_{}", arguments.len());
        let _ = environment.add_overload(name, &format!("sidecar_{id}"), arguments, implementation);
    }
    let _ = environment.add_overload("url", "sidecar_url", vec![STRING_TYPE], u::url);
    let _ = environment.add_overload("isURL", "sidecar_is_url", vec![STRING_TYPE], u::is_url);
    let methods: [(&str, Type, Vec<Type>, Implementation); 22] = [
        ("isSorted", LIST_TYPE, vec![], f::is_sorted),
        ("sum", LIST_TYPE, vec![], f::sum),
        ("min", LIST_TYPE, vec![], f::minimum),
        ("max", LIST_TYPE, vec![], f::maximum),
        ("indexOf", LIST_TYPE, vec![DYN_TYPE], f::index_of),
        ("lastIndexOf", LIST_TYPE, vec![DYN_TYPE], f::last_index_of),
        ("sign", q::TYPE, vec![], q::sign),
        ("add", q::TYPE, vec![DYN_TYPE], q::add),
        ("sub", q::TYPE, vec![DYN_TYPE], q::subtract),
        ("isGreaterThan", q::TYPE, vec![q::TYPE], q::is_greater_than),
        ("isLessThan", q::TYPE, vec![q::TYPE], q::is_less_than),
        ("compareTo", q::TYPE, vec![q::TYPE], q::compare_to),
        ("isInteger", q::TYPE, vec![], q::is_integer),
        ("asInteger", q::TYPE, vec![], q::as_integer),
        ("asApproximateFloat", q::TYPE, vec![], q::as_approximate_float),
        ("getScheme", u::TYPE, vec![], u::scheme),
        ("getHost", u::TYPE, vec![], u::host),
        ("getHostname", u::TYPE, vec![], u::hostname),
        ("getPort", u::TYPE, vec![], u::port),
        ("getEscapedPath", u::TYPE, vec![], u::escaped_path),
        ("getQuery", u::TYPE, vec![], u::query),
        ("string", q::TYPE, vec![], q::string),
    ];
    for (name, receiver, arguments, implementation) in methods {
        let id = format!("sidecar_{}_{name}", receiver.name());
        let _ = environment.add_member_overload(name, &id, receiver, arguments, implementation);
    }
    environment
}
