//! What can be wrong with a pod or a review; for definitions see [`crate::definition::Problem`]. Codes are stable; messages may get better.

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
