//! What can be wrong with a definition, a pod or a review. Codes are stable; messages may get better.

use crate::yaml::YamlError;

/// A definition that cannot be used. It disables itself, never its neighbours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    /// Not YAML, or a field that is not known, misspelt or of the wrong type.
    #[error(transparent)]
    Text(#[from] YamlError),
    /// A field has a value that cannot be used.
    #[error("{path}: {problem}")]
    Invalid {
        /// The field's path.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A part of the format that this version does not apply yet.
    #[error("{path}: this version cannot apply {what} yet")]
    Unsupported {
        /// The field's path.
        path: String,
        /// What it asks for.
        what: String,
    },
}

impl DefinitionError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Text(_) => "DefinitionText",
            Self::Invalid { .. } => "DefinitionInvalid",
            Self::Unsupported { .. } => "DefinitionUnsupported",
        }
    }

    pub(crate) fn invalid(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), problem: problem.into() }
    }

    pub(crate) fn unsupported(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Unsupported { path: path.into(), what: what.into() }
    }
}

/// A pod (or pod template) that is not even JSON of the right outline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PodError {
    /// Not JSON.
    #[error("the pod is not JSON: {problem}")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What the reader says.
        problem: String,
    },
    /// JSON, but not an object.
    #[error("the pod is not an object")]
    NotAnObject,
}

/// A body that is not an AdmissionReview which could be answered. The server says so with status 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// No body.
    #[error("the body is empty, an AdmissionReview in JSON was expected")]
    Empty,
    /// Not UTF-8, which JSON must be.
    #[error("the body is not UTF-8 (byte {valid_up_to})")]
    NotUtf8 {
        /// How many bytes are.
        valid_up_to: usize,
    },
    /// Not JSON, or an envelope whose fields have other types than an AdmissionReview's.
    #[error("the body is not an AdmissionReview in JSON: {problem}")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What the reader says, with line and column.
        problem: String,
    },
    /// JSON of another kind.
    #[error("the body is not an AdmissionReview: its kind is {kind:?}")]
    NotAReview {
        /// What it says it is.
        kind: String,
    },
    /// A version of the protocol that is not known.
    #[error("apiVersion {version:?} is not known; admission.k8s.io/v1 and admission.k8s.io/v1beta1 are")]
    UnknownVersion {
        /// What it says it is.
        version: String,
    },
    /// An AdmissionReview without `request`.
    #[error("the AdmissionReview has no request")]
    NoRequest,
    /// A request that cannot be answered, because the answer must repeat its uid.
    #[error("the AdmissionReview's request has no uid")]
    NoUid,
}

impl ReviewError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "ReviewEmpty",
            Self::NotUtf8 { .. } => "ReviewNotUtf8",
            Self::Malformed { .. } => "ReviewMalformed",
            Self::NotAReview { .. } => "ReviewKind",
            Self::UnknownVersion { .. } => "ReviewVersion",
            Self::NoRequest => "ReviewNoRequest",
            Self::NoUid => "ReviewNoUid",
        }
    }
}
