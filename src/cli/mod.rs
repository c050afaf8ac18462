//! Floor 6: the commands.

mod client_config;
mod explain;
mod healthcheck;
mod log;
mod serve;
mod store;
mod translate;

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::config::ServeArguments;

/// Answers every container client in a manifest format that it can read.
#[derive(Parser, Debug)]
#[command(name = "schemabridge", version, disable_help_subcommand = true)]
pub(crate) struct Commands {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Stand in front of a registry and answer clients
    Serve(Box<ServeArguments>),
    /// Translate one manifest, offline; the document goes to standard output
    Translate(Box<translate::Arguments>),
    /// Say what is stored under a name and what each kind of client would get
    Explain(Box<explain::Arguments>),
    /// Ask a running gateway whether it is ready; exit 0 if it is
    Healthcheck(healthcheck::Arguments),
    /// Look at a store, or clear it up
    #[command(subcommand)]
    Store(Box<store::Command>),
    /// Print or write what a machine needs so that its pulls go through a gateway
    ClientConfig(Box<client_config::Arguments>),
    /// Print the version
    Version,
}

/// Runs the command that the process was started with. Whatever cannot be done is one line on standard error and exit 1.
pub fn run() -> ExitCode {
    let command = match Commands::try_parse() {
        Ok(commands) => commands.command,
        Err(error) => return refused(&error),
    };
    let done = match command {
        Command::Serve(arguments) => serve::run(*arguments),
        Command::Translate(arguments) => translate::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Healthcheck(arguments) => healthcheck::run(&arguments),
        Command::Store(command) => store::run(*command),
        Command::ClientConfig(arguments) => client_config::run(&arguments),
        Command::Version => print(concat!("schemabridge ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string()),
    }
}

/// Help is asked for, anything else is a mistake: one line, in the words of the flag that refused.
fn refused(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        // Nobody is left to tell when standard output is closed.
        let _ = error.print();
        return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let text = error.to_string();
    let sentence: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let line = without_password(&sentence.join(" "));
    complain(line.strip_prefix("error: ").unwrap_or(&line))
}

/// A mistyped value is repeated, but not where it may hold a password: one with an `@` is a URL with a user, however odd.
fn without_password(line: &str) -> String {
    const BEFORE: &str = "invalid value '";
    const AFTER: &str = "' for '--";
    let (Some(start), Some(end)) = (line.find(BEFORE), line.rfind(AFTER)) else { return line.to_owned() };
    match line.get(start + BEFORE.len()..end) {
        Some(value) if value.contains('@') => {
            let (before, after) = (line.get(..start).unwrap_or_default(), line.get(end..).unwrap_or_default());
            format!("{before}{BEFORE}[redacted]{after}")
        }
        _ => line.to_owned(),
    }
}

fn complain(line: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "schemabridge: {line}");
    ExitCode::FAILURE
}

/// Why a command failed, in one line.
type Failure = Box<dyn std::error::Error>;

fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    output.write_all(bytes)?;
    output.flush()?;
    Ok(())
}
