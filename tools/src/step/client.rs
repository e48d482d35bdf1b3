//! The measured process: one client, one workload, some steps.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tinsmith_client::losses::{PpoConfig, ppo};
use tinsmith_client::{Datum, LoraConfig, Loss, ModelInput, ServiceClient, TrainingClient};

use super::limit::Limit;
use super::null_server::Traffic;
use super::{Dialect, LIMIT, OURS, Phase, Row, WORKLOADS, usage};

/// Steps that are measured, after as many as warm up.
const STEPS: usize = 15;
const WARM_UP: usize = 3;

/// What happens between two readings of the clocks.
const PHASES: [&str; 4] = ["forward", "loss function", "gradient, submit", "backward"];

/// Measures `tinsmith` or the `limit` and prints a [`Row`] as JSON.
pub fn run(arguments: &[&str]) -> Result<()> {
    let &[client, url, dialect, workload] = arguments else {
        bail!("step-client CLIENT URL DIALECT WORKLOAD");
    };
    let dialect: Dialect = dialect.parse()?;
    let found = WORKLOADS.iter().find(|(name, ..)| *name == workload);
    let &(name, sequences, tokens) = found.with_context(|| format!("no workload `{workload}`"))?;
    let data = data(sequences, tokens);
    let row = match client {
        OURS => {
            let service = ServiceClient::builder()
                .base_url(url)
                .dialect(match dialect {
                    Dialect::Json => tinsmith_client::Dialect::Json,
                    Dialect::Proto => tinsmith_client::Dialect::Protobuf,
                })
                .connect()?;
            let training = service.create_lora_training_client("null", &LoraConfig::rank(8))?;
            measure(url, &PHASES, || step(&training, &data))?
        }
        LIMIT => {
            let mut limit = Limit::new(url, dialect, &data)?;
            measure(url, &[], || {
                let start = Mark::now();
                limit.step()?;
                Ok([start, Mark::now()])
            })?
        }
        other => bail!("no client `{other}`"),
    };
    let row = Row { client: client.to_owned(), dialect, workload: name.to_owned(), ..row };
    println!("{}", serde_json::to_string(&row)?);
    Ok(())
}

/// Runs steps, each of which reads the clocks at its start, at its end, and between its phases.
fn measure<const N: usize>(
    url: &str,
    phases: &[&str],
    mut step: impl FnMut() -> Result<[Mark; N]>,
) -> Result<Row> {
    let resident_before = usage::resident()?;
    for _ in 0..WARM_UP {
        step()?;
    }
    let before = traffic(url)?;
    let steps = (0..STEPS).map(|_| step()).collect::<Result<Vec<_>>>()?;
    let after = traffic(url)?;

    let between = |from: usize, to: usize| Phase {
        name: phases.get(from).unwrap_or(&"").to_string(),
        cpu_ms: median(steps.iter().map(|marks| marks[to].cpu_ms - marks[from].cpu_ms)),
        wall_ms: median(steps.iter().map(|marks| marks[from].until(&marks[to]))),
    };
    let whole = between(0, N - 1);
    Ok(Row {
        client: String::new(),
        dialect: Dialect::Json,
        workload: String::new(),
        steps: STEPS,
        cpu_ms: whole.cpu_ms,
        wall_ms: whole.wall_ms,
        phases: (0..phases.len()).map(|i| between(i, i + 1)).collect(),
        bytes_to_server: (after.bytes_to_server - before.bytes_to_server) / STEPS as u64,
        bytes_to_client: (after.bytes_to_client - before.bytes_to_client) / STEPS as u64,
        resident_before,
        resident_peak: usage::resident_peak()?,
    })
}

/// The clocks at one moment.
struct Mark {
    cpu_ms: f64,
    at: Instant,
}

impl Mark {
    fn now() -> Self {
        Mark { cpu_ms: usage::cpu_ms(), at: Instant::now() }
    }

    fn until(&self, later: &Mark) -> f64 {
        (later.at - self.at).as_secs_f64() * 1e3
    }
}

/// The clocks before, between and after [`PHASES`].
fn step(training: &TrainingClient, data: &[Datum]) -> Result<[Mark; 5]> {
    let start = Mark::now();
    let (mut entered, mut left) = (None, None);
    let step = training.forward_backward_custom(data, |batch| {
        entered = Some(Mark::now());
        let (old, advantages) = (batch.input("logprobs")?, batch.input("advantages")?);
        let loss = ppo(&batch.logprobs(), &old, &advantages, &PpoConfig::default());
        left = Some(Mark::now());
        Ok(Loss::new(loss))
    })?;
    let sent = Mark::now();
    step.result()?;
    let entered = entered.context("the loss function was not called")?;
    let left = left.context("the loss function did not end")?;
    Ok([start, entered, left, sent, Mark::now()])
}

/// Sequences whose first quarter is a prompt, of advantage 0.
fn data(sequences: usize, tokens: usize) -> Vec<Datum> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let datum = |_| {
        // Small ids are frequent, as in text.
        let mut id = || (rng.random::<f64>() * rng.random::<f64>() * 150_000.0) as u32;
        let ids: Vec<u32> = (0..=tokens).map(|_| id()).collect();
        let targets: Vec<i64> = ids[1..].iter().map(|&id| id.into()).collect();
        let old: Vec<f32> = (0..tokens).map(|_| rng.random::<f32>().ln_1p() - 2.0).collect();
        let advantage = rng.random::<f32>() - 0.5;
        let of_token = |t| if t < tokens / 4 { 0.0 } else { advantage };
        Datum::new(ModelInput::from_tokens(&ids[..tokens]))
            .with("target_tokens", targets)
            .with("logprobs", old)
            .with("advantages", (0..tokens).map(of_token).collect::<Vec<f32>>())
    };
    (0..sequences).map(datum).collect()
}

fn traffic(url: &str) -> Result<Traffic> {
    let mut answer = ureq::get(format!("{url}/traffic")).call()?;
    Ok(serde_json::from_reader(answer.body_mut().as_reader())?)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
