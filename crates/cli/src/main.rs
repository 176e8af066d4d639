//! The binary `monopod`: reads the command line, talks to the daemon or becomes it, and shows what goes wrong.
#![forbid(unsafe_code)]

mod age;
mod archive;
mod args;
mod catalog;
mod chosen;
mod client;
mod commands;
mod config_file;
mod connector;
mod context;
mod daemon;
mod errors;
mod escape;
mod fields;
mod json_path;
mod manifests;
mod merge;
mod node_args;
mod output;
mod pod_progress;
mod progress;
mod pull_progress;
mod registries;
mod resources;
mod session;
mod table;
mod terminal;
mod timeline;
mod upload;
mod watch;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser as _};

use args::{Cli, Command, Global};
use client::Client;
use context::Context;
use errors::{ExitStatus, OutputClosed};
use output::Output;
use sys::memory::Heap;

#[global_allocator]
static HEAP: Heap = Heap;

/// What a shell reports of a program that SIGPIPE ends.
const ENDED_BY_SIGPIPE: u8 = 141;

fn main() -> ExitCode {
    // `monopod infra POD` is started by the daemon for each Pod: one thread, and no more memory than it needs.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|command| command == "infra") {
        return infra_process(&arguments.next().unwrap_or_default().to_string_lossy());
    }
    let arguments = match config_file::with_config_file(Cli::command, std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(failure) => return exit_code(&failure.into()),
    };
    match run(Cli::parse_from(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit_code(&error),
    }
}

fn infra_process(pod: &str) -> ExitCode {
    match infra::run(pod).context("infra") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit_code(&error),
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Serve(arguments) => commands::serve::serve(*arguments),
        Command::Cri(arguments) => commands::cri::cri(*arguments),
        Command::Check(arguments) => commands::check::check(&arguments),
        Command::Kubeconfig(arguments) => commands::kubeconfig::kubeconfig(&arguments),
        Command::Restore(arguments) => commands::backup::restore(&arguments),
        Command::Completion { shell } => completion(shell),
        command => {
            // One thread is enough to talk to one daemon, and starts faster.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.context("cannot start")?;
            let result = runtime.block_on(talk(command, cli.global));
            // A write to a stuck terminal must not keep the program from ending.
            runtime.shutdown_background();
            result
        }
    }
}

/// The commands that ask the daemon.
async fn talk(command: Command, global: Global) -> Result<()> {
    let mut context =
        Context { client: Client::new(&global.socket), asked_namespace: global.namespace, out: Output::stdout() };
    let context = &mut context;
    match command {
        Command::Run(arguments) => commands::run::run(&arguments, context).await,
        Command::Get(arguments) => commands::get::get(&arguments, context).await,
        Command::Describe(arguments) => commands::describe::describe(&arguments, context).await,
        Command::Logs(arguments) => commands::logs::logs(&arguments, context).await,
        Command::Exec(arguments) => commands::exec::exec(&arguments, context).await,
        Command::Attach(arguments) => commands::exec::attach(&arguments, context).await,
        Command::Cp(arguments) => commands::cp::cp(&arguments, context).await,
        Command::PortForward(arguments) => commands::port_forward::port_forward(&arguments, context).await,
        Command::Debug(arguments) => commands::debug::debug(&arguments, context).await,
        Command::Apply(arguments) => commands::apply::apply(&arguments, context).await,
        Command::Create(arguments) => commands::apply::create(&arguments, context).await,
        Command::Delete(arguments) => commands::delete::delete(&arguments, context).await,
        Command::Wait(arguments) => commands::wait::wait(&arguments, context).await,
        Command::Events(arguments) => commands::events::events(&arguments, context).await,
        Command::Top(arguments) => commands::top::top(&arguments, context).await,
        Command::Timeline(arguments) => commands::timeline::timeline(&arguments, context).await,
        Command::Image(arguments) => commands::image::image(&arguments, context).await,
        Command::Version(arguments) => commands::version::version(&arguments, context).await,
        Command::Shutdown(arguments) => commands::shutdown::shutdown(&arguments, context).await,
        Command::Backup(arguments) => commands::backup::backup(&arguments, context).await,
        Command::Reset(arguments) => commands::reset::reset(&arguments, context).await,
        // These do not ask the daemon and are dealt with in `run`.
        Command::Serve(_)
        | Command::Cri(_)
        | Command::Check(_)
        | Command::Kubeconfig(_)
        | Command::Restore(_)
        | Command::Completion { .. } => Ok(()),
    }
}

fn completion(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "monopod", &mut script);
    let mut out = Output::stdout();
    out.bytes(&script)?;
    out.flush()
}

/// Shows the error, unless it says all by its status.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    if let Some(ExitStatus(status)) = error.downcast_ref() {
        return ExitCode::from(*status);
    }
    if error.downcast_ref::<OutputClosed>().is_some() {
        return ExitCode::from(ENDED_BY_SIGPIPE);
    }
    output::note(&errors::render(error));
    ExitCode::FAILURE
}
