//! Results: read from protobuf and from JSON, written and read again.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tinsmith_wire::{
    ForwardBackwardOutput, PromptAltTokens, SampleResponse, SampledSequence, StopReason,
    TopLogprobs, json, proto,
};

use super::{
    read,
    spec::{Tensor, Tensors, tensors},
};
use crate::vectors::number::Number;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    kind: String,
    proto_file: String,
    expected: Option<Value>,
    #[serde(rename = "expected_error")]
    error: Option<String>,
    json_body: Option<Value>,
}

pub fn check(case: &Value, folder: &Path) -> Result<()> {
    let case: Case = read(case)?;
    ensure!(
        case.expected.is_some() != case.error.is_some(),
        "it must have either `expected` or `expected_error`"
    );
    let body = fs::read(folder.join(&case.proto_file))
        .with_context(|| format!("reading {}", case.proto_file))?;
    let expected = case.expected.as_ref();
    match case.kind.as_str() {
        "ForwardBackwardOutput" => {
            let expected = expected.map(|spec| read::<Output>(spec)?.build()).transpose()?;
            compare(body, expected, case.json_body)
        }
        "SampleResponse" => {
            let expected = expected.map(|spec| read::<Sample>(spec)?.build()).transpose()?;
            compare(body, expected, case.json_body)
        }
        other => bail!("unknown kind `{other}`"),
    }
}

/// Without an expected value the body must be refused.
fn compare<T>(body: Vec<u8>, expected: Option<T>, in_json: Option<Value>) -> Result<()>
where
    T: proto::Decode + DeserializeOwned + std::fmt::Debug,
{
    let got = proto::from_vec::<T>(body);
    let Some(expected) = expected else {
        return match got {
            Err(_) => Ok(()),
            Ok(got) => bail!("the SDK refuses this, here it reads as {got:?}"),
        };
    };
    let got = got?;
    let again = proto::from_vec(proto::to_vec(&got)?).context("our own body")?;
    let mut readings = vec![("protobuf", got), ("protobuf, written and read again", again)];
    if let Some(text) = in_json {
        readings.push(("JSON", json::from_slice(&serde_json::to_vec(&text)?)?));
    }
    for (what, got) in readings {
        // By their texts, since NaN differs from itself.
        ensure!(
            format!("{got:?}") == format!("{expected:?}"),
            "{what}: got {got:?}, want {expected:?}"
        );
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    loss_fn_output_type: String,
    loss_fn_outputs: Vec<Tensors>,
    metrics: BTreeMap<String, Number>,
}

impl Output {
    fn build(&self) -> Result<ForwardBackwardOutput> {
        Ok(ForwardBackwardOutput {
            loss_fn_output_type: self.loss_fn_output_type.clone(),
            loss_fn_outputs: self.loss_fn_outputs.iter().map(tensors).collect::<Result<_>>()?,
            metrics: self.metrics.iter().map(|(name, x)| (name.clone(), x.0)).collect(),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    sequences: Vec<Sequence>,
    prompt_logprobs: Option<Vec<Option<Number>>>,
    topk_prompt_logprobs: Option<Vec<Option<Row>>>,
    target_prompt_logprobs: Option<Tensor>,
    prompt_alt_tokens: Option<AltTokens>,
    prompt_cache_hit_tokens: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sequence {
    stop_reason: StopReason,
    tokens: Vec<u32>,
    logprobs: Option<Vec<Number>>,
    topk_logprobs: Option<Vec<Option<Row>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AltTokens {
    tokens: Tensor,
    logprobs: Tensor,
}

type Row = Vec<(u32, Number)>;

impl Sample {
    fn build(&self) -> Result<SampleResponse> {
        let number = |x: &Number| x.0 as f32;
        let sequence = |sequence: &Sequence| SampledSequence {
            stop_reason: sequence.stop_reason.clone(),
            tokens: sequence.tokens.clone(),
            logprobs: sequence.logprobs.as_ref().map(|all| all.iter().map(number).collect()),
            topk_logprobs: rows(&sequence.topk_logprobs),
            sequence_id: None,
        };
        let alternatives = self.prompt_alt_tokens.as_ref().map(|alternatives| {
            Ok::<_, anyhow::Error>(PromptAltTokens {
                tokens: alternatives.tokens.build()?,
                logprobs: alternatives.logprobs.build()?,
            })
        });
        Ok(SampleResponse {
            sequences: self.sequences.iter().map(sequence).collect(),
            prompt_logprobs: self
                .prompt_logprobs
                .as_ref()
                .map(|all| all.iter().map(|x| x.as_ref().map(number)).collect()),
            topk_prompt_logprobs: rows(&self.topk_prompt_logprobs),
            target_prompt_logprobs: self
                .target_prompt_logprobs
                .as_ref()
                .map(Tensor::build)
                .transpose()?,
            prompt_alt_tokens: alternatives.transpose()?,
            prompt_cache_hit_tokens: self.prompt_cache_hit_tokens,
        })
    }
}

fn rows(rows: &Option<Vec<Option<Row>>>) -> Option<Vec<Option<TopLogprobs>>> {
    let row = |row: &Row| row.iter().map(|(id, x)| (*id, x.0 as f32)).collect();
    let rows = rows.as_ref()?;
    Some(rows.iter().map(|r| r.as_ref().map(row)).collect())
}
