//! Adds sidecars to Kubernetes pods: review bytes in, response bytes out.
//!
//! Pure: no I/O, no clock, no random numbers, no async, no panics. The same engine answers the admission webhook and
//! works for the command line. A request flows through the modules in this order, and the type at each arrow is made
//! only by the stage before it:
//!
//! ```text
//! bytes --review--> Request --select--> Selection --merge--> Merged --patch--> Patch --review--> bytes
//! definition text --definition--> Definition --compile--> Compiled ----^   (an Engine holds the set)
//! ```
//!
//! The pod stays untyped JSON from end to end: [`pod`] borrows the few fields that selecting and merging read, and
//! everything else is only scanned. A typed pod would drop the fields that a newer Kubernetes has and we do not know.
//!
//! ```
//! let engine = sidecar_engine::Engine::builtin()?;
//! let pod = r#"{"metadata":{"labels":{"sidecar.me/inject":"true"}},"spec":{"containers":[{"name":"app"}]}}"#;
//! let injection = engine.inject(pod)?;
//! assert_eq!(injection.decisions[0].reason, sidecar_engine::Reason::Injected);
//! assert_eq!(injection.patch.operations()[0].path(), "/spec/containers/-");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// No input may make the engine panic.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

mod decision;
pub mod definition;
mod engine;
mod error;
#[expect(dead_code, reason = "taken up by the merge in the next commits")]
mod json;
mod merge;
mod patch;
mod pod;
mod quantity;
mod review;
mod select;
mod view;
pub mod yaml;

pub use decision::{Decision, Reason};
pub use engine::{Engine, Injection, Reviewed};
pub use error::{DefinitionError, PodError, ReviewError};
pub use patch::{Operation, Patch};
