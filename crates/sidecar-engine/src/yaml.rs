//! YAML text as kubectl reads it, to a type or to JSON text.

use serde::de::{Deserialize as _, DeserializeOwned, Error as _};

use crate::json::Json;

/// Text that is not YAML, or not of the expected type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct YamlError {
    /// From 1; 0 when it is not known.
    pub line: usize,
    /// From 1, in characters; 0 when it is not known.
    pub column: usize,
    /// What is wrong there.
    pub problem: String,
    /// What is probably to be done about it.
    pub help: Option<Help>,
}

/// What is to be done where many fall into the same hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Help {
    /// YAML has no tabs there.
    IndentWithSpaces,
    /// An expression is something else to YAML.
    QuoteExpression,
    /// So are some words.
    QuoteWord,
    /// And what begins with an exclamation mark.
    QuoteTag,
}

impl Help {
    /// One line for people.
    pub fn text(self) -> &'static str {
        match self {
            Help::IndentWithSpaces => "indent with spaces",
            Help::QuoteWord => "without quotes y, n, yes, no, on and off are true and false in YAML",
            Help::QuoteTag => "put quotes around what begins with \"!\", which is a tag in YAML",
            Help::QuoteExpression => {
                "put quotes around an expression that contains \": \" or braces, other quotes than those in it"
            }
        }
    }
}

impl YamlError {
    fn new(error: &serde_saphyr::Error) -> Self {
        // Without the snippet, which is the caller's to draw, and without the place, which is in fields of its own.
        let text = error.without_snippet().to_string();
        let mut parts = text.split(" at line ");
        let problem = parts.next().unwrap_or_default();
        let place = parts.next().and_then(|place| {
            let (line, column) = place.split_once(", column ")?;
            let digits = column.find(|c: char| !c.is_ascii_digit()).unwrap_or(column.len());
            Some((line.parse().ok()?, column.get(..digits)?.parse().ok()?))
        });
        let known = || {
            error.location().and_then(|at| Some((at.line().try_into().ok()?, at.column().try_into().ok()?)))
        };
        let (line, column) = place.or_else(known).unwrap_or_default();
        // Advice for programmers, not for authors.
        let problem = problem.split(", set DuplicateKeyPolicy").next().unwrap_or_default();
        let problem = match problem.split_once("; use from_str_multiple") {
            Some((problem, _)) => format!("{problem}: separate documents with ---"),
            None => problem.to_owned(),
        };
        YamlError { line, column, problem, help: None }
    }

    /// The same about a whole text, whose authors fall into the same few holes.
    fn of_text(error: &serde_saphyr::Error, text: &str) -> Self {
        let error = YamlError::new(error);
        let lines = || text.lines().zip(1..).skip(error.line.saturating_sub(1));
        if error.problem.contains("tab") {
            // The parser complains where the line before ends, or behind the tab.
            let indented = lines().find_map(|(line, number)| {
                let content = line.trim_start();
                let indentation = line.get(..line.len() - content.len())?;
                Some((number, indentation.find('\t')? + 1)).filter(|_| !content.is_empty())
            });
            if let Some((line, column)) = indented {
                let problem = "a tab in the indentation".to_owned();
                return YamlError { line, column, problem, help: Some(Help::IndentWithSpaces) };
            }
        }
        let is_about_keys = error.problem.starts_with("duplicate");
        let has_expression = lines().next().is_some_and(|(line, _)| line.contains("${"));
        YamlError { help: (has_expression && !is_about_keys).then_some(Help::QuoteExpression), ..error }
    }
}

/// kubectl's YAML is YAML 1.1 for scalars: `014` is twelve. Booleans (`yes`, `on`) agree by default.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { legacy_octal_numbers: true }
}

/// Reads one document into a type; unknown fields are the type's to refuse.
///
/// # Errors
/// Not YAML, or not of this type.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| YamlError::new(&error))
}

/// Reads one document into a tree. Of keys that are there twice the last counts: whoever wants to say so looks for them.
pub(crate) fn to_tree(text: &str) -> Result<Json<'static>, YamlError> {
    let mut options = options();
    options.duplicate_keys = serde_saphyr::DuplicateKeyPolicy::LastWins;
    let tree = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        Json::deserialize(deserializer).map(Json::into_owned)
    });
    tree.map_err(|error| YamlError::of_text(&error, text))
}

/// Turns one document into JSON text, its fields in the order in which they were written.
///
/// # Errors
/// Not YAML, or YAML that JSON cannot say.
pub fn to_json(text: &str) -> Result<String, YamlError> {
    let json = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |deserializer| {
        let mut json = Vec::with_capacity(text.len());
        serde_transcode::transcode(deserializer, &mut serde_json::Serializer::new(&mut json))
            .map_err(serde_saphyr::Error::custom)?;
        String::from_utf8(json).map_err(serde_saphyr::Error::custom)
    });
    json.map_err(|error| YamlError::of_text(&error, text))
}

#[cfg(test)]
mod tests {
    #[test]
    fn scalars_are_read_as_kubectl_reads_them() {
        let json =
            super::to_json("b: yes\na: [on, 014, 1_000, 0b11, ~, '014', \"y\"]\nc: {d: 0.5}\n").unwrap();
        assert_eq!(json, r#"{"b":true,"a":[true,12,1000,3,null,"014","y"],"c":{"d":0.5}}"#);
    }

    #[test]
    fn errors_say_where_they_are_and_what_is_wrong() {
        for (text, line, column, problem) in [
            ("a: 1\nb: 2\nb: 3\n", 3, 1, "duplicate mapping key: b"),
            ("a: 1\nb: [\n", 2, 4, "unclosed bracket '['"),
            ("a: 1\n...\nb: 2\n", 3, 1, "multiple YAML documents detected: separate documents with ---"),
        ] {
            let error = super::to_json(text).unwrap_err();
            assert_eq!((error.line, error.column, error.problem.as_str()), (line, column, problem));
        }
        for (text, line, column, help) in [
            ("a:\n  - b\n\t- c\n", 3, 1, super::Help::IndentWithSpaces),
            ("a:\n\tb: 1\n", 2, 1, super::Help::IndentWithSpaces),
            ("a:\n  b:\n  \tc: 1\n", 3, 3, super::Help::IndentWithSpaces),
            ("a:\n\t- b\n", 2, 1, super::Help::IndentWithSpaces),
            ("a:\n  b: 1\n\n\tc: 1\n", 4, 1, super::Help::IndentWithSpaces),
            ("a: ${b ? c : d}\n", 1, 12, super::Help::QuoteExpression),
            ("a:\n- ${b ? {\"c\": 1} : null}\n", 2, 18, super::Help::QuoteExpression),
            ("a: \"${b ? \"c\" : \"d\"}\"\n", 1, 12, super::Help::QuoteExpression),
            ("{a: ${b}}\n", 1, 6, super::Help::QuoteExpression),
        ] {
            let error = super::to_json(text).unwrap_err();
            assert_eq!(
                (error.line, error.column, error.help),
                (line, column, Some(help)),
                "{text:?}: {error}"
            );
            assert!(super::to_tree(text).is_err());
        }
        for text in ["a: ${b}\na: ${c}\n", "a:\n  - b\n - c\n"] {
            assert_eq!(super::to_json(text).unwrap_err().help, None, "{text:?}");
        }
        let error = super::parse::<std::collections::BTreeMap<String, u8>>("a: 1\nb: x\n").unwrap_err();
        assert_eq!((error.line, error.column), (2, 4), "{error}");
    }
}
