//! Many threads on few models: every request is executed once, and nothing is left when they have
//! gone.

use std::{
    fs,
    sync::{
        Barrier, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tinsmith_client::{
    Datum, LoraConfig, LossFn, ModelInput, RequestOrder, SamplingParams, ServiceClient,
    TrainingClient,
};
use tinsmith_trainer::{Counts, Trainer, tokenizer};

use crate::{BASE_MODEL, Proxy, StillClock, Weather, course, faults};

/// How many, and on what.
#[derive(Debug, Clone, PartialEq)]
pub struct Crowd {
    /// Threads that train, all at once.
    pub threads: usize,
    /// Models that they share.
    pub models: usize,
    /// Of the data and of the faults.
    pub seed: u64,
    /// The share of requests that meet a fault.
    pub fault_rate: f64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The errors, of which there should be none.
    pub errors: Vec<String>,
    /// What was asked for by calls that returned success, over all models.
    pub asked: Counts,
    /// What the trainer executed.
    pub executed: Counts,
    /// Samples that came.
    pub samples: u64,
    /// Requests at the proxy, and how many of them met a fault.
    pub requests: (u64, u64),
    /// Threads and open files of this process: before, with the crowd, and after.
    pub before: Open,
    /// With the crowd at work.
    pub within: Open,
    /// When the clients are gone.
    pub after: Open,
}

impl Outcome {
    /// Whether all is as it should be.
    pub fn is_well(&self) -> bool {
        self.errors.is_empty() && self.asked == self.executed && self.left() == Open::default()
    }

    /// What is left of the crowd.
    pub fn left(&self) -> Open {
        Open {
            threads: self.after.threads.saturating_sub(self.before.threads),
            files: self.after.files.saturating_sub(self.before.files),
        }
    }
}

/// What a process holds, where `/proc` tells; else nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Open {
    /// Threads.
    pub threads: usize,
    /// Open files, sockets among them.
    pub files: usize,
}

impl Open {
    /// What this process holds now.
    pub fn now() -> Self {
        let count = |folder| fs::read_dir(folder).map_or(0, |entries| entries.count());
        Open { threads: count("/proc/self/task"), files: count("/proc/self/fd") }
    }
}

/// What the threads have had done.
#[derive(Debug, Default)]
struct Done {
    steps: AtomicU64,
    samples: AtomicU64,
}

impl Crowd {
    /// Lets every thread train for as long as `goes_on` says, of how many steps it has made.
    ///
    /// # Errors
    /// When trainer or clients cannot be made.
    pub fn run(&self, goes_on: impl Fn(usize) -> bool + Sync) -> Result<Outcome> {
        let trainer = Trainer::builder().long_poll(Duration::from_millis(100)).spawn()?;
        let (rule, tally) = faults(Weather {
            rate: self.fault_rate,
            seed: self.seed,
            order: RequestOrder::BySequence,
            drip_pause: Duration::ZERO,
        });
        let proxy = Proxy::forgetful(&trainer.url(), rule)?;
        // What is made once, such as threads for vector functions, is there before the count.
        let warm = self.clients(&proxy, 1)?;
        let mut dice = course::dice(self.seed, 0);
        let large: Vec<Datum> = (0..64).map(|_| course::line(&mut dice)).collect();
        warm[0].forward_backward(&large, LossFn::CrossEntropy, None)?.result()?;
        drop(warm);
        let before = settled(None);

        let clients = self.clients(&proxy, self.models)?;
        let (errors, done, within) = self.train(&clients, goes_on);
        let mut executed = Counts::default();
        for client in &clients {
            let stats = trainer.stats(client.model_id()).context("counting")?;
            executed.forward += stats.executed.forward;
            executed.forward_backward += stats.executed.forward_backward;
            executed.optim_step += stats.executed.optim_step;
        }
        drop(clients);
        let after = settled(Some(before));
        let steps = done.steps.load(Ordering::Relaxed);
        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Outcome {
            errors,
            asked: Counts { forward: steps, forward_backward: steps, optim_step: steps },
            executed,
            samples: done.samples.load(Ordering::Relaxed),
            requests: (tally.requests, tally.faults.values().sum()),
            before,
            within,
            after,
        })
    }

    fn clients(&self, proxy: &Proxy, models: usize) -> Result<Vec<TrainingClient>> {
        let time = proxy.clone();
        let service = ServiceClient::builder()
            .base_url(proxy.url())
            .clock(StillClock::on_nap(move || time.tick()))
            .retry(course::endless())
            .progress(|_: &tinsmith_client::Event| {})
            .connect()?;
        let config = LoraConfig::rank(4).seed(self.seed);
        let create = |_| Ok(service.create_lora_training_client(BASE_MODEL, &config)?);
        (0..models).map(create).collect()
    }

    fn train(
        &self,
        clients: &[TrainingClient],
        goes_on: impl Fn(usize) -> bool + Sync,
    ) -> (Vec<String>, Done, Open) {
        let done = Done::default();
        let (start, goes_on) = (Barrier::new(self.threads + 1), &goes_on);
        let worker = |thread: usize| {
            start.wait();
            let client = &clients[thread % clients.len()];
            let mut made = 0;
            while goes_on(made) {
                // The numbers of steps are those of the data, and are others in every thread.
                course::step(client, self.seed, thread * 1_000_000 + made)?;
                done.steps.fetch_add(1, Ordering::Relaxed);
                if (thread + made).is_multiple_of(16) {
                    sample(client)?;
                    done.samples.fetch_add(1, Ordering::Relaxed);
                }
                made += 1;
            }
            anyhow::Ok(())
        };
        let (errors, within) = thread::scope(|scope| {
            let worker = &worker;
            let threads: Vec<_> =
                (0..self.threads).map(|thread| scope.spawn(move || worker(thread))).collect();
            start.wait();
            let half = self.threads as u64 / 2;
            while done.steps.load(Ordering::Relaxed) < half
                && !threads.iter().all(|thread| thread.is_finished())
            {
                thread::yield_now();
            }
            let within = Open::now();
            let ends = threads.into_iter().map(|thread| match thread.join() {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{error:#}")),
                Err(_) => Some("a panic".to_owned()),
            });
            (ends.flatten().collect(), within)
        });
        (errors, done, within)
    }
}

fn sample(client: &TrainingClient) -> Result<()> {
    let sampler = client.save_weights_for_sampler(None)?.result()?;
    let prompt = ModelInput::from_tokens(tokenizer::encode("tin"));
    let answer = sampler.sample(&prompt, 1, &SamplingParams::max_tokens(2))?.result()?;
    ensure!(answer.sequences.len() == 1, "{} sequences", answer.sequences.len());
    Ok(())
}

/// What this process holds once that changes no more, or has come down to a `goal`. Threads that
/// nobody waits for end a little later.
fn settled(goal: Option<Open>) -> Open {
    const LOOKS: usize = 100_000;
    let mut last = Open::now();
    let mut same = 0;
    for _ in 0..LOOKS {
        thread::yield_now();
        let now = Open::now();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        let is_done = match goal {
            Some(goal) => now.threads <= goal.threads && now.files <= goal.files,
            None => same > 1_000,
        };
        if is_done {
            break;
        }
    }
    last
}
