//! The commands that end: each a thin layer over one operation of the engine or of the manifests.

pub(crate) mod check;
mod decisions;
pub(crate) mod inject;
pub(crate) mod review;
pub(crate) mod validate;
pub(crate) mod version;
