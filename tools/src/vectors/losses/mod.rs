//! Maps each loss file to the function of `tinsmith-losses` that it tests.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tinsmith_grad::{DType, Ragged, Var};
use tinsmith_losses::*;

mod helpers;
mod policy;
mod preference;
mod regularizers;

pub use helpers::helper;

use super::file::Case;

/// A loss as recorded: its scalar, the leaves it is differentiated by, and its metrics under their names in the file.
pub struct Outcome {
    pub loss: Var,
    /// One per sequence, in order, as [`Case::leaves`] made them.
    pub leaves: Vec<Var>,
    /// Scalars.
    pub metrics: Vec<(String, Var)>,
}

/// Records the loss named `loss` (the file's name for it) over the inputs of `case`, in `dtype`.
pub fn evaluate(loss: &str, case: &Case, dtype: DType) -> Result<Outcome> {
    let leaves = case.leaves(dtype);
    let inputs = Inputs {
        case,
        dtype,
        leaves: &leaves,
        lp: Ragged::from_seqs(&leaves),
    };
    let (loss, metrics) = match loss {
        "aggregation" => (
            aggregate(
                &-&inputs.lp,
                &inputs.ragged("weights")?,
                inputs.aggregation()?,
            ),
            vec![],
        ),
        "cross_entropy" => alone(
            "loss:sum",
            cross_entropy(&inputs.lp, &inputs.ragged("weights")?),
        ),
        "mean_cross_entropy" => mean_cross_entropy_case(&inputs)?,
        "sft_token_mean" => sft_token_mean(&inputs)?,
        "logprob_squared" => alone("logprob_squared_loss", logprob_squared(&inputs.lp)),
        "variance" => {
            let correction = if inputs.flag("unbiased") { 1.0 } else { 0.0 };
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
            inputs.text("kind")?,
            regularizers::regularizer(&case.params, &inputs)?,
        ),
        "composite" => regularizers::composite(&inputs)?,
        _ => match loss.strip_prefix("client_") {
            Some(name) => policy::client_loss(name, &inputs)?,
            None => bail!("no loss is known as `{loss}`"),
        },
    };
    Ok(Outcome {
        loss,
        leaves,
        metrics,
    })
}

type Recorded = (Var, Vec<(String, Var)>);

/// A loss whose only metric is its own value.
fn alone(name: &str, loss: Var) -> Recorded {
    (loss.clone(), vec![(name.into(), loss)])
}

fn with<const N: usize>(loss: Var, metrics: [(&str, &Var); N]) -> Recorded {
    (
        loss,
        metrics
            .map(|(name, metric)| (name.into(), metric.clone()))
            .to_vec(),
    )
}

struct Inputs<'a> {
    case: &'a Case,
    dtype: DType,
    leaves: &'a [Var],
    lp: Ragged,
}

impl Inputs<'_> {
    fn ragged(&self, name: &str) -> Result<Ragged> {
        self.case.ragged(name, self.dtype)
    }

    fn per_seq(&self, name: &str) -> Result<Var> {
        self.case.per_seq(name, self.dtype)
    }

    fn optional(&self, name: &str) -> Result<Option<Ragged>> {
        self.case.has(name).then(|| self.ragged(name)).transpose()
    }

    fn number(&self, name: &str) -> Result<f64> {
        self.case.number(name)
    }

    fn number_or(&self, name: &str, default: f64) -> f64 {
        self.number(name).unwrap_or(default)
    }

    fn text(&self, name: &str) -> Result<&str> {
        self.case.text(name)
    }

    fn flag(&self, name: &str) -> bool {
        flag(&self.case.params, name)
    }

    fn aggregation(&self) -> Result<Aggregation> {
        Ok(match self.text("aggregation")? {
            "sum" => Aggregation::Sum,
            "token-mean" => Aggregation::TokenMean,
            "seq-mean-token-sum" => Aggregation::SeqMeanTokenSum,
            "seq-mean-token-mean" => Aggregation::SeqMeanTokenMean,
            other => bail!("unknown aggregation `{other}`"),
        })
    }
}

fn flag(params: &Map<String, Value>, name: &str) -> bool {
    params.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn reduction(params: &Map<String, Value>, default: Reduction) -> Result<Reduction> {
    Ok(match params.get("reduction").and_then(Value::as_str) {
        None => default,
        Some("sum") => Reduction::Sum,
        Some("mean") => Reduction::Mean,
        Some(other) => bail!("unknown reduction `{other}`"),
    })
}

fn mean_cross_entropy_case(inputs: &Inputs) -> Result<Recorded> {
    let weights = inputs.ragged("weights")?;
    let shared: Vec<usize> = inputs
        .lp
        .lengths()
        .iter()
        .zip(weights.lengths())
        .map(|(a, b)| *a.min(b))
        .collect();
    let loss = mean_cross_entropy(
        &inputs.lp.truncate_to(&shared),
        &weights.truncate_to(&shared),
    );
    Ok(alone("cross_entropy", loss))
}

fn sft_token_mean(inputs: &Inputs) -> Result<Recorded> {
    let weights = inputs.ragged("weights")?;
    let loss = token_mean_cross_entropy(&inputs.lp, &weights);
    Ok(with(
        loss.clone(),
        [
            ("ce_loss", &loss),
            ("ppl", &perplexity(&loss)),
            ("weighted_tokens", &weights.sum()),
        ],
    ))
}

fn kl_estimate(inputs: &Inputs) -> Result<Var> {
    let estimator = match inputs.text("estimator")? {
        "k1" => KlEstimator::K1,
        "k2" => KlEstimator::K2,
        "k3" => KlEstimator::K3,
        "abs" => KlEstimator::Abs,
        other => bail!("unknown estimator `{other}`"),
    };
    let (reference, weights) = (inputs.ragged("ref_logprobs")?, inputs.ragged("weights")?);
    Ok(kl_penalty(
        &inputs.lp,
        &reference,
        &weights,
        estimator,
        inputs.aggregation()?,
    ))
}

fn distillation(inputs: &Inputs) -> Result<Var> {
    let per_position = match inputs.text("kind")? {
        "cross_entropy" => target_cross_entropy,
        "forward_kl" => target_forward_kl,
        "reverse_kl" => target_reverse_kl,
        other => bail!("unknown kind of distillation `{other}`"),
    }(&inputs.lp, &inputs.ragged("target_distribution")?);
    Ok(match inputs.text("normalize") {
        Ok(_) => aggregate(
            &per_position,
            &inputs.ragged("weights")?,
            Aggregation::TokenMean,
        ),
        Err(_) => per_position.sum(),
    })
}

fn reverse_kl(inputs: &Inputs) -> Result<Recorded> {
    let weights = inputs.ragged("weights")?;
    let (loss, metrics) = (
        reverse_kl_topk(&inputs.lp, &weights),
        reverse_kl_topk_metrics(&inputs.lp, &weights),
    );
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
    let loss = match inputs.text("kind")? {
        "brier" => brier(&inputs.lp, &target),
        "log" => choice_cross_entropy(&inputs.lp, &target),
        other => bail!("unknown choice loss `{other}`"),
    };
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

fn field<T: DeserializeOwned>(object: &Map<String, Value>, name: &str) -> Result<T> {
    let value = object.get(name).with_context(|| format!("no `{name}`"))?;
    T::deserialize(value).with_context(|| format!("reading `{name}`"))
}
