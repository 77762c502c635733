//! What the injector says about its work afterwards, on a real API server, with the rights that the chart gives it.

// A test may panic; clippy.toml says so for the test functions, this for their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod memory;
mod pods;
mod status;
