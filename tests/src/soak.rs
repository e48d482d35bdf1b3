//! A long run of training through every kind of fault, beside the same run undisturbed.

use std::{path::Path, sync::PoisonError, time::Duration};

use anyhow::{Context, Result};
use rand::{Rng, RngExt};
use tinsmith_client::{
    ChunkLimits, Datum, Dialect, LoraConfig, ModelInput, RequestOrder, SamplingParams, SaveOptions,
    ServiceClient, TrainingClient,
};
use tinsmith_trainer::{Counts, ModelStats, Trainer, tokenizer};

use crate::{
    BASE_MODEL, Proxy, Saved, StillClock, Tally, Weather, adam, course, faults, saved, unnamed,
};

/// What is to be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Soak {
    /// How many steps.
    pub steps: usize,
    /// Of the data and of the faults.
    pub seed: u64,
    /// What the client speaks.
    pub dialect: Dialect,
    /// By what the client thinks that the server orders requests.
    pub order: RequestOrder,
    /// The share of requests that meet a fault.
    pub fault_rate: f64,
    /// As [`Weather::drip_pause`].
    pub drip_pause: Duration,
}

/// What a run leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Of each step: the loss by the client, and the loss by the server, as bits.
    pub losses: Vec<[u64; 2]>,
    /// The tokens that were sampled on the way.
    pub samples: Vec<Vec<u32>>,
    /// What the trainer took and executed.
    pub stats: ModelStats,
    /// Weights and moments at the end.
    pub state: Saved,
}

/// Both runs, and what lay between them.
#[derive(Debug)]
pub struct Outcome {
    /// Without faults.
    pub expected: Run,
    /// With faults.
    pub found: Run,
    /// What was done to the requests.
    pub tally: Tally,
    /// By each wait that servers asked for: how often they asked, and how often the client waited
    /// that long.
    pub waits: Vec<(Duration, u64, u64)>,
}

impl Outcome {
    /// Requests that the trainer executed in the undisturbed run, and not in the other.
    pub fn lost(&self) -> u64 {
        self.differences().map(|(expected, found)| expected.saturating_sub(found)).sum()
    }

    /// Requests that the trainer executed beyond those of the undisturbed run, or was handed twice
    /// though it could not have known.
    pub fn twice(&self, order: RequestOrder) -> u64 {
        let executed: u64 =
            self.differences().map(|(expected, found)| found.saturating_sub(expected)).sum();
        match order {
            RequestOrder::BySequence => executed,
            RequestOrder::ByArrival => executed + self.tally.delivered_again() as u64,
        }
    }

    /// Whether every wait that a server asked for was kept.
    pub fn obeys(&self) -> bool {
        self.waits.iter().all(|(_, asked, kept)| asked == kept)
    }

    /// Whether nothing differs but what was done to the requests.
    pub fn is_well(&self, order: RequestOrder) -> bool {
        self.expected == self.found && self.twice(order) == 0 && self.obeys()
    }

    fn differences(&self) -> impl Iterator<Item = (u64, u64)> {
        let each = |stats: ModelStats| {
            let Counts { forward, forward_backward, optim_step } = stats.executed;
            [forward, forward_backward, optim_step]
        };
        each(self.expected.stats).into_iter().zip(each(self.found.stats))
    }
}

/// What one step does besides training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extra {
    None,
    /// The batch goes in several requests.
    Chunks,
    Save,
    Sample,
}

/// How many data a request takes.
const CHUNK: usize = 4;

impl Soak {
    /// Runs undisturbed, then through faults. `tell` hears of every step of either.
    ///
    /// # Errors
    /// The first error of the client's: there should be none.
    pub fn run(&self, tell: impl Fn(&str, usize)) -> Result<Outcome> {
        let calm = self.train(
            |url| Ok((url.to_owned(), StillClock::default())),
            |step| {
                tell("undisturbed", step);
            },
        );
        let (expected, _) = calm.context("the undisturbed run")?;

        let mut tally = None;
        let stormy = self.train(
            |url| {
                let (rule, done) = faults(self.weather());
                tally = Some(done);
                let proxy = Proxy::forgetful(url, rule)?;
                let time = proxy.clone();
                Ok((proxy.url().to_owned(), StillClock::on_nap(move || time.tick())))
            },
            |step| tell("through faults", step),
        );
        let (found, clock) = stormy.with_context(|| format!("the run through faults, {self:?}"))?;
        let tally = tally.context("the run had no proxy")?;
        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let naps = clock.naps();
        let kept = |wait| naps.iter().filter(|&&nap| nap == wait).count() as u64;
        let asked = tally.asked_waits.iter();
        let waits = asked.map(|(&wait, &times)| (wait, times, kept(wait))).collect();
        Ok(Outcome { expected, found, tally, waits })
    }

    fn weather(&self) -> Weather {
        Weather {
            rate: self.fault_rate,
            seed: self.seed,
            order: self.order,
            drip_pause: self.drip_pause,
        }
    }

    /// Trains on a trainer of its own, by the way to it that `approach` finds.
    fn train(
        &self,
        approach: impl FnOnce(&str) -> Result<(String, StillClock)>,
        tell: impl Fn(usize),
    ) -> Result<(Run, StillClock)> {
        let folder = tempfile::tempdir()?;
        let builder = Trainer::builder().state_dir(folder.path());
        // Some polls find their result not ready.
        let trainer = builder.long_poll(Duration::from_millis(100)).spawn()?;
        let (url, clock) = approach(&trainer.url())?;
        let service = ServiceClient::builder()
            .base_url(url)
            .clock(clock.clone())
            .retry(course::endless())
            .dialect(self.dialect)
            .request_order(self.order)
            .chunk_limits(ChunkLimits::default().max_len(CHUNK))
            .progress(|_: &tinsmith_client::Event| {})
            .connect()?;
        let config = LoraConfig::rank(4).seed(self.seed);
        let training = service.create_lora_training_client(BASE_MODEL, &config)?;
        let mut samples = Vec::new();
        let mut losses = Vec::with_capacity(self.steps);
        for step in 0..self.steps {
            let (loss, sampled) =
                self.step(&training, step).with_context(|| format!("step {step}"))?;
            losses.push(loss);
            samples.extend(sampled);
            tell(step + 1);
        }
        let path = training.save_state("end")?.result()?.path;
        let stats = trainer.stats(training.model_id())?;
        let state = saved(folder.path(), &path)?;
        let weights = trainer.weights(training.model_id())?;
        check_same(&weights, &state, folder.path())?;
        Ok((Run { losses, samples, stats, state }, clock))
    }

    fn step(&self, training: &TrainingClient, step: usize) -> Result<([u64; 2], Option<Vec<u32>>)> {
        let mut dice = course::dice(self.seed, step);
        let extra = extra(&mut dice);
        let rows = match extra {
            Extra::Chunks => CHUNK + 1 + dice.random_range(0..CHUNK),
            Extra::None | Extra::Save | Extra::Sample => dice.random_range(1..=3),
        };
        let data: Vec<Datum> = (0..rows).map(|_| course::line(&mut dice)).collect();
        let custom = training.forward_backward_custom(&data, course::loss)?;
        let optim = training.optim_step(&adam())?;
        let ours = custom.report().loss;
        let server = custom.result()?.output.metrics["loss:sum"];
        optim.result()?;
        let sampled = match extra {
            Extra::None | Extra::Chunks => None,
            Extra::Save => {
                let options = SaveOptions::default().overwrite();
                training.save_state_with("latest", &options)?.result()?;
                None
            }
            Extra::Sample => {
                let sampler = training.save_weights_for_sampler(None)?.result()?;
                let params =
                    SamplingParams { seed: Some(step as u64), ..SamplingParams::max_tokens(4) };
                let prompt = ModelInput::from_tokens(tokenizer::encode("tin"));
                let answer = sampler.sample(&prompt, 1, &params)?.result()?;
                Some(unnamed(answer.sequences).into_iter().flat_map(|it| it.tokens).collect())
            }
        };
        Ok(([ours.to_bits(), server.to_bits()], sampled))
    }

    /// How many passes and steps the trainer should execute.
    pub fn planned(&self) -> Counts {
        let mut counts = Counts::default();
        for step in 0..self.steps {
            let passes =
                if extra(&mut course::dice(self.seed, step)) == Extra::Chunks { 2 } else { 1 };
            counts.forward += passes;
            counts.forward_backward += passes;
            counts.optim_step += 1;
        }
        counts
    }
}

fn extra(dice: &mut impl Rng) -> Extra {
    match dice.random_range(0..20) {
        0 => Extra::Chunks,
        1 => Extra::Save,
        2 => Extra::Sample,
        _ => Extra::None,
    }
}

/// What was saved is what was trained.
fn check_same(
    weights: &[(String, tinsmith_client::grad::Tensor)],
    state: &Saved,
    folder: &Path,
) -> Result<()> {
    for (name, tensor) in weights {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let is_same = state.tensors.get(name) == Some(&bytes);
        anyhow::ensure!(is_same, "the checkpoint in {} has another `{name}`", folder.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(steps: u64) -> Run {
        let counts = Counts { forward: steps, forward_backward: steps, optim_step: steps };
        let stats = ModelStats { received: counts, executed: counts };
        Run { losses: Vec::new(), samples: Vec::new(), stats, state: Saved::default() }
    }

    fn outcome(found: Run) -> Outcome {
        Outcome { expected: run(5), found, tally: Tally::default(), waits: Vec::new() }
    }

    #[test]
    fn what_is_lost_or_done_twice_is_counted() {
        let order = RequestOrder::BySequence;
        let mut found = run(5);
        found.stats.executed.optim_step = 3;
        found.stats.executed.forward = 6;
        let harmed = outcome(found);
        assert_eq!((harmed.lost(), harmed.twice(order)), (2, 1));
        assert!(!harmed.is_well(order) && outcome(run(5)).is_well(order));
    }

    #[test]
    fn one_bit_of_a_loss_and_a_wait_that_was_not_kept_are_seen() {
        let order = RequestOrder::BySequence;
        let mut found = run(5);
        found.losses.push([1, 0]);
        assert!(!outcome(found).is_well(order));
        let mut hasty = outcome(run(5));
        hasty.waits.push((Duration::from_secs(13), 2, 1));
        assert!(!hasty.is_well(order));
    }
}
