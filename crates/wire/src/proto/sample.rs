//! Results of sampling.

use std::sync::Arc;

use super::{
    fault::{Fault, Result, Within, each},
    messages, payload,
    request::unsigned,
    sealed, tensor,
};
use crate::{PromptAltTokens, SampleResponse, SampledSequence, StopReason, TopLogprobs};

/// Fills rows that have fewer tokens than others.
const PADDING: (u32, f32) = (0, -99999.0);

impl sealed::Message for SampleResponse {
    type Wire = messages::SampleResponse;
    const NAME: &'static str = "SampleResponse";

    fn to_wire(&self) -> Result<Self::Wire> {
        let known = |logprob: &Option<f32>| logprob.unwrap_or(f32::NAN);
        let prompt_logprobs = self.prompt_logprobs.as_deref();
        Ok(messages::SampleResponse {
            sequences: each("sequences", &self.sequences, sequence_to_wire)?,
            prompt_logprobs: prompt_logprobs.map(|logprobs| {
                let logprobs: Arc<[f32]> = logprobs.iter().map(known).collect();
                payload::bytes(&logprobs)
            }),
            topk_prompt_logprobs: topk_to_wire(self.topk_prompt_logprobs.as_deref())
                .within("topk_prompt_logprobs")?,
            prompt_cache_hit_tokens: i32::try_from(self.prompt_cache_hit_tokens)
                .map_err(|_| Fault::new(format!("above {}", i32::MAX)))
                .within("prompt_cache_hit_tokens")?,
            target_prompt_logprobs: self.target_prompt_logprobs.as_ref().map(tensor::to_wire),
            prompt_alt_tokens: self.prompt_alt_tokens.as_ref().map(|alternatives| {
                messages::PromptAltTokens {
                    tokens: Some(tensor::to_wire(&alternatives.tokens)),
                    logprobs: Some(tensor::to_wire(&alternatives.logprobs)),
                }
            }),
        })
    }
}

impl sealed::Decode for SampleResponse {
    fn from_wire(wire: Self::Wire) -> Result<Self> {
        let known = |logprob: f32| (!logprob.is_nan()).then_some(logprob);
        let logprobs = |bytes: prost::bytes::Bytes| payload::Number::read(&bytes, known);
        Ok(SampleResponse {
            sequences: each("sequences", wire.sequences, sequence_from_wire)?,
            prompt_logprobs: wire
                .prompt_logprobs
                .map(logprobs)
                .transpose()
                .within("prompt_logprobs")?,
            topk_prompt_logprobs: topk_from_wire(wire.topk_prompt_logprobs)
                .within("topk_prompt_logprobs")?,
            target_prompt_logprobs: wire
                .target_prompt_logprobs
                .map(tensor::from_wire)
                .transpose()
                .within("target_prompt_logprobs")?,
            prompt_alt_tokens: wire
                .prompt_alt_tokens
                .map(alternatives_from_wire)
                .transpose()
                .within("prompt_alt_tokens")?,
            prompt_cache_hit_tokens: unsigned(wire.prompt_cache_hit_tokens)
                .within("prompt_cache_hit_tokens")?,
        })
    }
}

fn sequence_to_wire(sequence: &SampledSequence) -> Result<messages::SampledSequence> {
    payload::check_tokens(&sequence.tokens).within("tokens")?;
    let stop_reason = match &sequence.stop_reason {
        StopReason::Stop => messages::StopReason::Stop.into(),
        StopReason::Length => messages::StopReason::Length.into(),
        other @ (StopReason::Unstated | StopReason::Other(_)) => {
            let fault = Fault::new(format!("`{}` has no number", other.name()));
            return Err(fault.within("stop_reason"));
        }
    };
    let logprobs = sequence.logprobs.as_deref();
    Ok(messages::SampledSequence {
        stop_reason,
        tokens: payload::bytes(&sequence.tokens.as_slice().into()),
        logprobs: logprobs.map(|logprobs| payload::bytes(&logprobs.into())),
        topk_sampled_logprobs: topk_to_wire(sequence.topk_logprobs.as_deref())
            .within("topk_logprobs")?,
    })
}

fn sequence_from_wire(wire: messages::SampledSequence) -> Result<SampledSequence> {
    let stop_reason = match messages::StopReason::try_from(wire.stop_reason) {
        Ok(messages::StopReason::Stop) => StopReason::Stop,
        Ok(messages::StopReason::Length) => StopReason::Length,
        Err(_) => {
            let fault = Fault::new(format!("{} is no stop reason", wire.stop_reason));
            return Err(fault.within("stop_reason"));
        }
    };
    Ok(SampledSequence {
        stop_reason,
        tokens: payload::tokens(&wire.tokens).within("tokens")?,
        logprobs: wire
            .logprobs
            .map(|bytes| payload::numbers(&bytes))
            .transpose()
            .within("logprobs")?,
        topk_logprobs: topk_from_wire(wire.topk_sampled_logprobs)
            .within("topk_sampled_logprobs")?,
        sequence_id: None,
    })
}

fn alternatives_from_wire(wire: messages::PromptAltTokens) -> Result<PromptAltTokens> {
    let read = |tensor: Option<messages::Tensor>| {
        tensor::from_wire(tensor.ok_or_else(|| Fault::new("missing"))?)
    };
    Ok(PromptAltTokens {
        tokens: read(wire.tokens).within("tokens")?,
        logprobs: read(wire.logprobs).within("logprobs")?,
    })
}

fn topk_to_wire(rows: Option<&[Option<TopLogprobs>]>) -> Result<Option<messages::TopkLogprobs>> {
    let Some(rows) = rows else {
        return Ok(None);
    };
    // At least one, so that rows without a token stay rows.
    let k = rows.iter().flatten().map(Vec::len).max().unwrap_or(0).max(1);
    let too_many = || Fault::new("too many to be counted");
    let (mut ids, mut logprobs) = (Vec::new(), Vec::new());
    for row in rows {
        let row = row.iter().flatten().copied();
        for (id, logprob) in row.chain(std::iter::repeat(PADDING)).take(k) {
            ids.push(id);
            logprobs.push(logprob);
        }
    }
    Ok(Some(messages::TopkLogprobs {
        token_ids: payload::token_bytes(&ids.into())?,
        logprobs: payload::bytes(&logprobs.into()),
        k: u32::try_from(k).map_err(|_| too_many())?,
        length: u32::try_from(rows.len()).map_err(|_| too_many())?,
    }))
}

fn topk_from_wire(
    wire: Option<messages::TopkLogprobs>,
) -> Result<Option<Vec<Option<TopLogprobs>>>> {
    let Some(wire) = wire else {
        return Ok(None);
    };
    let ids: Vec<u32> = payload::tokens(&wire.token_ids).within("token_ids")?;
    let logprobs: Vec<f32> = payload::numbers(&wire.logprobs).within("logprobs")?;
    let (k, length) = (wire.k as usize, wire.length as usize);
    let claimed = k.checked_mul(length);
    // Rows of none would be memory that no byte pays for.
    if claimed != Some(ids.len()) || ids.len() != logprobs.len() || (k == 0 && length > 0) {
        return Err(Fault::new(format!(
            "{length} rows of {k} tokens, but {} ids and {} logprobs",
            ids.len(),
            logprobs.len()
        )));
    }
    let all: Vec<(u32, f32)> = ids.into_iter().zip(logprobs).collect();
    let row = |row: &[(u32, f32)]| {
        let given: TopLogprobs = row.iter().copied().filter(|&p| p != PADDING).collect();
        (!given.is_empty()).then_some(given)
    };
    Ok(Some(all.chunks_exact(k.max(1)).map(row).collect()))
}
