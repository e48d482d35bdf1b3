//! `tinsmith-trainer`: the local trainer as a program.

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;
use tinsmith_trainer::Trainer;
use tinsmith_wire::json;

const USAGE: &str = "\
A local trainer: Qwen3 and Llama models with LoRA behind the Tinker training protocol.

Usage: tinsmith-trainer [OPTIONS]

Options:
  --port PORT        Port to listen on [default: 8000]
  --host HOST        Address to listen on [default: 127.0.0.1]
  --model [NAME=]DIR Also serve the Qwen3 or Llama checkpoint in DIR, under NAME or the folder's own name;
                     may be given several times
  --state-dir DIR    Folder of the checkpoints [default: tinsmith-state]
  --api-key KEY      Key that requests must carry as X-API-Key [default: none]
  --seed SEED        Seed of the base models' random weights [default: 0]
  --client-config JSON
                     Limits and switches that clients are told, such as '{\"fwdbwd_max_chunk_len\": 16}'
                     [default: the protocol's]
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
            Long("model") => {
                let (name, folder) = named_folder(&args.value()?.string()?)?;
                builder = builder.model(name, folder);
            }
            Long("state-dir") => state_dir = args.value()?.into(),
            Long("api-key") => builder = builder.api_key(args.value()?.string()?),
            Long("seed") => builder = builder.seed(args.value()?.parse()?),
            Long("client-config") => {
                let config = json::from_slice(args.value()?.string()?.as_bytes());
                let config = config.map_err(|e| format!("--client-config: {e}"))?;
                builder = builder.client_config(config);
            }
            Short('h') | Long("help") => {
                print!("{USAGE}");
                return Ok(());
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let trainer = builder.state_dir(&state_dir).spawn()?;
    println!("listening on {}", trainer.url());
    println!("base models: {}", trainer.base_models().join(", "));
    println!("checkpoints: {}", state_dir.display());
    println!("stop with Ctrl-C");
    Ok(trainer.serve_until_interrupted()?)
}

/// `NAME=DIR`, or `DIR` under the name of the folder itself.
fn named_folder(value: &str) -> Result<(String, PathBuf), Error> {
    if let Some((name, folder)) = value.split_once('=') {
        return Ok((name.to_owned(), folder.into()));
    }
    let folder = PathBuf::from(value).canonicalize();
    let folder = folder.map_err(|e| format!("--model {value}: {e}"))?;
    let name = folder.file_name().and_then(|name| name.to_str());
    let name =
        name.ok_or_else(|| format!("--model {value}: the folder has no name; write NAME=DIR"))?;
    Ok((name.to_owned(), folder))
}
