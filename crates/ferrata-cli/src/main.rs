//! The `ferrata` program: arguments, progress, exit codes. What it does lies in the library.
//!
//! | file | what |
//! |---|---|
//! | `args.rs` | what can be written on the command line |
//! | `commands/` | one file for each command |
//! | `device.rs` | the devices that programs can run on |
//! | `interrupt.rs` | Ctrl-C |
//! | `progress.rs` | progress of training on the standard output |

mod args;
mod commands;
mod device;
mod interrupt;
mod progress;

use std::process::ExitCode;

use args::{Cli, Command, Data};
use clap::Parser;
use clap::error::{ContextKind, ErrorKind};
use ferrata::train::Error;

/// Wrong input, and errors of any other kind.
const FAILED: u8 = 2;
/// A picture is not what a caption says.
const DIFFERS: u8 = 1;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match cli.command {
        Command::Data(Data::Scenes(args)) => match commands::scenes::run(args) {
            Ok(agrees) => return ExitCode::from(if agrees { 0 } else { DIFFERS }),
            Err(error) => Err(error),
        },
        #[cfg(unix)]
        Command::Launch(args) => commands::launch::run(args),
        Command::Train(args) => commands::train::run(args),
        Command::Generate(args) => commands::generate::run(args),
        Command::Classify(args) => commands::classify::run(args),
        Command::Paint(args) => commands::paint::run(args),
        Command::Eval(args) => commands::eval::run(args),
        Command::Run(args) => commands::run::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Profile(args) => commands::profile::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::Plan(args) => commands::plan::run(args),
        Command::Simulate(args) => commands::simulate::run(args),
        Command::Devices(args) => commands::devices::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Prints help and versions as they are, everything else as one line.
fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // A reader that has gone away is no error.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { FAILED } else { 0 });
        }
        _ => {}
    }
    let text = error.render().to_string();
    // The first paragraph says what is wrong; it may list arguments on lines of their own.
    let first = text.split("\n\n").next().unwrap_or_default();
    let cause = first.trim_start_matches("error: ").trim().to_owned();
    let remedy = match error.get(ContextKind::SuggestedArg) {
        Some(name) => format!("did you mean {name}?"),
        None => "see `ferrata --help` or `ferrata COMMAND --help`".to_owned(),
    };
    eprintln!("error: {}", Error::new(cause, remedy));
    ExitCode::from(FAILED)
}
