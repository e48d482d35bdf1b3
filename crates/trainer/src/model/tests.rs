//! The decoder against a second, plain implementation: f64 loops over one sequence, written from
//! the paper formulas.

use tinsmith_grad::{DType, Device, Tensor, Var};

use super::layout::Layout;
use super::lora::{ALPHA, Adapter, LoraConfig};
use super::weights::Model;
use super::{Architecture, Choice, Generate, ModelConfig, RopeScaling, logprobs};
use crate::random;

/// Small, with every ratio that matters different from one: 2 query heads a key head, 3 layers, odd
/// vocabulary.
pub(crate) fn tiny() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Qwen3,
        vocab_size: 11,
        hidden_size: 6,
        intermediate_size: 10,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        max_position_embeddings: 64,
        rms_norm_eps: 1e-6,
        rope_theta: 100.0,
        rope_scaling: RopeScaling::None,
        attention_bias: false,
        mlp_bias: false,
        tie_word_embeddings: false,
        eos_token_ids: vec![10],
    }
}

/// An adapter on everything whose `B` is not zero, as after some training.
pub(crate) fn trained_adapter(config: &ModelConfig) -> Adapter {
    let lora =
        LoraConfig { rank: 3, seed: 1, train_attn: true, train_mlp: true, train_unembed: true };
    let mut adapter = Adapter::new(lora, config).unwrap();
    let mut rng = random::stream(2, "trained");
    let draw = |p: &Tensor| {
        Tensor::from_vec(random::normal(&mut rng, p.elem_count(), 0.1), p.dims(), &Device::Cpu)
            .unwrap()
    };
    let params = adapter.params().iter().map(draw).collect();
    adapter.set_params(params);
    adapter
}

type Matrix = Vec<Vec<f64>>;

fn matrix(var: &Var) -> Matrix {
    let flat: Vec<f64> = var.to_dtype(DType::F64).to_vec().unwrap();
    let cols = *var.shape().last().unwrap();
    flat.chunks(cols).map(<[f64]>::to_vec).collect()
}

fn times(m: &Matrix, x: &[f64]) -> Vec<f64> {
    m.iter().map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
}

/// Weights of one sequence's plain pass: each matrix with its LoRA correction multiplied out.
struct Plain<'a> {
    model: &'a Model,
    adapter: &'a Adapter,
}

impl Plain<'_> {
    fn merged(&self, site: &str, weight: &Var) -> Matrix {
        let mut merged = matrix(weight);
        let names = self.adapter.names();
        let at = names
            .iter()
            .position(|n| *n == format!("base_model.model.{site}.lora_A.weight"))
            .unwrap();
        let a = matrix(&Var::new(self.adapter.params()[at].clone()));
        let b = matrix(&Var::new(self.adapter.params()[at + 1].clone()));
        for (row, b_row) in merged.iter_mut().zip(&b) {
            for (j, w) in row.iter_mut().enumerate() {
                let low_rank: f64 = b_row.iter().zip(&a).map(|(b, a)| b * a[j]).sum();
                *w += ALPHA / a.len() as f64 * low_rank;
            }
        }
        merged
    }

    fn norm(&self, x: &[f64], weight: &Var) -> Vec<f64> {
        let weight: Vec<f64> = weight.to_dtype(DType::F64).to_vec().unwrap();
        let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + self.model.config.rms_norm_eps).sqrt();
        x.iter().zip(weight).map(|(v, w)| v * scale * w).collect()
    }

    fn rotate(&self, x: &[f64], position: usize) -> Vec<f64> {
        let half = x.len() / 2;
        let mut out = x.to_vec();
        for i in 0..half {
            let angle = position as f64
                * self.model.config.rope_theta.powf(-2.0 * i as f64 / x.len() as f64);
            out[i] = x[i] * angle.cos() - x[i + half] * angle.sin();
            out[i + half] = x[i + half] * angle.cos() + x[i] * angle.sin();
        }
        out
    }

    /// Log-probabilities of every token after each position.
    fn logprobs(&self, tokens: &[u32]) -> Matrix {
        let (model, c) = (self.model, &self.model.config);
        let embed = matrix(&model.embed);
        let mut xs: Matrix = tokens.iter().map(|&t| embed[t as usize].clone()).collect();
        for (i, layer) in model.layers.iter().enumerate() {
            let w = |p: super::lora::Projection| {
                self.merged(&format!("model.layers.{i}.{}", p.name()), &layer.projection(p).weight)
            };
            use super::lora::Projection::*;
            let [q, k, v, o, gate, up, down] = [Query, Key, Value, Output, Gate, Up, Down].map(w);
            let normed: Matrix = xs.iter().map(|x| self.norm(x, &layer.input_norm)).collect();
            let heads = |m: &Matrix, norm: Option<&Var>| -> Vec<Matrix> {
                let head = |(t, x): (usize, &Vec<f64>)| {
                    let all = times(m, x);
                    let one = |h: &[f64]| match norm {
                        Some(norm) => self.rotate(&self.norm(h, norm), t),
                        None => h.to_vec(),
                    };
                    all.chunks(c.head_dim).map(one).collect()
                };
                normed.iter().enumerate().map(head).collect()
            };
            let (qs, ks, vs) = (
                heads(&q, layer.head_norms.as_ref().map(|n| &n.query)),
                heads(&k, layer.head_norms.as_ref().map(|n| &n.key)),
                heads(&v, None),
            );
            for t in 0..tokens.len() {
                let mut mixed = Vec::new();
                for (h, query) in qs[t].iter().enumerate() {
                    let kv = h * c.num_key_value_heads / c.num_attention_heads;
                    let score = |s: usize| {
                        query.iter().zip(&ks[s][kv]).map(|(a, b)| a * b).sum::<f64>()
                            / (c.head_dim as f64).sqrt()
                    };
                    let weights: Vec<f64> = (0..=t).map(|s| score(s).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    mixed.extend((0..c.head_dim).map(|d| {
                        weights.iter().zip(&vs).map(|(w, v)| w / total * v[kv][d]).sum::<f64>()
                    }));
                }
                for (x, y) in xs[t].iter_mut().zip(times(&o, &mixed)) {
                    *x += y;
                }
            }
            for x in &mut xs {
                let normed = self.norm(x, &layer.mlp_norm);
                let (g, u) = (times(&gate, &normed), times(&up, &normed));
                let inner: Vec<f64> =
                    g.iter().zip(u).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
                for (x, y) in x.iter_mut().zip(times(&down, &inner)) {
                    *x += y;
                }
            }
        }
        let unembed = self.merged("lm_head", &model.unembed);
        let finish = |x: &Vec<f64>| {
            let logits = times(&unembed, &self.norm(x, &model.norm));
            let norm = logits.iter().map(|l| l.exp()).sum::<f64>().ln();
            logits.iter().map(|l| l - norm).collect()
        };
        xs.iter().map(finish).collect()
    }
}

/// Norm weights other than one, so that a forgotten one shows.
fn model(dtype: DType) -> Model {
    let config = tiny();
    Model::from_tensors(config, dtype, |name, shape| {
        let n = shape.iter().product();
        let data = random::normal(&mut random::stream(3, name), n, 0.6);
        Ok(Tensor::from_vec(data, shape, &Device::Cpu)?)
    })
    .unwrap()
}

#[test]
fn the_packed_pass_equals_plain_loops_over_each_sequence() {
    let model = model(DType::F64);
    let adapter = trained_adapter(&model.config);
    let vars: Vec<Var> = adapter.vars().iter().map(|v| v.to_dtype(DType::F64)).collect();
    let sequences: [&[u32]; 3] = [&[1, 4, 9, 2, 2, 7], &[5], &[3, 0, 8, 10]];
    let lengths = sequences.map(<[u32]>::len);
    let layout = Layout::whole(&lengths, &model.config, DType::F64);
    let lora = adapter.with_vars(&vars);
    let hidden = model.hidden(lora, &sequences.concat(), &layout, None);
    let all: Vec<u32> = (0..11).collect();
    let got = matrix(&logprobs(&model.logits(lora, &hidden), &all.repeat(lengths.iter().sum())));

    let plain = Plain { model: &model, adapter: &adapter };
    let want: Matrix = sequences.iter().flat_map(|s| plain.logprobs(s)).collect();
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
        assert!((got - want).abs() < 1e-10, "{got} {want}");
    }
}

#[test]
fn sampling_over_the_cache_gives_the_logprobs_of_a_whole_pass() {
    let model = model(DType::F32);
    let adapter = trained_adapter(&model.config);
    let choice = Choice { temperature: 1.5, top_k: 0, top_p: 1.0 };
    let request = Generate {
        num_samples: 5,
        seed: 4,
        stop_tokens: vec![10],
        prompt_logprobs: true,
        top_prompt_logprobs: 2,
        ..Generate::new(vec![1, 2, 3], 20, choice)
    };
    let generated = model.generate(Some(&adapter), &request, || Ok(())).unwrap();
    let ends: Vec<usize> = generated.continuations.iter().map(|c| c.tokens.len()).collect();
    assert!(
        ends.iter().any(|&n| n < 20) && ends.iter().any(|&n| n > ends[0]),
        "samples end at different times: {ends:?}"
    );

    let plain = Plain { model: &model, adapter: &adapter };
    for continuation in &generated.continuations {
        let whole = [&request.prompt[..], &continuation.tokens].concat();
        let want = plain.logprobs(&whole);
        let scored = generated.prompt_logprobs.iter().chain(&continuation.logprobs);
        for (t, got) in scored.enumerate() {
            let want = want[t][whole[t + 1] as usize];
            assert!((f64::from(*got) - want).abs() < 1e-4, "token {t}: {got} {want}");
        }
        assert_eq!(continuation.stopped, continuation.tokens.last() == Some(&10));
    }
    for (t, top) in generated.top_prompt_logprobs.iter().enumerate() {
        let row = &plain.logprobs(&request.prompt)[t];
        let best = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert!((f64::from(top[0].1) - best).abs() < 1e-4 && top.len() == 2);
    }
}

#[test]
fn a_sample_does_not_depend_on_how_many_are_drawn() {
    let model = model(DType::F32);
    let choice = Choice { temperature: 1.0, top_k: 0, top_p: 1.0 };
    let draw = |num_samples, seed| {
        let request = Generate { num_samples, seed, ..Generate::new(vec![1, 2, 3], 6, choice) };
        let generated = model.generate(None, &request, || Ok(())).unwrap();
        generated.continuations.into_iter().map(|c| c.tokens).collect::<Vec<_>>()
    };
    let many = draw(4, 9);
    assert_eq!(draw(2, 9), many[..2]);
    assert_ne!(many[0], many[1]);
    assert_ne!(draw(1, 8)[0], many[0]);
}

#[test]
fn stop_strings_end_a_sample_and_stay_in_it() {
    let model = Model::random(ModelConfig::preset("tiny-qwen3").unwrap(), 0, DType::F32).unwrap();
    let choice = Choice { temperature: 1.0, top_k: 0, top_p: 1.0 };
    let mut request = Generate::new(vec![65], 400, choice);
    let free = model.generate(None, &request, || Ok(())).unwrap().continuations.remove(0).tokens;
    let at = free.windows(2).position(|pair| pair.iter().all(|&t| t < 256)).unwrap();
    request.stop_strings = vec![b"never seen".to_vec(), vec![free[at] as u8, free[at + 1] as u8]];
    let ended = model.generate(None, &request, || Ok(())).unwrap().continuations.remove(0);
    assert!(ended.stopped);
    assert_eq!(ended.tokens, free[..at + 2]);
}

#[test]
fn a_new_adapter_leaves_the_model_as_it_is() {
    let model = model(DType::F32);
    let fresh = Adapter::new(*trained_adapter(&model.config).config(), &model.config).unwrap();
    let greedy = Choice { temperature: 0.0, top_k: 0, top_p: 1.0 };
    let request = Generate::new(vec![1, 2, 3], 8, greedy);
    let with = model.generate(Some(&fresh), &request, || Ok(())).unwrap();
    assert_eq!(with, model.generate(None, &request, || Ok(())).unwrap());
}
