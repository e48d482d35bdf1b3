//! Sampling: one pass over the prompt fills the cache, then all samples advance together, one token
//! a pass.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use tinsmith_grad::{Device, Var, eval};

use super::choose::{self, Choice};
use super::forward::KeyValues;
use super::layout::Layout;
use super::lora::{Adapter, Lora};
use super::weights::Model;
use crate::vocabulary::Vocabulary;
use crate::{Error, Result, random};

/// What to sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Generate {
    /// Token ids, at least one.
    pub prompt: Vec<u32>,
    /// How many continuations.
    pub num_samples: usize,
    /// Most tokens of a continuation.
    pub max_tokens: usize,
    /// How each token is drawn.
    pub choice: Choice,
    /// Seed; continuation `i` has a stream of its own, so it does not depend on how many there are.
    pub seed: u64,
    /// Tokens that end a continuation.
    pub stop_tokens: Vec<u32>,
    /// Byte strings that end a continuation.
    pub stop_strings: Vec<Vec<u8>>,
    /// Whether the logprobs of the prompt are wanted.
    pub prompt_logprobs: bool,
    /// How many likeliest tokens are wanted at each prompt position.
    pub top_prompt_logprobs: usize,
}

/// One continuation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Continuation {
    /// Its tokens; one that ends it is included.
    pub tokens: Vec<u32>,
    /// The logprob of each token under the model, at temperature 1.
    pub logprobs: Vec<f32>,
    /// Whether it came to a stop token or string, rather than to its length.
    pub stopped: bool,
}

/// What was sampled.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Generated {
    /// The continuations.
    pub continuations: Vec<Continuation>,
    /// The logprob of every prompt token but the first, when asked for.
    pub prompt_logprobs: Vec<f32>,
    /// The likeliest tokens in place of every prompt token but the first, when asked for.
    pub top_prompt_logprobs: Vec<Vec<(u32, f32)>>,
}

impl Model {
    /// Samples from the model under `adapter`. `keep_going` is asked before each pass; a no ends it
    /// with an error of its own.
    ///
    /// ```
    /// use tinsmith_grad::DType;
    /// use tinsmith_trainer::model::{Choice, Generate, Model, ModelConfig};
    ///
    /// let model = Model::random(ModelConfig::preset("tiny-qwen3").unwrap(), 0, DType::F32)?;
    /// let greedy = Choice { temperature: 0.0, top_k: 0, top_p: 1.0 };
    /// let request = Generate::new(vec![72, 105], 5, greedy);
    /// let generated = model.generate(None, &request, || Ok(()))?;
    /// assert_eq!(generated.continuations[0].tokens.len(), 5);
    /// # Ok::<_, tinsmith_trainer::Error>(())
    /// ```
    pub fn generate(
        &self,
        adapter: Option<&Adapter>,
        request: &Generate,
        keep_going: impl Fn() -> Result<()>,
    ) -> Result<Generated> {
        let vars = adapter.map(Adapter::vars).unwrap_or_default();
        let lora = adapter.map_or(Lora::NONE, |adapter| adapter.with_vars(&vars));
        let prompt = &request.prompt;
        if prompt.is_empty() {
            return Err(Error::field("prompt", "there are no tokens; send at least one"));
        }
        if !request.stop_strings.is_empty() {
            self.vocabulary.check_stop_strings()?;
        }
        let wants_prompt = request.prompt_logprobs || request.top_prompt_logprobs > 0;
        let rows = match wants_prompt {
            true => 0..prompt.len(),
            false => prompt.len() - 1..prompt.len(),
        };

        keep_going()?;
        let mut cache = Vec::with_capacity(self.layers.len());
        let whole = Layout::whole(&[prompt.len()], &self.config, self.dtype);
        let logits = self.advance(lora, prompt, &whole, rows, &mut cache)?;
        let mut generated = Generated::default();
        if wants_prompt {
            let scored = logits.iter().zip(&prompt[1..]);
            generated.prompt_logprobs =
                scored.map(|(row, &token)| row[token as usize] - choose::logsumexp(row)).collect();
            let top = logits[..prompt.len() - 1]
                .iter()
                .map(|row| choose::top(row, request.top_prompt_logprobs));
            generated.top_prompt_logprobs = top.collect();
        }

        let first = &logits[logits.len() - 1];
        let mut samples: Vec<Sample> =
            (0..request.num_samples).map(|i| Sample::new(request, i)).collect();
        let mut live: Vec<usize> = (0..samples.len()).collect();
        live.retain(|&i| samples[i].extend(request, first, &self.vocabulary));
        select_rows(&mut cache, vec![0; live.len()]);
        while !live.is_empty() {
            keep_going()?;
            let tokens: Vec<u32> = live.iter().map(|&i| samples[i].last()).collect();
            let length = prompt.len() + samples[live[0]].out.tokens.len() - 1;
            let step = Layout::step(live.len(), length, &self.config, self.dtype);
            let logits = self.advance(lora, &tokens, &step, 0..live.len(), &mut cache)?;
            let kept: Vec<usize> = (0..live.len())
                .filter(|&row| samples[live[row]].extend(request, &logits[row], &self.vocabulary))
                .collect();
            if kept.len() < live.len() {
                select_rows(&mut cache, kept.iter().map(|&row| row as u32).collect());
                live = kept.into_iter().map(|row| live[row]).collect();
            }
        }
        generated.continuations = samples.into_iter().map(|sample| sample.out).collect();
        Ok(generated)
    }

    /// Logits of `rows` of one pass, which extends the cache; the cache is left evaluated.
    fn advance(
        &self,
        lora: Lora,
        tokens: &[u32],
        layout: &Layout,
        rows: Range<usize>,
        cache: &mut Vec<KeyValues>,
    ) -> Result<Vec<Vec<f32>>> {
        let hidden = self.hidden(lora, tokens, layout, Some(cache));
        let logits = self.logits(lora, &hidden.narrow(0, rows.start, rows.len()));
        let mut roots = vec![&logits];
        roots.extend(cache.iter().flat_map(|kv| [&kv.keys, &kv.values]));
        let mut tensors = eval(&roots)?.into_iter();
        let logits = tensors.next().map(|t| t.to_dtype(candle_core::DType::F32)?.to_vec2());
        for kv in cache.iter_mut() {
            for var in [&mut kv.keys, &mut kv.values] {
                if let Some(tensor) = tensors.next() {
                    *var = Var::new(tensor);
                }
            }
        }
        Ok(logits.unwrap_or_else(|| Ok(Vec::new()))?)
    }
}

fn select_rows(cache: &mut [KeyValues], rows: Vec<u32>) {
    let shape = [rows.len()];
    let rows = Var::from_vec(rows, &shape, &Device::Cpu);
    for kv in cache {
        kv.keys = kv.keys.index_select(&rows, 0);
        kv.values = kv.values.index_select(&rows, 0);
    }
}

/// A continuation under way.
struct Sample {
    rng: ChaCha8Rng,
    out: Continuation,
}

impl Sample {
    fn new(request: &Generate, index: usize) -> Self {
        Self {
            rng: random::stream(request.seed, &format!("sample {index}")),
            out: Continuation::default(),
        }
    }

    fn last(&self) -> u32 {
        self.out.tokens.last().copied().unwrap_or_default()
    }

    /// Draws the next token; whether there is more to come.
    fn extend(&mut self, request: &Generate, logits: &[f32], vocabulary: &Vocabulary) -> bool {
        let out = &mut self.out;
        if request.max_tokens == 0 {
            return false;
        }
        let (token, logprob) = request.choice.draw(logits, &mut self.rng);
        out.tokens.push(token);
        out.logprobs.push(logprob);
        out.stopped = request.stop_tokens.contains(&token)
            || ends_with_any(&out.tokens, &request.stop_strings, vocabulary);
        !out.stopped && out.tokens.len() < request.max_tokens
    }
}

/// Whether the text of `tokens` ends with one of `strings`.
fn ends_with_any(tokens: &[u32], strings: &[Vec<u8>], vocabulary: &Vocabulary) -> bool {
    let longest = strings.iter().map(Vec::len).max().unwrap_or(0);
    if longest == 0 {
        return false;
    }
    // A token may stand for no byte at all, so the tail is taken in bytes, from the end.
    let mut tail = Vec::new();
    for token in tokens.iter().rev() {
        let mut longer = vocabulary.bytes(&[*token]);
        longer.append(&mut tail);
        tail = longer;
        if tail.len() >= longest {
            break;
        }
    }
    strings.iter().any(|s| !s.is_empty() && tail.ends_with(s))
}

impl Generate {
    /// One continuation of at most `max_tokens` tokens that nothing else ends.
    pub fn new(prompt: Vec<u32>, max_tokens: usize, choice: Choice) -> Self {
        Self {
            prompt,
            num_samples: 1,
            max_tokens,
            choice,
            seed: 0,
            stop_tokens: Vec::new(),
            stop_strings: Vec::new(),
            prompt_logprobs: false,
            top_prompt_logprobs: 0,
        }
    }
}
