//! Maps each loss file to the function of `tinsmith-losses` that it tests.

use std::cell::RefCell;
use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use tinsmith_grad::{DType, Ragged, Var};
use tinsmith_losses::regularize::l2;
use tinsmith_losses::*;

mod helpers;
mod params;
mod policy;
mod preference;
mod regularizers;

pub use helpers::helper;

use super::file::Case;
use params::Params;

/// A loss as recorded: its scalar, the leaves it is differentiated by, and its metrics under their
/// names in the file.
pub struct Outcome {
    pub loss: Var,
    /// One per sequence, in order, as [`Case::leaves`] made them.
    pub leaves: Vec<Var>,
    /// Scalars.
    pub metrics: Vec<(String, Var)>,
}

/// Records the loss named `loss` (the file's name for it) over the inputs of `case`, in `dtype`. A
/// parameter or input that the loss does not know is an error.
pub fn evaluate(loss: &str, case: &Case, dtype: DType) -> Result<Outcome> {
    let leaves = case.leaves(dtype);
    let inputs = Inputs {
        case,
        params: Params::new(&case.params),
        read: RefCell::default(),
        dtype,
        leaves: &leaves,
        lp: Ragged::from_seqs(&leaves),
    };
    let (loss, metrics) = match loss {
        "aggregation" => {
            (aggregate(&-&inputs.lp, &inputs.ragged("weights")?, inputs.aggregation()?), vec![])
        }
        "cross_entropy" => alone("loss:sum", cross_entropy(&inputs.lp, &inputs.ragged("weights")?)),
        "mean_cross_entropy" => mean_cross_entropy_case(&inputs)?,
        "sft_token_mean" => sft_token_mean(&inputs)?,
        "logprob_squared" => alone("logprob_squared_loss", l2(&inputs.lp)),
        "variance" => {
            let unbiased = inputs.params.flag_or("unbiased", true)?;
            let correction = f64::from(u8::from(unbiased));
            alone("variance_loss", variance(&inputs.lp, correction))
        }
        "importance_sampling" | "ppo" | "cispo" | "dro" | "gspo" => {
            policy::built_in(loss, &inputs)?
        }
        "dpo" | "ipo" | "hinge" | "simpo" | "bradley_terry" | "orpo" => {
            preference::preference(loss, &inputs)?
        }
        "kto" => preference::unpaired(&inputs)?,
        "kl_estimators" => alone("kl", kl_estimate(&inputs)?),
        "grpo_example" => policy::grpo_example(&inputs)?,
        "rft_table" => alone("loss", policy::rft_table(&inputs)?),
        "distillation" => alone("distill_loss", distillation(&inputs)?),
        "reverse_kl_topk" => reverse_kl(&inputs)?,
        "choice_probability" => choice(&inputs)?,
        "regularizers" => alone(
            &inputs.params.required::<String>("kind")?,
            regularizers::regularizer(&inputs.params, &inputs)?,
        ),
        "composite" => regularizers::composite(&inputs)?,
        _ => match loss.strip_prefix("client_") {
            Some(name) => policy::recipe(name, &inputs)?,
            None => bail!("no loss is known as `{loss}`"),
        },
    };
    inputs.params.finish()?;
    inputs.all_read()?;
    Ok(Outcome { loss, leaves, metrics })
}

type Recorded = (Var, Vec<(String, Var)>);

/// A loss whose only metric is its own value.
fn alone(name: &str, loss: Var) -> Recorded {
    (loss.clone(), vec![(name.into(), loss)])
}

fn with<const N: usize>(loss: Var, metrics: [(&str, &Var); N]) -> Recorded {
    (loss, metrics.map(|(name, metric)| (name.into(), metric.clone())).to_vec())
}

struct Inputs<'a> {
    case: &'a Case,
    params: Params<'a>,
    read: RefCell<BTreeSet<String>>,
    dtype: DType,
    leaves: &'a [Var],
    lp: Ragged,
}

impl Inputs<'_> {
    fn ragged(&self, name: &str) -> Result<Ragged> {
        self.reading(name).ragged(name, self.dtype)
    }

    fn per_seq(&self, name: &str) -> Result<Var> {
        self.reading(name).per_seq(name, self.dtype)
    }

    fn tensor(&self, name: &str) -> Result<Var> {
        self.reading(name).tensor(name, self.dtype)
    }

    fn optional(&self, name: &str) -> Result<Option<Ragged>> {
        self.case.has(name).then(|| self.ragged(name)).transpose()
    }

    fn reading(&self, name: &str) -> &Case {
        self.read.borrow_mut().insert(name.to_owned());
        self.case
    }

    fn all_read(&self) -> Result<()> {
        let read = self.read.borrow();
        let unread: Vec<&String> =
            self.case.input_names().filter(|&name| !read.contains(name)).collect();
        ensure!(unread.is_empty(), "inputs that nothing reads: {unread:?}");
        Ok(())
    }

    fn aggregation(&self) -> Result<Aggregation> {
        let choices = [
            ("sum", Aggregation::Sum),
            ("token-mean", Aggregation::TokenMean),
            ("seq-mean-token-sum", Aggregation::SeqMeanTokenSum),
            ("seq-mean-token-mean", Aggregation::SeqMeanTokenMean),
        ];
        self.params.choice("aggregation", &choices, Aggregation::Sum)
    }

    fn reduction(&self, default: Reduction) -> Result<Reduction> {
        reduction(&self.params, default)
    }
}

fn reduction(params: &Params, default: Reduction) -> Result<Reduction> {
    let choices = [("sum", Reduction::Sum), ("mean", Reduction::Mean)];
    params.choice("reduction", &choices, default)
}

fn mean_cross_entropy_case(inputs: &Inputs) -> Result<Recorded> {
    let weights = inputs.ragged("weights")?;
    let shared: Vec<usize> =
        inputs.lp.lengths().iter().zip(weights.lengths()).map(|(a, b)| *a.min(b)).collect();
    let loss = mean_cross_entropy(&inputs.lp.truncate_to(&shared), &weights.truncate_to(&shared));
    Ok(alone("cross_entropy", loss))
}

fn sft_token_mean(inputs: &Inputs) -> Result<Recorded> {
    let weights = inputs.ragged("weights")?;
    let loss = token_mean_cross_entropy(&inputs.lp, &weights);
    Ok(with(
        loss.clone(),
        [("ce_loss", &loss), ("ppl", &perplexity(&loss)), ("weighted_tokens", &weights.sum())],
    ))
}

fn kl_estimate(inputs: &Inputs) -> Result<Var> {
    let estimators = [
        ("k1", KlEstimator::K1),
        ("k2", KlEstimator::K2),
        ("k3", KlEstimator::K3),
        ("abs", KlEstimator::Abs),
    ];
    let estimator = inputs.params.choice("estimator", &estimators, KlEstimator::K3)?;
    let (reference, weights) = (inputs.ragged("ref_logprobs")?, inputs.ragged("weights")?);
    Ok(kl_penalty(&inputs.lp, &reference, &weights, estimator, inputs.aggregation()?))
}

fn distillation(inputs: &Inputs) -> Result<Var> {
    type Distillation = fn(&Ragged, &Ragged) -> Ragged;
    let kinds: [(&str, Distillation); 3] = [
        ("cross_entropy", target_cross_entropy),
        ("forward_kl", target_forward_kl),
        ("reverse_kl", target_reverse_kl),
    ];
    let kind = inputs.params.choice("kind", &kinds, kinds[0].1)?;
    let normalizations = [("tokens", Aggregation::TokenMean)];
    let how = inputs.params.choice("normalize", &normalizations, Aggregation::Sum)?;
    let per_position = kind(&inputs.lp, &inputs.ragged("target_distribution")?);
    Ok(match inputs.optional("weights")? {
        Some(weights) => aggregate(&per_position, &weights, how),
        None => per_position.sum(),
    })
}

fn reverse_kl(inputs: &Inputs) -> Result<Recorded> {
    let weights = inputs.ragged("weights")?;
    let (loss, metrics) =
        (reverse_kl_topk(&inputs.lp, &weights), reverse_kl_topk_metrics(&inputs.lp, &weights));
    Ok(with(
        loss.clone(),
        [
            ("reverse_kl_loss", &loss),
            ("positions", &metrics.positions),
            ("reverse_kl_mean", &metrics.reverse_kl_mean),
            ("student_entropy_mean", &metrics.student_entropy_mean),
        ],
    ))
}

fn choice(inputs: &Inputs) -> Result<Recorded> {
    let target = inputs.ragged("weights")?;
    type Choice = fn(&Ragged, &Ragged) -> Var;
    let kinds: [(&str, Choice); 2] = [("brier", brier), ("log", choice_cross_entropy)];
    let loss = inputs.params.choice("kind", &kinds, kinds[0].1)?(&inputs.lp, &target);
    let metrics = choice_metrics(&inputs.lp, &target);
    Ok(with(
        loss.clone(),
        [
            ("loss", &loss),
            ("target_prob:mean", &metrics.target_prob),
            ("accuracy", &metrics.accuracy),
        ],
    ))
}
