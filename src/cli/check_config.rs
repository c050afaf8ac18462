//! `schemabridge check-config`.

use clap::{Args, CommandFactory};

use crate::config::ServeArguments;
use crate::config::file::File;

use super::{CommandLine, Commands, Failure, print, serve};

/// The flags of `serve`, and one.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    serve: ServeArguments,
    /// Print the documentation of every key instead
    #[arg(long, hide = true)]
    documentation: bool,
}

pub(super) fn run(arguments: &Arguments, file: &File, line: &CommandLine) -> Result<(), Failure> {
    if arguments.documentation {
        let command = Commands::command();
        let serve = command.find_subcommand("serve").ok_or("there is no command `serve`")?;
        return print(crate::config::documentation(serve).as_bytes());
    }
    let options = arguments.serve.options(file)?;
    options.site.check()?;
    serve::tls(&arguments.serve)?;
    serve::access(&arguments.serve.admin)?;
    let shown = crate::config::in_force(&line.flags()?, &arguments.serve.gateway, file, &options)?;
    print(shown.as_bytes())
}
