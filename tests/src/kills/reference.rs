//! The run that nobody disturbs, as far as it is needed.

use std::collections::HashMap;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tinsmith_client::{LoraConfig, SaveOptions, TrainingClient};
use tinsmith_trainer::Trainer;

use super::EVERY;
use crate::{BASE_MODEL, connect, course, saved};

pub struct Reference {
    training: TrainingClient,
    seed: u64,
    steps: usize,
    /// Digests by step.
    states: HashMap<usize, u64>,
    folder: TempDir,
    _trainer: Trainer,
}

impl Reference {
    pub fn new(seed: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let trainer = Trainer::builder().state_dir(folder.path()).spawn()?;
        let config = LoraConfig::rank(4).seed(seed);
        let training = connect(&trainer.url())?.create_lora_training_client(BASE_MODEL, &config)?;
        Ok(Reference {
            training,
            seed,
            steps: 0,
            states: HashMap::new(),
            folder,
            _trainer: trainer,
        })
    }

    /// A digest of what it saves after so many steps.
    pub fn at(&mut self, step: usize) -> Result<u64> {
        while self.steps < step {
            self.steps += 1;
            course::step(&self.training, self.seed, self.steps)?;
            if self.steps.is_multiple_of(EVERY) {
                let options = SaveOptions::default().overwrite();
                let path = self.training.save_state_with("latest", &options)?.result()?.path;
                self.states.insert(self.steps, saved(self.folder.path(), &path)?.digest());
            }
        }
        self.states.get(&step).copied().with_context(|| format!("nothing is saved at step {step}"))
    }
}
