//! The command line of `atoll`: the only place where origin, edge and DNS meet.
//!
//! A file per command or family of commands; [`main`] parses, builds what a command needs, runs it,
//! and turns its outcome into an exit code.

mod args;
mod exit;
mod say;
mod logging;
mod context;
mod control;
mod in_force;
mod scan;
mod send;
mod address;
mod publish;
mod versions;
mod purge;
mod status;
mod explain;
mod configuration;
mod journal;
mod token;
mod drain;
mod engines;
mod risks;
mod service;
mod changes;
mod nodes;
mod health;
mod open_files;
mod up;
mod demo;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Arguments, Command, ConfigCommand};
use context::Context;
use exit::{Done, Outcome};

/// Runs the command line and returns its exit code: 0 done, 1 what was typed is wrong, 2 it failed,
/// 3 accepted but not everywhere within the time.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            // There is nowhere left to say that stderr is gone.
            let _ = error.print();
            return ExitCode::from(1);
        }
        Err(asked_for) => return exit::report(say::written(asked_for.print()).map(|()| Done::Everywhere)),
    };
    open_files::raise();
    // Everything that speaks TLS here takes this provider; a second installation only says that it is there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(Err(anyhow::Error::new(error).context("failed to start").into())),
    };
    let logging = {
        let _within = runtime.enter();
        logging::init(&arguments)
    };
    let exporter = match logging {
        Ok(exporter) => exporter,
        Err(failure) => return exit::report(Err(failure)),
    };
    let outcome = runtime.block_on(run(arguments));
    if let Some(exporter) = exporter {
        exporter.shut_down();
    }
    match outcome {
        Ok(Done::CutShort(_)) => runtime.shutdown_background(),
        _ => runtime.shutdown_timeout(std::time::Duration::from_secs(2)),
    }
    exit::report(outcome)
}

async fn run(arguments: Arguments) -> Outcome {
    let context = Context::new(arguments.config.map(PathBuf::from), arguments.set);
    match arguments.command {
        Command::Up(up) => up::run(&context, up).await,
        Command::Origin(origin) => nodes::origin(&context, origin).await,
        Command::Edge { name } => nodes::edge(&context, &name).await,
        Command::Dns { name } => nodes::dns(&context, &name).await,
        Command::Publish(publish) => publish::run(&context, publish).await,
        Command::Rollback(rollback) => versions::rollback(&context, rollback).await,
        Command::Versions(list) => versions::list(&context, list).await,
        Command::Purge(purge) => purge::run(&context, purge).await,
        Command::Status { json } => status::run(&context, json).await,
        Command::Explain(explain) => explain::run(&context, explain).await,
        Command::Check { file, offline } => configuration::check(&file, offline, &context).await,
        Command::Apply(apply) => configuration::apply(&context, apply).await,
        Command::Config(ConfigCommand::Show { in_force: false, json }) => configuration::show(&context, json),
        Command::Config(ConfigCommand::Show { in_force: true, json }) => configuration::show_in_force(&context, json).await,
        Command::Config(ConfigCommand::History { json }) => configuration::history(&context, json).await,
        Command::Config(ConfigCommand::Restore { number }) => configuration::restore(&context, number).await,
        Command::Journal(command) => Box::pin(journal::run(&context, command)).await,
        Command::Token(command) => token::run(&context, command).await,
        Command::Health(health) => health::run(&context, health).await,
        Command::Drain { name } => drain::run(&context, &name).await,
        Command::Demo { listen } => nodes::demo(&context, listen).await,
        Command::Completions { shell } => {
            // It panics where it can't write, so it writes where it can.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "atoll", &mut script);
            say::raw(&script)?;
            Ok(Done::Everywhere)
        }
    }
}
