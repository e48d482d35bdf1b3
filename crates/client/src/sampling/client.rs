//! Sampling from a model.

use std::sync::Arc;

use tinsmith_wire::{ModelInput, SampleRequest, SampleResponse, SamplingParams, TensorData};

use crate::{
    ApiFuture, CallInfo, Error, Result,
    protocol::session::Session,
    sampling::sample::{Sample, Sampler},
    settings::settings,
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
///
/// A sample that the server loses, or fails to take for now, is submitted again, unless the server
/// forbids it. When more samples are under way than the server allows, further ones are sent when
/// they are waited for. When the future of a sample is dropped before its end, a server that wants
/// to know is told so, in the background, and can spare the work.
#[derive(Debug, Clone)]
pub struct SamplingClient {
    sampler: Arc<Sampler>,
}

settings! {
    /// What to sample, and what to tell about it. What is beyond [`SamplingParams`] and the
    /// logprobs of the prompt, newer servers know only.
    ///
    /// ```
    /// use tinsmith_client::{SampleOptions, SamplingParams};
    /// let options = SampleOptions::new(SamplingParams::max_tokens(16))
    ///     .num_samples(4)
    ///     .topk_prompt_logprobs(5);
    /// # drop(options);
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    #[non_exhaustive]
    pub struct SampleOptions {
        /// How many sequences.
        pub num_samples: u32,
        /// How to sample them.
        pub params: SamplingParams,
        /// Whether the logprobs of the prompt are wanted.
        pub prompt_logprobs: bool,
        /// How many likeliest tokens per prompt position are wanted.
        pub topk_prompt_logprobs: u32,
        /// How many likeliest tokens per sampled position are wanted.
        pub topk_sample_logprobs: u32,
        /// Tokens whose logprobs are wanted at each prompt position after the first: `int64`
        /// `[len - 1, K]`, -1 for none.
        pub target_prompt_logprobs: Option<TensorData>,
        /// How many other tokens per prompt position are wanted.
        pub prompt_alt_tokens_k: u32,
        /// Of how many positions at the end of the prompt logprobs are wanted; of all when absent.
        pub prompt_logprobs_last_n: Option<u32>,
        /// Whether the server is to record how stable its numbers are.
        pub record_stability_info: bool,
    }
}

impl SampleOptions {
    /// One sequence, and nothing beside it.
    pub fn new(params: SamplingParams) -> Self {
        SampleOptions {
            num_samples: 1,
            params,
            prompt_logprobs: false,
            topk_prompt_logprobs: 0,
            topk_sample_logprobs: 0,
            target_prompt_logprobs: None,
            prompt_alt_tokens_k: 0,
            prompt_logprobs_last_n: None,
            record_stability_info: false,
        }
    }
}

/// The numbers of clients are drawn from so many, which leaves room for those of their samples in
/// 63 bits.
const MAX_DRAWN: u64 = 1 << 31;

impl SamplingClient {
    pub(crate) fn new(session: Arc<Session>, id: String, path: Option<String>) -> Result<Self> {
        let sampler = Arc::new(Sampler::new(session, id, path, 0)?);
        Ok(SamplingClient { sampler })
    }

    pub(crate) fn create(session: Arc<Session>, model: &str) -> Result<Self> {
        let id = session.create_sampling_session(model)?;
        let path = model.starts_with("tinker://").then(|| model.to_owned());
        Self::new(session, id, path)
    }

    /// A client beside others, under a number that the server gives, or else that hardly anybody
    /// else draws.
    pub(crate) fn join(session: Arc<Session>, id: &str) -> Result<Self> {
        let copy = match session.flavour.sampling.numbers_clients {
            true => session.join_sampling_session(id)?,
            false => 1 + session.api.clock.random() % MAX_DRAWN,
        };
        let sampler = Arc::new(Sampler::new(session, id.to_owned(), None, copy)?);
        Ok(SamplingClient { sampler })
    }

    /// The sampling session's id on the server.
    pub fn sampler_id(&self) -> &str {
        &self.sampler.id
    }

    /// The checkpoint it samples from, if it has a path and this client made it.
    pub fn path(&self) -> Option<&str> {
        self.sampler.path.as_deref()
    }

    /// Continues `prompt` in `num_samples` ways.
    ///
    /// # Errors
    /// [`Error::Config`] for an empty prompt or no samples, before anything is sent;
    /// [`Error::Status`], [`Error::Deadline`], [`Error::Unreachable`].
    pub fn sample(
        &self,
        prompt: &ModelInput,
        num_samples: u32,
        params: &SamplingParams,
    ) -> Result<ApiFuture<SampleResponse>> {
        let options = SampleOptions::new(params.clone()).num_samples(num_samples);
        self.sample_with(prompt, &options)
    }

    /// Continues `prompt`, and tells of it what `options` ask for.
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    ///
    /// ```
    /// use tinsmith_client::{ModelInput, SampleOptions, SamplingParams, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// let sampler = service.create_sampling_client("tiny-qwen3")?;
    /// let options = SampleOptions::new(SamplingParams::max_tokens(4))
    ///     .prompt_logprobs(true)
    ///     .topk_prompt_logprobs(3);
    /// let answer = sampler.sample_with(&ModelInput::from_tokens(vec![1, 2]), &options)?.result()?;
    /// let likeliest = answer.topk_prompt_logprobs.unwrap();
    /// assert!(likeliest[0].is_none()); // nothing comes before the first token
    /// assert_eq!(likeliest[1].as_ref().unwrap().len(), 3);
    /// # anyhow::Ok(())
    /// ```
    pub fn sample_with(
        &self,
        prompt: &ModelInput,
        options: &SampleOptions,
    ) -> Result<ApiFuture<SampleResponse>> {
        self.submit(prompt, options, Ok)
    }

    /// The logprob of each token of `prompt` given those before it; none for the first.
    ///
    /// # Errors
    /// As [`sample`](Self::sample); the future's [`Error::Unexpected`] when the server gives no
    /// logprobs, or too few.
    ///
    /// ```
    /// use tinsmith_client::{ModelInput, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// let sampler = service.create_sampling_client("tiny-qwen3")?;
    /// let logprobs = sampler.compute_logprobs(&ModelInput::from_tokens(vec![1, 2, 3]))?.result()?;
    /// let sum: f32 = logprobs.into_iter().flatten().sum(); // of the second and the third
    /// assert!(sum < 0.0);
    /// # anyhow::Ok(())
    /// ```
    pub fn compute_logprobs(&self, prompt: &ModelInput) -> Result<ApiFuture<Vec<Option<f32>>>> {
        let expected = prompt.len();
        let session = self.sampler.session.clone();
        let logprobs = move |answer: SampleResponse| {
            let mut found = answer.prompt_logprobs.unwrap_or_default();
            if session.flavour.omits_first_prompt_logprob() && expected == Some(found.len() + 1) {
                found.insert(0, None);
            }
            if expected.is_some_and(|expected| expected != found.len()) {
                return Err(Error::Unexpected {
                    call: Box::new(CallInfo::of("asample")),
                    problem: format!(
                        "{} prompt_logprobs for a prompt of {} tokens",
                        found.len(),
                        expected.unwrap_or(0)
                    ),
                });
            }
            Ok(found)
        };
        let options = SampleOptions::new(SamplingParams::max_tokens(1)).prompt_logprobs(true);
        self.submit(prompt, &options, logprobs)
    }

    fn submit<T: 'static>(
        &self,
        prompt: &ModelInput,
        options: &SampleOptions,
        finish: impl FnOnce(SampleResponse) -> Result<T> + Send + 'static,
    ) -> Result<ApiFuture<T>> {
        let bad = |what, reason: &str| Err(Error::Config { what, reason: reason.to_owned() });
        if prompt.is_empty() {
            return bad("prompt", "it is empty: sampling needs at least one token");
        }
        if options.num_samples == 0 {
            return bad("num_samples", "it must be at least 1");
        }
        let request = SampleRequest {
            num_samples: options.num_samples,
            prompt: prompt.clone(),
            sampling_params: options.params.clone(),
            sampling_session_id: Some(self.sampler.id.clone()),
            prompt_logprobs: options.prompt_logprobs,
            topk_prompt_logprobs: options.topk_prompt_logprobs,
            topk_sample_logprobs: options.topk_sample_logprobs,
            target_prompt_logprobs: options.target_prompt_logprobs.clone(),
            prompt_alt_tokens_k: options.prompt_alt_tokens_k,
            prompt_logprobs_last_n: options.prompt_logprobs_last_n,
            record_stability_info: options.record_stability_info,
            ..SampleRequest::default()
        };
        Sample::start(self.sampler.clone(), request, finish).map(ApiFuture::new)
    }
}
