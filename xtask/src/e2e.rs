//! Runs programs of this workspace on freshly built ones: the end-to-end tests, here or in virtual machines, and the
//! whole-system benchmark.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use serde_json::Value;

/// Builds the workspace as the tests do, and runs the end-to-end tests.
pub fn run(root: &Path, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let built = build(root, &["--workspace"])?;
    start(&find(&built, "e2e")?, arguments, &find(&built, "monopod")?)
}

/// Builds the workspace as the tests do, and runs the tests of virtual machines.
pub fn vm(root: &Path, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let built = build(root, &["--workspace"])?;
    let mut script = Command::new(root.join("tests/vm/run"));
    script.args(arguments).env("E2E_BIN", find(&built, "e2e")?);
    finish(script, &find(&built, "monopod")?)
}

/// Builds the release binary, which is what is measured, and the benchmark.
fn build_bench(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    build(root, &["--release", "--package=monopod", "--package=system-bench"])
}

/// Builds what is measured, and runs the benchmark in a virtual machine.
pub fn bench_vm(root: &Path) -> anyhow::Result<ExitCode> {
    let built = build_bench(root)?;
    let mut script = Command::new(root.join("tests/vm/run"));
    script.arg("bench").env("BENCH_BIN", find(&built, "system-bench")?);
    finish(script, &find(&built, "monopod")?)
}

/// Builds what is measured, and runs the benchmark.
pub fn bench(root: &Path, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let built = build_bench(root)?;
    start(&find(&built, "system-bench")?, arguments, &find(&built, "monopod")?)
}

/// The executables that cargo made, wherever it put them.
fn build(root: &Path, arguments: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--message-format=json-render-diagnostics"])
        .args(arguments)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo build")?;
    anyhow::ensure!(output.status.success(), "cargo build failed");
    let mut built = Vec::new();
    for line in output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let message: Value = serde_json::from_slice(line).context("cargo's message is not JSON")?;
        built.extend(message.get("executable").and_then(Value::as_str).map(PathBuf::from));
    }
    Ok(built)
}

fn find(built: &[PathBuf], name: &str) -> anyhow::Result<PathBuf> {
    let found = built.iter().find(|path| path.file_name().is_some_and(|file| file == name));
    found.cloned().with_context(|| format!("cargo built no {name}"))
}

fn start(program: &Path, arguments: &[String], monopod: &Path) -> anyhow::Result<ExitCode> {
    let mut command = Command::new(program);
    command.args(arguments);
    finish(command, monopod)
}

fn finish(mut command: Command, monopod: &Path) -> anyhow::Result<ExitCode> {
    command.env("MONOPOD_BIN", monopod);
    let status = command.status().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
