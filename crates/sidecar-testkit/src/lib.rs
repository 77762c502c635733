//! Test only: a throwaway Kubernetes, temporary namespaces, and the images of the demo.

pub mod archive;
mod by_url;
mod cluster;
mod command;
mod control_plane;
pub mod demo_images;
mod egress;
mod fake_node;
mod go_build;
mod interrupt;
mod keys;
mod namespace;
mod node;
mod ports;
mod process;
mod programs;
mod scheduler;
mod state;
pub mod unverified;
mod uplink;

pub use by_url::WebhookByUrl;
pub use cluster::{Cluster, Options, Tier};
pub use command::{CommandOutput, HelmVersion};
pub use egress::{Egress, EgressMode};
pub use fake_node::{FAKE_NODE, FakeNode, RunningContainer};
pub use namespace::TemporaryNamespace;
pub use node::why_not_possible;
pub use programs::{Program, Programs, repository_root};
pub use uplink::Uplink;
