//! The only commands a contributor types: `cargo xtask test | demo | image | generate | bench`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod demo;
mod generate;
mod image;
mod suites;
mod test;

#[derive(Parser)]
#[command(name = "cargo xtask", about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every check and test: lints, units, charts, a throwaway Kubernetes, a real node
    Test(test::Arguments),
    /// Start a throwaway Kubernetes, install both charts, show the injected pod
    Demo(demo::Arguments),
    /// Build the container image as an archive, without a container daemon
    Image(image::Arguments),
    /// Write the generated files (plain manifests, tables of values, schemas of definitions); with --check only say whether they are fresh
    Generate(generate::Arguments),
    /// Measure what a review costs, beside a webhook that does nothing else
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Test(arguments) => test::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Image(arguments) => image::run(arguments),
        Command::Generate(arguments) => generate::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the stack that anyhow shows where RUST_BACKTRACE is set: what failed is in the lines above.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
