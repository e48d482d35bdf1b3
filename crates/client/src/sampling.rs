//! Sampling from a model.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tinsmith_wire::{ModelInput, SampleRequest, SampleResponse, SamplingParams};

use crate::{
    ApiFuture, Error, Result,
    retry::Kind,
    session::{Session, call},
};

/// Samples from a model as it was when this was made. Clones share its sampling session.
///
/// ```
/// use tinsmith_client::{ModelInput, SamplingParams, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// let sampler = service.create_sampling_client("tiny-qwen3")?;
/// let prompt = ModelInput::from_tokens(vec![1, 2, 3]);
/// let answer = sampler.sample(&prompt, 2, &SamplingParams::max_tokens(16))?.result()?;
/// assert_eq!(answer.sequences.len(), 2);
/// let logprobs = sampler.compute_logprobs(&prompt)?.result()?;
/// assert!(logprobs[0].is_none() && logprobs[1] < Some(0.0));
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct SamplingClient {
    session: Arc<Session>,
    id: String,
    path: Option<String>,
    next: Arc<AtomicU64>,
}

impl SamplingClient {
    pub(crate) fn new(session: Arc<Session>, id: String, path: Option<String>) -> Self {
        SamplingClient {
            session,
            id,
            path,
            next: Arc::default(),
        }
    }

    pub(crate) fn create(session: Arc<Session>, model: &str) -> Result<Self> {
        let id = session.create_sampling_session(model)?;
        let path = model.starts_with("tinker://").then(|| model.to_owned());
        Ok(Self::new(session, id, path))
    }

    /// The checkpoint that is sampled from, if it is one with a name.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// Samples `num_samples` continuations of `prompt`.
    ///
    /// # Errors
    /// [`Error::Config`] for an empty prompt or no samples, before anything is sent; [`Error::Status`],
    /// [`Error::Deadline`], [`Error::Unreachable`].
    pub fn sample(
        &self,
        prompt: &ModelInput,
        num_samples: u32,
        params: &SamplingParams,
    ) -> Result<ApiFuture<SampleResponse>> {
        self.submit(prompt, num_samples, params, false, Ok)
    }

    /// The logprob of each token of `prompt` given those before it; none for the first.
    ///
    /// # Errors
    /// As [`sample`](Self::sample); the future's [`Error::Unexpected`] when the server gives no logprobs, or too few.
    pub fn compute_logprobs(&self, prompt: &ModelInput) -> Result<ApiFuture<Vec<Option<f32>>>> {
        let expected = prompt.len();
        let logprobs = move |answer: SampleResponse| {
            let found = answer.prompt_logprobs.unwrap_or_default();
            if expected.is_some_and(|expected| expected != found.len()) {
                return Err(Error::Unexpected {
                    call: Box::new(call("asample")),
                    problem: format!(
                        "{} prompt_logprobs for a prompt of {} tokens",
                        found.len(),
                        expected.unwrap_or(0)
                    ),
                });
            }
            Ok(found)
        };
        self.submit(prompt, 1, &SamplingParams::max_tokens(1), true, logprobs)
    }

    fn submit<T: 'static>(
        &self,
        prompt: &ModelInput,
        num_samples: u32,
        params: &SamplingParams,
        prompt_logprobs: bool,
        finish: impl FnOnce(SampleResponse) -> Result<T> + Send + 'static,
    ) -> Result<ApiFuture<T>> {
        let bad = |what, reason: &str| {
            Err(Error::Config {
                what,
                reason: reason.to_owned(),
            })
        };
        if prompt.is_empty() {
            return bad("prompt", "it is empty: sampling needs at least one token");
        }
        if num_samples == 0 {
            return bad("num_samples", "it must be at least 1");
        }
        let seq_id = self.next.fetch_add(1, Ordering::Relaxed);
        let request = SampleRequest {
            num_samples,
            prompt: prompt.clone(),
            sampling_params: params.clone(),
            sampling_session_id: Some(self.id.clone()),
            seq_id: Some(seq_id),
            prompt_logprobs,
            ..SampleRequest::default()
        };
        let pending =
            self.session
                .submit("asample", "Sample", &request, Some(seq_id), Kind::Submit)?;
        Ok(ApiFuture::single(
            self.session.clone(),
            pending,
            |_, answer| finish(answer),
        ))
    }
}
