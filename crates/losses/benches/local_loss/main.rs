//! What a custom loss and its gradient cost on the CPU, per step: `cargo bench -p tinsmith-losses`.
//!
//! | row | what is timed |
//! |---|---|
//! | `LOSS/ragged/Wn` | the function of `tinsmith_losses` on the whole batch: record, differentiate, evaluate |
//! | `LOSS/loop/Wn` | the same loss written as a loop over sequences, as the Python documentation of the trainers does |
//! | `candle/LOSS/FORM/Wn` | the same expressions on candle's `Var` and its `backward`, on one thread |
//! | `two-threads/LOSS/ragged/Wn` | as `LOSS/ragged/Wn`, on two threads, for workloads of a million tokens |
//! | `limit/fused/Wn` | PPO and its gradient written by hand in one pass over memory: the practical limit |
//! | `limit/triad/Wn` | `g = x + y * z` over as many tokens: the bytes that PPO must move |
//!
//! Leaves and the buffer for the gradient are made once, outside of the timed part. Before a row is
//! timed, its loss and gradient are compared with those of the rows beside it, so that no row times
//! something else. `cargo xtask bench loss` prints the ratios; a quick look:
//! `cargo bench -p tinsmith-losses -- ppo --measurement-time 0.2 --sample-size 10`.

mod batch;
mod candle;
mod check;
mod limit;
mod ours;

use std::cell::LazyCell;
use std::env;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Result;
use criterion::Criterion;
use tinsmith_grad::{Executor, with_executor};

use batch::{Batch, WORKLOADS, Workload};
use check::assert_same;

/// A loss, by the name of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    CrossEntropy,
    Grpo,
    Ppo,
    Dpo,
    Variance,
}

const LOSSES: [(&str, Loss); 5] = [
    ("ce", Loss::CrossEntropy),
    ("grpo", Loss::Grpo),
    ("ppo", Loss::Ppo),
    ("dpo", Loss::Dpo),
    ("variance", Loss::Variance),
];

/// How it is written.
#[derive(Clone, Copy, Debug)]
enum Form {
    Ragged,
    Loop,
}

const FORMS: [(&str, Form); 2] = [("ragged", Form::Ragged), ("loop", Form::Loop)];

/// Weight of GRPO's KL term.
const KL_BETA: f64 = 0.1;
/// Slope of DPO.
const DPO_BETA: f64 = 0.1;
/// Bounds of PPO's importance ratio.
const CLIP: (f32, f32) = (0.8, 1.2);

fn main() -> Result<ExitCode> {
    // candle reads its number of threads from the environment, which a process cannot safely change
    // for itself.
    const THREADS: &str = "CANDLE_NUM_THREADS";
    if env::var_os(THREADS).is_none_or(|threads| threads != "1") {
        let again = Command::new(env::current_exe()?)
            .args(env::args_os().skip(1))
            .env(THREADS, "1")
            .status()?;
        return Ok(if again.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    for workload in &WORKLOADS {
        bench(workload);
    }
    Ok(ExitCode::SUCCESS)
}

/// All rows of a workload, neighbours in the table measured one after the other: on a busy machine
/// only ratios count.
fn bench(workload: &Workload) {
    // A row that the command line filters out costs nothing: what it needs is made when its turn
    // comes.
    let batch = LazyCell::new(|| Batch::new(workload));
    let ours = LazyCell::new(|| ours::Leaves::new(&batch));
    let candle = LazyCell::new(|| candle::Leaves::new(&batch).expect("candle takes the batch"));
    let mut gradient = vec![0f32; workload.sequences * workload.tokens];

    let name = workload.name;
    let mut criterion = criterion(workload);
    criterion.bench_function(&format!("limit/triad/{name}"), |b| {
        b.iter(|| limit::triad(&batch, black_box(&mut gradient)));
    });
    criterion.bench_function(&format!("limit/fused/{name}"), |b| {
        b.iter(|| limit::fused_ppo(&batch, black_box(&mut gradient)));
    });
    for (loss_name, loss) in LOSSES {
        for (form_name, form) in FORMS {
            let row = format!("{loss_name}/{form_name}/{name}");
            let check = LazyCell::new(|| {
                let ours = check::of_ours(&ours, loss, form, workload.sequences * workload.tokens);
                let ours = ours.unwrap_or_else(|e| panic!("{row}: {e}"));
                let candles = candle.step(loss, form);
                let candles = candles.and_then(|found| candle.outcome(form, &found));
                let candles = candles.unwrap_or_else(|e| panic!("candle/{row}: {e}"));
                assert_same(&row, &ours, &candles);
                if loss == Loss::Ppo {
                    assert_same(&row, &ours, &check::of_fused(&batch));
                }
            });
            criterion.bench_function(&row, |b| {
                LazyCell::force(&check);
                b.iter(|| ours.step(loss, form, black_box(&mut gradient)));
            });
            if matches!(form, Form::Ragged) && workload.sequences * workload.tokens >= 1 << 20 {
                criterion.bench_function(&format!("two-threads/{row}"), |b| {
                    LazyCell::force(&check);
                    with_executor(Executor::Fused { threads: 2 }, || {
                        b.iter(|| ours.step(loss, form, black_box(&mut gradient)));
                    });
                });
            }
            criterion.bench_function(&format!("candle/{row}"), |b| {
                LazyCell::force(&check);
                b.iter(|| candle.step(loss, form));
            });
        }
    }
}

/// Small workloads get more samples, as they are soon done. The command line wins.
fn criterion(workload: &Workload) -> Criterion {
    let big = workload.sequences * workload.tokens > 100_000;
    Criterion::default()
        .sample_size(if big { 10 } else { 40 })
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .nresamples(1_000)
        .configure_from_args()
}
