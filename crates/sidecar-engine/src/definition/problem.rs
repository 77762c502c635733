//! What is wrong with a definition, and where. All problems of a definition are reported at once.

use std::fmt;

use super::DefinitionName;
use crate::yaml::Help;

/// One thing that is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind of mistake it is.
    pub code: ProblemCode,
    /// Which field has it; empty for the whole document.
    pub path: FieldPath,
    /// What is wrong, in one line without a full stop.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
    /// What is probably to be done about it.
    pub help: Option<Help>,
    /// Where it is in the text, when that is known.
    pub place: Option<Place>,
}

/// Where something is in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// From where to where, in bytes.
    pub start: usize,
    /// The byte after it.
    pub end: usize,
}

/// The kinds of mistakes; their codes are stable, messages may get better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemCode {
    /// The text is not YAML.
    Syntax,
    /// A key is there twice in one map.
    DuplicateKey,
    /// A field that is not known there.
    UnknownField,
    /// A value of another type than the field's.
    WrongType,
    /// A field that must be there.
    MissingField,
    /// A value that the field cannot have.
    InvalidValue,
    /// A name that Kubernetes does not allow there.
    InvalidName,
    /// Two items of one list have the same key.
    DuplicateName,
    /// Something refers to what is not there.
    DanglingReference,
    /// A selector that no pod can match.
    NeverMatches,
    /// An expression that is not CEL, or costs too much.
    InvalidExpression,
    /// Something that Kubernetes would refuse.
    NotAllowed,
    /// Another definition has the same name.
    NameTaken,
}

impl ProblemCode {
    /// Every code, for the documentation.
    pub const ALL: [ProblemCode; 13] = [
        ProblemCode::Syntax,
        ProblemCode::DuplicateKey,
        ProblemCode::UnknownField,
        ProblemCode::WrongType,
        ProblemCode::MissingField,
        ProblemCode::InvalidValue,
        ProblemCode::InvalidName,
        ProblemCode::DuplicateName,
        ProblemCode::DanglingReference,
        ProblemCode::NeverMatches,
        ProblemCode::InvalidExpression,
        ProblemCode::NotAllowed,
        ProblemCode::NameTaken,
    ];

    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            ProblemCode::Syntax => "Syntax",
            ProblemCode::DuplicateKey => "DuplicateKey",
            ProblemCode::UnknownField => "UnknownField",
            ProblemCode::WrongType => "WrongType",
            ProblemCode::MissingField => "MissingField",
            ProblemCode::InvalidValue => "InvalidValue",
            ProblemCode::InvalidName => "InvalidName",
            ProblemCode::DuplicateName => "DuplicateName",
            ProblemCode::DanglingReference => "DanglingReference",
            ProblemCode::NeverMatches => "NeverMatches",
            ProblemCode::InvalidExpression => "InvalidExpression",
            ProblemCode::NotAllowed => "NotAllowed",
            ProblemCode::NameTaken => "NameTaken",
        }
    }
}

impl Problem {
    /// The name of a definition that another one has already, which stands at `other`.
    pub fn name_taken(name: &DefinitionName, other: &str) -> Self {
        let message = format!("there is a {name} already, at {other}");
        Problem::new(ProblemCode::NameTaken, FieldPath::of("metadata.name"), message)
    }

    /// A problem without a suggestion, whose place is not known yet.
    pub fn new(code: ProblemCode, path: FieldPath, message: impl Into<String>) -> Self {
        Problem { code, path, message: message.into(), suggestion: None, help: None, place: None }
    }
}

/// One line: `spec.order: must be an integer, not a string [WrongType]`.
impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.0.is_empty() {
            write!(formatter, "{}: ", self.path)?;
        }
        formatter.write_str(&self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(formatter, "; did you mean {suggestion:?}?")?;
        }
        if let Some(help) = self.help {
            write!(formatter, "; {}", help.text())?;
        }
        write!(formatter, " [{}]", self.code.code())
    }
}

/// The way to a field from the top of its document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FieldPath(pub(crate) Vec<Step>);

/// One step of a [`FieldPath`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Field(String),
    Item(usize),
}

impl FieldPath {
    /// The path of a field that is given with dots, such as `spec.inject.spec`.
    pub fn of(dotted: &str) -> Self {
        FieldPath(dotted.split('.').map(|field| Step::Field(field.to_owned())).collect())
    }

    /// The path of a field below this one.
    pub(crate) fn field(&self, name: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Field(name.to_owned()));
        path
    }

    /// The path of an item of the list that this is the path of.
    pub(crate) fn item(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Item(index));
        path
    }
}

/// As in kubectl: `spec.containers[0].env`, and keys with dots or slashes in brackets.
impl fmt::Display for FieldPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Item(index) => write!(formatter, "[{index}]")?,
                Step::Field(name) if name.contains(['.', '/', '[', ' ']) => write!(formatter, "[{name:?}]")?,
                Step::Field(name) if position == 0 => formatter.write_str(name)?,
                Step::Field(name) => write!(formatter, ".{name}")?,
            }
        }
        Ok(())
    }
}
