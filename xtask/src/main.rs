//! Checks and tools of the project: see `cargo xtask --help`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool of the project, run by hand and by `make`")]
#![allow(clippy::disallowed_methods, reason = "it runs cargo")]

mod architecture;
mod check;
mod codegen;
mod crates;
mod e2e;
mod security;
mod sources;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// Checks and tools of the project.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Checks what the compiler does not: who may use whom, where unsafe code stands, what the documents name.
    Check,
    /// Builds everything and runs the end-to-end tests: `cargo xtask e2e logs` runs those with `logs` in their name.
    E2e {
        /// Handed on to the test runner; `-- --help` tells what it takes.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Writes what is made from Kubernetes' own descriptions of its kinds.
    #[command(subcommand)]
    Codegen(codegen::Codegen),
    /// Builds everything and tests it in virtual machines: `tests/vm/run` says what they need.
    Vm {
        /// Handed on to `tests/vm/run`: the parts to run.
        arguments: Vec<String>,
    },
    /// Builds for release and measures the whole system: start, exec, delete, memory.
    Bench {
        /// Handed on to the benchmark; `-- --help` tells what it takes.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The same in short in a virtual machine: `tests/vm/run` says what that needs.
    BenchVm,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Check => {
            let root = project()?;
            let mut found = crates::check(&root)?;
            found.extend(sources::check(&root)?);
            found.extend(architecture::check(&root)?);
            found.extend(security::check(&root)?);
            Ok(check::report(&found))
        }
        Task::E2e { arguments } => e2e::run(&project()?, &arguments),
        Task::Codegen(what) => codegen::run(&project()?, &what),
        Task::Vm { arguments } => e2e::vm(&project()?, &arguments),
        Task::Bench { arguments } => e2e::bench(&project()?, &arguments),
        Task::BenchVm => e2e::bench_vm(&project()?),
    }
}

/// The project's directory.
fn project() -> anyhow::Result<PathBuf> {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).context("xtask stands in the project")
}
