//! The frozen models that adapters are trained on: those loaded from folders, and the built-in
//! ones, made when first asked for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tinsmith_grad::DType;

use crate::model::{Model, ModelConfig, PRESETS};
use crate::{Error, Result};

/// A frozen model and the name it goes by.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) name: String,
    /// Where its tokenizer is found: the folder it was loaded from, else its name.
    pub(crate) tokenizer: String,
    /// Tells models of one name apart: an adapter fits no other. The seed of a built-in one, else a
    /// digest of the weights.
    pub(crate) fingerprint: u64,
    pub(crate) model: Arc<Model>,
}

impl Base {
    pub(crate) fn config(&self) -> &ModelConfig {
        self.model.config()
    }
}

/// The models of one trainer. A loaded one hides the built-in one of its name.
pub(crate) struct Bases {
    loaded: Vec<Base>,
    seed: u64,
    presets: [OnceLock<Arc<Model>>; PRESETS.len()],
}

impl Bases {
    /// Loads each folder under its name.
    pub(crate) fn load(folders: &[(String, PathBuf)], seed: u64) -> Result<Self> {
        let mut loaded: Vec<Base> = Vec::new();
        for (name, folder) in folders {
            if loaded.iter().any(|base| base.name == *name) {
                return Err(Error::Unusable {
                    path: folder.clone(),
                    problem: format!(
                        "another model is called `{name}`; give one of them another name"
                    ),
                });
            }
            let model = Model::load(folder, DType::F32)?;
            loaded.push(Base {
                name: name.clone(),
                tokenizer: absolute(folder),
                fingerprint: model.fingerprint()?,
                model: Arc::new(model),
            });
        }
        Ok(Self { loaded, seed, presets: Default::default() })
    }

    /// All names, loaded ones first.
    pub(crate) fn names(&self) -> Vec<&str> {
        let loaded = self.loaded.iter().map(|base| base.name.as_str());
        let presets = PRESETS.into_iter().filter(|name| self.find(name).is_none());
        loaded.chain(presets).collect()
    }

    /// The shape of the model of this name.
    pub(crate) fn config(&self, name: &str) -> Option<ModelConfig> {
        match self.find(name) {
            Some(base) => Some(base.config().clone()),
            None => ModelConfig::preset(name),
        }
    }

    /// The model of this name.
    pub(crate) fn get(&self, name: &str) -> Result<Base> {
        if let Some(base) = self.find(name) {
            return Ok(base.clone());
        }
        let at = PRESETS.iter().position(|preset| *preset == name);
        let (Some(at), Some(config)) = (at, ModelConfig::preset(name)) else {
            let problem =
                format!("no model `{name}` on this trainer; it has {}", self.names().join(", "));
            return Err(Error::field("base_model", problem));
        };
        let model = match self.presets[at].get() {
            Some(model) => model.clone(),
            None => {
                let made = Arc::new(Model::random(config, self.seed, DType::F32)?);
                self.presets[at].get_or_init(|| made).clone()
            }
        };
        Ok(Base {
            name: name.to_owned(),
            tokenizer: name.to_owned(),
            fingerprint: self.seed,
            model,
        })
    }

    fn find(&self, name: &str) -> Option<&Base> {
        self.loaded.iter().find(|base| base.name == name)
    }
}

fn absolute(folder: &Path) -> String {
    let path = folder.canonicalize().unwrap_or(folder.to_owned());
    path.display().to_string()
}
