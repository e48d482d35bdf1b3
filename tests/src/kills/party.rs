//! What runs in the processes: a trainer with a folder of checkpoints, and a client that goes on
//! from the last of them whenever something fails.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tinsmith_client::{LoraConfig, RetryConfig, ServiceClient};
use tinsmith_trainer::Trainer;

use super::{EVERY, Program, process::Process};
use crate::{BASE_MODEL, FastClock, course};

/// What the client tells, a line each. After each it waits for a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// It trains, from this step on.
    Resumed { step: usize },
    /// So many steps are made.
    Stepped { step: usize },
    /// It asks for a checkpoint.
    Saving { step: usize },
    /// The checkpoint is there, and noted.
    Saved { step: usize, path: String },
    /// Something failed. It tries again.
    Lost { why: String },
}

/// The last checkpoint that the client knows to be good.
#[derive(Debug, Serialize, Deserialize)]
struct Ledger {
    step: usize,
    path: String,
}

/// How often in a row the client may fail without a step between.
const MAX_FAILURES: usize = 100;

pub fn start_trainer(program: &Program, folder: &Path, port: u16) -> Result<Process> {
    let mut command = Command::new(&program.path);
    command.args(&program.arguments).arg("trainer").arg(folder).arg(port.to_string());
    let process = Process::start(&mut command)?;
    process.next_line().context("the trainer did not start")?;
    Ok(process)
}

pub fn start_client(program: &Program, folder: &Path, port: u16, seed: u64) -> Result<Process> {
    let mut command = Command::new(&program.path);
    command.args(&program.arguments).arg("client").arg(folder).arg(port.to_string());
    Process::start(command.arg(seed.to_string()))
}

/// Where the trainer keeps its checkpoints.
pub fn state_dir(folder: &Path) -> PathBuf {
    folder.join("state")
}

/// Is the process that the arguments ask for, until it is killed.
///
/// # Errors
/// When it cannot go on.
pub fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["trainer", folder, port] => trainer(Path::new(folder), port.parse()?),
        ["client", folder, port, seed] => client(Path::new(folder), port.parse()?, seed.parse()?),
        other => bail!("{other:?} is neither a client nor a trainer"),
    }
}

fn trainer(folder: &Path, port: u16) -> Result<()> {
    // Nobody is left behind: with the process that started this one, its pipe ends.
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
    let trainer = Trainer::builder().port(port).state_dir(state_dir(folder)).spawn()?;
    println!("{}", trainer.url());
    Ok(trainer.serve_until_interrupted()?)
}

fn client(folder: &Path, port: u16, seed: u64) -> Result<()> {
    let mut failures = 0;
    loop {
        let error = match train(folder, port, seed, &mut failures) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        failures += 1;
        ensure!(failures < MAX_FAILURES, "{error:#}");
        tell(&Event::Lost { why: format!("{error:#}") })?;
    }
}

fn train(
    folder: &Path,
    port: u16,
    seed: u64,
    failures: &mut usize,
) -> Result<std::convert::Infallible> {
    let service = ServiceClient::builder()
        .base_url(format!("http://127.0.0.1:{port}"))
        // A restart takes the trainer some of the machine's seconds.
        .retry(RetryConfig::default().start_timeout(Duration::from_secs(3_000)))
        .clock(FastClock::times(50))
        .connect()?;
    let last = read_ledger(folder)?;
    let (training, start) = match &last {
        None => {
            let config = LoraConfig::rank(4).seed(seed);
            (service.create_lora_training_client(BASE_MODEL, &config)?, 0)
        }
        Some(Ledger { step, path }) => {
            (service.create_training_client_from_state_with_optimizer(path)?, *step)
        }
    };
    tell(&Event::Resumed { step: start })?;
    for step in start + 1.. {
        course::step(&training, seed, step)?;
        *failures = 0;
        tell(&Event::Stepped { step })?;
        if step.is_multiple_of(EVERY) {
            tell(&Event::Saving { step })?;
            let path = training.save_state(&format!("step-{step}"))?.result()?.path;
            write_ledger(folder, &Ledger { step, path: path.clone() })?;
            tell(&Event::Saved { step, path })?;
        }
    }
    bail!("there are no more numbers")
}

fn tell(event: &Event) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(event)?)?;
    out.flush()?;
    if io::stdin().read_line(&mut String::new())? == 0 {
        // The process that started this one has ended.
        std::process::exit(1);
    }
    Ok(())
}

fn ledger(folder: &Path) -> PathBuf {
    folder.join("ledger.json")
}

fn read_ledger(folder: &Path) -> Result<Option<Ledger>> {
    match fs::read(ledger(folder)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The old ledger is there until the new one is complete.
fn write_ledger(folder: &Path, last: &Ledger) -> Result<()> {
    let (path, draft) = (ledger(folder), folder.join("ledger.draft"));
    let mut file = File::create(&draft)?;
    file.write_all(&serde_json::to_vec(last)?)?;
    file.sync_all()?;
    Ok(fs::rename(draft, path)?)
}
