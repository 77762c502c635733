//! Manifests: reads streams of documents, finds the pods in them, edits them in place.
//!
//! ```text
//! files ──input──> Source ──documents──> Document ──workload──> pods in it ──> Engine ──edit──> text ──output──>
//! ```

pub(crate) mod documents;
pub(crate) mod edit;
pub(crate) mod input;
pub(crate) mod output;
pub(crate) mod workload;
