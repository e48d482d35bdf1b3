//! A client and a trainer in processes of their own, killed and stopped at random moments: whatever
//! is saved after that must be what an undisturbed run saves.

mod party;
mod process;
mod reference;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use self::{party::Event, process::Process, reference::Reference};
use crate::{listener, state};

pub use party::run as run_party;

/// What is to be done to whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Kills {
    /// How often the client is killed.
    pub client: usize,
    /// How often the trainer is killed.
    pub trainer: usize,
    /// How often each is stopped and let go on.
    pub stops: usize,
    /// Of the data, and of the moments.
    pub seed: u64,
    /// The longest delay of a blow from the beginning of a step.
    pub step_delay: Duration,
    /// The longest delay of a blow from the request for a checkpoint.
    pub save_delay: Duration,
    /// The longest time that a process is stopped for.
    pub stop: Duration,
}

/// How to start this program again as a client or a trainer: it must hand what follows these
/// arguments to [`run_party`].
#[derive(Debug, Clone)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<String>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// By blow and victim: how many were dealt, and after how many of them the next checkpoint was
    /// that of the undisturbed run.
    pub blows: BTreeMap<(Victim, Blow), (usize, usize)>,
    /// How many blows were aimed at a save.
    pub aimed_at_saves: usize,
    /// How many saves a kill has left half written, beside their place.
    pub half_written: usize,
    /// How many checkpoints there are at the end.
    pub checkpoints: usize,
    /// Those that are not what the undisturbed run saved at that step.
    pub wrong: Vec<PathBuf>,
    /// Steps of the run at the end.
    pub steps: usize,
}

impl Outcome {
    /// Whether every blow left everything as it must be.
    pub fn is_well(&self) -> bool {
        self.wrong.is_empty() && self.blows.values().all(|(dealt, identical)| dealt == identical)
    }
}

/// Who is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// The process that trains.
    Client,
    /// The process that it trains on.
    Trainer,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and later SIGCONT.
    Stop,
}

/// How many steps the client makes from one save to the next.
const EVERY: usize = 3;

/// When a blow falls, from the last checkpoint on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    AfterSteps(usize),
    InSave,
}

impl Kills {
    /// Starts both in `folder`, deals every blow, and looks at what is saved. `tell` hears of every
    /// blow.
    ///
    /// # Errors
    /// When a process cannot be started, or ends by itself.
    pub fn run(&self, program: &Program, folder: &Path, tell: impl Fn(usize)) -> Result<Outcome> {
        let mut reference = Reference::new(self.seed)?;
        let mut dice = ChaCha8Rng::seed_from_u64(self.seed);
        let mut outcome = Outcome::default();
        let mut pair = Pair::start(program, folder, self.seed)?;
        pair.until(|event| matches!(event, Event::Saved { .. }))?;
        let blows = self.shuffled(&mut dice);
        for (i, &(victim, blow)) in blows.iter().enumerate() {
            let moment = match dice.random_range(0..3) {
                0 => Moment::InSave,
                _ => Moment::AfterSteps(dice.random_range(1..EVERY)),
            };
            let longest = match moment {
                Moment::AfterSteps(steps) => {
                    for _ in 0..steps {
                        pair.until(|event| matches!(event, Event::Stepped { .. }))?;
                    }
                    self.step_delay
                }
                Moment::InSave => {
                    outcome.aimed_at_saves += 1;
                    pair.until(|event| matches!(event, Event::Saving { .. }))?;
                    self.save_delay
                }
            };
            pair.go()?;
            pause(longest.mul_f64(dice.random()));
            pair.strike(victim, blow, self.stop.mul_f64(dice.random()))
                .with_context(|| format!("blow {i} ({victim:?}, {blow:?}, {moment:?})"))?;
            let Event::Saved { step, path } =
                pair.until(|event| matches!(event, Event::Saved { .. }))?
            else {
                bail!("the client saved nothing");
            };
            let found = state::saved(&pair.state_dir(), &path)?.digest();
            let dealt = outcome.blows.entry((victim, blow)).or_default();
            dealt.0 += 1;
            dealt.1 += usize::from(found == reference.at(step)?);
            outcome.steps = step;
            tell(i + 1);
        }
        let state_dir = pair.state_dir();
        drop(pair);
        outcome.inspect(&state_dir, &mut reference)?;
        Ok(outcome)
    }

    fn shuffled(&self, dice: &mut ChaCha8Rng) -> Vec<(Victim, Blow)> {
        let mut blows = vec![(Victim::Client, Blow::Kill); self.client];
        blows.extend(vec![(Victim::Trainer, Blow::Kill); self.trainer]);
        blows.extend(vec![(Victim::Client, Blow::Stop); self.stops]);
        blows.extend(vec![(Victim::Trainer, Blow::Stop); self.stops]);
        blows.shuffle(dice);
        blows
    }
}

impl Outcome {
    /// Looks at all that lies in the folder of the checkpoints.
    fn inspect(&mut self, state_dir: &Path, reference: &mut Reference) -> Result<()> {
        for run in fs::read_dir(state_dir)? {
            let weights = run?.path().join("weights");
            let Ok(files) = fs::read_dir(&weights) else { continue };
            for file in files {
                let file = file?.path();
                let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                match file.extension().and_then(|extension| extension.to_str()) {
                    Some("partial") => self.half_written += 1,
                    Some("safetensors") => {
                        let step = stem.trim_start_matches("step-").parse()?;
                        let found = state::read(&file).map(|saved| saved.digest());
                        self.checkpoints += 1;
                        if found.ok() != Some(reference.at(step)?) {
                            self.wrong.push(file);
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// The client and its trainer, which are started again when they are killed.
struct Pair<'a> {
    program: &'a Program,
    folder: &'a Path,
    seed: u64,
    port: u16,
    trainer: Process,
    client: Process,
    /// Whether it has told something and not been let go on.
    client_waits: bool,
}

impl<'a> Pair<'a> {
    fn start(program: &'a Program, folder: &'a Path, seed: u64) -> Result<Self> {
        let port = listener()?.local_addr()?.port();
        let trainer = party::start_trainer(program, folder, port)?;
        let client = party::start_client(program, folder, port, seed)?;
        Ok(Pair { program, folder, seed, port, trainer, client, client_waits: false })
    }

    fn state_dir(&self) -> PathBuf {
        party::state_dir(self.folder)
    }

    fn strike(&mut self, victim: Victim, blow: Blow, stop: Duration) -> Result<()> {
        match (victim, blow) {
            (Victim::Client, Blow::Kill) => {
                self.client.kill()?;
                self.client_waits = false;
                self.client = party::start_client(self.program, self.folder, self.port, self.seed)?;
            }
            (Victim::Trainer, Blow::Kill) => {
                self.trainer.kill()?;
                self.trainer = party::start_trainer(self.program, self.folder, self.port)?;
            }
            (Victim::Client, Blow::Stop) => self.client.stop_for(stop)?,
            (Victim::Trainer, Blow::Stop) => self.trainer.stop_for(stop)?,
        }
        if blow == Blow::Kill {
            self.until(|event| matches!(event, Event::Resumed { .. }))?;
        }
        Ok(())
    }

    /// Lets the client go on from what it told last.
    fn go(&mut self) -> Result<()> {
        match std::mem::take(&mut self.client_waits) {
            true => self.client.write_line(),
            false => Ok(()),
        }
    }

    /// Lets the client go on until it tells this. It waits there.
    fn until(&mut self, is_wanted: impl Fn(&Event) -> bool) -> Result<Event> {
        loop {
            self.go()?;
            let event = self.client.next_line().context("the client ended by itself")?;
            let event: Event = serde_json::from_str(&event)?;
            self.client_waits = true;
            if is_wanted(&event) {
                return Ok(event);
            }
        }
    }
}

fn pause(time: Duration) {
    if !time.is_zero() {
        thread::sleep(time);
    }
}
