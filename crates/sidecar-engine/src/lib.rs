//! Adds sidecars to Kubernetes pods: review bytes in, response bytes out.
//!
//! Pure: no I/O, no clock, no random numbers, no async, no panics. The same engine answers the admission webhook and
//! works for the command line. A request flows through the modules in this order, and the type at each arrow is made
//! only by the stage before it:
//!
//! ```text
//! bytes --review--> Request --select--> Selection --render--> Fragments --merge--> Merged --patch--> Patch --review--> bytes
//! definition text --read--> Definition --compile--> Compiled --^   (an Engine holds the set)
//! ```
//!
//! The pod stays untyped JSON from end to end: [`pod`] reads the few fields that selecting and merging need, and
//! everything else stays text. A typed pod would drop the fields that a newer Kubernetes has and we do not know.
//!
//! ```
//! let engine = sidecar_engine::Engine::builtin();
//! let pod = r#"{"metadata":{"labels":{"sidecar.me/inject":"true"}},"spec":{"containers":[{"name":"app"}]}}"#;
//! let injection = engine.inject(pod, &sidecar_engine::Namespace::unknown("default"))?;
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
mod expression;
mod fingerprint;
mod json;
mod merge;
mod names;
mod namespace;
mod parameter;
mod patch;
mod pod;
mod quantity;
mod render;
mod review;
mod running;
mod select;
mod shape;
mod suggestion;
mod template;
pub mod yaml;

pub use decision::{Change, ChangeKind, Decision, Reason};
pub use engine::{EXCLUDED_NAMESPACES, Engine, Injection, Reviewed};
pub use error::{PodError, ReviewError};
pub use fingerprint::fingerprint;
pub use namespace::{Namespace, Namespaces, NoNamespaces};
pub use patch::{Operation, Patch, Verb, apply_all};
pub use pod::{Owner, PROBE_ANSWER, PROBE_KEY, PROBE_QUESTION};
pub use review::{DefinitionReviewed, review_definition};
pub use running::{Standing, State};
