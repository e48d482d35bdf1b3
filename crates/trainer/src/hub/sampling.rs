//! Sampling sessions and what is drawn from them.

use std::collections::HashMap;
use std::sync::Arc;

use tinsmith_wire::{
    CreateSamplingSessionRequest, CreateSamplingSessionResponse, JoinSamplingSessionResponse,
    SampleRequest, SamplingParams, Stop, Submitted,
};

use super::{Hub, Request, Sampler, State, reused};
use crate::batch::check_tokens;
use crate::checkpoint::Reference;
use crate::engine::Weights;
use crate::model::{Choice, Generate, ModelConfig};
use crate::outcome::Outcome;
use crate::{Error, Result};

/// Most continuations of one sample request.
const MAX_SAMPLES: u32 = 1024;

impl Hub {
    pub(crate) fn create_sampling_session(
        &self,
        request: Request<CreateSamplingSessionRequest>,
    ) -> Result<CreateSamplingSessionResponse> {
        let Request { body, digest } = request;
        let answer =
            |sampling_session_id| Ok(CreateSamplingSessionResponse { sampling_session_id });
        let repeated = |state: &mut State| match state
            .session(&body.session_id)?
            .samplers
            .get(&body.sampling_session_seq_id)
        {
            Some((first, id)) if *first == digest => Ok(Some(id.clone())),
            Some(_) => Err(reused("sampling_session_seq_id", body.sampling_session_seq_id)),
            None => Ok(None),
        };
        if let Some(id) = repeated(&mut self.lock())? {
            return answer(id);
        }
        let sampler = self.sampler(body.base_model.as_deref(), body.model_path.as_deref())?;
        let mut state = self.lock();
        if let Some(id) = repeated(&mut state)? {
            return answer(id);
        }
        let id = state.add_sampler(&body.session_id, sampler);
        let samplers = &mut state.session(&body.session_id)?.samplers;
        samplers.insert(body.sampling_session_seq_id, (digest, id.clone()));
        answer(id)
    }

    /// A number for another client of a sampling session; the first client has 0.
    pub(crate) fn join_sampling_session(&self, id: &str) -> Result<JoinSamplingSessionResponse> {
        let mut state = self.lock();
        let sampler = state.sampler(id)?;
        sampler.joined += 1;
        Ok(JoinSamplingSessionResponse { client_counter: sampler.joined })
    }

    /// `sampler_id`, `base_model` and `model_path` of a sampling session.
    pub(crate) fn sampler_info(&self, id: &str) -> Result<serde_json::Value> {
        let mut state = self.lock();
        let sampler = state.sampler(id)?;
        let mut info =
            serde_json::json!({"sampler_id": id, "base_model": sampler.weights.base.name});
        if let Some(path) = &sampler.path {
            info["model_path"] = path.to_string().into();
        }
        Ok(info)
    }

    pub(crate) fn sample(self: &Arc<Self>, request: Request<SampleRequest>) -> Result<Submitted> {
        let Request { body, digest } = request;
        let place = body.sampling_session_id.as_deref().zip(body.seq_id);
        let weights = match &body.sampling_session_id {
            Some(id) => self.lock().sampler(id)?.weights.clone(),
            None => self.sampler(body.base_model.as_deref(), body.model_path.as_deref())?.weights,
        };
        let mut generate = generate(&body, weights.base.config())?;
        if !generate.stop_strings.is_empty() {
            weights.base.model.vocabulary.check_stop_strings()?;
        }

        let mut state = self.lock();
        let answer = |request_id: String| {
            let sequence = |i| format!("{request_id}:{i}");
            Ok(Submitted {
                sample_sequence_ids: Some((0..body.num_samples).map(sequence).collect()),
                request_id,
                ..Submitted::default()
            })
        };
        if let Some((id, seq_id)) = place {
            match state.sampler(id)?.answered.get(&seq_id) {
                Some((first, request_id)) if *first == digest => return answer(request_id.clone()),
                Some(_) => return Err(reused("seq_id", seq_id)),
                None => {}
            }
        }
        let request_id = self.futures.issue(&self.instance, None);
        if let Some((id, seq_id)) = place {
            state.sampler(id)?.answered.insert(seq_id, (digest, request_id.clone()));
        }
        generate.seed = body.sampling_params.seed.unwrap_or_else(|| self.next_seed(&mut state));
        let job = self.job(request_id.clone(), move |engine, _| {
            Ok(Outcome::Sample(engine.sample(&weights, &generate)?))
        });
        let (hub, place) =
            (Arc::downgrade(self), place.map(|(id, seq_id)| (id.to_owned(), seq_id)));
        let ending = request_id.clone();
        state.send(Box::new(move |engine| {
            job(engine);
            if let (Some(hub), Some((id, seq_id))) = (hub.upgrade(), place) {
                hub.note_ended((&id, seq_id), &ending);
            }
        }))?;
        answer(request_id)
    }

    /// Weights by the name of a base model or of a checkpoint.
    fn sampler(&self, base_model: Option<&str>, model_path: Option<&str>) -> Result<Sampler> {
        let Some(path) = model_path else {
            let name = base_model.ok_or_else(|| {
                Error::field(
                    "base_model",
                    "missing; name a base model, or a checkpoint as `model_path`",
                )
            })?;
            let base = self.bases.get(name)?;
            return Ok(Sampler::new(Weights { base, adapter: None }, None));
        };
        let at: Reference = path.parse()?;
        let loaded = self.store.load(&at, |name| self.bases.config(name))?;
        let base = self.bases.get(&loaded.info.base_model)?;
        if loaded.info.base_fingerprint != base.fingerprint {
            let problem = format!(
                "{at} was trained on weights {:x} of `{}`, this trainer has {:x}",
                loaded.info.base_fingerprint, base.name, base.fingerprint
            );
            return Err(Error::field("model_path", problem));
        }
        let weights = Weights { base, adapter: Some(loaded.adapter) };
        Ok(Sampler::new(weights, Some(at)))
    }
}

impl Sampler {
    pub(super) fn new(weights: Weights, path: Option<Reference>) -> Self {
        Self {
            weights: Arc::new(weights),
            path,
            joined: 0,
            ended: HashMap::new(),
            answered: HashMap::new(),
        }
    }
}

/// Refuses what is not told here, since silence could be taken for an answer.
fn check_extras(request: &SampleRequest) -> Result<()> {
    let asked = [
        ("topk_sample_logprobs", request.topk_sample_logprobs > 0),
        ("target_prompt_logprobs", request.target_prompt_logprobs.is_some()),
        ("prompt_alt_tokens_k", request.prompt_alt_tokens_k > 0),
        ("prompt_logprobs_last_n", request.prompt_logprobs_last_n.is_some()),
        ("record_stability_info", request.record_stability_info),
    ];
    match asked.into_iter().find(|&(_, is_asked)| is_asked) {
        None => Ok(()),
        Some((field, _)) => Err(Error::field(field, "not supported by this trainer; leave it out")),
    }
}

/// A checked sampling request, but for the seed.
fn generate(request: &SampleRequest, config: &ModelConfig) -> Result<Generate> {
    check_extras(request)?;
    let prompt = check_tokens(request.prompt.tokens(), config)
        .map_err(|problem| Error::field("prompt", problem))?;
    let SamplingParams { max_tokens, stop, temperature, top_k, top_p, .. } =
        &request.sampling_params;
    if !(1..=MAX_SAMPLES).contains(&request.num_samples) {
        return Err(Error::field(
            "num_samples",
            format!("{} is not between 1 and {MAX_SAMPLES}", request.num_samples),
        ));
    }
    if !(0.0..f64::INFINITY).contains(temperature) {
        return Err(Error::field(
            "sampling_params.temperature",
            format!("{temperature} must be 0 or more"),
        ));
    }
    if !(*top_p > 0.0 && *top_p <= 1.0) {
        return Err(Error::field("sampling_params.top_p", format!("{top_p} is not in (0, 1]")));
    }
    let room = config.max_position_embeddings - prompt.len();
    let (stop_tokens, stop_strings) = match stop {
        None => (config.eos_token_ids.clone(), Vec::new()),
        Some(Stop::Tokens(tokens)) => (tokens.clone(), Vec::new()),
        Some(Stop::Strings(strings)) => {
            (Vec::new(), strings.iter().map(|s| s.clone().into_bytes()).collect())
        }
    };
    let choice = Choice {
        temperature: *temperature,
        top_k: usize::try_from(*top_k).unwrap_or(0),
        top_p: *top_p,
    };
    Ok(Generate {
        num_samples: request.num_samples as usize,
        stop_tokens,
        stop_strings,
        prompt_logprobs: request.prompt_logprobs,
        top_prompt_logprobs: request.topk_prompt_logprobs as usize,
        ..Generate::new(prompt, max_tokens.map_or(room, |n| room.min(n as usize)), choice)
    })
}
