//! Parameters: what the owner of a pod may change about a definition, and within which limits.

use regex::{Regex, RegexBuilder};

use crate::definition::{FieldPath, Parameter, ParameterType, Problem, ProblemCode};
use crate::json::Json;
use crate::namespace::Namespace;
use crate::pod::Pod;
use crate::quantity::Quantity;
use crate::suggestion::nearest;

/// The end of the prefix of the annotations that set parameters: `DEFINITION.sidecar.me/PARAMETER`.
const ANNOTATION_SUFFIX: &str = ".sidecar.me/";

/// Bytes of a compiled pattern.
const PATTERN_SIZE: usize = 1 << 18;

/// The parameters of one definition.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    prefix: String,
    all: Vec<Compiled>,
    /// The values when nobody sets any; the usual case costs nothing.
    defaults: Json<'static>,
}

#[derive(Debug)]
struct Compiled {
    name: String,
    kind: ParameterType,
    allowed: Vec<Json<'static>>,
    pattern: Option<Regex>,
    minimum: Option<Json<'static>>,
    maximum: Option<Json<'static>>,
}

impl Parameters {
    /// Compiles the parameters of a definition; `path` is that of their list.
    pub(crate) fn compile(
        definition: &str,
        parameters: Vec<Parameter>,
        path: &FieldPath,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut compiled = Vec::with_capacity(parameters.len());
        let mut defaults = Vec::with_capacity(parameters.len());
        for (index, parameter) in parameters.into_iter().enumerate() {
            let path = path.item(index);
            let pattern = parameter.pattern.as_deref().and_then(|pattern| {
                let report = |problem| {
                    problems.push(Problem::new(ProblemCode::InvalidValue, path.field("pattern"), problem));
                };
                whole(pattern).map_err(report).ok()
            });
            let default = parameter.default.map_or(Json::Null, |default| default.0);
            let compiled_parameter = Compiled {
                name: parameter.name.clone(),
                kind: parameter.kind,
                allowed: parameter.allowed.unwrap_or_default().into_iter().map(|value| value.0).collect(),
                pattern,
                minimum: parameter.minimum.map(|value| value.0),
                maximum: parameter.maximum.map(|value| value.0),
            };
            for (index, allowed) in compiled_parameter.allowed.iter().map(plain).enumerate() {
                // What is of another type is reported as that.
                if parameter.kind.has(&allowed)
                    && let Err(problem) = compiled_parameter.read(&allowed)
                {
                    let path = path.field("allowed").item(index);
                    problems.push(Problem::new(ProblemCode::InvalidValue, path, problem));
                }
            }
            if !default.is_null()
                && let Err(problem) = compiled_parameter.read(&plain(&default))
            {
                problems.push(Problem::new(ProblemCode::InvalidValue, path.field("default"), problem));
            }
            let default = if default.is_null() {
                default
            } else {
                compiled_parameter.read(&plain(&default)).unwrap_or(default)
            };
            defaults.push((parameter.name.into(), default));
            compiled.push(compiled_parameter);
        }
        Parameters {
            prefix: format!("{definition}{ANNOTATION_SUFFIX}"),
            all: compiled,
            defaults: Json::Object(defaults),
        }
    }

    /// The values when nobody sets any, by the names of the parameters; `null` where there is no default.
    pub(crate) fn defaults(&self) -> &Json<'static> {
        &self.defaults
    }

    /// The names of the parameters.
    fn names(&self) -> Vec<&str> {
        self.all.iter().map(|parameter| parameter.name.as_str()).collect()
    }

    /// The values for a pod: its own annotations first, then those of its namespace, then the defaults; or all that is
    /// wrong with them, in one line.
    pub(crate) fn values<'s>(&'s self, pod: &Pod<'_>, namespace: &Namespace) -> Result<Json<'s>, String> {
        let mut set: Vec<(&str, String)> = Vec::new();
        let mut problems = Vec::new();
        let of_namespace = namespace.annotations().map(|(key, value)| (key, value.to_owned()));
        let of_pod = pod.annotations().and_then(Json::fields).map(Vec::as_slice).unwrap_or_default();
        // Of a value that is no string, the API server says enough.
        let of_pod = of_pod.iter().filter(|(key, _)| key.starts_with(&self.prefix));
        let of_pod = of_pod.filter_map(|(key, value)| Some((&**key, value.text()?.into_owned())));
        for (key, value) in of_namespace.chain(of_pod) {
            let Some(name) = key.strip_prefix(&self.prefix) else { continue };
            if self.all.iter().any(|parameter| parameter.name == name) {
                set.push((name, value));
            } else {
                problems.push(format!("there is no parameter {name:?}{}", self.known(name)));
            }
        }
        if set.is_empty() && problems.is_empty() {
            return Ok(self.defaults.share());
        }
        let mut values = self.defaults.share();
        for parameter in &self.all {
            // The last one counts: the pod's.
            let Some((_, text)) = set.iter().rev().find(|(name, _)| *name == parameter.name) else {
                continue;
            };
            match parameter.read(text) {
                Ok(value) => {
                    if let Some(place) = values.get_mut(&parameter.name) {
                        *place = value;
                    }
                }
                Err(problem) => problems.push(format!("{}: {problem}", parameter.name)),
            }
        }
        if problems.is_empty() { Ok(values) } else { Err(problems.join("; ")) }
    }

    /// What there is instead of a parameter, to be put behind a message.
    fn known(&self, name: &str) -> String {
        if self.all.is_empty() {
            return ", the definition has none".to_owned();
        }
        let names = self.names();
        let near = nearest(name, names.iter().copied());
        let near = near.map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"));
        format!("{near}, there are {}", names.join(", "))
    }
}

impl Compiled {
    /// A value from text; the error says what would be allowed.
    fn read(&self, text: &str) -> Result<Json<'static>, String> {
        let value = self.kind.read(text);
        let Some(value) = value else {
            return Err(format!("{text:?} is no {}{}", self.kind.described(), self.limits()));
        };
        let is_allowed =
            self.allowed.is_empty() || self.allowed.iter().any(|allowed| self.same(&plain(allowed), text));
        let matches = self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text));
        let number = |json: &Json<'_>| Quantity::parse(&plain(json));
        let (least, greatest) =
            (self.minimum.as_ref().and_then(number), self.maximum.as_ref().and_then(number));
        let within = match Quantity::parse(text) {
            _ if least.is_none() && greatest.is_none() => true,
            Some(value) => {
                least.is_none_or(|least| least <= value) && greatest.is_none_or(|greatest| value <= greatest)
            }
            None => false,
        };
        if is_allowed && matches && within {
            Ok(value)
        } else {
            Err(format!("{text:?} is not allowed{}", self.limits()))
        }
    }

    fn same(&self, allowed: &str, text: &str) -> bool {
        allowed == text
            || (self.kind != ParameterType::String
                && Quantity::parse(allowed).is_some_and(|allowed| Quantity::parse(text) == Some(allowed)))
    }

    /// What may be chosen, to be put behind a message.
    fn limits(&self) -> String {
        let mut limits = Vec::new();
        if !self.allowed.is_empty() {
            let allowed: Vec<_> = self.allowed.iter().map(plain).collect();
            limits.push(format!("one of {}", allowed.join(", ")));
        }
        if let Some(minimum) = &self.minimum {
            limits.push(format!("at least {}", plain(minimum)));
        }
        if let Some(maximum) = &self.maximum {
            limits.push(format!("at most {}", plain(maximum)));
        }
        if let Some(pattern) = &self.pattern {
            let pattern = pattern.as_str();
            limits.push(format!(
                "matching {}",
                pattern.strip_prefix("^(?:").and_then(|p| p.strip_suffix(")$")).unwrap_or(pattern)
            ));
        }
        if limits.is_empty() { String::new() } else { format!(": {}", limits.join(", ")) }
    }
}

impl ParameterType {
    fn read(self, text: &str) -> Option<Json<'static>> {
        match self {
            ParameterType::String => Some(Json::text_from(text.to_owned())),
            ParameterType::Integer => text.parse::<i64>().ok().map(|number| Json::Number(number.into())),
            ParameterType::Number => {
                text.parse::<f64>().ok().filter(|number| number.is_finite()).map(crate::json::from_float)
            }
            ParameterType::Boolean => text.parse::<bool>().ok().map(Json::Bool),
            ParameterType::Quantity => Quantity::parse(text).map(|_| Json::text_from(text.to_owned())),
        }
    }

    /// Whether text can be a value of this type.
    pub(crate) fn has(self, text: &str) -> bool {
        self.read(text).is_some()
    }

    /// The type of this name, as definitions have it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "string" => ParameterType::String,
            "integer" => ParameterType::Integer,
            "number" => ParameterType::Number,
            "boolean" => ParameterType::Boolean,
            "quantity" => ParameterType::Quantity,
            _ => return None,
        })
    }

    /// For messages about one value.
    pub(crate) fn described(self) -> &'static str {
        match self {
            ParameterType::String => "string",
            ParameterType::Integer => "integer",
            ParameterType::Number => "number",
            ParameterType::Boolean => "boolean (true or false)",
            ParameterType::Quantity => "quantity (such as 100m or 64Mi)",
        }
    }

    /// For messages about all values.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            ParameterType::String => "strings",
            ParameterType::Integer => "integers",
            ParameterType::Number => "numbers",
            ParameterType::Boolean => "booleans",
            ParameterType::Quantity => "quantities",
        }
    }
}

/// A pattern for the whole text, as in a JSON schema that anchors its pattern; the error says what is wrong with it.
fn whole(pattern: &str) -> Result<Regex, String> {
    let compile = |pattern: &str| {
        let result = RegexBuilder::new(pattern).size_limit(PATTERN_SIZE).build();
        result.map_err(|error| {
            let text = error.to_string();
            text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        })
    };
    // By itself first: `a)|(b` is none, and would close the group that is put around it.
    compile(pattern)?;
    compile(&format!("^(?:{pattern})$"))
}

/// A scalar as it would be written in an annotation.
pub(crate) fn plain(json: &Json<'_>) -> String {
    json.text().map_or_else(|| json.to_string(), std::borrow::Cow::into_owned)
}
