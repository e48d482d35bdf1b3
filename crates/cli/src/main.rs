//! `tinsmith`: looks after what a training server keeps.

mod args;
mod chart;
mod commands;
mod new_file;
mod plot;
mod table;

use std::process::ExitCode;

use args::Invocation;

fn main() -> ExitCode {
    let outcome = args::parse().and_then(|invocation| match invocation {
        Invocation::Help => {
            print!("{}", args::USAGE);
            Ok(())
        }
        Invocation::Run(options, command) => commands::run(&options, command),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tinsmith: {error:#}");
            ExitCode::FAILURE
        }
    }
}
