//! A command in the container, with an end.

use std::time::Duration;

use runtime::{ExecOutput, Runtime, RuntimeError};
use spec::ContainerId;

use super::OUTPUT_LIMIT;

/// How a command came to no good end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecFailure {
    /// It said so itself.
    #[error("command '{command}' exited with {exit_code}: {stderr}")]
    Exited {
        /// With its arguments.
        command: String,
        /// Never 0.
        exit_code: i32,
        /// All that it printed, what went to stdout first.
        output: String,
        /// The part that went to stderr.
        stderr: String,
    },
    /// It took too long and was killed.
    #[error("command timed out: {command:?} timed out after {}s", timeout.as_secs())]
    TimedOut {
        /// With its arguments.
        command: String,
        /// So long.
        timeout: Duration,
    },
    /// It never ran.
    #[error("{}", crate::volumes::chain(.0))]
    Runtime(RuntimeError),
}

/// Runs the command as the container's user and waits for its end.
pub(crate) async fn run(
    runtime: &dyn Runtime,
    id: &ContainerId,
    command: &[String],
    timeout: Duration,
) -> Result<String, ExecFailure> {
    let ran = runtime.exec_sync(id, command.to_vec(), timeout, OUTPUT_LIMIT).await;
    let ExecOutput { exit_code, stdout, stderr } = ran.map_err(ExecFailure::Runtime)?;
    let all = [stdout.as_slice(), stderr.as_slice()].concat();
    let output = String::from_utf8_lossy(all.get(..OUTPUT_LIMIT).unwrap_or(&all)).into_owned();
    match exit_code {
        Some(0) => Ok(output),
        Some(exit_code) => Err(ExecFailure::Exited {
            command: command.join(" "),
            exit_code,
            output,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }),
        None => Err(ExecFailure::TimedOut { command: command.join(" "), timeout }),
    }
}
