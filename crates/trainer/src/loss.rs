//! The losses this trainer computes, by their name on the wire.

use tinsmith_grad::{Ragged, Var};
use tinsmith_losses::{CispoConfig, Clip, DroConfig, GspoConfig, PpoConfig};
use tinsmith_wire::{ConfigValue, LossFn, LossFnConfig};

use crate::{Error, Result};

/// A built-in loss with its settings. Each is a sum over tokens and sequences.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Loss {
    CrossEntropy,
    ImportanceSampling,
    Ppo(PpoConfig),
    Cispo(CispoConfig),
    Dro(DroConfig),
    Gspo(GspoConfig),
}

/// Names on the wire, for messages.
const NAMES: &str = "cross_entropy, importance_sampling, ppo, cispo, dro, gspo";

/// A tensor that a loss takes beside the logprobs, and its value where a request leaves it out.
pub(crate) type Input = (&'static str, Option<f32>);

impl Loss {
    pub(crate) fn parse(name: &LossFn, config: Option<&LossFnConfig>) -> Result<Self> {
        let mut settings = Settings::new(config);
        let loss = match name {
            LossFn::CrossEntropy => Self::CrossEntropy,
            LossFn::ImportanceSampling => Self::ImportanceSampling,
            LossFn::Ppo => {
                let mut config = PpoConfig::default();
                settings.bounds(&mut config.clip)?;
                Self::Ppo(config)
            }
            LossFn::Cispo => {
                let mut config = CispoConfig::default();
                settings.bounds(&mut config.clip)?;
                Self::Cispo(config)
            }
            LossFn::Dro => {
                let mut config = DroConfig::default();
                settings.take("beta", &mut config.beta)?;
                Self::Dro(config)
            }
            LossFn::Gspo => {
                let mut config = GspoConfig::default();
                settings.bounds(&mut config.clip)?;
                Self::Gspo(config)
            }
            other => {
                let problem =
                    format!("`{}` is not a loss of this trainer; it has {NAMES}", other.name());
                return Err(Error::field("loss_fn", problem));
            }
        };
        settings.finish(name)?;
        Ok(loss)
    }

    /// What it takes beside the logprobs, one value a target.
    pub(crate) fn inputs(&self) -> &'static [Input] {
        match self {
            Self::CrossEntropy => &[("weights", Some(1.0))],
            Self::ImportanceSampling | Self::Ppo(_) | Self::Cispo(_) | Self::Dro(_) => {
                &[("logprobs", None), ("advantages", None)]
            }
            Self::Gspo(_) => {
                &[("logprobs", None), ("advantages", None), ("sequence_ratio_mask", Some(1.0))]
            }
        }
    }

    /// The loss of `lp`, given its [`inputs`](Self::inputs) in order: a scalar.
    pub(crate) fn apply(&self, lp: &Ragged, inputs: &[Ragged]) -> Var {
        use tinsmith_losses as losses;
        match (self, inputs) {
            (Self::CrossEntropy, [weights]) => losses::cross_entropy(lp, weights),
            (Self::ImportanceSampling, [old, advantages]) => {
                losses::importance_sampling(lp, old, advantages, &Default::default())
            }
            (Self::Ppo(config), [old, advantages]) => losses::ppo(lp, old, advantages, config),
            (Self::Cispo(config), [old, advantages]) => losses::cispo(lp, old, advantages, config),
            (Self::Dro(config), [old, advantages]) => losses::dro(lp, old, advantages, config),
            (Self::Gspo(config), [old, advantages, mask]) => {
                losses::gspo(lp, old, advantages, mask, config)
            }
            _ => unreachable!("the caller passes what inputs() lists"),
        }
    }
}

/// The settings of a request, checked off as they are read.
struct Settings<'a> {
    left: Vec<(&'a String, &'a ConfigValue)>,
}

impl<'a> Settings<'a> {
    fn new(config: Option<&'a LossFnConfig>) -> Self {
        Self { left: config.into_iter().flatten().collect() }
    }

    /// A setting of 0 or more.
    fn take(&mut self, name: &str, into: &mut f64) -> Result<()> {
        let Some(at) = self.left.iter().position(|(n, _)| *n == name) else {
            return Ok(());
        };
        match self.left.swap_remove(at).1 {
            ConfigValue::Number(x) if (0.0..f64::INFINITY).contains(x) => *into = *x,
            other => {
                return Err(Error::field(
                    "loss_fn_config",
                    format!("`{name}` is {other}; it must be a number of 0 or more"),
                ));
            }
        }
        Ok(())
    }

    /// The bounds of an importance ratio.
    fn bounds(&mut self, clip: &mut Clip) -> Result<()> {
        let (mut low, mut high) = (clip.low(), clip.high());
        self.take("clip_low_threshold", &mut low)?;
        self.take("clip_high_threshold", &mut high)?;
        *clip = Clip::ratio(low, high);
        match (low..=high).contains(&1.0) {
            true => Ok(()),
            false => Err(Error::field(
                "loss_fn_config",
                format!(
                    "clip_low_threshold {low} and clip_high_threshold {high} do not have 1 between them; \
                     both bound the ratio itself"
                ),
            )),
        }
    }

    fn finish(self, loss: &LossFn) -> Result<()> {
        match self.left.first() {
            None => Ok(()),
            Some((name, _)) => Err(Error::field(
                "loss_fn_config",
                format!("{} has no setting `{name}`", loss.name()),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, settings: &[(&str, ConfigValue)]) -> Result<Loss> {
        let config = settings.iter().map(|(n, v)| (n.to_string(), v.clone())).collect();
        Loss::parse(&LossFn::from(name.to_owned()), Some(&config))
    }

    #[test]
    fn settings_replace_defaults() {
        let Loss::Ppo(config) = parse("ppo", &[("clip_high_threshold", 1.5.into())]).unwrap()
        else {
            panic!("not ppo")
        };
        assert_eq!(config.clip, Clip::ratio(0.8, 1.5));
    }

    #[test]
    fn unknown_names_and_settings_are_refused() {
        let message = |result: Result<Loss>| result.unwrap_err().to_string();
        assert!(
            message(parse("dpo", &[]))
                .contains("`dpo` is not a loss of this trainer; it has cross_entropy")
        );
        assert!(
            message(parse("ppo", &[("beta", 1.0.into())])).contains("ppo has no setting `beta`")
        );
        assert!(message(parse("dro", &[("beta", "high".into())])).contains("must be a number"));
        assert!(message(parse("dro", &[("beta", (-1.0).into())])).contains("`beta` is -1"));
        let crossed = [("clip_low_threshold", 2.0.into())];
        assert!(
            message(parse("gspo", &crossed))
                .contains("2 and clip_high_threshold 1.0004 do not have 1 between")
        );
    }
}
