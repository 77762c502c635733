//! What the charts render: the article's objects and names, and the combinations that must not be possible. Needs helm, openssl and
//! promtool, no cluster; what only a cluster can show (upgrades keep the certificate, rotation) is in the tests that have one.

// A test may panic; clippy.toml says so for the test functions, this for their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod article;
mod certificates;
mod definitions;
mod monitoring;
mod profiles;
mod render;
mod rights;
mod subchart;
mod values;
mod workload;
