//! Advantages of groups: equal rewards teach exactly nothing, and a reward that is no number is
//! loud.

use tinsmith_grad::{Device, Ragged, Var};
use tinsmith_losses::advantages::{NormalizeConfig, centered, filtered, informative, normalized};
use tinsmith_losses::{grpo, ppo};

fn configs() -> [NormalizeConfig; 4] {
    let config = NormalizeConfig::default();
    [
        config,
        config.eps(0.0),
        config.eps(0.0).correction(0.0).floor(false),
        config.eps(1e-4).floor(false),
    ]
}

#[test]
fn equal_rewards_have_advantages_of_exactly_zero() {
    for hundredths in -150..=150 {
        let reward = f64::from(hundredths) / 100.0;
        for size in 1..=17 {
            for reward in [reward, reward * 1e-200, reward * 1e200] {
                let group = vec![reward; size];
                assert_eq!(centered(&group), vec![0.0; size], "{reward}");
                for config in configs() {
                    assert_eq!(normalized(&group, &config), vec![0.0; size], "{reward}");
                    let kept = filtered(&group, 3, |i| i as f64, &config);
                    assert_eq!(kept, vec![0.0; size], "{reward}");
                }
                assert_eq!(informative(&[vec![0.0, 1.0], group]), [0], "{reward}");
            }
        }
    }
}

#[test]
fn rewards_that_differ_by_rounding_are_equal() {
    let third = 0.1 + 0.1 + 0.1;
    for group in [vec![0.1 + 0.2, 0.3], vec![third, 0.3, 0.3], vec![-0.7 - 0.1, -0.8]] {
        assert_eq!(centered(&group), vec![0.0; group.len()]);
        assert_eq!(normalized(&group, &configs()[2]), vec![0.0; group.len()]);
        assert_eq!(informative(&[group, vec![1.0, 2.0]]), [1]);
    }
}

#[test]
fn small_and_great_differences_remain() {
    let config = NormalizeConfig::default().eps(0.0).correction(0.0);
    for size in [1e-300, 1e-12, 1.0, 1e12, 1e300] {
        let found = normalized(&[size, 3.0 * size, size, 3.0 * size], &config);
        for (found, want) in found.iter().zip([-1.0, 1.0, -1.0, 1.0]) {
            assert!((found - want).abs() < 1e-12, "{size}: {found}");
        }
        assert_eq!(informative(&[[0.0, 0.0], [size, 2.0 * size]]), [1]);
    }
    // A millionth above 1000 is a difference.
    assert!((centered(&[1000.0, 1000.000002])[1] - 1e-6).abs() < 1e-12);
}

#[test]
fn a_reward_that_is_not_finite_makes_its_group_nan_and_the_loss_too() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    for group in [[nan, 1.0], [1.0, nan], [inf, 1.0], [-inf, inf], [inf, inf], [nan, nan]] {
        assert!(centered(&group).iter().all(|a| a.is_nan()), "{group:?}");
        for config in configs() {
            let advantages = normalized(&group, &config);
            assert!(advantages.iter().all(|a| a.is_nan()), "{group:?}");

            let lp = Ragged::from_vecs(&[[-1.0], [-2.0]], &Device::Cpu);
            let ones = lp.map(|x| x * 0.0 + 1.0);
            let per_seq = Var::from_vec(advantages, &[2], &Device::Cpu);
            let loss = grpo(&lp, &lp, None, &per_seq, &ones, &Default::default());
            assert!(loss.item().unwrap().is_nan(), "{group:?}");
            let loss = ppo(&lp, &lp, &lp.expand(&per_seq), &Default::default());
            assert!(loss.item().unwrap().is_nan(), "{group:?}");
        }
        assert_eq!(informative(&[group, [0.0, 1.0], [2.0, 2.0]]), [1], "{group:?}");
        assert_eq!(informative(&[group, [2.0, 2.0]]), [1], "{group:?}");
        assert_eq!(informative(&[group]), [0], "{group:?}");
    }
    let none: [Vec<f64>; 0] = [];
    assert!(informative(&none).is_empty());
}

#[test]
fn filtering_normalizes_over_what_it_keeps() {
    let config = NormalizeConfig::default().eps(0.0);
    let rewards = [1.0, 5.0, 2.0, 9.0];
    // Kept: 1 and 2, whose mean is 1.5 and whose deviation is √½.
    let found = filtered(&rewards, 2, |i| -rewards[i], &config);
    let want = [-0.5f64.sqrt(), 0.0, 0.5f64.sqrt(), 0.0];
    assert!(found.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-15), "{found:?}");
    assert_eq!(filtered(&rewards, 9, |i| i as f64, &config), normalized(&rewards, &config));
    assert_eq!(filtered(&rewards, 0, |i| i as f64, &config), [0.0; 4]);
    // One alone has nothing to be compared with.
    assert_eq!(filtered(&rewards, 1, |i| i as f64, &config), [0.0; 4]);
    // Of equals the earlier; what is not a number last.
    let metric = |i: usize| if i == 0 { f64::NAN } else { 1.0 };
    let found = filtered(&rewards, 2, metric, &config);
    assert_eq!((found[0], found[3]), (0.0, 0.0));
    assert!(found[1] > 0.0 && found[2] < 0.0);
    assert!(filtered(&[], 2, |_| 0.0, &config).is_empty());
}
