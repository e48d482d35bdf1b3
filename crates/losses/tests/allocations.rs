//! What a training step allocates once it has run before: fresh pages cost more than the arithmetic
//! of a loss.

use std::sync::Arc;

use allocation_counter::measure;
use tinsmith_grad::{Backward, Device, Ragged, Var};
use tinsmith_losses as losses;

const LENGTHS: [usize; 4] = [40_000, 1, 60_000, 99_999];

fn batch(slope: f32) -> Ragged {
    let rows = LENGTHS.iter().sum();
    let values = (0..rows).map(|i| (i as f32 * slope).sin() - 1.5).collect();
    Ragged::new(Var::from_vec(values, &[rows], &Device::Cpu), &LENGTHS)
}

/// A step of 200,000 tokens, whose arrays take 800 kB each, never holds 64 KiB that it has
/// allocated itself.
#[test]
fn a_repeated_step_allocates_no_arrays() {
    let (lp, old, reference) = (batch(0.7), batch(0.71), batch(0.3));
    let (weights, advantages) = (lp.map(|v| v.gt(-1.9).to_dtype(v.dtype())), batch(0.1));
    let weights = weights.map(|v| Var::new(v.tensor().unwrap()));
    let per_seq = Var::from_vec(vec![0.5f32, -1.0, 2.0, 0.0], &[4], &Device::Cpu);
    let all: [(&str, &dyn Fn() -> Var); 6] = [
        ("cross_entropy", &|| losses::cross_entropy(&lp, &weights)),
        ("reinforce_kl", &|| losses::reinforce_kl(&lp, &reference, &per_seq, &weights, 0.1)),
        ("ppo", &|| losses::ppo(&lp, &old, &advantages, &Default::default())),
        ("dpo", &|| losses::dpo(&lp, &reference, &weights, &Default::default())),
        ("variance", &|| losses::variance(&lp, 1.0)),
        ("ppo in a loop", &|| {
            let seqs = lp.seqs().into_iter().zip(old.seqs()).zip(advantages.seqs());
            let each = seqs.map(|((lp, old), a)| {
                let ratio = (lp - old).exp();
                (ratio.clamp(0.8, 1.2) * &a).minimum(ratio * a).mean()
            });
            each.fold(Var::scalar(0.0), |sum, x| sum - x)
        }),
    ];
    let mut gradient = vec![0f32; lp.total()];
    for (name, loss) in all {
        let mut step = || {
            Backward::new(&loss()).run_into(&[lp.values()], &mut [&mut gradient]).unwrap();
        };
        step();
        let taken = measure(&mut step);
        assert!(taken.bytes_max < 64 << 10, "{name}: {taken:?}");
    }
}

/// From memory of the caller to memory of the caller: neither way is a copy made.
#[test]
fn shared_leaves_and_kept_buffers_are_not_copied() {
    let rows = LENGTHS.iter().sum();
    let data: Arc<[f32]> = (0..rows).map(|i| (i as f32 * 0.7).sin() - 1.5).collect();
    let old = batch(0.71);
    let mut gradient = vec![0f32; rows];
    let mut step = || {
        let leaf = Var::from_arc(&data, &[rows]);
        let lp = Ragged::new(leaf.clone(), &LENGTHS);
        let loss = losses::importance_sampling(&lp, &old, &old, &Default::default());
        Backward::new(&loss).run_into(&[&leaf], &mut [&mut gradient]).unwrap();
    };
    step();
    let taken = measure(&mut step);
    assert!(taken.bytes_max < 64 << 10, "{taken:?}");
}
