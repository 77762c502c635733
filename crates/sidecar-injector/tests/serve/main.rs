//! The server as a process, spoken to over HTTPS by a real client.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "a test fails by panicking, and its helpers take what is handy"
)]

mod answers;
mod callers;
mod certificates;
mod check;
mod client;
mod connections;
mod definitions;
mod metrics;
mod server;
mod shutdown;
mod validation;
