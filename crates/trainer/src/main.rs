//! `tinsmith-trainer`: the local trainer as a program.

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;
use tinsmith_trainer::Trainer;
use tinsmith_trainer::model::PRESETS;

const USAGE: &str = "\
A local trainer: small Qwen3-style models with LoRA behind the Tinker training protocol.

Usage: tinsmith-trainer [OPTIONS]

Options:
  --port PORT        Port to listen on [default: 8000]
  --host HOST        Address to listen on [default: 127.0.0.1]
  --state-dir DIR    Folder of the checkpoints [default: tinsmith-state]
  --api-key KEY      Key that requests must carry as X-API-Key [default: none]
  --seed SEED        Seed of the base models' random weights [default: 0]
  -h, --help         Print this help
";

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tinsmith-trainer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let mut builder = Trainer::builder().port(8000);
    let mut state_dir = PathBuf::from("tinsmith-state");
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("port") => builder = builder.port(args.value()?.parse()?),
            Long("host") => builder = builder.host(args.value()?.string()?),
            Long("state-dir") => state_dir = args.value()?.into(),
            Long("api-key") => builder = builder.api_key(args.value()?.string()?),
            Long("seed") => builder = builder.seed(args.value()?.parse()?),
            Short('h') | Long("help") => {
                print!("{USAGE}");
                return Ok(());
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let trainer = builder.state_dir(&state_dir).spawn()?;
    println!("listening on {}", trainer.url());
    println!("base models: {}", PRESETS.join(", "));
    println!("checkpoints: {}", state_dir.display());
    println!("stop with Ctrl-C");
    Ok(trainer.serve_until_interrupted()?)
}
