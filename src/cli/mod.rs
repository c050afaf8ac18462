//! Floor 6: the commands.

mod check_config;
mod client_config;
mod explain;
mod healthcheck;
mod limits;
mod log;
mod operator;
mod process;
mod refresh;
mod reload;
mod serve;
mod store;
mod systemd;
mod telemetry;
#[cfg(feature = "otel")]
mod traces;
mod translate;
mod warm;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::file::{File, UnusableFile};
use crate::config::{self, ServeArguments, one_line};

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
    /// Say whether the configuration can be used, and print what is in force, without secrets
    CheckConfig(Box<check_config::Arguments>),
    /// Translate one manifest, offline; the document goes to standard output
    Translate(Box<translate::Arguments>),
    /// Say what is stored under a name and what each kind of client would get
    Explain(Box<explain::Arguments>),
    /// Ask a running gateway whether it is ready; exit 0 if it is
    Healthcheck(healthcheck::Arguments),
    /// Let a running gateway forget what tags name, so that it asks the upstream when they are asked for next
    Refresh(refresh::Arguments),
    /// Make what clients would wait for ahead, into the store of a gateway
    Warm(Box<warm::Arguments>),
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
    let line = CommandLine(std::env::args_os().collect());
    let (command, file) = match line.read() {
        Ok((commands, file)) => (commands.command, file),
        Err(Misread::Arguments(error)) => return refused(&error),
        Err(Misread::File(error)) => return complain(&error.to_string()),
    };
    let done = match command {
        Command::Serve(arguments) => serve::run(*arguments, &file, line),
        Command::CheckConfig(arguments) => check_config::run(&arguments, &file, &line),
        Command::Translate(arguments) => translate::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Healthcheck(arguments) => healthcheck::run(&arguments),
        Command::Refresh(arguments) => refresh::run(&arguments),
        Command::Warm(arguments) => warm::run(&arguments, &file),
        Command::Store(command) => store::run(*command),
        Command::ClientConfig(arguments) => client_config::run(&arguments),
        Command::Version => print(concat!("schemabridge ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string()),
    }
}

/// What the process was started with. It can be read again, with what the file says by then.
#[derive(Clone, Debug)]
struct CommandLine(Vec<OsString>);

/// Why a command line cannot be read.
#[derive(Debug, thiserror::Error)]
enum Misread {
    #[error("{}", one_line(.0))]
    Arguments(#[from] clap::Error),
    #[error(transparent)]
    File(#[from] UnusableFile),
}

impl CommandLine {
    /// The command, and the file that it names: what that says of flags is in the command already.
    fn read(&self) -> Result<(Commands, File), Misread> {
        let (command, file) = self.command()?;
        let matches = command.try_get_matches_from(&self.0)?;
        Ok((Commands::from_arg_matches(&matches)?, file))
    }

    /// Every flag of the command with what it is, as a file would say it.
    fn flags(&self) -> Result<Vec<(String, Vec<String>)>, Misread> {
        let (command, _) = self.command()?;
        let matches = command.clone().try_get_matches_from(&self.0)?;
        let Some((name, matches)) = matches.subcommand() else { return Ok(Vec::new()) };
        Ok(command.find_subcommand(name).map(|command| config::flags_in_force(command, matches)).unwrap_or_default())
    }

    /// The commands, where the file's word is what a flag is if nobody says otherwise.
    fn command(&self) -> Result<(clap::Command, File), UnusableFile> {
        let mut command = Commands::command();
        let mut file = File::default();
        if let Some((name, path)) = self.file()
            && let Some(subcommand) = command.find_subcommand(&name)
        {
            file = File::read(&path, subcommand)?;
            command = command.mut_subcommand(&name, |subcommand| file.as_defaults(subcommand));
        }
        Ok((command, file))
    }

    /// The name of the command and of its file, as far as can be told before that is read.
    fn file(&self) -> Option<(String, PathBuf)> {
        let matches = Commands::command().ignore_errors(true).try_get_matches_from(&self.0).ok()?;
        let (name, matches) = matches.subcommand()?;
        let path = matches.try_get_one::<PathBuf>("config").ok()??;
        Some((name.to_owned(), path.clone()))
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
    complain(&one_line(error))
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
